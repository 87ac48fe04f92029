//! What processes cost, read from `/proc`: CPU time and resident memory.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use crosstie_test_support::processes::tree;

/// Kernel clock ticks per second as `/proc` counts them; fixed at 100 for user space on Linux.
const TICKS_PER_SECOND: u64 = 100;

/// User and system time of one process so far.
fn cpu_time(pid: i32) -> Result<Duration> {
    // schedstat counts nanoseconds on the CPU per thread, far finer than the 10 ms ticks of `stat`. But threads that
    // have ended are in `stat` alone, and a server with a thread per connection spends everything in such.
    let mut living = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        living += text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    let ticked = Duration::from_millis((ticks(11) + ticks(12)) * 1000 / TICKS_PER_SECOND);
    Ok(Duration::from_nanos(living).max(ticked))
}

/// CPU time of processes and their descendants that live now, each counted once.
pub(crate) fn cpu_time_of_trees(roots: &[i32]) -> Duration {
    let pids: BTreeSet<i32> = roots.iter().flat_map(|pid| tree(*pid)).map(|process| process.pid).collect();
    pids.into_iter().filter_map(|pid| cpu_time(pid).ok()).sum()
}

/// Resident memory of one process in KiB (`VmRSS`).
///
/// # Errors
/// The process is gone.
pub(crate) fn resident_kib(pid: i32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .context("no VmRSS")
}
