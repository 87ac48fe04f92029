//! Tells the cluster once a second or so that this server is there and how it is, and learns what is wanted
//! of it.
//!
//! A server begins as `starting` and is `ready` only once it serves the newest revision there is: one that
//! died and returns does not show what others have left behind. While the ODB is away nothing is told, and
//! nobody concludes anything from that, since the leader has no ODB either.

use std::sync::Arc;
use std::time::Duration;

use crosstie_api::operations::{Condition, Operations};
use crosstie_model::settings::ServerSettings;
use crosstie_odb::{Heartbeat, MemberState, NewMember, Odb, OdbError, Wanted};
use crosstie_process::shm::{Segment, WorkerState};
use crosstie_security::ReloadingCertificate;
use tokio::time::MissedTickBehavior;

use crate::follow::Standing;

/// For how many heartbeats in a row nothing must have come in before a server counts as drained: whoever sends
/// requests needs a moment to learn that it should not.
const QUIET_BEATS: u32 = 3;

/// How long the last words of a server that stops may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long after a worker's report a heartbeat is sent out of turn: its siblings report in the same moment.
const SETTLE: Duration = Duration::from_millis(50);

/// This server, as the cluster knows it.
#[derive(Clone)]
pub(super) struct Member {
    /// Where it is and what it runs.
    pub(super) new: NewMember,
    /// Names its life: its supervisor's.
    boot: String,
    /// What it shows others.
    certificate: Arc<ReloadingCertificate>,
    pub(super) odb: Odb,
    pub(super) operations: Operations,
    pub(super) segment: Arc<Segment>,
    pub(super) standing: Arc<Standing>,
    pause: Duration,
    /// After how long without a heartbeat a server counts as dead.
    pub(super) patience: Duration,
}

/// What is remembered between heartbeats.
#[derive(Default)]
struct Told {
    /// Whether the cluster knows this life.
    introduced: bool,
    /// How the server was.
    state: Option<MemberState>,
    /// Whether it has served the newest revision once.
    caught_up: bool,
    /// Requests finished, and for how many heartbeats there were no more.
    requests: u64,
    quiet: u32,
    /// Whether it was told that it is no member any more.
    removed: bool,
}

impl Member {
    /// The server that `settings` describe.
    pub(super) fn new(
        settings: &ServerSettings,
        certificate: Arc<ReloadingCertificate>,
        odb: Odb,
        operations: Operations,
        segment: Arc<Segment>,
        standing: Arc<Standing>,
    ) -> Self {
        let server = &settings.server;
        let address = server.https.or(server.http);
        let new = NewMember {
            name: server.name.to_string(),
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            tls: server.https.is_some(),
            management: settings.management.address.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let pause = Duration::from_millis(settings.cluster.heartbeat_ms);
        let patience = Duration::from_millis(settings.cluster.lapse_ms);
        Self {
            new,
            boot: life_of(std::os::unix::process::parent_id()),
            certificate,
            odb,
            operations,
            segment,
            standing,
            pause,
            patience,
        }
    }

    /// Sends heartbeats until cancelled, and one more whenever the workers reported what they serve: servers
    /// that could not load it want to know.
    pub(super) async fn beat(self) {
        let mut told = Told::default();
        let mut pause = tokio::time::interval(self.pause);
        pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reports = self.operations.reports();
        loop {
            tokio::select! {
                _ = pause.tick() => {}
                // Draining is judged by heartbeats that come at their usual pace.
                Ok(()) = reports.changed(), if !self.segment.is_drain_wanted() => {
                    tokio::time::sleep(SETTLE).await;
                }
            }
            reports.mark_unchanged();
            // A database that was cut off without a word must not keep this waiting once it is back.
            match tokio::time::timeout(self.patience, self.tell(&mut told)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "the cluster was not told how this server is"),
                Err(_) => tracing::debug!("the cluster did not hear how this server is"),
            }
        }
    }

    async fn tell(&self, told: &mut Told) -> Result<(), OdbError> {
        if !told.introduced {
            if self.odb.is_revoked(&self.certificate.serial()).await? {
                self.stay_away(told);
                return Ok(());
            }
            let wanted = self.odb.introduce_member(&self.new, &self.boot).await?;
            self.obey(wanted);
            (told.introduced, told.removed) = (true, false);
            told.state = self.odb.member(&self.new.name).await?.map(|row| row.state);
            told.caught_up = told.state.is_some_and(|state| state != MemberState::Starting);
        }
        let condition = self.operations.condition();
        if !told.caught_up && condition.state.is_some_and(|state| state != MemberState::Starting) {
            let newest = self.odb.revision().await?;
            told.caught_up = condition.revision >= newest || condition.state == Some(MemberState::Failed);
        }
        let state = judge(&condition, self.segment.is_drain_wanted(), told);
        let heartbeat = self.heartbeat(state, &condition);
        match self.odb.heartbeat(&heartbeat).await? {
            Some(wanted) => self.obey(wanted),
            None => {
                if !told.removed {
                    told.removed = true;
                    tracing::warn!("this server was removed from the cluster; it serves until it is stopped");
                }
                self.standing.membership.leave();
                return Ok(());
            }
        }
        if told.state != Some(state) {
            tracing::info!(%state, reason = condition.reason, "the server's state changed");
        }
        told.state = Some(state);
        self.standing.membership.say(Some(state));
        Ok(())
    }

