//! Learns of deaths and reaps every child: workers, and processes that services left behind.
//!
//! The supervisor is a subreaper, so what a dead worker had started comes to it and no zombie stays. A
//! worker leads a process group; when it dies, the rest of the group is killed *before* the leader is
//! reaped, while its number cannot be anybody else's.

#![expect(unsafe_code, reason = "waitid is used with a peek that no safe binding reports in full")]

use std::fs;
use std::io;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::verdict::Death;

/// A child that has ended and is not reaped yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) pid: u32,
    pub(super) death: Death,
}

/// A child that has ended, if there is one. It stays a zombie until `reap`.
pub(super) fn peek() -> Option<Ended> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    loop {
        // SAFETY: a zeroed siginfo is what waitid(2) asks for, to tell "nobody" from an answer.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` outlives the call.
        if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) } != 0 {
            match io::Error::last_os_error().kind() {
                io::ErrorKind::Interrupted => continue,
                _ => return None,
            }
        }
        // SAFETY: waitid filled in the variant for SIGCHLD, or left zeroes.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
        let exited = info.si_code == libc::CLD_EXITED;
        let death = if exited { Death::Exited(status) } else { Death::Signalled(status) };
        return Some(Ended { pid, death });
    }
}

/// Removes an ended child from the process table.
pub(super) fn reap(pid: u32) {
    let Some(pid) = raw(pid) else { return };
    // SAFETY: no status is asked for; the pid is one child's.
    unsafe { libc::waitpid(pid.as_raw(), std::ptr::null_mut(), libc::WNOHANG) };
}

/// Asks a child that is not reaped yet to stop.
pub(super) fn stop_child(pid: u32) {
    if let Some(pid) = raw(pid) {
        let _ = kill(pid, Signal::SIGTERM);
    }
}

/// Whether there is a process of that number.
pub(super) fn exists(pid: u32) -> bool {
    raw(pid).is_some_and(|pid| kill(pid, None) != Err(nix::errno::Errno::ESRCH))
}

/// Kills a child that is not reaped yet.
pub(super) fn kill_child(pid: u32) {
    if let Some(pid) = raw(pid) {
        let _ = kill(pid, Signal::SIGKILL);
    }
}

/// Kills whatever is left of the process group that `pid`, ended and not reaped yet, leads.
pub(super) fn kill_group(pid: u32) {
    if let Some(pid) = raw(pid) {
        let _ = killpg(pid, Signal::SIGKILL);
    }
}

/// Kills and reaps every child that is left when the server has stopped, but for `spared`: processes that
/// services detached from their workers' groups. Their own children come up in the next round.
pub(super) fn sweep(spared: Option<u32>) {
    for _ in 0..100 {
        let children: Vec<u32> = children().into_iter().filter(|pid| Some(*pid) != spared).collect();
        if children.is_empty() {
            return;
        }
        for pid in children {
            kill_child(pid);
            if let Some(pid) = raw(pid) {
                // SAFETY: as in `reap`; waits, but for a process that was just killed.
                unsafe { libc::waitpid(pid.as_raw(), std::ptr::null_mut(), 0) };
            }
        }
    }
}

/// The children of this process, of all its threads (proc_pid_task_children(5)).
fn children() -> Vec<u32> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

fn raw(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().filter(|pid| *pid > 0).map(Pid::from_raw)
}
