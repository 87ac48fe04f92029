//! Data entries. A deleted or lapsed entry keeps its row for a while, so that its version goes on growing.

use std::collections::VecDeque;
use std::time::Duration;

use crosstie_model::ports::DataEntry;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::{Handle, conflict_target, lock_data, now};
use crate::data::{Change, Conflict, REMEMBERED};
use crate::decode;
use crate::error::OdbError;
use crate::tables::data_entry;

pub(crate) async fn get(connection: &mut Handle, key: &str) -> Result<Option<DataEntry>, OdbError> {
    let row: Option<(String, i64)> = data_entry::table
        .find(key)
        .filter(data_entry::expires_us.is_null().or(data_entry::expires_us.gt(now().nullable())))
        .select((data_entry::body, data_entry::version))
        .first(connection)
        .await
        .optional()?;
    let Some((body, version)) = row else { return Ok(None) };
    let value = decode::json("data entry", &body)?;
    Ok(Some(DataEntry { value, version: decode::count("data entry", version)? }))
}

pub(crate) async fn set(
    connection: &mut Handle,
    key: &str,
    body: &str,
    ttl: Option<Duration>,
    expected: Option<u64>,
) -> Result<Result<u64, Conflict>, OdbError> {
    let held = hold(connection, key).await?;
    match held.fits(expected) {
        Ok(()) => write(connection, key, body, ttl, &held).await.map(Ok),
        Err(conflict) => Ok(Err(conflict)),
    }
}

/// Makes all changes, or none when one of them expects what does not hold.
pub(crate) async fn change(
    connection: &mut Handle,
    changes: &[Change<'_>],
) -> Result<Result<(), Conflict>, OdbError> {
    // All are held before the first is made: then nothing is left to go wrong.
    let mut held = VecDeque::with_capacity(changes.len());
    for change in changes {
        if let Change::Set { key, expected, .. } = change {
            let entry = hold(connection, key).await?;
            if let Err(conflict) = entry.fits(*expected) {
                return Ok(Err(conflict));
            }
            held.push_back(entry);
        }
    }
    for change in changes {
        match change {
            Change::Set { key, body, ttl, .. } => {
                if let Some(held) = held.pop_front() {
                    write(connection, key, body, *ttl, &held).await?;
                }
            }
            Change::Delete { key } => {
                delete(connection, key).await?;
            }
        }
    }
    Ok(Ok(()))
}

/// An entry whose row is locked until the transaction ends.
struct Held {
    /// The row's version, whether it lapsed or not.
    version: i64,
    /// The version that a reader finds; 0 of an entry that lapsed.
    found: u64,
    now: i64,
}

impl Held {
    fn fits(&self, expected: Option<u64>) -> Result<(), Conflict> {
        match expected {
            Some(expected) if expected != self.found => Err(Conflict { expected, found: self.found }),
            _ => Ok(()),
        }
    }
}

async fn hold(connection: &mut Handle, key: &str) -> Result<Held, OdbError> {
    // A row that is not there cannot be locked; a lapsed one of version 0 stands for it.
    diesel::insert_into(data_entry::table)
        .values((
            data_entry::name.eq(key),
            data_entry::body.eq("null"),
            data_entry::version.eq(0),
            data_entry::expires_us.eq(Some(0)),
        ))
        .on_conflict(conflict_target(data_entry::name))
        .do_update()
        .set(data_entry::name.eq(key))
        .execute(connection)
        .await?;
    let (version, lapses): (i64, Option<i64>) = lock_data(connection, key).await?;
    let now: i64 = diesel::select(now()).get_result(connection).await?;
    let live = lapses.is_none_or(|lapses| lapses > now);
    let found = if live { decode::count("data entry", version)? } else { 0 };
    Ok(Held { version, found, now })
}

async fn write(
    connection: &mut Handle,
    key: &str,
    body: &str,
    ttl: Option<Duration>,
    held: &Held,
) -> Result<u64, OdbError> {
    let &Held { version, now, .. } = held;
    let lapses = ttl
        .map(|ttl| decode::column("ttl", ttl.as_micros()).map(|ttl| now.saturating_add(ttl)))
        .transpose()?;
    let next = version.saturating_add(1);
    diesel::update(data_entry::table.find(key))
        .set((data_entry::body.eq(body), data_entry::version.eq(next), data_entry::expires_us.eq(lapses)))
        .execute(connection)
        .await?;
    decode::count("data entry", next)
}

pub(crate) async fn delete(connection: &mut Handle, key: &str) -> Result<bool, OdbError> {
    let live = data_entry::table
        .filter(data_entry::name.eq(key))
        .filter(data_entry::expires_us.is_null().or(data_entry::expires_us.gt(now().nullable())));
    let lapsed = (data_entry::expires_us.eq(now().nullable()), data_entry::body.eq("null"));
    Ok(diesel::update(live).set(lapsed).execute(connection).await? > 0)
}

pub(crate) async fn keys(
    connection: &mut Handle,
    from: &str,
    to: Option<&str>,
    limit: i64,
) -> Result<Vec<String>, OdbError> {
    let live = data_entry::table
        .filter(data_entry::expires_us.is_null().or(data_entry::expires_us.gt(now().nullable())))
        .filter(data_entry::name.ge(from))
        .order(data_entry::name)
        .select(data_entry::name)
        .limit(limit);
    Ok(match to {
        Some(to) => live.filter(data_entry::name.lt(to)).load(connection).await?,
        None => live.load(connection).await?,
    })
}

pub(crate) async fn purge(connection: &mut Handle) -> Result<usize, OdbError> {
    let now: i64 = diesel::select(now()).get_result(connection).await?;
    let before = now.saturating_sub(decode::column("time", REMEMBERED.as_micros())?);
    let lapsed = data_entry::table.filter(data_entry::expires_us.le(before));
    Ok(diesel::delete(lapsed).execute(connection).await?)
}
