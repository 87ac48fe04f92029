//! Starts a worker: fork and exec of this same binary, with the listening sockets, a control socket and the
//! shared memory inherited.
//!
//! The program is /proc/self/exe, so a worker started long after the file on disk was replaced still runs
//! the supervisor's own version. Between fork and exec only system calls are made. A start costs the
//! supervisor about a millisecond.

#![expect(unsafe_code, reason = "descriptors are passed on between fork and exec")]

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use super::fleet::Generation;
use super::link::WorkerLink;
use super::listeners::Listeners;
use super::notify;
use crate::control::PROTOCOL_VERSION;
use crate::inheritance::{self, Legacy, VARIABLE};
use crate::scratch::OWN_PROGRAM;
use crate::shm::Segment;

/// What every worker inherits.
pub(super) struct Estate<'a> {
    pub(super) listeners: &'a Listeners,
    pub(super) segment: &'a Segment,
    pub(super) arguments: &'a [OsString],
}

/// Who a new worker is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub(super) index: u16,
    pub(super) seat: u16,
    pub(super) generation: Generation,
    pub(super) restarts: u32,
}

/// A worker that was just started.
pub(super) struct Started {
    pub(super) pid: u32,
    pub(super) link: WorkerLink,
}

/// Starts the worker `identity`. Returns once exec has succeeded or failed.
pub(super) fn spawn(estate: &Estate<'_>, identity: Identity) -> io::Result<Started> {
    let (ours, theirs) = UnixStream::pair()?;
    let legacy = Legacy {
        version: PROTOCOL_VERSION,
        index: identity.index,
        generation: identity.generation,
        control: theirs.as_raw_fd(),
        segment: estate.segment.as_fd().as_raw_fd(),
        listeners: estate.listeners.descriptors().map(|(name, _, fd)| (name.to_owned(), fd)).collect(),
    };
    let mut command = Command::new(OWN_PROGRAM);
    command
        .arg0(std::env::args_os().next().unwrap_or_else(|| OsString::from("crosstie")))
        .args(estate.arguments)
        .env(VARIABLE, serde_json::to_string(&legacy)?)
        .stdin(Stdio::null())
        // A group of its own: Ctrl-C in a terminal reaches the supervisor alone, and whatever the worker
        // leaves behind can be killed with one call.
        .process_group(0);
    for variable in notify::VARIABLES {
        command.env_remove(variable);
    }
    let (kept, parent) = (legacy.descriptors(), std::process::id());
    // SAFETY: the closure makes plain system calls only; it captures an integer and a list made before the
    // fork, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            // SIGTERM, not SIGKILL: a worker whose supervisor was killed may still finish what it has in
            // hand if it handles the signal; one that is stuck does not handle it and dies.
            inheritance::die_with_parent(parent, libc::SIGTERM)?;
            inheritance::close_all_on_exec();
            kept.iter().try_for_each(|fd| inheritance::keep_on_exec(*fd))
        });
    }
    if let Some(slot) = estate.segment.worker(identity.index) {
        slot.assign(identity.seat, identity.generation, identity.restarts);
    }
    let link = WorkerLink::new(ours)?;
    let child = command.spawn()?;
    Ok(Started { pid: child.id(), link })
}
