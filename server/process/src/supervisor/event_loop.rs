//! The loop that carries out what the fleet decides: signals, control channels, deaths, deadlines.
//!
//! One turn takes whatever signals, messages and deaths there are, obeys the fleet, and waits in `poll`
//! until something happens or the next deadline comes. Nothing in a turn blocks on a child.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crosstie_model::event::Event;
use crosstie_model::ports::CounterCells as _;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::fleet::{Action, Fleet, FleetRules, Generation, KillReason, RollEnd};
use super::link::{Heard, Link, Queued};
use super::listeners::Listeners;
use super::notify::Notifier;
use super::quarantine_file::QuarantineFile;
use super::signals::Signals;
use super::spawn::{self, Estate, Identity};
use super::verdict::{self, Death, Expectation};
use super::{Plan, Reload, reap};
use crate::clock;
use crate::control::{PROTOCOL_VERSION, ToSupervisor, ToWorker};
use crate::pidfile::PidFile;
use crate::shm::{SLOTS, Segment, StrikeOutcome, WorkerState};

/// How long a turn waits at most: strikes that workers count in shared memory are noticed this soon even
/// when nobody reports them.
const IDLE: Duration = Duration::from_secs(1);
/// A pause after a `poll` that failed, lest the loop spin.
const POLL_FAILED_PAUSE: Duration = Duration::from_millis(10);
/// Most pieces that are read from the channel of a worker that is already dead.
const LAST_PIECES: usize = 64;

/// One worker process.
struct Child {
    pid: u32,
    seat: u16,
    index: u16,
    link: Link,
    greeting: Greeting,
    expectation: Expectation,
    started: Instant,
}

/// Whether a worker has introduced itself; before, it may say nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Greeting {
    Awaited,
    Done,
}

/// A supervisor that owns everything it needs to run.
pub(super) struct Supervisor {
    pub(super) plan: Plan,
    pub(super) reload: Reload,
    pub(super) listeners: Listeners,
    pub(super) segment: Arc<Segment>,
    pub(super) signals: Signals,
    pub(super) notifier: Notifier,
    pub(super) quarantine: QuarantineFile,
    pub(super) pid_file: PidFile,
}

/// A supervisor at work.
struct Turning {
    supervisor: Supervisor,
    fleet: Fleet,
    children: BTreeMap<Generation, Child>,
    /// What was last known of strikes and quarantine.
    verdicts_seen: u32,
    startup: Startup,
}

/// Whether the service manager was told that the server serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Startup {
    Pending,
    Announced,
}

impl Supervisor {
    /// Runs until a signal stops it and the last worker is gone.
    pub(super) fn run(self) {
        let rules = rules(&self.plan);
        let fleet = Fleet::new(self.plan.workers, rules, Instant::now());
        let verdicts_seen = self.segment.verdict_changes();
        let children = BTreeMap::new();
        let startup = Startup::Pending;
        let mut turning = Turning { supervisor: self, fleet, children, verdicts_seen, startup };
        tracing::info!(
            server = turning.supervisor.plan.server,
            workers = turning.supervisor.plan.workers,
            "supervisor started"
        );
        loop {
            turning.turn();
            if turning.fleet.stopped() {
                break;
            }
            turning.wait();
        }
        reap::sweep();
        tracing::info!("supervisor stopped");
        drop(turning.supervisor.pid_file);
    }
}

fn rules(plan: &Plan) -> FleetRules {
    FleetRules { drain: plan.drain, restart_budget: plan.restart_budget }
}

impl Turning {
    fn turn(&mut self) {
        self.obey_signals();
        self.hear_children();
        self.bury_the_dead();
        self.obey_fleet();
        self.keep_verdicts();
        self.supervisor.notifier.alive(Instant::now());
    }

