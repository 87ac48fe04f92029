//! Tests of the fleet: each scenario as a sentence, then random histories against the invariants.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const RULES: FleetRules = FleetRules { drain: Duration::from_secs(30), restart_budget: 2 };

fn spawned(actions: &[Action]) -> Vec<Generation> {
    let spawn = |action: &Action| match action {
        Action::Spawn { generation, .. } => Some(*generation),
        _ => None,
    };
    actions.iter().filter_map(spawn).collect()
}

/// A fleet of `workers`, all ready.
fn serving(workers: u16, now: Instant) -> Fleet {
    let mut fleet = Fleet::new(workers, RULES, now);
    for generation in spawned(&fleet.actions(now)) {
        fleet.ready(generation, now);
    }
    assert_eq!(fleet.serving(), usize::from(workers));
    assert_eq!(fleet.actions(now), []);
    fleet
}

#[test]
fn a_worker_that_dies_is_replaced_at_once() {
    let now = Instant::now();
    let mut fleet = serving(2, now);
    let later = now + Duration::from_secs(5);
    fleet.gone(1, later);
    assert_eq!(fleet.actions(later), [Action::Spawn { seat: 0, generation: 3, restarts: 1 }]);
}

#[test]
fn a_crash_loop_is_slowed_down_and_waits_out_its_pauses() {
    let mut now = Instant::now();
    let mut fleet = Fleet::new(1, RULES, now);
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let mut waited = Duration::ZERO;
        let generation = loop {
            if let [generation] = spawned(&fleet.actions(now))[..] {
                break generation;
            }
            let next = fleet.next_deadline().unwrap();
            waited += next - now;
            now = next;
        };
        pauses.push(waited.as_millis());
        fleet.gone(generation, now);
    }
    assert_eq!(pauses, [0, 0, 0, 100, 200, 400]);
}

#[test]
fn a_worker_that_is_never_ready_is_killed_and_started_again() {
    let now = Instant::now();
    let mut fleet = Fleet::new(1, RULES, now);
    fleet.actions(now);
    let late = fleet.next_deadline().unwrap();
    assert_eq!(late, now + START_PATIENCE);
    assert_eq!(fleet.actions(late), [Action::Kill(1, KillReason::NotReady)]);
    assert_eq!(fleet.actions(late), [], "once is enough");
    fleet.ready(1, late);
    assert_eq!(fleet.serving(), 0, "readiness after the verdict is too late");
    fleet.gone(1, late);
    assert_eq!(spawned(&fleet.actions(late)), [2]);
}

#[test]
fn a_roll_goes_seat_by_seat_and_drains_only_after_readiness() {
    let now = Instant::now();
    let mut fleet = serving(2, now);
    fleet.roll(RULES, now);
    assert!(fleet.is_rolling());
    assert_eq!(fleet.actions(now), [Action::Spawn { seat: 0, generation: 3, restarts: 0 }]);
    fleet.ready(3, now);
    assert_eq!(fleet.actions(now), [Action::Drain(1)]);
    assert_eq!(fleet.actions(now), [], "the next seat waits for the predecessor's end");
    fleet.gone(1, now);
    assert_eq!(fleet.actions(now), [Action::Spawn { seat: 1, generation: 4, restarts: 0 }]);
    fleet.ready(4, now);
    assert_eq!(fleet.actions(now), [Action::Drain(2)]);
    fleet.gone(2, now);
    assert_eq!(fleet.actions(now), [Action::RollEnded(RollEnd::Complete)]);
    assert!(!fleet.is_rolling());
}

#[test]
fn a_predecessor_that_does_not_leave_is_killed_and_the_roll_goes_on() {
    let now = Instant::now();
    let mut fleet = serving(1, now);
    fleet.roll(RULES, now);
    fleet.actions(now);
    fleet.ready(2, now);
    fleet.actions(now);
    let late = fleet.next_deadline().unwrap();
    assert_eq!(late, now + RULES.drain + DRAIN_GRACE);
    assert_eq!(fleet.actions(late), [Action::Kill(1, KillReason::NotDrained)]);
    fleet.gone(1, late);
    assert_eq!(fleet.actions(late), [Action::RollEnded(RollEnd::Complete)]);
}

#[test]
fn a_roll_whose_successors_die_is_abandoned_and_the_old_workers_serve_on() {
    let mut now = Instant::now();
    let mut fleet = serving(2, now);
    fleet.roll(RULES, now);
    let mut ended = Vec::new();
    for _ in 0..20 {
        let actions = fleet.actions(now);
        ended.extend(actions.iter().filter(|action| matches!(action, Action::RollEnded(_))).cloned());
        for generation in spawned(&actions) {
            fleet.gone(generation, now);
        }
        now += Duration::from_secs(40);
    }
    assert_eq!(ended, [Action::RollEnded(RollEnd::Abandoned)]);
    assert_eq!(fleet.serving(), 2);
    assert!(!fleet.is_rolling());
}

