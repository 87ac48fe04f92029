//! Servers and their reports.

use crosstie_model::names::{Digest, UnitName};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::{Handle, conflict_target, now};
use crate::decode;
use crate::error::OdbError;
use crate::server::{NewServer, ReportRow, ReportState, ServerRow};
use crate::tables::{deployment_report, pickup_file, server};

pub(crate) async fn upsert_server(connection: &mut Handle, new: &NewServer) -> Result<(), OdbError> {
    diesel::insert_into(server::table)
        .values((
            server::name.eq(&new.name),
            server::address.eq(&new.address),
            server::management.eq(&new.management),
            server::version.eq(&new.version),
            server::joined_us.eq(now()),
            server::seen_us.eq(now()),
        ))
        .on_conflict(conflict_target(server::name))
        .do_update()
        .set((
            server::address.eq(&new.address),
            server::management.eq(&new.management),
            server::version.eq(&new.version),
            server::seen_us.eq(now()),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) async fn servers(connection: &mut Handle) -> Result<Vec<ServerRow>, OdbError> {
    let rows: Vec<(String, String, String, String, i64, i64)> =
        server::table.order(server::name).select(server::all_columns).load(connection).await?;
    let read = |(name, address, management, version, joined_us, seen_us)| ServerRow {
        server: NewServer { name, address, management, version },
        joined_us,
        seen_us,
    };
    Ok(rows.into_iter().map(read).collect())
}

pub(crate) async fn delete_server(connection: &mut Handle, name: &str) -> Result<bool, OdbError> {
    diesel::delete(deployment_report::table.filter(deployment_report::server.eq(name)))
        .execute(connection)
        .await?;
    diesel::delete(pickup_file::table.filter(pickup_file::server.eq(name))).execute(connection).await?;
    Ok(diesel::delete(server::table.find(name)).execute(connection).await? > 0)
}

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
