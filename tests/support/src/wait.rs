//! Waiting for a condition. Limits only detect hangs: no test asserts a time with them.

use std::time::{Duration, Instant};

/// After how long something that should have happened is taken never to happen. Generous, as many tests
/// share few cores.
pub const HANG: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds.
///
/// # Panics
/// After [`HANG`], naming `what` was waited for.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Waits until `attempt` gives a value, and gives it.
///
/// # Panics
/// After [`HANG`], naming `what` was waited for.
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        #[expect(clippy::panic, reason = "a test fails by panicking")]
        if begin.elapsed() > HANG {
            panic!("waited {} s in vain: {what}", HANG.as_secs());
        }
        std::thread::sleep(INTERVAL);
    }
}
