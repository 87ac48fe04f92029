//! The servers of the cluster.

use crosstie_model::names::Revision;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::{Handle, conflict_target, now};
use crate::decode;
use crate::error::OdbError;
use crate::member::{Heartbeat, MAX_REASON_BYTES, MemberRow, MemberState, NewMember, Wanted};
use crate::tables::{deployment_report, pickup_file, server};

pub(crate) async fn introduce(
    connection: &mut Handle,
    new: &NewMember,
    boot: &str,
) -> Result<Wanted, OdbError> {
    put(connection, new).await?;
    let new_life = server::table.filter(server::name.eq(&new.name)).filter(server::boot.ne(boot));
    diesel::update(new_life)
        .set((
            server::boot.eq(boot),
            server::state.eq(MemberState::Starting.as_str()),
            server::reason.eq(""),
            server::in_flight.eq(0),
        ))
        .execute(connection)
        .await?;
    let wanted: String = server::table.find(&new.name).select(server::wanted).first(connection).await?;
    decode::text(format!("server {}", new.name), &wanted)
}

/// Notes where a server is; one that is new has left.
pub(crate) async fn put(connection: &mut Handle, new: &NewMember) -> Result<(), OdbError> {
    let tls = i64::from(new.tls);
    diesel::insert_into(server::table)
        .values((
            server::name.eq(&new.name),
            server::address.eq(&new.address),
            server::management.eq(&new.management),
            server::version.eq(&new.version),
            server::joined_us.eq(now()),
            server::seen_us.eq(now()),
            server::tls.eq(tls),
            server::boot.eq(""),
            server::state.eq(MemberState::Left.as_str()),
            server::reason.eq(""),
            server::wanted.eq(Wanted::Serving.as_str()),
            server::revision.eq(0),
            server::in_flight.eq(0),
        ))
        .on_conflict(conflict_target(server::name))
        .do_update()
        .set((
            server::address.eq(&new.address),
            server::management.eq(&new.management),
            server::version.eq(&new.version),
            server::seen_us.eq(now()),
            server::tls.eq(tls),
        ))
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) async fn heartbeat(connection: &mut Handle, beat: &Heartbeat) -> Result<Option<Wanted>, OdbError> {
    let reason = beat.reason.get(..beat.reason.floor_char_boundary(MAX_REASON_BYTES)).unwrap_or_default();
    let known = diesel::update(server::table.find(&beat.name))
        .set((
            server::boot.eq(&beat.boot),
            server::state.eq(beat.state.as_str()),
            server::reason.eq(decode::prose(reason)),
            server::revision.eq(decode::column("revision", beat.revision.0)?),
            server::in_flight.eq(decode::column("requests in flight", beat.in_flight)?),
            server::seen_us.eq(now()),
        ))
        .execute(connection)
        .await?;
    if known == 0 {
        return Ok(None);
    }
    let wanted: String = server::table.find(&beat.name).select(server::wanted).first(connection).await?;
    decode::text(format!("server {}", beat.name), &wanted).map(Some)
}

pub(crate) async fn want(connection: &mut Handle, name: &str, wanted: Wanted) -> Result<bool, OdbError> {
    let row = diesel::update(server::table.find(name)).set(server::wanted.eq(wanted.as_str()));
    Ok(row.execute(connection).await? > 0)
}

#[derive(Queryable)]
struct Columns {
    name: String,
    address: String,
    management: String,
    version: String,
    joined_us: i64,
    seen_us: i64,
    tls: i64,
    boot: String,
    state: String,
    reason: String,
    wanted: String,
    revision: i64,
    in_flight: i64,
}

fn row(columns: Columns) -> Result<MemberRow, OdbError> {
    let what = format!("server {}", columns.name);
    Ok(MemberRow {
        boot: columns.boot,
        state: decode::text(&what, &columns.state)?,
        reason: columns.reason,
        wanted: decode::text(&what, &columns.wanted)?,
        revision: Revision(decode::count(&what, columns.revision)?),
        in_flight: decode::count(&what, columns.in_flight)?,
        joined_us: columns.joined_us,
        seen_us: columns.seen_us,
        member: NewMember {
            name: columns.name,
            address: columns.address,
            tls: columns.tls != 0,
            management: columns.management,
            version: columns.version,
        },
    })
}

pub(crate) async fn members(connection: &mut Handle) -> Result<Vec<MemberRow>, OdbError> {
    let rows: Vec<Columns> =
        server::table.order(server::name).select(server::all_columns).load(connection).await?;
    rows.into_iter().map(row).collect()
}

pub(crate) async fn member(connection: &mut Handle, name: &str) -> Result<Option<MemberRow>, OdbError> {
    let found: Option<Columns> =
        server::table.find(name).select(server::all_columns).first(connection).await.optional()?;
    found.map(row).transpose()
}

pub(crate) async fn delete(connection: &mut Handle, name: &str) -> Result<bool, OdbError> {
    diesel::delete(deployment_report::table.filter(deployment_report::server.eq(name)))
        .execute(connection)
        .await?;
    diesel::delete(pickup_file::table.filter(pickup_file::server.eq(name))).execute(connection).await?;
    Ok(diesel::delete(server::table.find(name)).execute(connection).await? > 0)
}