    /// A server that left does not come back by being started: it has to join again.
    fn stay_away(&self, told: &mut Told) {
        if !told.removed {
            told.removed = true;
            tracing::error!(
                "this server left the cluster and its certificate is revoked: let it join again, or renew its \
                 certificate (`crosstie ca renew`)"
            );
        }
        self.standing.membership.leave();
    }

    fn heartbeat(&self, state: MemberState, condition: &Condition) -> Heartbeat {
        Heartbeat {
            name: self.new.name.clone(),
            boot: self.boot.clone(),
            state,
            reason: condition.reason.clone(),
            revision: condition.revision,
            in_flight: condition.in_flight,
        }
    }

    fn obey(&self, wanted: Wanted) {
        let drain = wanted == Wanted::Drained;
        if self.segment.is_drain_wanted() != drain {
            tracing::info!(%wanted, "the cluster wants something else of this server");
            self.segment.want_drain(drain);
        }
    }

    /// The last word of a worker that was the singleton. Says nothing when another worker goes on.
    pub(super) async fn leave(&self) {
        self.standing.membership.say(None);
        let goes_on = |state| matches!(state, WorkerState::Starting | WorkerState::Ready);
        if self.segment.is_succeeded()
            || self.segment.workers().into_iter().any(|worker| goes_on(worker.state))
        {
            return;
        }
        let left = Heartbeat {
            name: self.new.name.clone(),
            boot: self.boot.clone(),
            state: MemberState::Left,
            reason: String::new(),
            revision: self.standing.revision(),
            in_flight: 0,
        };
        match tokio::time::timeout(FAREWELL, self.odb.heartbeat(&left)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the cluster was not told that this server stops"),
            Err(_) => tracing::debug!("the cluster did not hear that this server stops"),
        }
    }
}

/// How the server is, from how its workers are and what is wanted of it.
fn judge(condition: &Condition, drain_wanted: bool, told: &mut Told) -> MemberState {
    let idle = condition.in_flight == 0 && condition.requests == told.requests;
    told.requests = condition.requests;
    told.quiet = if drain_wanted && idle { told.quiet.saturating_add(1) } else { 0 };
    if drain_wanted {
        return if told.quiet >= QUIET_BEATS { MemberState::Drained } else { MemberState::Draining };
    }
    match condition.state {
        Some(MemberState::Ready) if !told.caught_up => MemberState::Starting,
        Some(state) => state,
        None => told.state.filter(|state| state.is_live()).unwrap_or(MemberState::Starting),
    }
}

/// Names the life of the process `pid`: two lives differ even when they have the same process id.
fn life_of(pid: u32) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let boot = read("/proc/sys/kernel/random/boot_id");
    let stat = read(&format!("/proc/{pid}/stat"));
    // The 22nd field; the second, the program's name, is in parentheses and may hold anything (proc(5)).
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let started = fields.split_whitespace().nth(19).unwrap_or_default();
    let boot = boot.split('-').next().unwrap_or_default().trim();
    format!("{boot}-{pid}-{started}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::Revision;

    fn condition(state: Option<MemberState>, in_flight: u64, requests: u64) -> Condition {
        Condition {
            state,
            reason: String::new(),
            revision: Revision(1),
            newest: Revision(1),
            in_flight,
            requests,
        }
    }

    #[test]
    fn a_server_is_drained_once_it_was_idle_for_a_while() {
        let mut told = Told { caught_up: true, ..Told::default() };
        let ready = Some(MemberState::Ready);
        let mut judge = |in_flight, requests| judge(&condition(ready, in_flight, requests), true, &mut told);
        for (in_flight, requests, state) in [
            (2, 10, MemberState::Draining),
            (0, 12, MemberState::Draining),
            (0, 12, MemberState::Draining),
            // One more came in and was answered between two heartbeats.
            (0, 13, MemberState::Draining),
            (0, 13, MemberState::Draining),
            (0, 13, MemberState::Draining),
            (0, 13, MemberState::Drained),
            (1, 13, MemberState::Draining),
        ] {
            assert_eq!(judge(in_flight, requests), state, "{in_flight} {requests}");
        }
    }

    #[test]
    fn a_server_is_not_ready_before_it_has_served_the_newest_revision() {
        let mut told = Told::default();
        let ready = condition(Some(MemberState::Ready), 0, 0);
        assert_eq!(judge(&ready, false, &mut told), MemberState::Starting);
        told.caught_up = true;
        assert_eq!(judge(&ready, false, &mut told), MemberState::Ready);
        // A new singleton has not heard from its workers yet: nothing changed by that.
        told.state = Some(MemberState::Failed);
        assert_eq!(judge(&condition(None, 0, 0), false, &mut told), MemberState::Failed);
        told.state = Some(MemberState::Dead);
        assert_eq!(judge(&condition(None, 0, 0), false, &mut told), MemberState::Starting);
    }

    #[test]
    fn lives_of_processes_differ() {
        let own = life_of(std::process::id());
        assert_eq!(own, life_of(std::process::id()));
        assert_ne!(own, life_of(std::os::unix::process::parent_id()));
        assert_eq!(own.split('-').filter(|part| !part.is_empty()).count(), 3, "{own}");
    }
}
