//! Attempts to deploy and pickup files.

use crosstie_model::names::Digest;
use diesel::dsl::max;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::{Handle, conflict_target, now};
use crate::attempt::{AttemptOutcome, AttemptRow, KEPT_ATTEMPTS, NewAttempt, PickupRow};
use crate::decode;
use crate::error::OdbError;
use crate::tables::{deployment_attempt, pickup_file};

pub(crate) async fn record_attempt(connection: &mut Handle, attempt: &NewAttempt) -> Result<(), OdbError> {
    diesel::insert_into(deployment_attempt::table)
        .values((
            deployment_attempt::time_us.eq(now()),
            deployment_attempt::server.eq(&attempt.server),
            deployment_attempt::unit.eq(decode::prose(&attempt.unit)),
            deployment_attempt::digest.eq(attempt.digest.map(|digest| digest.to_string())),
            deployment_attempt::source.eq(decode::prose(&attempt.source)),
            deployment_attempt::outcome.eq(attempt.outcome.as_str()),
            deployment_attempt::reason.eq(decode::prose(&attempt.reason)),
            deployment_attempt::detail.eq(decode::prose(&attempt.detail)),
        ))
        .execute(connection)
        .await?;
    let newest: Option<i64> =
        deployment_attempt::table.select(max(deployment_attempt::id)).first(connection).await?;
    let oldest = newest.unwrap_or(0).saturating_sub(KEPT_ATTEMPTS);
    diesel::delete(deployment_attempt::table.filter(deployment_attempt::id.le(oldest)))
        .execute(connection)
        .await?;
    Ok(())
}

type Columns = (i64, i64, String, String, Option<String>, String, String, String, String);

pub(crate) async fn attempts(connection: &mut Handle, limit: u32) -> Result<Vec<AttemptRow>, OdbError> {
    let rows: Vec<Columns> = deployment_attempt::table
        .order(deployment_attempt::id.desc())
        .limit(i64::from(limit))
        .select(deployment_attempt::all_columns)
        .load(connection)
        .await?;
    rows.into_iter().map(row).collect()
}

fn row(columns: Columns) -> Result<AttemptRow, OdbError> {
    let (id, time_us, server, unit, digest, source, outcome, reason, detail) = columns;
    let what = format!("attempt {id}");
    let digest = digest.map(|digest| decode::text(&what, &digest)).transpose()?;
    let outcome = decode::text(&what, &outcome)?;
    let attempt = NewAttempt { server, unit, digest, source, outcome, reason, detail };
    Ok(AttemptRow { id, time_us, attempt })
}

pub(crate) async fn record_pickup(
    connection: &mut Handle,
    server: &str,
    path: &str,
    digest: &Digest,
    outcome: AttemptOutcome,
) -> Result<(), OdbError> {
    let digest = digest.to_string();
    diesel::insert_into(pickup_file::table)
        .values((
            pickup_file::server.eq(server),
            pickup_file::path.eq(path),
            pickup_file::digest.eq(&digest),
            pickup_file::outcome.eq(outcome.as_str()),
            pickup_file::time_us.eq(now()),
        ))
        .on_conflict(conflict_target((pickup_file::server, pickup_file::path)))
        .do_update()
        .set((
            pickup_file::digest.eq(&digest),
            pickup_file::outcome.eq(outcome.as_str()),
            pickup_file::time_us.eq(now()),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) async fn pickup_files(connection: &mut Handle, server: &str) -> Result<Vec<PickupRow>, OdbError> {
    let rows: Vec<(String, String, String, i64)> = pickup_file::table
        .filter(pickup_file::server.eq(server))
        .order(pickup_file::path)
        .select((pickup_file::path, pickup_file::digest, pickup_file::outcome, pickup_file::time_us))
        .load(connection)
        .await?;
    let read = |(path, digest, outcome, time_us): (String, String, String, i64)| {
        let what = format!("pickup file {path}");
        let digest = decode::text(&what, &digest)?;
        let outcome = decode::text(&what, &outcome)?;
        Ok(PickupRow { path, digest, outcome, time_us })
    };
    rows.into_iter().map(read).collect()
}
