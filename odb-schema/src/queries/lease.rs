//! Leases. A released one keeps its row, so that fencing numbers never fall.

use std::time::Duration;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::{Handle, conflict_target, lock_lease, now};
use crate::decode;
use crate::error::OdbError;
use crate::lease::Lease;
use crate::tables::lease;

pub(crate) async fn take_lease(
    connection: &mut Handle,
    name: &str,
    holder: &str,
    ttl: Duration,
) -> Result<Lease, OdbError> {
    // The row must be there to be locked: two that find none would both think they are first.
    diesel::insert_into(lease::table)
        .values((
            lease::name.eq(name),
            lease::holder.eq(holder),
            lease::fencing.eq(0),
            lease::expires_us.eq(0),
        ))
        .on_conflict(conflict_target(lease::name))
        .do_update()
        .set(lease::name.eq(name))
        .execute(connection)
        .await?;
    let (current, fencing, expires): (String, i64, i64) = lock_lease(connection, name).await?;
    let now: i64 = diesel::select(now()).get_result(connection).await?;
    let what = format!("lease {name}");
    if expires > now && current != holder {
        let fencing = decode::count(&what, fencing)?;
        return Ok(Lease { name: name.to_owned(), holder: current, fencing, expires_us: expires });
    }
    let renewed = expires > now;
    let fencing = if renewed { fencing } else { fencing.saturating_add(1) };
    let expires = now.saturating_add(decode::column("ttl", ttl.as_micros())?);
    diesel::update(lease::table.find(name))
        .set((lease::holder.eq(holder), lease::fencing.eq(fencing), lease::expires_us.eq(expires)))
        .execute(connection)
        .await?;
    let fencing = decode::count(&what, fencing)?;
    Ok(Lease { name: name.to_owned(), holder: holder.to_owned(), fencing, expires_us: expires })
}

/// Who holds the lease, if anybody does.
pub(crate) async fn holder(connection: &mut Handle, name: &str) -> Result<Option<String>, OdbError> {
    let held = lease::table.filter(lease::name.eq(name)).filter(lease::expires_us.gt(now()));
    Ok(held.select(lease::holder).first(connection).await.optional()?)
}

pub(crate) async fn release_lease(
    connection: &mut Handle,
    name: &str,
    holder: &str,
    fencing: u64,
) -> Result<bool, OdbError> {
    let held = lease::table
        .filter(lease::name.eq(name))
        .filter(lease::holder.eq(holder))
        .filter(lease::fencing.eq(decode::column("fencing", fencing)?))
        .filter(lease::expires_us.gt(now()));
    Ok(diesel::update(held).set(lease::expires_us.eq(0)).execute(connection).await? > 0)
}