#[test]
fn a_roll_during_a_roll_starts_over_with_the_newer_configuration() {
    let now = Instant::now();
    let mut fleet = serving(1, now);
    fleet.roll(RULES, now);
    assert_eq!(spawned(&fleet.actions(now)), [2]);
    fleet.roll(RULES, now);
    assert_eq!(fleet.actions(now), [Action::Kill(2, KillReason::Outdated)]);
    fleet.gone(2, now);
    assert_eq!(spawned(&fleet.actions(now)), [3]);
    fleet.ready(3, now);
    assert_eq!(fleet.actions(now), [Action::Drain(1)]);
}

#[test]
fn a_worker_that_dies_while_its_successor_starts_is_succeeded_by_it() {
    let now = Instant::now();
    let mut fleet = serving(1, now);
    fleet.roll(RULES, now);
    fleet.actions(now);
    fleet.gone(1, now + QUIET);
    assert_eq!(fleet.actions(now + QUIET), [], "the successor is the replacement");
    fleet.ready(2, now + QUIET);
    assert_eq!(fleet.actions(now + QUIET), [Action::RollEnded(RollEnd::Complete)]);
}

const QUIET: Duration = Duration::from_secs(20);

#[test]
fn a_worker_that_asks_is_replaced_only_once_its_successor_is_ready() {
    let now = Instant::now();
    let mut fleet = serving(1, now);
    fleet.replace(1);
    assert_eq!(spawned(&fleet.actions(now)), [2]);
    assert_eq!(fleet.serving(), 1);
    fleet.ready(2, now);
    assert_eq!(fleet.actions(now), [Action::Drain(1)]);
    fleet.replace(2);
    assert_eq!(fleet.actions(now), [], "no third process beside one that leaves");
    fleet.gone(1, now);
    assert_eq!(spawned(&fleet.actions(now)), [3]);
}

#[test]
fn a_worker_that_drains_unasked_makes_way_at_once() {
    let now = Instant::now();
    let mut fleet = serving(1, now);
    fleet.draining(1, now);
    assert_eq!(fleet.actions(now), [Action::Spawn { seat: 0, generation: 2, restarts: 0 }]);
    fleet.draining(2, now);
    assert_eq!(fleet.actions(now), [], "not more than two on a seat");
    fleet.gone(1, now);
    assert_eq!(spawned(&fleet.actions(now)), [3]);
}

#[test]
fn workers_that_leave_as_soon_as_they_are_ready_are_slowed_down_too() {
    let mut now = Instant::now();
    let (start, mut fleet, mut starts) = (now, Fleet::new(1, RULES, now), 0);
    while now < start + Duration::from_secs(10) {
        for generation in spawned(&fleet.actions(now)) {
            starts += 1;
            fleet.ready(generation, now);
            fleet.draining(generation, now);
            fleet.gone(generation, now);
        }
        now = fleet.next_deadline().unwrap().max(now);
    }
    assert!(starts < 12, "{starts} starts in ten seconds");
}

#[test]
fn a_stop_drains_all_starts_none_and_ends_when_the_last_is_gone() {
    let now = Instant::now();
    let mut fleet = serving(2, now);
    fleet.roll(RULES, now);
    fleet.actions(now);
    fleet.stop(now);
    assert_eq!(fleet.actions(now), [Action::Drain(1), Action::Drain(3), Action::Drain(2)]);
    fleet.gone(1, now);
    fleet.gone(3, now);
    assert!(!fleet.stopped());
    let late = fleet.next_deadline().unwrap();
    assert_eq!(fleet.actions(late), [Action::Kill(2, KillReason::NotDrained)]);
    fleet.gone(2, late);
    assert!(fleet.stopped());
    assert_eq!((fleet.actions(late), fleet.next_deadline()), (vec![], None));
}

#[test]
fn an_impatient_stop_kills_what_drains() {
    let now = Instant::now();
    let mut fleet = serving(1, now);
    fleet.stop(now);
    assert_eq!(fleet.actions(now), [Action::Drain(1)]);
    fleet.stop_now(now);
    assert_eq!(fleet.actions(now), [Action::Kill(1, KillReason::Impatience)]);
}

#[test]
fn a_worker_that_closes_its_channel_and_stays_is_killed() {
    let now = Instant::now();
    let mut fleet = serving(1, now);
    fleet.channel_closed(1, now);
    assert_eq!(fleet.next_deadline(), Some(now + CLOSED_GRACE));
    assert_eq!(fleet.actions(now + CLOSED_GRACE), [Action::Kill(1, KillReason::ChannelClosed)]);
}

