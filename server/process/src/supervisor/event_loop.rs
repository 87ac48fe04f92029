//! The loop that carries out what the fleet decides: signals, control channels, deaths, deadlines.
//!
//! One turn takes whatever signals, messages and deaths there are, obeys the fleet, and waits in `poll`
//! until something happens or the next deadline comes. Nothing in a turn blocks on a child.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::fleet::{Action, Fleet, Generation, KillReason, RollEnd};
use super::link::WorkerLink;
use super::listeners::Listeners;
use super::notify::Notifier;
use super::quarantine_file::QuarantineFile;
use super::signals::Signals;
use super::spawn::{self, Estate, Identity};
use super::succession::{Heir, Rank, Succession};
use super::verdict::Expectation;
use super::{Plan, Reload, reap};
use crate::clock;
use crate::control::ToWorker;
use crate::pidfile::PidFile;
use crate::program::Program;
use crate::shm::{SLOTS, Segment, WorkerSlot, WorkerState};

/// How long a turn waits at most: strikes that workers count in shared memory are noticed this soon even
/// when nobody reports them.
const IDLE: Duration = Duration::from_secs(1);
/// A pause after a `poll` that failed, lest the loop spin.
const POLL_FAILED_PAUSE: Duration = Duration::from_millis(10);

/// One worker process.
pub(super) struct Child {
    pub(super) pid: u32,
    pub(super) seat: u16,
    pub(super) index: u16,
    pub(super) link: WorkerLink,
    pub(super) greeting: Greeting,
    pub(super) expectation: Expectation,
    pub(super) started: Instant,
}

/// Whether a worker has introduced itself; before, it may say nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greeting {
    Awaited,
    Done,
}

/// A supervisor that owns everything it needs to run.
pub(super) struct Supervisor {
    pub(super) plan: Plan,
    pub(super) reload: Reload,
    pub(super) program: Program,
    pub(super) listeners: Listeners,
    pub(super) segment: Arc<Segment>,
    pub(super) signals: Signals,
    pub(super) notifier: Notifier,
    pub(super) quarantine: QuarantineFile,
    /// Not there while another supervisor is the server.
    pub(super) pid_file: Option<PidFile>,
    pub(super) rank: Rank,
}

/// A supervisor at work.
pub(super) struct Turning {
    pub(super) supervisor: Supervisor,
    pub(super) fleet: Fleet,
    pub(super) children: BTreeMap<Generation, Child>,
    /// What was last known of strikes and quarantine.
    pub(super) verdicts_seen: u32,
    pub(super) startup: Startup,
    pub(super) rank: Rank,
    /// An upgrade under way.
    pub(super) succession: Option<Succession>,
    /// How many upgrades were asked for.
    pub(super) attempts: u32,
    /// Who is the server in this one's place.
    pub(super) heir: Option<Heir>,
    /// SIGHUP came during an upgrade.
    pub(super) reload_pending: bool,
    /// Whether workers of a predecessor that is gone may still be in shared memory.
    pub(super) abandoned_slots: bool,
}

/// Whether the service manager was told that the server serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Startup {
    Pending,
    Announced,
}

impl Supervisor {
    /// Runs until a signal stops it and the last worker is gone.
    pub(super) fn run(mut self) {
        let fleet = Fleet::new(self.plan.workers, self.plan.rules(), Instant::now());
        let verdicts_seen = self.segment.verdict_changes();
        let children = BTreeMap::new();
        let rank = std::mem::replace(&mut self.rank, Rank::Server);
        let mut turning = Turning {
            supervisor: self,
            fleet,
            children,
            verdicts_seen,
            startup: Startup::Pending,
            rank,
            succession: None,
            attempts: 0,
            heir: None,
            reload_pending: false,
            abandoned_slots: false,
        };
        tracing::info!(
            server = turning.supervisor.plan.server,
            workers = turning.supervisor.plan.workers,
            "supervisor started"
        );
        loop {
            turning.turn();
            if turning.fleet.stopped() && turning.succession.is_none() {
                break;
            }
            turning.wait();
        }
        reap::sweep(turning.heir.as_ref().map(Heir::pid));
        tracing::info!("supervisor stopped");
        drop(turning.supervisor.pid_file);
    }
}

impl Turning {
    fn turn(&mut self) {
        self.obey_signals();
        self.hear_children();
        self.hear_successor();
        self.hear_heir();
        self.hear_predecessor();
        self.bury_the_dead();
        self.enforce_upgrade(Instant::now());
        self.obey_fleet();
        self.clear_abandoned_slots();
        // Of two supervisors only the one that is the server speaks to the outside.
        if self.is_server() {
            self.keep_verdicts();
            self.supervisor.notifier.alive(Instant::now());
        }
    }

