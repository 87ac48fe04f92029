//! When to start a worker again: a state machine without I/O, one per seat.
//!
//! Only deaths before readiness or within a second of it count against the budget. Within the budget a
//! worker is started again at once; beyond it the pauses double from 100 ms to 30 s. A worker that was
//! healthy for 10 s clears the count when it dies. A death in between neither counts nor clears: a service
//! that brings its worker down every few seconds is dealt with by blame, not by making callers wait.

use std::time::{Duration, Instant};

/// Deaths this soon after readiness count against the budget.
pub(super) const QUICK: Duration = Duration::from_secs(1);
/// A worker that served this long was healthy.
pub(super) const HEALTHY: Duration = Duration::from_secs(10);
/// The first pause beyond the budget; doubles with every further death.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The restart policy of one seat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RestartPolicy {
    quick_deaths: u32,
}

impl RestartPolicy {
    /// A worker died at `now` that had become ready at `ready` (never, if `None`): how long to wait before
    /// the next start.
    pub(super) fn died(&mut self, ready: Option<Instant>, now: Instant, budget: u32) -> Duration {
        match ready.map(|ready| now.saturating_duration_since(ready)) {
            Some(uptime) if uptime >= HEALTHY => self.quick_deaths = 0,
            Some(uptime) if uptime >= QUICK => {}
            _ => self.quick_deaths = self.quick_deaths.saturating_add(1),
        }
        let beyond = self.quick_deaths.saturating_sub(budget);
        let Some(doublings) = beyond.checked_sub(1) else { return Duration::ZERO };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
    }

    /// Whether the budget is used up.
    pub(super) fn exhausted(&self, budget: u32) -> bool {
        self.quick_deaths > budget
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn deaths_within_the_budget_cost_no_time_and_then_pauses_double() {
        let (mut policy, now) = (RestartPolicy::default(), Instant::now());
        let pauses: Vec<_> = (0..14).map(|_| policy.died(None, now, 3).as_millis()).collect();
        assert_eq!(
            pauses,
            [0, 0, 0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]
        );
    }

    #[test]
    fn a_death_a_second_after_readiness_does_not_count() {
        let (mut policy, ready) = (RestartPolicy::default(), Instant::now());
        for _ in 0..1_000 {
            assert_eq!(policy.died(Some(ready), ready + QUICK, 1), Duration::ZERO);
        }
        assert!(!policy.exhausted(1));
    }

    #[test]
    fn a_death_just_after_readiness_counts_and_health_clears_the_count() {
        let (mut policy, ready) = (RestartPolicy::default(), Instant::now());
        policy.died(Some(ready), ready + QUICK - Duration::from_nanos(1), 0);
        assert!(policy.exhausted(0));
        policy.died(Some(ready), ready + QUICK, 0);
        assert!(policy.exhausted(0), "neither counts nor clears");
        assert_eq!(policy.died(Some(ready), ready + HEALTHY, 0), Duration::ZERO);
        assert!(!policy.exhausted(0));
    }

    #[test]
    fn a_clock_that_seems_to_go_back_is_a_quick_death() {
        let (mut policy, now) = (RestartPolicy::default(), Instant::now());
        policy.died(Some(now + QUICK), now, 0);
        assert!(policy.exhausted(0));
    }

    proptest! {
        /// Whatever the history, starts beyond the budget are at least the first pause apart, and pauses
        /// never exceed the longest.
        #[test]
        fn pauses_are_bounded_and_never_shrink_while_deaths_are_quick(
            budget in 0u32..5,
            uptimes in prop::collection::vec(prop::option::of(0u64..20_000), 1..100),
        ) {
            let (mut policy, now) = (RestartPolicy::default(), Instant::now());
            let mut previous = Duration::ZERO;
            for uptime in uptimes {
                let uptime = uptime.map(Duration::from_millis);
                let pause = policy.died(uptime.map(|_| now), now + uptime.unwrap_or_default(), budget);
                prop_assert!(pause <= LONGEST_PAUSE);
                prop_assert_eq!(policy.exhausted(budget), pause >= FIRST_PAUSE);
                if uptime.is_none_or(|uptime| uptime < HEALTHY) {
                    prop_assert!(pause >= previous);
                }
                previous = pause;
            }
        }
    }
}
