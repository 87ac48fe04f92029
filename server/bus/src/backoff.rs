//! How long to wait before the next attempt to connect. Pure: the caller brings the randomness and the clock.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(10);
/// A session that lasted this long was a healthy one: the next pause is the first again.
const HEALTHY: Duration = Duration::from_secs(10);

/// Pauses that double from 100 ms to 10 s, each shortened at random by up to half, so that servers that lost
/// a broker together do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Before the first failure.
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// Notes that a session lasted `uptime`.
    pub(crate) fn lasted(&mut self, uptime: Duration) {
        if uptime >= HEALTHY {
            self.next = FIRST;
        }
    }

    /// The next pause; `entropy` is any random number.
    pub(crate) fn pause(&mut self, entropy: u32) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(LONGEST);
        let share = f64::from(entropy) / f64::from(u32::MAX);
        full.mul_f64(0.5 + share / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pauses_double_up_to_ten_seconds() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..10).map(|_| backoff.pause(u32::MAX).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
    }

    #[test]
    fn a_long_session_starts_over_and_a_short_one_does_not() {
        let mut backoff = Backoff::new();
        backoff.pause(0);
        backoff.pause(0);
        backoff.lasted(Duration::from_secs(9));
        assert_eq!(backoff.pause(u32::MAX).as_millis(), 400);
        backoff.lasted(Duration::from_secs(10));
        assert_eq!(backoff.pause(u32::MAX).as_millis(), 100);
    }

    proptest! {
        #[test]
        fn a_pause_is_between_half_and_all_of_its_step(entropies in proptest::collection::vec(any::<u32>(), 1..20)) {
            let (mut jittered, mut full) = (Backoff::new(), Backoff::new());
            for entropy in entropies {
                let (pause, step) = (jittered.pause(entropy), full.pause(u32::MAX));
                prop_assert!(pause <= step && pause >= step / 2 && pause >= Duration::from_millis(50));
            }
        }
    }
}
