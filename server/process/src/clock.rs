//! Clocks as plain numbers, for values that several processes compare in shared memory. The kernel's
//! monotonic clock is the same in every process of a host.

#![expect(unsafe_code, reason = "clock_gettime fills a structure it is given")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds of the monotonic clock (CLOCK_MONOTONIC); 0 only if the kernel has no such clock.
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec that outlives the call; the clock id is a constant.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) } != 0;
    if failed {
        return 0;
    }
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Seconds since 1970 of the wall clock.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// A duration in whole nanoseconds; 584 years at most.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A duration in whole milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The moment `patience` from now; a year at most, so that no caller's number overflows the clock.
pub(crate) fn deadline(patience: Duration) -> Instant {
    const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
    Instant::now() + patience.min(LONGEST)
}
