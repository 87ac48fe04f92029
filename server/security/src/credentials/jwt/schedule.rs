//! When keys are fetched: decided by the clock it is given, so that hours pass in a test within a moment.

use std::time::{Duration, Instant};

/// First pause after a fetch that failed; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often an issuer is asked for keys it did not have: anybody can make up names of keys.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(10);

/// What a request with a token does about the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Uses those there are.
    Use,
    /// Uses those there are, and has them fetched again meanwhile.
    UseAndFetch,
    /// Waits for a fetch, which it begins unless one is under way.
    Wait,
    /// Gives up: the last fetch failed just now.
    Fail {
        /// When there will be another.
        retry_after: Duration,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Schedule {
    refresh: Duration,
    keep: Duration,
    /// When the keys there are were fetched.
    fetched: Option<Instant>,
    /// When the last fetch failed, and how many in a row did.
    failed: Option<(Instant, u32)>,
    /// When the issuer was last asked for a key that it did not have.
    unknown: Option<Instant>,
    fetching: bool,
}

impl Schedule {
    pub(super) fn new(refresh: Duration, keep: Duration) -> Self {
        Self { refresh, keep, fetched: None, failed: None, unknown: None, fetching: false }
    }

    /// What to do when a token comes.
    pub(super) fn step(&self, now: Instant) -> Step {
        let age = self.fetched.map(|at| now.saturating_duration_since(at));
        let paused = self.paused(now);
        match age {
            Some(age) if age < self.refresh => Step::Use,
            // Keys that are past their time are used for as long as they may be, but not renewed twice at once.
            Some(age) if age < self.keep.max(self.refresh) => {
                if self.fetching || paused.is_some() {
                    Step::Use
                } else {
                    Step::UseAndFetch
                }
            }
            _ if self.fetching => Step::Wait,
            _ => paused.map_or(Step::Wait, |retry_after| Step::Fail { retry_after }),
        }
    }

    /// Whether to wait for a fetch because a token names a key that is not there.
    pub(super) fn is_worth_asking(&self, now: Instant) -> bool {
        let asked = self.unknown.is_some_and(|at| now.saturating_duration_since(at) < UNKNOWN_PAUSE);
        self.fetching || (!asked && self.paused(now).is_none())
    }

    /// Notes that the issuer is asked for a key that is not there.
    pub(super) fn ask_for_unknown(&mut self, now: Instant) {
        self.unknown = Some(now);
    }

    /// Begins a fetch; says whether there was none under way.
    pub(super) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.fetching, true)
    }

    /// A fetch that brought keys is over.
    pub(super) fn succeed(&mut self, now: Instant) {
        (self.fetching, self.fetched, self.failed) = (false, Some(now), None);
    }

    /// A fetch that brought none is over.
    pub(super) fn fail(&mut self, now: Instant) {
        let failures = self.failed.map_or(0, |(_, failures)| failures).saturating_add(1);
        (self.fetching, self.failed) = (false, Some((now, failures)));
    }

    /// Whether a fetch is under way.
    pub(super) fn is_fetching(&self) -> bool {
        self.fetching
    }

    /// For how long no fetch is begun, because the last ones failed.
    fn paused(&self, now: Instant) -> Option<Duration> {
        let (at, failures) = self.failed?;
        let pause = FIRST_PAUSE.saturating_mul(1 << (failures.saturating_sub(1)).min(10)).min(LONGEST_PAUSE);
        let left = pause.saturating_sub(now.saturating_duration_since(at));
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn schedule() -> Schedule {
        Schedule::new(SECOND * 300, SECOND * 3_600)
    }

    #[test]
    fn keys_are_fetched_once_used_and_renewed_while_they_are_used() {
        let (mut schedule, start) = (schedule(), Instant::now());
        assert_eq!(schedule.step(start), Step::Wait);
        assert!(schedule.begin() && !schedule.begin(), "one fetch at a time");
        assert_eq!(schedule.step(start), Step::Wait, "the others wait with the first");
        schedule.succeed(start);
        assert_eq!(schedule.step(start + SECOND * 299), Step::Use);
        assert_eq!(schedule.step(start + SECOND * 300), Step::UseAndFetch);
        assert!(schedule.begin());
        assert_eq!(schedule.step(start + SECOND * 300), Step::Use);
        schedule.succeed(start + SECOND * 301);
        assert_eq!(schedule.step(start + SECOND * 600), Step::Use);
    }

    #[test]
    fn an_issuer_that_is_away_is_asked_less_and_less_and_its_keys_end() {
        let (mut schedule, start) = (schedule(), Instant::now());
        schedule.succeed(start);
        let mut now = start + SECOND * 300;
        let mut attempts = 0;
        while now < start + SECOND * 3_600 {
            match schedule.step(now) {
                Step::UseAndFetch => {
                    schedule.begin();
                    schedule.fail(now);
                    attempts += 1;
                }
                other => assert_eq!(other, Step::Use),
            }
            now += SECOND;
        }
        assert!((100..120).contains(&attempts), "{attempts}");
        let step = schedule.step(now);
        assert!(matches!(step, Step::Wait | Step::Fail { .. }), "{step:?}: the keys are too old");
        schedule.fail(now);
        assert_eq!(schedule.step(now), Step::Fail { retry_after: SECOND * 30 });
        assert_eq!(schedule.step(now + SECOND * 30), Step::Wait);
        schedule.succeed(now + SECOND * 31);
        assert_eq!(schedule.step(now + SECOND * 32), Step::Use);
    }

    #[test]
    fn unknown_keys_are_asked_for_at_once_and_then_seldom() {
        let (mut schedule, start) = (schedule(), Instant::now());
        schedule.succeed(start);
        assert!(schedule.is_worth_asking(start), "right after a fetch the issuer may have a new one");
        schedule.ask_for_unknown(start);
        schedule.begin();
        assert!(schedule.is_worth_asking(start), "those who come meanwhile wait for the same answer");
        schedule.succeed(start);
        assert!(!schedule.is_worth_asking(start + SECOND * 9));
        assert!(schedule.is_worth_asking(start + SECOND * 10));
        schedule.fail(start + SECOND * 10);
        assert!(!schedule.is_worth_asking(start + SECOND * 10));
    }

    proptest! {
        /// However tokens come and fetches end: no more than one fetch at a time, no keys beyond their time, and
        /// no more fetches than pauses allow.
        #[test]
        fn an_issuer_is_never_stormed(events in prop::collection::vec((0u64..40, 0u8..4), 1..200)) {
            let (mut schedule, start) = (schedule(), Instant::now());
            let (mut now, mut fetched, mut begun) = (start, None, Vec::new());
            for (seconds, event) in events {
                now += SECOND * u32::try_from(seconds).unwrap();
                let is_unknown = event == 1 && schedule.is_worth_asking(now);
                if is_unknown && !schedule.is_fetching() {
                    schedule.ask_for_unknown(now);
                }
                let step = schedule.step(now);
                if let (Step::Use | Step::UseAndFetch, Some(at)) = (step, fetched) {
                    prop_assert!(now.duration_since(at) < SECOND * 3_600);
                }
                let wanted = is_unknown || matches!(step, Step::UseAndFetch | Step::Wait);
                if wanted && schedule.begin() {
                    begun.push(now);
                }
                if event >= 2 && schedule.is_fetching() {
                    if event == 2 {
                        schedule.succeed(now);
                        fetched = Some(now);
                    } else {
                        schedule.fail(now);
                    }
                }
            }
            for window in begun.windows(3) {
                // A renewal and an unknown key may coincide; a third has to wait.
                prop_assert!(window[2].duration_since(window[0]) >= SECOND);
            }
        }
    }
}
