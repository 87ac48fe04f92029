//! One seat of the fleet: the worker that serves, its successor, and the one that leaves.

use std::time::Instant;

use super::{Action, DRAIN_GRACE, FleetRules, Generation, KillReason, START_PATIENCE};
use crate::supervisor::restart::RestartPolicy;

/// Where in its seat a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// It serves, or will as soon as it is ready.
    Active,
    /// It will replace the active one.
    Successor,
    /// It was replaced and drains.
    Leaving,
}

/// Whether a roll can go on after a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RollVerdict {
    /// It can.
    GoesOn,
    /// The successors of this seat's roll die before they are ready.
    Hopeless,
}

/// What a process of this server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Started; to be ready by the deadline.
    Starting { deadline: Instant },
    /// Serving.
    Ready,
    /// To be gone by the deadline.
    Ending { deadline: Instant, overdue: KillReason },
    /// Told to die; nothing more can be done but wait for its end.
    Killed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    generation: Generation,
    phase: Phase,
    /// When it became ready, whatever it does since.
    ready: Option<Instant>,
    /// Whether it was started before the configuration last changed.
    outdated: bool,
}

impl Process {
    fn ends_by(&mut self, deadline: Instant, overdue: KillReason) {
        match self.phase {
            Phase::Killed => {}
            // A deadline never moves away.
            Phase::Ending { deadline: earlier, .. } if earlier <= deadline => {}
            _ => self.phase = Phase::Ending { deadline, overdue },
        }
    }
}

/// One seat.
#[derive(Debug)]
pub(super) struct Seat {
    number: u16,
    active: Option<Process>,
    successor: Option<Process>,
    leaving: Option<Process>,
    /// It is this seat's turn in a roll.
    in_roll: bool,
    /// The active worker asked to be replaced.
    replacement_wanted: bool,
    /// When the next process of this seat may be started.
    not_before: Instant,
    policy: RestartPolicy,
    restarts: u32,
}

impl Seat {
    pub(super) fn new(number: u16, now: Instant) -> Self {
        Self {
            number,
            active: None,
            successor: None,
            leaving: None,
            in_roll: false,
            replacement_wanted: false,
            not_before: now,
            policy: RestartPolicy::default(),
            restarts: 0,
        }
    }

    pub(super) fn placement(&self, generation: Generation) -> Option<Placement> {
        let is = |process: &Option<Process>| process.is_some_and(|p| p.generation == generation);
        match self {
            _ if is(&self.active) => Some(Placement::Active),
            _ if is(&self.successor) => Some(Placement::Successor),
            _ if is(&self.leaving) => Some(Placement::Leaving),
            _ => None,
        }
    }

    fn process(&mut self, placement: Placement) -> &mut Option<Process> {
        match placement {
            Placement::Active => &mut self.active,
            Placement::Successor => &mut self.successor,
            Placement::Leaving => &mut self.leaving,
        }
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        [&self.active, &self.successor, &self.leaving].into_iter().flatten()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.processes().next().is_none()
    }

    pub(super) fn is_serving(&self) -> bool {
        self.active.is_some_and(|process| matches!(process.phase, Phase::Ready))
    }

    /// Whether a start is due as soon as its time has come.
    fn wants_start(&self) -> bool {
        match &self.active {
            None => true,
            Some(Process { phase: Phase::Ready, outdated, .. }) => {
                let wanted = self.replacement_wanted || (self.in_roll && *outdated);
                wanted && self.successor.is_none() && self.leaving.is_none()
            }
            Some(_) => false,
        }
    }

    pub(super) fn start_due(&mut self, now: Instant, next: &mut Generation, actions: &mut Vec<Action>) {
        if !self.wants_start() || now < self.not_before {
            return;
        }
        let generation = *next;
        *next = next.wrapping_add(1);
        let phase = Phase::Starting { deadline: now + START_PATIENCE };
        let place = if self.active.is_none() { &mut self.active } else { &mut self.successor };
        *place = Some(Process { generation, phase, ready: None, outdated: false });
        actions.push(Action::Spawn { seat: self.number, generation, restarts: self.restarts });
    }

    pub(super) fn enforce_deadlines(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for process in [&mut self.active, &mut self.successor, &mut self.leaving].into_iter().flatten() {
            let overdue = match process.phase {
                Phase::Starting { deadline } if deadline <= now => KillReason::NotReady,
                Phase::Ending { deadline, overdue } if deadline <= now => overdue,
                _ => continue,
            };
            process.phase = Phase::Killed;
            actions.push(Action::Kill(process.generation, overdue));
        }
    }

