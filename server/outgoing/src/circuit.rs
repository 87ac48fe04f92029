//! A circuit breaker: after some failures in a row calls are refused, until one that is let through succeeds.
//!
//! Takes the time from its caller and does no I/O. The lock is held for a few instructions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crosstie_model::definition::CircuitPolicy;
use crosstie_telemetry::metrics::OutgoingMetrics;

/// See the module.
#[derive(Debug)]
pub(crate) struct Circuit {
    /// Failures in a row that open it; 0 for never.
    threshold: u32,
    pause: Duration,
    max_pause: Duration,
    state: Mutex<State>,
    name: Arc<str>,
    metrics: OutgoingMetrics,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Calls go through; so many of the last failed.
    Closed { failures: u32 },
    /// Calls are refused until then.
    Open { until: Instant, pause: Duration },
    /// One call was let through to try.
    Trying { pause: Duration },
}

/// What a call said about the other system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It works.
    Works,
    /// It does not.
    Fails,
    /// Nothing: its caller gave up early, or the fault was not the system's.
    Nothing,
}

/// A call that was let through. Dropped without a verdict it says nothing.
#[must_use]
pub(crate) struct Admitted {
    circuit: Arc<Circuit>,
    is_trial: bool,
}

impl Circuit {
    pub(crate) fn new(policy: &CircuitPolicy, name: Arc<str>, metrics: OutgoingMetrics) -> Arc<Self> {
        let pause = Duration::from_millis(policy.pause_ms);
        Arc::new(Self {
            threshold: policy.failures,
            pause,
            max_pause: Duration::from_millis(policy.max_pause_ms).max(pause),
            state: Mutex::new(State::Closed { failures: 0 }),
            name,
            metrics,
        })
    }

    /// Lets a call through.
    ///
    /// # Errors
    /// It is refused; after how long it may be tried again.
    pub(crate) fn admit(self: &Arc<Self>, now: Instant) -> Result<Admitted, Duration> {
        let mut state = self.lock();
        let is_trial = match *state {
            State::Closed { .. } => false,
            State::Open { until, pause } if now >= until => {
                *state = State::Trying { pause };
                true
            }
            State::Open { until, .. } => return Err(until - now),
            State::Trying { pause } => return Err(pause),
        };
        drop(state);
        Ok(Admitted { circuit: Arc::clone(self), is_trial })
    }

    fn judge(&self, is_trial: bool, verdict: Verdict, now: Instant) {
        let mut state = self.lock();
        let before = *state;
        *state = match (before, verdict) {
            (State::Closed { .. }, Verdict::Works) => State::Closed { failures: 0 },
            (State::Closed { failures }, Verdict::Fails) => {
                let failures = failures.saturating_add(1);
                if self.threshold > 0 && failures >= self.threshold {
                    State::Open { until: now + self.pause, pause: self.pause }
                } else {
                    State::Closed { failures }
                }
            }
            (State::Trying { .. }, Verdict::Works) if is_trial => State::Closed { failures: 0 },
            (State::Trying { pause }, Verdict::Fails) if is_trial => {
                let pause = (pause * 2).min(self.max_pause);
                State::Open { until: now + pause, pause }
            }
            // Nobody knows yet: the next call tries.
            (State::Trying { pause }, Verdict::Nothing) if is_trial => State::Open { until: now, pause },
            // What was on its way when the circuit opened changes nothing.
            (state, _) => state,
        };
        let after = *state;
        drop(state);
        match (before, after) {
            (State::Closed { .. }, State::Open { pause, .. }) => {
                self.metrics.circuit(true);
                let (outgoing, pause_ms) = (&*self.name, pause.as_millis());
                tracing::warn!(outgoing, pause_ms, "the circuit is open: calls are refused");
            }
            (State::Trying { .. }, State::Closed { .. }) => {
                self.metrics.circuit(false);
                tracing::info!(outgoing = &*self.name, "the circuit is closed again");
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted {
    /// The call ended so.
    pub(crate) fn judge(mut self, verdict: Verdict, now: Instant) {
        self.circuit.judge(self.is_trial, verdict, now);
        self.is_trial = false;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.is_trial {
            self.circuit.judge(true, Verdict::Nothing, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::environment;

    fn circuit(failures: u32) -> Arc<Circuit> {
        let policy = CircuitPolicy { failures, pause_ms: 1_000, max_pause_ms: 3_000 };
        let environment = environment();
        let metrics = environment.metrics.outgoing(&environment.gauges, "crm", "rest");
        Circuit::new(&policy, "crm".into(), metrics)
    }

    fn call(circuit: &Arc<Circuit>, verdict: Verdict, now: Instant) -> Result<(), Duration> {
        circuit.admit(now).map(|admitted| admitted.judge(verdict, now))
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_does_not() {
        let (circuit, now) = (circuit(3), Instant::now());
        for verdict in [Verdict::Fails, Verdict::Fails, Verdict::Works, Verdict::Fails, Verdict::Fails] {
            assert_eq!(call(&circuit, verdict, now), Ok(()));
        }
        assert_eq!(call(&circuit, Verdict::Nothing, now), Ok(()));
        assert_eq!(call(&circuit, Verdict::Fails, now), Ok(()));
        assert_eq!(call(&circuit, Verdict::Works, now), Err(Duration::from_secs(1)));
    }

    #[test]
    fn one_call_tries_and_decides() {
        let (circuit, start) = (circuit(1), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(call(&circuit, Verdict::Fails, at(0)), Ok(()));
        assert_eq!(call(&circuit, Verdict::Works, at(400)), Err(Duration::from_millis(600)));
        let trial = circuit.admit(at(1_000)).unwrap();
        assert!(circuit.admit(at(1_000)).is_err(), "one at a time");
        trial.judge(Verdict::Fails, at(1_000));
        assert!(call(&circuit, Verdict::Works, at(2_900)).is_err(), "the pause is twice as long");
        assert_eq!(call(&circuit, Verdict::Fails, at(3_000)), Ok(()));
        assert!(call(&circuit, Verdict::Works, at(5_900)).is_err(), "and has a longest one");
        assert_eq!(call(&circuit, Verdict::Works, at(6_000)), Ok(()));
        assert_eq!(call(&circuit, Verdict::Works, at(6_000)), Ok(()));
    }

    #[test]
    fn a_trial_whose_caller_left_lets_the_next_one_try() {
        let (circuit, start) = (circuit(1), Instant::now() - Duration::from_secs(10));
        assert_eq!(call(&circuit, Verdict::Fails, start), Ok(()));
        drop(circuit.admit(Instant::now()).unwrap());
        assert_eq!(call(&circuit, Verdict::Works, Instant::now()), Ok(()));
        assert_eq!(call(&circuit, Verdict::Works, Instant::now()), Ok(()));
    }

    #[test]
    fn calls_on_their_way_when_it_opened_change_nothing() {
        let (circuit, now) = (circuit(1), Instant::now());
        let late = circuit.admit(now).unwrap();
        assert_eq!(call(&circuit, Verdict::Fails, now), Ok(()));
        late.judge(Verdict::Works, now);
        assert!(call(&circuit, Verdict::Works, now).is_err());
    }

    #[test]
    fn zero_keeps_it_closed() {
        let (circuit, now) = (circuit(0), Instant::now());
        for _ in 0..100 {
            assert_eq!(call(&circuit, Verdict::Fails, now), Ok(()));
        }
    }
}
