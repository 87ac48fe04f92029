//! The supervisor's signals, as a descriptor that `poll` waits for.
//!
//! Handlers with an eventfd rather than a signalfd: that one needs every thread of the process to block the
//! signals, and the log writer is a thread this crate does not own. A handler sets a bit and writes eight
//! bytes; the loop takes the bits.

#![expect(unsafe_code, reason = "signal handlers are set through libc")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Signals that have arrived and were not taken yet, one bit each.
static PENDING: AtomicU32 = AtomicU32::new(0);
/// The descriptor that wakes the loop; -1 before it exists.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// What the signals that arrived ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Requests {
    /// SIGTERM.
    pub(super) stop: bool,
    /// SIGINT: Ctrl-C in a terminal.
    pub(super) interrupt: bool,
    /// SIGHUP.
    pub(super) reload: bool,
    /// SIGUSR2.
    pub(super) upgrade: bool,
}

/// The handlers, installed. The previous dispositions come back when dropped.
pub(super) struct Signals {
    wake: EventFd,
    previous: Vec<(libc::c_int, libc::sigaction)>,
}

impl Signals {
    /// Handles SIGTERM, SIGINT, SIGHUP, SIGUSR2 and SIGCHLD from now on, for the whole process.
    pub(super) fn install() -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        PENDING.store(0, Ordering::SeqCst);
        WAKE.store(wake.as_fd().as_raw_fd(), Ordering::SeqCst);
        let mut signals = Self { wake, previous: Vec::new() };
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR2, libc::SIGCHLD] {
            let previous = handle(signal)?;
            signals.previous.push((signal, previous));
        }
        Ok(signals)
    }

    /// Takes what has arrived since the last time.
    pub(super) fn take(&self) -> Requests {
        // Emptied before the bits are read: a signal in between wakes the loop once more.
        let _ = self.wake.read();
        let bits = PENDING.swap(0, Ordering::SeqCst);
        let has = |signal| bits & bit(signal) != 0;
        Requests {
            stop: has(libc::SIGTERM),
            interrupt: has(libc::SIGINT),
            reload: has(libc::SIGHUP),
            upgrade: has(libc::SIGUSR2),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (signal, previous) in &self.previous {
            // SAFETY: `previous` is what the kernel gave for this signal.
            unsafe { libc::sigaction(*signal, previous, ptr::null_mut()) };
        }
        WAKE.store(-1, Ordering::SeqCst);
    }
}

fn handle(signal: libc::c_int) -> io::Result<libc::sigaction> {
    // SAFETY: a zeroed sigaction is a valid one.
    let (mut action, mut previous): (libc::sigaction, libc::sigaction) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: both structures outlive the call; the handler is async-signal-safe.
    if unsafe { libc::sigaction(signal, &raw const action, &raw mut previous) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(previous)
}

extern "C" fn on_signal(signal: libc::c_int) {
    // SAFETY: gives the address of this thread's errno, which the interrupted code may be about to read.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; the thread is this one.
    let saved = unsafe { *errno };
    PENDING.fetch_or(bit(signal), Ordering::SeqCst);
    let one = 1u64.to_ne_bytes();
    // SAFETY: write is async-signal-safe; the buffer lives; on a stale descriptor (-1) it merely fails.
    unsafe {
        libc::write(WAKE.load(Ordering::SeqCst), one.as_ptr().cast(), one.len());
        *errno = saved;
    }
}

fn bit(signal: libc::c_int) -> u32 {
    u32::try_from(signal).ok().and_then(|number| 1u32.checked_shl(number)).unwrap_or(0)
}
