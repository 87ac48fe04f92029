//! The servers of the cluster: who there is, how each is, and taking one out of service and back.
//!
//! A server learns what is wanted of it with its next heartbeat; nobody calls it.

use crosstie_model::Revision;
use crosstie_odb::{MemberRow, MemberState, Wanted};
use schemars::JsonSchema;
use serde::Serialize;

use super::{OperationError, Operations, Refusal};
use crate::access::Caller;
use crate::clock::timestamp;
use crate::host::WorkerPhase;
use crate::serving::WorkerServes;

/// A server of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MemberView {
    /// Its name.
    pub name: String,
    /// `starting`, `ready`, `failed` (it could not load a deployment or the newest revision), `draining`,
    /// `drained`, `left` (stopped, or joined and never started) or `dead` (its heartbeats ceased).
    pub state: String,
    /// Why, when that needs saying.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What is wanted of it: `serving` or `drained`.
    pub wanted: String,
    /// Whether it leads the cluster.
    pub leader: bool,
    /// Where service traffic goes.
    pub address: String,
    /// Whether service traffic there is TLS.
    pub tls: bool,
    /// Where management calls go.
    pub management: String,
    /// The release it runs.
    pub version: String,
    /// The revision it served when it last said so.
    pub revision: Revision,
    /// Requests it worked on when it last said so.
    pub in_flight: u64,
    /// When it joined (RFC 3339).
    pub joined: String,
    /// When its last heartbeat came (RFC 3339).
    pub seen: String,
}

impl Operations {
    /// The servers of the cluster, by name.
    ///
    /// # Errors
    /// The ODB is away.
    pub async fn members(&self) -> Result<Vec<MemberView>, OperationError> {
        let (rows, leader) = (self.odb().members().await?, self.odb().leader().await?);
        Ok(rows.into_iter().map(|row| view(row, leader.as_deref())).collect())
    }

    /// The server `name`.
    ///
    /// # Errors
    /// There is none; the ODB is away.
    pub async fn member(&self, name: &str) -> Result<MemberView, OperationError> {
        let row = self.odb().member(name).await?.ok_or_else(|| no_server(name))?;
        Ok(view(row, self.odb().leader().await?.as_deref()))
    }

    /// Takes a server out of service, or back: it finishes the requests it has, and gets no new ones from a
    /// load balancer.
    ///
    /// # Errors
    /// There is no such server; the ODB is away.
    pub async fn want_member(
        &self,
        caller: &Caller,
        name: &str,
        wanted: Wanted,
    ) -> Result<MemberView, OperationError> {
        if !self.odb().want_member(name, wanted).await? {
            return Err(no_server(name));
        }
        tracing::info!(author = caller.name, server = name, %wanted, "what is wanted of a server changed");
        self.member(name).await
    }

    /// Forgets a server and revokes its certificates, so that it cannot come back by being started. One that
    /// runs is refused: a load balancer would cut its requests off. With [`Removal::Drained`] one that has
    /// drained may go.
    ///
    /// # Errors
    /// There is no such server, or it runs; the ODB is away.
    pub async fn remove_member(
        &self,
        caller: &Caller,
        name: &str,
        removal: Removal,
    ) -> Result<(), OperationError> {
        let member = self.odb().member(name).await?.ok_or_else(|| no_server(name))?;
        let drained = removal == Removal::Drained && member.state == MemberState::Drained;
        if member.state.is_live() && !drained {
            let reason = format!("the server {name} is {}: stop it first", member.state);
            return Err(OperationError::Refused(Refusal::new(reason)));
        }
        self.revoke_certificates_of(caller, name).await?;
        if !self.odb().delete_member(name).await? {
            return Err(no_server(name));
        }
        tracing::info!(author = caller.name, server = name, "server removed from the cluster");
        Ok(())
    }
}

/// How this server is, by its workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// How it is; `None` while no worker that is ready has said what it serves.
    pub state: Option<MemberState>,
    /// Why, in one line; empty when all is well.
    pub reason: String,
    /// The revision that all its ready workers serve, or a newer one.
    pub revision: Revision,
    /// The newest revision that any of them serves or could not apply.
    pub newest: Revision,
    /// Requests its workers have in hand.
    pub in_flight: u64,
    /// Requests its workers have finished.
    pub requests: u64,
}

impl Operations {
    /// How this server is, from what its workers said and the shared memory shows; needs no ODB.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let (workers, known) = (self.host().processes().workers, self.serving().workers());
        let ready: Vec<_> = workers.iter().filter(|worker| worker.state == WorkerPhase::Ready).collect();
        let said: Vec<_> =
            ready.iter().filter_map(|worker| Some((worker.index, known.get(&worker.index)?))).collect();
        let reason = said.iter().find_map(|(index, serves)| failure_of(*index, serves));
        let state = match (&reason, ready.is_empty(), said.is_empty()) {
            (_, true, _) => Some(MemberState::Starting),
            (_, false, true) => None,
            (Some(_), false, false) => Some(MemberState::Failed),
            (None, false, false) => Some(MemberState::Ready),
        };
        Condition {
            state,
            reason: reason.unwrap_or_default(),
            revision: said.iter().map(|(_, serves)| serves.revision).min().unwrap_or_default(),
            newest: said.iter().map(|(_, serves)| newest_of(serves)).max().unwrap_or_default(),
            in_flight: workers.iter().map(|worker| worker.in_flight).sum(),
            requests: workers.iter().map(|worker| worker.requests).sum(),
        }
    }
}

fn newest_of(serves: &WorkerServes) -> Revision {
    serves.refused.as_ref().map_or(serves.revision, |(refused, _)| serves.revision.max(*refused))
}

fn failure_of(worker: u16, serves: &WorkerServes) -> Option<String> {
    let unit = serves.failed_units.first().map(|failed| format!("unit {}: {}", failed.unit, failed.message));
    let refused = || serves.refused.as_ref().map(|(revision, why)| format!("revision {revision}: {why}"));
    unit.or_else(refused).map(|what| format!("worker {worker}: {what}"))
}

/// Which servers may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Those that do not run.
    Stopped,
    /// Also one that runs and has drained.
    Drained,
}

fn no_server(name: &str) -> OperationError {
    OperationError::NotFound(format!("server {name}"))
}

fn view(row: MemberRow, leader: Option<&str>) -> MemberView {
    MemberView {
        leader: leader == Some(row.member.name.as_str()),
        name: row.member.name,
        state: row.state.to_string(),
        reason: row.reason,
        wanted: row.wanted.to_string(),
        address: row.member.address,
        tls: row.member.tls,
        management: row.member.management,
        version: row.member.version,
        revision: row.revision,
        in_flight: row.in_flight,
        joined: timestamp(row.joined_us),
        seen: timestamp(row.seen_us),
    }
}