    /// When one of its processes is overdue.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let deadline = |process: &Process| match process.phase {
            Phase::Starting { deadline } | Phase::Ending { deadline, .. } => Some(deadline),
            Phase::Ready | Phase::Killed => None,
        };
        self.processes().filter_map(deadline).min()
    }

    /// When its next process is to be started.
    pub(super) fn next_start(&self) -> Option<Instant> {
        self.wants_start().then_some(self.not_before)
    }

    pub(super) fn ready(
        &mut self,
        placement: Placement,
        now: Instant,
        rules: FleetRules,
        actions: &mut Vec<Action>,
    ) {
        let Some(process) = self.process(placement) else { return };
        if !matches!(process.phase, Phase::Starting { .. }) {
            return;
        }
        process.phase = Phase::Ready;
        process.ready = Some(now);
        if placement == Placement::Successor {
            self.leaving = self.active.take();
            self.active = self.successor.take();
            self.replacement_wanted = false;
            if let Some(leaving) = &mut self.leaving {
                leaving.ends_by(now + rules.drain + DRAIN_GRACE, KillReason::NotDrained);
                actions.push(Action::Drain(leaving.generation));
            }
        }
    }

    pub(super) fn want_replacement(&mut self) {
        self.replacement_wanted = true;
    }

    /// A process drains of its own accord; the active one makes way at once.
    /// To the restart policy that is a death: workers that leave as soon as they are ready must not be
    /// started in a tight loop either.
    pub(super) fn leaves(&mut self, placement: Placement, now: Instant, rules: FleetRules) {
        let Some(process) = self.process(placement) else { return };
        let (first, ready) = (!matches!(process.phase, Phase::Ending { .. } | Phase::Killed), process.ready);
        process.ends_by(now + rules.drain + DRAIN_GRACE, KillReason::NotDrained);
        if placement == Placement::Active && first {
            self.not_before = now + self.policy.died(ready, now, rules.restart_budget);
            self.make_way();
        }
    }

    /// Moves an active process that is on its way out aside, once there is room.
    fn make_way(&mut self) {
        let ending = |process: &Process| matches!(process.phase, Phase::Ending { .. });
        if self.leaving.is_none() && self.active.as_ref().is_some_and(ending) {
            self.leaving = self.active.take();
            self.active = self.successor.take();
            self.replacement_wanted = false;
        }
    }

    pub(super) fn give_grace(&mut self, placement: Placement, deadline: Instant) {
        if let Some(process) = self.process(placement) {
            process.ends_by(deadline, KillReason::ChannelClosed);
        }
    }

    pub(super) fn kill(&mut self, placement: Placement, reason: KillReason, actions: &mut Vec<Action>) {
        if let Some(process) = self.process(placement)
            && process.phase != Phase::Killed
        {
            process.phase = Phase::Killed;
            actions.push(Action::Kill(process.generation, reason));
        }
    }

    pub(super) fn kill_all(&mut self, reason: KillReason, actions: &mut Vec<Action>) {
        for placement in [Placement::Active, Placement::Successor, Placement::Leaving] {
            self.kill(placement, reason, actions);
        }
    }

    /// A process of this seat is dead.
    pub(super) fn gone(
        &mut self,
        placement: Placement,
        now: Instant,
        rules: FleetRules,
        stopping: bool,
    ) -> RollVerdict {
        let Some(process) = self.process(placement).take() else { return RollVerdict::GoesOn };
        if stopping {
            return RollVerdict::GoesOn;
        }
        match placement {
            Placement::Leaving => {
                self.make_way();
                return RollVerdict::GoesOn;
            }
            Placement::Active => {
                // Whatever starts now is what the replacement wanted.
                self.active = self.successor.take();
                self.replacement_wanted = false;
            }
            Placement::Successor => {}
        }
        self.restarts = self.restarts.saturating_add(1);
        // A process killed because the configuration changed says nothing about the new one.
        if process.outdated && process.ready.is_none() {
            return RollVerdict::GoesOn;
        }
        let pause = self.policy.died(process.ready, now, rules.restart_budget);
        self.not_before = now + pause;
        if self.in_roll && self.policy.exhausted(rules.restart_budget) {
            return RollVerdict::Hopeless;
        }
        RollVerdict::GoesOn
    }

    /// The configuration changed: what was started before is outdated. Processes that do not serve yet are
    /// killed, so that only current ones come up, and a seat that waits need not wait any longer: what made
    /// its workers die may be mended.
    pub(super) fn renew(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for process in [&mut self.active, &mut self.successor].into_iter().flatten() {
            process.outdated = true;
            if matches!(process.phase, Phase::Starting { .. }) {
                process.phase = Phase::Killed;
                actions.push(Action::Kill(process.generation, KillReason::Outdated));
            }
        }
        self.policy = RestartPolicy::default();
        self.not_before = now;
        self.in_roll = false;
    }

    pub(super) fn begin_roll(&mut self) {
        self.in_roll = true;
    }

    pub(super) fn end_roll(&mut self) {
        self.in_roll = false;
    }

    /// Whether this seat's part of a roll is over: a current worker serves and its predecessor is gone.
    pub(super) fn roll_done(&self) -> bool {
        self.is_serving() && self.active.is_some_and(|process| !process.outdated) && self.leaving.is_none()
    }

    pub(super) fn stop(&mut self, deadline: Instant, actions: &mut Vec<Action>) {
        self.in_roll = false;
        for process in [&mut self.active, &mut self.successor, &mut self.leaving].into_iter().flatten() {
            if matches!(process.phase, Phase::Starting { .. } | Phase::Ready) {
                actions.push(Action::Drain(process.generation));
            }
            process.ends_by(deadline, KillReason::NotDrained);
        }
    }
}
