//! Processes that were killed and are not gone yet.
//!
//! A process that got SIGKILL runs no more code of its own, but until the kernel has taken it apart (many
//! milliseconds on a busy machine, or with much memory to give back) it holds its locks, files and sockets.
//! Whoever takes it for a running one counts on something that will never answer again.

use std::fs;

/// `PF_EXITING` of the kernel's `include/linux/sched.h`.
const EXITING: u64 = 0x4;
/// SIGKILL in a mask of signals: bit N - 1 is signal N.
const KILL_BIT: u64 = 1 << 8;

/// Whether the process `pid` was killed, or ends by itself, and is not gone yet. One that is gone is not ending.
#[must_use]
pub fn is_ending(pid: u32) -> bool {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    // In this order: a signal that waits no more has been taken, and shows in the flags. The other way round it
    // could be taken in between, and show in neither.
    let status = read("status");
    ends(&read("stat"), &status)
}

/// By the two files of proc_pid_stat(5) and proc_pid_status(5).
fn ends(stat: &str, status: &str) -> bool {
    // The program's name stands in parentheses and may hold anything; fields count from after its end.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = fields.split_whitespace();
    // State is field 3, the kernel's flags are field 9. A zombie whose other threads still end is a zombie too.
    let state = fields.next().unwrap_or_default();
    let flags: u64 = fields.nth(5).and_then(|flags| flags.parse().ok()).unwrap_or_default();
    let pending = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    let killed =
        [pending("SigPnd:"), pending("ShdPnd:")].into_iter().flatten().any(|mask| mask & KILL_BIT != 0);
    matches!(state, "Z" | "X") || flags & EXITING != 0 || killed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(state: &str, flags: u64) -> String {
        format!("4711 (a) b (c) {state} 1 4711 4711 0 -1 {flags} 100 0 0 0 1 2")
    }

    fn status(thread: &str, process: &str) -> String {
        format!(
            "Name:\tx\nState:\tS (sleeping)\nSigPnd:\t{thread}\nShdPnd:\t{process}\nSigBlk:\tffffffffffffffff\n"
        )
    }

    const NONE: &str = "0000000000000000";

    #[test]
    fn a_process_ends_from_the_moment_it_was_killed() {
        // Other signals that wait, and flags of processes that live (PF_RANDOMIZE, PF_FORKNOEXEC).
        assert!(!ends(&stat("S", 0x0040_0040), &status(NONE, "0000000000004001")));
        assert!(ends(&stat("S", 0x0040_0040), &status("0000000000000100", NONE)));
        assert!(ends(&stat("R", 0x0040_0040), &status(NONE, "0000000000000100")));
        assert!(ends(&stat("R", 0x0040_0044), &status(NONE, NONE)));
        assert!(ends(&stat("Z", 0x0040_0044), ""));
        assert!(!ends("", ""), "it is gone");
    }

    #[test]
    fn a_killed_child_is_ending_until_it_is_gone() {
        assert!(!is_ending(std::process::id()));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!is_ending(child.id()));
        child.kill().unwrap();
        // Nobody has asked for its end yet: whatever the kernel has done so far, it shows.
        assert!(is_ending(child.id()));
        child.wait().unwrap();
        assert!(!is_ending(child.id()));
    }
}
