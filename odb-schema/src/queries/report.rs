//! What servers made of deployments.

use crosstie_model::names::{Digest, UnitName};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::{Handle, conflict_target, now};
use crate::decode;
use crate::error::OdbError;
use crate::report::{ReportRow, ReportState};
use crate::tables::deployment_report;

pub(crate) async fn record_report(
    connection: &mut Handle,
    server: &str,
    unit: &UnitName,
    digest: &Digest,
    state: ReportState,
    message: &str,
) -> Result<(), OdbError> {
    let (digest, message) = (digest.to_string(), decode::prose(message));
    diesel::insert_into(deployment_report::table)
        .values((
            deployment_report::server.eq(server),
            deployment_report::unit.eq(unit.as_str()),
            deployment_report::digest.eq(&digest),
            deployment_report::state.eq(state.as_str()),
            deployment_report::message.eq(&message),
            deployment_report::time_us.eq(now()),
        ))
        .on_conflict(conflict_target((deployment_report::server, deployment_report::unit)))
        .do_update()
        .set((
            deployment_report::digest.eq(&digest),
            deployment_report::state.eq(state.as_str()),
            deployment_report::message.eq(&message),
            deployment_report::time_us.eq(now()),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

type Columns = (String, String, String, String, String, i64);

pub(crate) async fn reports(connection: &mut Handle) -> Result<Vec<ReportRow>, OdbError> {
    let rows: Vec<Columns> = deployment_report::table
        .order((deployment_report::unit, deployment_report::server))
        .select(deployment_report::all_columns)
        .load(connection)
        .await?;
    let read = |(server, unit, digest, state, message, time_us): Columns| {
        let what = format!("report of {server} on {unit}");
        let unit = decode::text(&what, &unit)?;
        let digest = decode::text(&what, &digest)?;
        let state = decode::text(&what, &state)?;
        Ok(ReportRow { server, unit, digest, state, message, time_us })
    };
    rows.into_iter().map(read).collect()
}