    /// Waits for the next thing to happen.
    fn wait(&self) {
        let now = Instant::now();
        let due = [self.fleet.next_deadline(), self.supervisor.notifier.next_due()];
        let until = due.into_iter().flatten().fold(now + IDLE, Instant::min);
        // Rounded up: a deadline is past, not near, when its turn comes.
        let patience = until.saturating_duration_since(now) + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
        let links = self.children.values().filter_map(|child| {
            let outgoing = if child.link.has_outgoing() { PollFlags::POLLOUT } else { PollFlags::empty() };
            child.link.socket().map(|socket| PollFd::new(socket, PollFlags::POLLIN | outgoing))
        });
        let signals = PollFd::new(std::os::fd::AsFd::as_fd(&self.supervisor.signals), PollFlags::POLLIN);
        let mut watched: Vec<PollFd<'_>> = std::iter::once(signals).chain(links).collect();
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
            self.supervisor.notifier.stopping();
            self.fleet.stop(now);
        }
        if requests.reload && !self.fleet.stopping() {
            self.reload(now);
        }
    }

    /// Validates the configuration; rolls the workers if it is good.
    fn reload(&mut self, now: Instant) {
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
                tracing::info!("configuration is valid: rolling the workers");
                self.fleet.roll(rules(current), now);
            }
            Err(reason) => {
                tracing::error!(reason, "configuration refused; the running one stays");
                self.supervisor.notifier.ready(&self.status());
            }
        }
    }

    fn status(&self) -> String {
        format!("{} of {} workers serve", self.fleet.serving(), self.supervisor.plan.workers)
    }

    fn hear_children(&mut self) {
        let generations: Vec<_> = self.children.keys().copied().collect();
        for generation in generations {
            self.hear(generation);
        }
    }

    /// Takes one piece of what a worker sent; says whether there may be more.
    fn hear(&mut self, generation: Generation) -> bool {
        let Some(child) = self.children.get_mut(&generation) else { return false };
        child.link.flush();
        let heard = child.link.read();
        loop {
            let Some(child) = self.children.get_mut(&generation) else { return false };
            match child.link.next_message() {
                Ok(Some(message)) => self.obey_worker(generation, message),
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(pid = child.pid, %error, "a worker broke the control protocol");
                    child.link.shut();
                    self.fleet.violated(generation);
                    return false;
                }
            }
        }
        if matches!(heard, Heard::End) {
            self.fleet.channel_closed(generation, Instant::now());
        }
        matches!(heard, Heard::Something)
    }

    fn obey_worker(&mut self, generation: Generation, message: ToSupervisor) {
        let now = Instant::now();
        let Some(child) = self.children.get_mut(&generation) else { return };
        let (pid, slot) = (child.pid, self.supervisor.segment.worker(child.index));
        match message {
            ToSupervisor::Hello { version: PROTOCOL_VERSION, pid: told } if told == pid => {
                child.greeting = Greeting::Done;
                self.welcome(generation);
            }
            ToSupervisor::Hello { version, pid: told } => {
                tracing::error!(pid, told, version, "a worker introduced itself wrongly");
                self.fleet.violated(generation);
            }
            _ if child.greeting == Greeting::Awaited => {
                tracing::error!(pid, "a worker did not introduce itself");
                self.fleet.violated(generation);
            }
            ToSupervisor::Ready => {
                if let Some(slot) = slot.filter(|slot| slot.state() == WorkerState::Starting) {
                    slot.set_state(WorkerState::Ready);
                }
                let took_ms = clock::milliseconds(now.saturating_duration_since(child.started));
                tracing::info!(pid, seat = child.seat, took_ms, "worker ready");
                self.fleet.ready(generation, now);
                self.announce();
            }
            ToSupervisor::Singleton(held) => {
                tracing::info!(pid, held, "singleton");
                slot.into_iter().for_each(|slot| slot.set_singleton(held));
            }
            ToSupervisor::Event(event) => self.relay(event),
            ToSupervisor::Lost { service } => {
                tracing::warn!(pid, %service, "a service did not give its thread back");
            }
            ToSupervisor::Replace { reason } => {
                tracing::warn!(pid, reason, "a worker asks to be replaced");
                self.fleet.replace(generation);
            }
            ToSupervisor::Draining => {
                child.expectation = Expectation::Leaving;
                slot.into_iter().for_each(|slot| slot.set_state(WorkerState::Draining));
                self.fleet.draining(generation, now);
            }
            ToSupervisor::Drained => child.expectation = Expectation::Leaving,
        }
    }

    fn welcome(&mut self, generation: Generation) {
        let plan = &self.supervisor.plan;
        let start = ToWorker::Start { workers: plan.workers, drain_ms: clock::milliseconds(plan.drain) };
        self.tell(generation, &start);
    }

    fn tell(&mut self, generation: Generation, message: &ToWorker) {
        let Some(child) = self.children.get_mut(&generation) else { return };
        match child.link.send(message) {
            Ok(Queued::Yes | Queued::Closed) => {}
            Ok(Queued::Dropped) => {
                tracing::warn!(pid = child.pid, "a worker does not read; an event was dropped")
            }
            Err(error) => tracing::error!(pid = child.pid, %error, "a message cannot be sent"),
        }
    }

    /// Passes an event on to every worker, its sender included, in the order of arrival.
    fn relay(&mut self, event: Event) {
        if let Event::QuarantineReleased { service } = &event
            && self.supervisor.segment.release(service.as_str())
        {
            tracing::info!(%service, "quarantine released");
        }
        let message = ToWorker::Event(event);
        for generation in self.children.keys().copied().collect::<Vec<_>>() {
            self.tell(generation, &message);
        }
    }

    /// Tells the service manager once that the server serves, and keeps its status current.
    fn announce(&mut self) {
        let status = self.status();
        match self.startup {
            Startup::Pending if self.fleet.serving() > 0 => {
                self.startup = Startup::Announced;
                self.supervisor.notifier.ready(&status);
            }
            _ => self.supervisor.notifier.status(&status),
        }
    }

    fn bury_the_dead(&mut self) {
        while let Some(ended) = reap::peek() {
            let known = self.children.iter().find(|(_, child)| child.pid == ended.pid).map(|(name, _)| *name);
            match known {
                Some(generation) => self.bury(generation, ended.death),
                // Left behind by a dead worker; nobody waits for it.
                None => reap::reap(ended.pid),
            }
        }
    }

    /// A worker is dead: hear its last words, judge, take back what it held, tell the fleet.
    fn bury(&mut self, generation: Generation, death: Death) {
        for _ in 0..LAST_PIECES {
            if !self.hear(generation) {
                break;
            }
        }
        let Some(child) = self.children.remove(&generation) else { return };
        reap::kill_group(child.pid);
        reap::reap(child.pid);
        let cause = death.describe();
        match child.expectation {
            Expectation::Leaving => tracing::info!(pid = child.pid, seat = child.seat, cause, "worker left"),
            Expectation::Staying => {
                tracing::error!(pid = child.pid, seat = child.seat, cause, "worker died");
                self.count(&format!("crosstie_worker_deaths_total{{cause=\"{cause}\"}}"));
            }
        }
        let segment = Arc::clone(&self.supervisor.segment);
        for (subject, why) in verdict::judge(death, child.expectation, segment.last_words(child.index)) {
            let name = subject.name();
            match segment.strike(&subject, why) {
                StrikeOutcome::Counted(strikes) => {
                    tracing::error!(name, strikes, "strike: {}", why.as_str());
                }
                StrikeOutcome::Quarantined => tracing::error!(name, "quarantined: {}", why.as_str()),
                StrikeOutcome::NoRoom => tracing::error!(name, "no room to count a strike"),
            }
        }
        segment.clear_worker(child.index);
        self.fleet.gone(generation, Instant::now());
        self.supervisor.notifier.status(&self.status());
    }

    fn count(&self, key: &str) {
        if let Some(cell) = self.supervisor.segment.cell(key) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
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
        let taken = |index: &u16| self.children.values().any(|child| child.index == *index);
        let slots = u16::try_from(SLOTS).unwrap_or(u16::MAX);
        let Some(index) = (0..slots).find(|index| !taken(index)) else {
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

    /// Writes quarantine changes to disk, whoever made them.
    fn keep_verdicts(&mut self) {
        let changes = self.supervisor.segment.verdict_changes();
        if changes == self.verdicts_seen {
            return;
        }
        self.verdicts_seen = changes;
        let quarantined = self.supervisor.segment.quarantined();
        if let Err(error) = self.supervisor.quarantine.keep(quarantined) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the quarantine cannot be kept on disk"
            );
        }
    }
}

fn kill(child: &mut Child, reason: KillReason) {
    tracing::warn!(pid = child.pid, seat = child.seat, "worker killed: {}", reason.as_str());
    reap::kill_child(child.pid);
}
