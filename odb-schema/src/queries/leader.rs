//! The leader's writes, each under the lock of its lease.

use std::collections::BTreeSet;
use std::time::Duration;

use diesel::dsl::min;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use serde_json::Value;

use super::super::{Handle, lock_lease, lock_revision, now};
use crate::decode;
use crate::error::OdbError;
use crate::leader::{Purged, Retention};
use crate::lease::Lease;
use crate::member::MemberState;
use crate::tables::{
    access_token, audit, audit_change, certificate, definition, join_token, revocation, secret, server,
};

/// How many rows of the audit go at once: the lock every change needs is held meanwhile.
const MOST_AUDIT_ROWS: i64 = 5_000;
/// How many rows of the audit are read at once.
const PAGE: i64 = 500;
/// How long the record of a certificate outlives it.
const CERTIFICATE_RECORD: Duration = Duration::from_secs(90 * 24 * 3600);

/// Locks the lease and sees that it is held with this fencing number; gives the database's time.
async fn require(connection: &mut Handle, lease: &Lease) -> Result<i64, OdbError> {
    let row = lock_lease(connection, &lease.name).await.optional()?;
    let now: i64 = diesel::select(now()).get_result(connection).await?;
    let fencing = decode::column("fencing", lease.fencing)?;
    match row {
        Some((holder, number, expires)) if holder == lease.holder && number == fencing && expires > now => {
            Ok(now)
        }
        _ => Err(OdbError::Deposed { lease: lease.name.clone(), fencing: lease.fencing }),
    }
}

fn before(now: i64, age: Duration) -> Result<i64, OdbError> {
    Ok(now.saturating_sub(decode::column("age", age.as_micros())?))
}

pub(crate) async fn mark_lapsed(
    connection: &mut Handle,
    lease: &Lease,
    lapse: Duration,
) -> Result<Vec<String>, OdbError> {
    let now = require(connection, lease).await?;
    let gone = [MemberState::Left.as_str(), MemberState::Dead.as_str()];
    let lapsed =
        server::table.filter(server::seen_us.lt(before(now, lapse)?)).filter(server::state.ne_all(gone));
    let names: Vec<String> = lapsed.order(server::name).select(server::name).load(connection).await?;
    for name in &names {
        // Not by name alone: a heartbeat may have come since.
        let row = server::table.filter(server::name.eq(name)).filter(server::seen_us.lt(before(now, lapse)?));
        diesel::update(row)
            .set((server::state.eq(MemberState::Dead.as_str()), server::in_flight.eq(0)))
            .execute(connection)
            .await?;
    }
    Ok(names)
}

pub(crate) async fn purge(
    connection: &mut Handle,
    lease: &Lease,
    retention: &Retention,
) -> Result<Purged, OdbError> {
    let now = require(connection, lease).await?;
    let tokens = access_token::table.filter(access_token::expires_us.le(now));
    let join_tokens = join_token::table.filter(join_token::expires_us.le(now));
    let forgotten = before(now, CERTIFICATE_RECORD)?;
    forget_revocations(connection, forgotten).await?;
    let ended = certificate::table.filter(certificate::expires_us.le(forgotten));
    let mut purged = Purged {
        data: super::data::purge(connection).await?,
        nonces: super::nonce::purge(connection).await?,
        tokens: diesel::delete(tokens).execute(connection).await?,
        join_tokens: diesel::delete(join_tokens).execute(connection).await?,
        certificates: diesel::delete(ended).execute(connection).await?,
        ..Purged::default()
    };
    if let Some(age) = retention.audit {
        // No change may come between looking for references and removing what has none.
        let current = lock_revision(connection).await?;
        purged.audit = trim_audit(connection, before(now, age)?, current).await?;
        if purged.audit > 0 {
            purged.secrets = remove_unreferenced(connection).await?;
        }
    }
    Ok(purged)
}

/// Removes the revocations of certificates that are no longer kept on record: whoever shows one is refused because
/// it ended.
async fn forget_revocations(connection: &mut Handle, forgotten: i64) -> Result<(), OdbError> {
    let ended = certificate::table.filter(certificate::expires_us.le(forgotten));
    let serials: Vec<String> = ended.select(certificate::serial).load(connection).await?;
    for serial in serials {
        diesel::delete(revocation::table.find(serial)).execute(connection).await?;
    }
    Ok(())
}

/// Removes the oldest rows up to the first that is not older than `cutoff`, never the newest: it ties the
/// configuration repositories to this database.
async fn trim_audit(connection: &mut Handle, cutoff: i64, current: i64) -> Result<usize, OdbError> {
    let oldest: Option<i64> = audit::table.select(min(audit::revision)).first(connection).await?;
    let kept: Option<i64> =
        audit::table.filter(audit::time_us.ge(cutoff)).select(min(audit::revision)).first(connection).await?;
    let Some(oldest) = oldest else { return Ok(0) };
    let end = kept.unwrap_or(current).min(current).min(oldest.saturating_add(MOST_AUDIT_ROWS));
    diesel::delete(audit_change::table.filter(audit_change::revision.lt(end))).execute(connection).await?;
    Ok(diesel::delete(audit::table.filter(audit::revision.lt(end))).execute(connection).await?)
}

/// Removes the versions of secrets that neither a definition nor the audit refers to.
async fn remove_unreferenced(connection: &mut Handle) -> Result<usize, OdbError> {
    let mut unreferenced: BTreeSet<(String, i64)> =
        secret::table.select((secret::name, secret::version)).load(connection).await?.into_iter().collect();
    let bodies: Vec<String> = definition::table.select(definition::body).load(connection).await?;
    for body in bodies {
        forget_references(&mut unreferenced, &body);
    }
    let mut from = 0;
    while !unreferenced.is_empty() {
        let rows: Vec<(i64, Option<String>, Option<String>)> = audit_change::table
            .filter(audit_change::revision.ge(from))
            .filter(audit_change::revision.lt(from.saturating_add(PAGE)))
            .select((audit_change::revision, audit_change::before_body, audit_change::after_body))
            .load(connection)
            .await?;
        for body in rows.into_iter().flat_map(|(_, before, after)| [before, after]).flatten() {
            forget_references(&mut unreferenced, &body);
        }
        let next: Option<i64> = audit_change::table
            .filter(audit_change::revision.ge(from.saturating_add(PAGE)))
            .select(min(audit_change::revision))
            .first(connection)
            .await?;
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    for (name, version) in &unreferenced {
        diesel::delete(secret::table.find((name, version))).execute(connection).await?;
    }
    Ok(unreferenced.len())
}

/// Takes out of `secrets` what `body` refers to. A body that cannot be read may refer to anything.
fn forget_references(secrets: &mut BTreeSet<(String, i64)>, body: &str) {
    match serde_json::from_str::<Value>(body) {
        Ok(value) => forget_in(secrets, &value),
        Err(_) => secrets.clear(),
    }
}

fn forget_in(secrets: &mut BTreeSet<(String, i64)>, value: &Value) {
    match value {
        Value::Object(fields) => {
            let name = fields.get("ref").and_then(Value::as_str);
            let version = fields.get("version").and_then(Value::as_i64);
            if let (Some(name), Some(version)) = (name, version) {
                secrets.remove(&(name.to_owned(), version));
            }
            fields.values().for_each(|value| forget_in(secrets, value));
        }
        Value::Array(items) => items.iter().for_each(|value| forget_in(secrets, value)),
        _ => {}
    }
}
