//! The life of workers, as a state machine without I/O: it is told what happened and when, and says what to
//! do. The event loop carries that out and knows nothing of restarts, rolls or deadlines.
//!
//! A server has as many seats as workers. A seat holds the worker that serves (`active`), while it is being
//! replaced also its `successor`, and afterwards the predecessor that drains (`leaving`); never more than
//! two at once. A predecessor is drained only after its successor is ready, and a roll goes on to the next
//! seat only when the predecessor of this one is gone.

mod seat;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use seat::{Placement, Seat};

/// How long a worker may take from its start to readiness.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(120);
/// How long beyond its drain deadline a worker may take to leave before it is killed.
pub(super) const DRAIN_GRACE: Duration = Duration::from_secs(1);
/// How long a worker may outlive its control channel.
pub(super) const CLOSED_GRACE: Duration = Duration::from_secs(2);

/// Names one worker process among all that the server has ever started.
pub(super) type Generation = u32;

/// What the event loop is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Start a worker. Answered by `gone` when that fails.
    Spawn {
        /// The seat it is for.
        seat: u16,
        /// Its name.
        generation: Generation,
        /// Deaths on this seat so far.
        restarts: u32,
    },
    /// Tell a worker to drain.
    Drain(Generation),
    /// Kill a worker. Answered by `gone`.
    Kill(Generation, KillReason),
    /// A roll came to its end.
    RollEnded(RollEnd),
}

/// Why a worker is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KillReason {
    /// It was not ready in time.
    NotReady,
    /// It was not drained in time.
    NotDrained,
    /// It closed its control channel and did not leave.
    ChannelClosed,
    /// It sent something that is no message.
    Violation,
    /// The configuration changed before it was ready.
    Outdated,
    /// The operator does not want to wait.
    Impatience,
}

impl KillReason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NotReady => "it was not ready in time",
            Self::NotDrained => "it was not drained in time",
            Self::ChannelClosed => "it closed its control channel and stayed",
            Self::Violation => "it broke the control protocol",
            Self::Outdated => "the configuration changed before it was ready",
            Self::Impatience => "the operator does not wait",
        }
    }
}

/// How a roll ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RollEnd {
    /// Every worker is of the new configuration.
    Complete,
    /// Successors died before they were ready, more often than the budget allows: the workers that were not
    /// replaced go on serving.
    Abandoned,
}

/// What the fleet obeys; may change with a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FleetRules {
    pub(super) drain: Duration,
    pub(super) restart_budget: u32,
}

/// All seats of a server.
#[derive(Debug)]
pub(super) struct Fleet {
    seats: Vec<Seat>,
    rules: FleetRules,
    next_generation: Generation,
    stopping: bool,
    /// Seats still to be rolled.
    roll: VecDeque<usize>,
    /// The seat being rolled.
    rolling: Option<usize>,
    actions: Vec<Action>,
}

impl Fleet {
    pub(super) fn new(workers: u16, rules: FleetRules, now: Instant) -> Self {
        let seats = (0..workers.max(1)).map(|number| Seat::new(number, now)).collect();
        Self {
            seats,
            rules,
            next_generation: 1,
            stopping: false,
            roll: VecDeque::new(),
            rolling: None,
            actions: Vec::new(),
        }
    }

    /// What is to be done now. Ask again after every event and when `next_deadline` has come.
    pub(super) fn actions(&mut self, now: Instant) -> Vec<Action> {
        self.advance_roll();
        for seat in &mut self.seats {
            seat.enforce_deadlines(now, &mut self.actions);
            if !self.stopping {
                seat.start_due(now, &mut self.next_generation, &mut self.actions);
            }
        }
        std::mem::take(&mut self.actions)
    }