/// What may happen in a random history. Numbers pick one of the processes alive.
#[derive(Debug, Clone)]
enum Step {
    Ready(usize),
    Die(usize),
    Replace(usize),
    Draining(usize),
    Close(usize),
    Violate(usize),
    Stranger(Generation),
    Roll,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..9).prop_map(Step::Ready),
        3 => (0usize..9).prop_map(Step::Die),
        1 => (0usize..9).prop_map(Step::Replace),
        1 => (0usize..9).prop_map(Step::Draining),
        1 => (0usize..9).prop_map(Step::Close),
        1 => (0usize..9).prop_map(Step::Violate),
        1 => any::<Generation>().prop_map(Step::Stranger),
        1 => Just(Step::Roll),
        4 => (0u64..40_000).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..120)
}

/// The world around a fleet: which processes live, and whether each was told to drain or killed.
struct World {
    fleet: Fleet,
    now: Instant,
    alive: BTreeMap<Generation, (u16, bool)>,
}

impl World {
    fn obey(&mut self) -> Result<(), TestCaseError> {
        for action in self.fleet.actions(self.now) {
            match action {
                Action::Spawn { seat, generation, .. } => {
                    prop_assert!(!self.fleet.stopping(), "a stopping fleet starts nothing");
                    prop_assert!(self.alive.insert(generation, (seat, false)).is_none());
                }
                Action::Drain(generation) => {
                    prop_assert!(self.alive.contains_key(&generation));
                }
                Action::Kill(generation, _) => {
                    let process = self.alive.get_mut(&generation);
                    prop_assert!(process.is_some_and(|p| !std::mem::replace(&mut p.1, true)), "killed once");
                }
                Action::RollEnded(_) => prop_assert!(!self.fleet.is_rolling()),
            }
        }
        for seat in 0..3 {
            let count = self.alive.values().filter(|process| process.0 == seat).count();
            prop_assert!(count <= 2, "{} processes on seat {}", count, seat);
        }
        Ok(())
    }

    fn pick(&self, number: usize) -> Generation {
        let living: Vec<_> = self.alive.keys().copied().collect();
        if living.is_empty() { 0 } else { living[number % living.len()] }
    }

    fn happen(&mut self, step: &Step) {
        let now = self.now;
        match *step {
            Step::Ready(number) => self.fleet.ready(self.pick(number), now),
            Step::Die(number) => {
                let generation = self.pick(number);
                self.alive.remove(&generation);
                self.fleet.gone(generation, now);
            }
            Step::Replace(number) => self.fleet.replace(self.pick(number)),
            Step::Draining(number) => self.fleet.draining(self.pick(number), now),
            Step::Close(number) => self.fleet.channel_closed(self.pick(number), now),
            Step::Violate(number) => self.fleet.violated(self.pick(number)),
            Step::Stranger(generation) if !self.alive.contains_key(&generation) => {
                self.fleet.ready(generation, now);
                self.fleet.gone(generation, now);
            }
            Step::Stranger(_) => {}
            Step::Roll => self.fleet.roll(RULES, now),
            Step::Wait(ms) => self.now += Duration::from_millis(ms),
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_fleet_keeps_its_promises(steps in steps()) {
        let now = Instant::now();
        let mut world = World { fleet: Fleet::new(3, RULES, now), now, alive: BTreeMap::new() };
        for step in &steps {
            world.obey()?;
            let serving = world.fleet.serving();
            world.happen(step);
            let dies = matches!(step, Step::Die(_) | Step::Draining(_) | Step::Close(_) | Step::Violate(_));
            prop_assert!(dies || world.fleet.serving() >= serving, "nothing else stops a worker from serving");
        }
        // Left alone with workers that behave, every seat serves again and a roll comes to its end.
        for _ in 0..60 {
            world.obey()?;
            let living: Vec<_> = world.alive.iter().map(|(generation, process)| (*generation, process.1)).collect();
            for (generation, killed) in living {
                if killed {
                    world.alive.remove(&generation);
                    world.fleet.gone(generation, world.now);
                } else {
                    world.fleet.ready(generation, world.now);
                }
            }
            world.now += Duration::from_secs(35);
        }
        prop_assert_eq!(world.fleet.serving(), 3);
        prop_assert!(!world.fleet.is_rolling());
        prop_assert_eq!(world.alive.len(), 3);
        world.fleet.stop(world.now);
        for _ in 0..3 {
            world.obey()?;
            for generation in world.alive.keys().copied().collect::<Vec<_>>() {
                world.alive.remove(&generation);
                world.fleet.gone(generation, world.now);
            }
        }
        prop_assert!(world.fleet.stopped());
    }
}
