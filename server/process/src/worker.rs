//! How a worker takes over what its supervisor left it: the first thing a worker process does.

#![expect(unsafe_code, reason = "inherited descriptors come as numbers, and the environment is changed")]

use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::control::{ControlError, ControlStream, PROTOCOL_VERSION, ToSupervisor};
use crate::inheritance::{self, Legacy, VARIABLE};
use crate::shm::{Segment, SegmentError};

/// What a worker inherits.
#[derive(Debug)]
pub struct Inherited {
    /// Its slot in shared memory; unique among the worker processes alive.
    pub index: u16,
    /// Counts the worker processes its server has started.
    pub generation: u32,
    /// The shared listening sockets by name (`http`, `https`, `management`), non-blocking.
    pub listeners: Vec<(String, TcpListener)>,
    /// The channel to the supervisor; `Hello` is sent already.
    pub control: ControlStream,
    /// The server's shared memory.
    pub segment: Arc<Segment>,
}

/// Why this process is no worker.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// It was not started by a supervisor.
    #[error("this process was not started by a supervisor; use `crosstie start`")]
    NotAWorker,
    /// Threads run already: the environment can no longer be changed safely.
    #[error("a worker must take over its inheritance before it starts threads")]
    TooLate,
    /// What the supervisor left cannot be understood.
    #[error("what the supervisor left to this worker cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// The supervisor speaks another version of the control protocol.
    #[error("the supervisor speaks version {0} of the control protocol")]
    Version(u8),
    /// A descriptor that should be inherited is not open, or named twice.
    #[error("descriptor {fd} was not inherited")]
    Descriptor {
        /// Its number.
        fd: RawFd,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The shared memory is not usable.
    #[error("the inherited shared memory is not usable")]
    Segment(#[from] SegmentError),
    /// The supervisor cannot be greeted.
    #[error("the supervisor does not answer")]
    Control(#[from] ControlError),
    /// The process's own state cannot be read.
    #[error("the process's threads cannot be counted")]
    Threads(#[source] io::Error),
}

/// Takes over the inheritance and greets the supervisor. To be called once, first thing in `main`: later
/// calls find nothing. Descriptors are close-on-exec afterwards and the environment variable is gone, so
/// nothing this worker starts inherits them.
///
/// # Errors
/// This process was not started by a supervisor, or not by one of this version.
pub fn inherit() -> Result<Inherited, InheritError> {
    let text = std::env::var(VARIABLE).map_err(|_| InheritError::NotAWorker)?;
    let threads = std::fs::read_dir("/proc/self/task").map_err(InheritError::Threads)?.count();
    if threads != 1 {
        return Err(InheritError::TooLate);
    }
    // SAFETY: this is the process's only thread, as was just counted, so nobody reads the environment.
    unsafe { std::env::remove_var(VARIABLE) };
    let legacy: Legacy = serde_json::from_str(&text).map_err(InheritError::Unreadable)?;
    if legacy.version != PROTOCOL_VERSION {
        return Err(InheritError::Version(legacy.version));
    }
    let mut seen = BTreeSet::new();
    for fd in legacy.descriptors() {
        let refuse = |source| InheritError::Descriptor { fd, source };
        if fd <= libc::STDERR_FILENO || !seen.insert(fd) {
            return Err(refuse(io::Error::from_raw_os_error(libc::EBADF)));
        }
        inheritance::close_on_exec(fd).map_err(refuse)?;
    }
    name_process(legacy.index);
    let listeners = legacy.listeners.iter().map(|(name, fd)| (name.clone(), TcpListener::from(take(*fd))));
    let listeners = listeners.collect();
    let mut control = ControlStream::new(UnixStream::from(take(legacy.control)));
    let segment = Segment::attach(take(legacy.segment), legacy.index)?;
    control.send_now(&ToSupervisor::Hello { version: PROTOCOL_VERSION, pid: std::process::id() })?;
    Ok(Inherited { index: legacy.index, generation: legacy.generation, listeners, control, segment })
}

/// Takes ownership of a descriptor that `inherit` has checked.
fn take(fd: RawFd) -> OwnedFd {
    // SAFETY: `inherit` saw that it is open, above the standard ones and named once; the process has just
    // begun and nothing else in it knows the number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// What process lists show: exec through /proc/self/exe would leave "exe".
fn name_process(index: u16) {
    let name = std::ffi::CString::new(format!("crosstie-w{}", index.saturating_add(1)));
    if let Ok(name) = name {
        let _ = nix::sys::prctl::set_name(&name);
    }
}