    /// Waits for the next thing to happen.
    fn wait(&self) {
        let now = Instant::now();
        let watchdog = self.supervisor.notifier.next_due().filter(|_| self.is_server());
        let upgrade = self.succession.as_ref().map(Succession::deadline);
        let due = [self.fleet.next_deadline(), watchdog, upgrade];
        let until = due.into_iter().flatten().fold(now + IDLE, Instant::min);
        // Rounded up: a deadline is past, not near, when its turn comes.
        let patience = until.saturating_duration_since(now) + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
        let predecessor = match &self.rank {
            Rank::Successor(predecessor) => predecessor.link().interest(),
            Rank::Server => None,
        };
        let successor = self.succession.as_ref().and_then(|succession| succession.link().interest());
        let heir = self.heir.as_ref().and_then(|heir| heir.link().interest());
        let supervisors = [predecessor, successor, heir].into_iter().flatten();
        let links = self.children.values().filter_map(|child| child.link.interest());
        let signals = PollFd::new(std::os::fd::AsFd::as_fd(&self.supervisor.signals), PollFlags::POLLIN);
        let mut watched: Vec<PollFd<'_>> = std::iter::once(signals).chain(supervisors).chain(links).collect();
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "waiting for events failed");
                thread::sleep(POLL_FAILED_PAUSE);
            }
        }
    }

    fn obey_signals(&mut self) {
        let requests = self.supervisor.signals.take();
        let now = Instant::now();
        if requests.interrupt && self.fleet.stopping() {
            tracing::warn!("interrupted twice: workers are killed");
            self.fleet.stop_now(now);
        } else if (requests.stop || requests.interrupt) && !self.fleet.stopping() {
            tracing::info!(drain_ms = clock::milliseconds(self.supervisor.plan.drain), "draining");
            self.abandon("the server is being stopped");
            if self.is_server() {
                self.supervisor.notifier.stopping();
            }
            self.fleet.stop(now);
        }
        if requests.reload && self.succession.is_some() {
            tracing::info!("the configuration is reloaded once the upgrade has ended");
            self.reload_pending = true;
        } else if requests.reload && !self.fleet.stopping() {
            self.reload(now);
        }
        if requests.upgrade {
            self.upgrade(now);
        }
    }

    /// Validates the configuration; rolls the workers if it is good.
    pub(super) fn reload(&mut self, now: Instant) {
        self.supervisor.notifier.reloading();
        // The callback is not this crate's: whatever it does, the supervisor lives on.
        let outcome = catch_unwind(AssertUnwindSafe(|| (self.supervisor.reload)()));
        match outcome.unwrap_or_else(|_| Err("validation of the configuration panicked".to_owned())) {
            Ok(plan) => {
                let current = &mut self.supervisor.plan;
                if current.needs_restart_for(&plan) {
                    tracing::warn!("server, directory, listeners and workers change only with a restart");
                }
                current.drain = plan.drain;
                current.restart_budget = plan.restart_budget;
                current.worker_arguments = plan.worker_arguments;
                current.upgrade = plan.upgrade;
                tracing::info!("configuration is valid: rolling the workers");
                self.fleet.roll(current.rules(), now);
            }
            Err(reason) => {
                tracing::error!(reason, "configuration refused; the running one stays");
                self.supervisor.notifier.ready(&self.status());
            }
        }
    }

    pub(super) fn status(&self) -> String {
        format!("{} of {} workers serve", self.fleet.serving(), self.supervisor.plan.workers)
    }

    fn obey_fleet(&mut self) {
        loop {
            let actions = self.fleet.actions(Instant::now());
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.obey(action);
            }
        }
    }

    fn obey(&mut self, action: Action) {
        match action {
            Action::Spawn { seat, generation, restarts } => self.spawn(seat, generation, restarts),
            Action::Drain(generation) => self.drain(generation),
            Action::Kill(generation, reason) => {
                if let Some(child) = self.children.get_mut(&generation) {
                    kill(child, reason);
                }
            }
            Action::RollEnded(end) => {
                match end {
                    RollEnd::Complete => tracing::info!("every worker was replaced"),
                    RollEnd::Abandoned => {
                        tracing::error!(
                            "successors die before they are ready: the other workers stay as they are"
                        );
                    }
                }
                self.supervisor.notifier.ready(&self.status());
            }
        }
    }

    fn spawn(&mut self, seat: u16, generation: Generation, restarts: u32) {
        let now = Instant::now();
        let free = |index: &u16| self.supervisor.segment.worker(*index).is_some_and(WorkerSlot::claim);
        let slots = u16::try_from(SLOTS).unwrap_or(u16::MAX);
        let Some(index) = (0..slots).find(free) else {
            tracing::error!("no slot is free for another worker");
            return self.fleet.gone(generation, now);
        };
        let owned = &self.supervisor;
        let estate = Estate {
            listeners: &owned.listeners,
            segment: &owned.segment,
            arguments: &owned.plan.worker_arguments,
        };
        match spawn::spawn(&estate, Identity { index, seat, generation, restarts }) {
            Ok(started) => {
                let slot = owned.segment.worker(index);
                slot.into_iter().for_each(|slot| slot.set_pid(started.pid));
                tracing::info!(pid = started.pid, seat, index, generation, "worker started");
                let child = Child {
                    pid: started.pid,
                    seat,
                    index,
                    link: started.link,
                    greeting: Greeting::Awaited,
                    expectation: Expectation::Staying,
                    started: now,
                };
                self.children.insert(generation, child);
            }
            Err(error) => {
                tracing::error!(seat, %error, "a worker could not be started");
                owned.segment.clear_worker(index);
                self.fleet.gone(generation, now);
            }
        }
    }

    fn drain(&mut self, generation: Generation) {
        let Some(child) = self.children.get_mut(&generation) else { return };
        child.expectation = Expectation::Leaving;
        if let Some(slot) = self.supervisor.segment.worker(child.index) {
            slot.set_state(WorkerState::Draining);
        }
        tracing::info!(pid = child.pid, seat = child.seat, "draining worker");
        let deadline_ms = clock::milliseconds(self.supervisor.plan.drain);
        self.tell(generation, &ToWorker::Drain { deadline_ms });
    }
}

fn kill(child: &mut Child, reason: KillReason) {
    tracing::warn!(pid = child.pid, seat = child.seat, "worker killed: {}", reason.as_str());
    reap::kill_child(child.pid);
}
