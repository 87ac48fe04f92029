//! What the supervisor hears from its workers and tells them: the control channels' side of the loop.
//!
//! A worker is believed only about itself, only after it introduced itself, and only what its place in the
//! fleet allows; anything else ends the conversation and the worker.

use std::time::Instant;

use crosstie_model::event::Event;
use serde_json::Value;

use super::event_loop::{Greeting, Startup, Turning};
use super::fleet::Generation;
use super::link::{Heard, Queued};
use super::succession::Rank;
use super::verdict::Expectation;
use crate::clock;
use crate::control::{PROTOCOL_VERSION, ToSupervisor, ToWorker};
use crate::shm::WorkerState;

impl Turning {
    pub(super) fn hear_children(&mut self) {
        let generations: Vec<_> = self.children.keys().copied().collect();
        for generation in generations {
            self.hear(generation);
        }
    }

    /// Takes one piece of what a worker sent; says whether there may be more.
    pub(super) fn hear(&mut self, generation: Generation) -> bool {
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

    pub(super) fn tell(&mut self, generation: Generation, message: &ToWorker) {
        let Some(child) = self.children.get_mut(&generation) else { return };
        match child.link.send(message) {
            Ok(Queued::Yes | Queued::Closed) => {}
            Ok(Queued::Dropped) => {
                tracing::warn!(pid = child.pid, "a worker does not read; an event was dropped")
            }
            Err(error) => tracing::error!(pid = child.pid, %error, "a message cannot be sent"),
        }
    }

    /// Passes an event on to every worker, its sender included, in the order of arrival; during an upgrade to
    /// those of the other supervisor too.
    fn relay(&mut self, event: Event) {
        let others = (self.succession.as_mut(), self.heir.as_mut(), &mut self.rank);
        if !matches!(others, (None, None, Rank::Server)) {
            let value = serde_json::to_value(&event).unwrap_or_default();
            let (succession, heir, rank) = others;
            succession.into_iter().for_each(|succession| succession.tell(&value));
            heir.into_iter().for_each(|heir| heir.tell(&value));
            if let Rank::Successor(predecessor) = rank {
                predecessor.tell(&value);
            }
        }
        self.relay_here(event);
    }

    /// Passes on what the other supervisor of an upgrade passed on. What this release does not know it misses,
    /// as any lost event: its workers compare revisions all the same.
    pub(super) fn relay_foreign(&mut self, event: Value) {
        match serde_json::from_value(event) {
            Ok(event) => self.relay_here(event),
            Err(error) => tracing::warn!(%error, "an event of another release is not understood"),
        }
    }

    fn relay_here(&mut self, event: Event) {
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
    pub(super) fn announce(&mut self) {
        if !self.is_server() {
            return;
        }
        let status = self.status();
        match self.startup {
            Startup::Pending if self.fleet.serving() > 0 => {
                self.startup = Startup::Announced;
                self.supervisor.notifier.ready(&status);
            }
            _ => self.supervisor.notifier.status(&status),
        }
    }
}
