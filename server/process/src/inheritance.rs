//! What a worker inherits, and the steps between fork and exec that processes of both kinds share.
//!
//! The supervisor writes a `Legacy` into the environment variable [`VARIABLE`]; `worker::inherit` reads it.
//! Every function that runs between fork and exec makes plain system calls only and allocates nothing.

#![expect(unsafe_code, reason = "these system calls have no binding that is safe between fork and exec")]

use std::io;
use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};

/// The environment variable that carries the inheritance.
pub(crate) const VARIABLE: &str = "CROSSTIE_WORKER";

/// Which descriptors a worker inherits and who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Legacy {
    /// The control protocol's version.
    pub(crate) version: u8,
    pub(crate) index: u16,
    pub(crate) generation: u32,
    pub(crate) control: RawFd,
    pub(crate) segment: RawFd,
    pub(crate) listeners: Vec<(String, RawFd)>,
}

impl Legacy {
    /// Every descriptor in it.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let listeners = self.listeners.iter().map(|(_, fd)| *fd);
        [self.control, self.segment].into_iter().chain(listeners).collect()
    }
}

/// Makes the kernel send `signal` to this process when the thread that started it ends, and fails when that
/// has happened already.
pub(crate) fn die_with_parent(parent: u32, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: both calls take and give integers and are async-signal-safe.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, signal) != 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::getppid().unsigned_abs() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    Ok(())
}

/// Marks every descriptor from 3 up to be closed on exec, whoever opened it and however.
pub(crate) fn close_all_on_exec() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: takes integers; on a kernel that lacks it nothing happens, and descriptors made in Rust are
    // marked from birth anyway.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Lets `fd` live through exec.
pub(crate) fn keep_on_exec(fd: RawFd) -> io::Result<()> {
    set_flags(fd, 0)
}

/// Closes `fd` on exec; fails when it is not open.
pub(crate) fn close_on_exec(fd: RawFd) -> io::Result<()> {
    set_flags(fd, libc::FD_CLOEXEC)
}

fn set_flags(fd: RawFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: takes integers; a bad descriptor is an error.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, flags) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