    /// When `actions` has something new to say even if nothing happens.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let starts = self.seats.iter().filter_map(Seat::next_start).filter(|_| !self.stopping);
        self.seats.iter().filter_map(Seat::next_deadline).chain(starts).min()
    }

    /// A worker serves.
    pub(super) fn ready(&mut self, generation: Generation, now: Instant) {
        let rules = self.rules;
        if let Some((seat, placement)) = find(&mut self.seats, generation) {
            seat.ready(placement, now, rules, &mut self.actions);
        }
    }

    /// A worker asks to be replaced.
    pub(super) fn replace(&mut self, generation: Generation) {
        if let Some((seat, Placement::Active)) = find(&mut self.seats, generation) {
            seat.want_replacement();
        }
    }

    /// A worker stopped accepting of its own accord.
    pub(super) fn draining(&mut self, generation: Generation, now: Instant) {
        let (rules, stopping) = (self.rules, self.stopping);
        if let (Some((seat, placement)), false) = (find(&mut self.seats, generation), stopping) {
            seat.leaves(placement, now, rules);
        }
    }

    /// A worker's control channel ended while the process lives.
    pub(super) fn channel_closed(&mut self, generation: Generation, now: Instant) {
        if let Some((seat, placement)) = find(&mut self.seats, generation) {
            seat.give_grace(placement, now + CLOSED_GRACE);
        }
    }

    /// A worker sent something that is no message.
    pub(super) fn violated(&mut self, generation: Generation) {
        if let Some((seat, placement)) = find(&mut self.seats, generation) {
            seat.kill(placement, KillReason::Violation, &mut self.actions);
        }
    }

    /// A worker is dead and reaped, or could not be started.
    pub(super) fn gone(&mut self, generation: Generation, now: Instant) {
        let (rules, stopping) = (self.rules, self.stopping);
        let Some((seat, placement)) = find(&mut self.seats, generation) else { return };
        if seat.gone(placement, now, rules, stopping) == seat::RollVerdict::Hopeless {
            seat.end_roll();
            self.rolling = None;
            self.roll.clear();
            self.actions.push(Action::RollEnded(RollEnd::Abandoned));
        }
    }

    /// Replaces every worker, one by one, by one that obeys `rules` and whatever else changed. A roll that
    /// is under way starts over.
    pub(super) fn roll(&mut self, rules: FleetRules, now: Instant) {
        if self.stopping {
            return;
        }
        self.rules = rules;
        for seat in &mut self.seats {
            seat.renew(now, &mut self.actions);
        }
        self.rolling = None;
        self.roll = (0..self.seats.len()).collect();
    }

    /// Drains every worker and starts none any more.
    pub(super) fn stop(&mut self, now: Instant) {
        self.stopping = true;
        self.roll.clear();
        self.rolling = None;
        let deadline = now + self.rules.drain + DRAIN_GRACE;
        for seat in &mut self.seats {
            seat.stop(deadline, &mut self.actions);
        }
    }

    /// Kills every worker and starts none any more.
    pub(super) fn stop_now(&mut self, now: Instant) {
        self.stop(now);
        self.actions.retain(|action| !matches!(action, Action::Drain(_)));
        for seat in &mut self.seats {
            seat.kill_all(KillReason::Impatience, &mut self.actions);
        }
    }

    /// Whether the fleet is stopping.
    pub(super) fn stopping(&self) -> bool {
        self.stopping
    }

    /// Whether the fleet has stopped: no process is left and none will be started.
    pub(super) fn stopped(&self) -> bool {
        self.stopping && self.seats.iter().all(Seat::is_empty)
    }

    /// Whether a roll is under way.
    #[cfg(test)]
    pub(super) fn is_rolling(&self) -> bool {
        self.rolling.is_some() || !self.roll.is_empty()
    }

    /// How many seats have a worker that serves.
    pub(super) fn serving(&self) -> usize {
        self.seats.iter().filter(|seat| seat.is_serving()).count()
    }

    /// Goes on to the next seat of a roll when the one before is done.
    fn advance_roll(&mut self) {
        while let Some(number) = self.rolling.or_else(|| self.roll.pop_front()) {
            self.rolling = Some(number);
            if let Some(seat) = self.seats.get_mut(number) {
                seat.begin_roll();
                if !seat.roll_done() {
                    return;
                }
                seat.end_roll();
            }
            self.rolling = None;
            if self.roll.is_empty() {
                self.actions.push(Action::RollEnded(RollEnd::Complete));
            }
        }
    }
}

fn find(seats: &mut [Seat], generation: Generation) -> Option<(&mut Seat, Placement)> {
    seats.iter_mut().find_map(|seat| seat.placement(generation).map(|place| (seat, place)))
}

#[cfg(test)]
mod tests;
