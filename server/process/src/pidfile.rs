//! Finding and signalling a running supervisor: what `crosstie start`, `stop` and `status` need.
//!
//! The process id stands in `work/server.pid`, but what proves that a supervisor lives is the record lock
//! on that file: the kernel names its holder, so a stale file misleads nobody.

#![expect(unsafe_code, reason = "pidfd_open has no safe binding")]

use std::fs::DirBuilder;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::clock;
use crate::ending::is_ending;
use crate::lock::{self, LockError, RecordLock};

/// How long a killed process may take to be gone.
const ENDING_LIMIT: Duration = Duration::from_secs(5);

/// How often it is looked whether it is.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Why a supervisor may not run in a directory.
#[derive(Debug, thiserror::Error)]
pub enum PidFileError {
    /// One runs there already.
    #[error("it is already running as process {pid}")]
    Running {
        /// Its process id; 0 when it is on another host.
        pid: u32,
    },
    /// The file cannot be locked.
    #[error("the server's pid file is not usable")]
    Lock(#[from] LockError),
    /// The directory or the file cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The pid file of a server's directory.
#[must_use]
pub fn path(directory: &Path) -> PathBuf {
    directory.join("work").join("server.pid")
}

/// Held while a supervisor hands over to its successor: see [`hold_handover`].
fn handover_path(directory: &Path) -> PathBuf {
    directory.join("work").join("upgrade.lock")
}

/// Keeps strangers from the pid file while it changes hands; `None` when somebody else does so.
pub(crate) fn hold_handover(directory: &Path) -> Result<Option<RecordLock>, LockError> {
    RecordLock::try_acquire(&handover_path(directory))
}

/// This process's claim to be what a pid file stands for, such as the supervisor of a directory. Emptied
/// when dropped, freed by the kernel when the process dies.
#[derive(Debug)]
pub struct PidFile {
    lock: RecordLock,
}

impl PidFile {
    /// Claims `directory` for its supervisor, unless one is being succeeded by another at this moment.
    pub(crate) fn claim_unless_succeeded(directory: &Path) -> Result<Self, PidFileError> {
        let claim = Self::claim(directory)?;
        // Asked after the claim: a handover that began before would have kept it from us, and one that begins
        // now finds it taken.
        match lock::holder(&handover_path(directory)).filter(|pid| *pid != std::process::id()) {
            Some(pid) => Err(PidFileError::Running { pid }),
            None => Ok(claim),
        }
    }

    /// Claims `directory` for its supervisor and writes this process's id.
    pub(crate) fn claim(directory: &Path) -> Result<Self, PidFileError> {
        Self::claim_file(&path(directory))
    }

    /// Claims the pid file at `path`, making its directory, and writes this process's id.
    ///
    /// # Errors
    /// Another process holds it, or it cannot be written.
    pub fn claim_file(path: &Path) -> Result<Self, PidFileError> {
        let written = |source| PidFileError::Write { path: path.to_owned(), source };
        let directory = path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(written)?;
        let Some(lock) = RecordLock::try_acquire(path)? else {
            return Err(PidFileError::Running { pid: lock::holder(path).unwrap_or(0) });
        };
        if let Some(mut file) = lock.file() {
            file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(written)?;
        }
        Ok(Self { lock })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Nobody trusts the content; an empty file merely reads better.
        let _ = self.lock.file().map(|file| file.set_len(0));
    }
}

/// The process id of the supervisor that runs in `directory`; `None` when none does.
#[must_use]
pub fn running_supervisor(directory: &Path) -> Option<u32> {
    // While the pid file changes hands the server is whoever hands it over.
    holder(&path(directory)).or_else(|| holder(&handover_path(directory)))
}

/// The process that holds the pid file at `path`; `None` when none does. One that was killed a moment ago is
/// waited for, for 5 s at most: it holds the file and will never answer again.
#[must_use]
pub fn holder(path: &Path) -> Option<u32> {
    let deadline = clock::deadline(ENDING_LIMIT);
    loop {
        let pid = lock::holder(path)?;
        if !is_ending(pid) || Instant::now() >= deadline {
            return Some(pid);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// What a supervisor can be told by signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Drain and leave (SIGTERM).
    Stop,
    /// Validate the configuration and roll the workers (SIGHUP).
    Reload,
    /// Hand over to the binary that lies where this one was started from (SIGUSR2).
    Upgrade,
    /// Die at once (SIGKILL).
    Kill,
}

/// Sends `signal` to the process `pid`.
///
/// # Errors
/// There is no such process, or it is another user's.
pub fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let signal = match signal {
        Signal::Stop => nix::sys::signal::Signal::SIGTERM,
        Signal::Reload => nix::sys::signal::Signal::SIGHUP,
        Signal::Upgrade => nix::sys::signal::Signal::SIGUSR2,
        Signal::Kill => nix::sys::signal::Signal::SIGKILL,
    };
    nix::sys::signal::kill(checked(pid)?, signal).map_err(io::Error::from)
}

/// Waits until the process `pid` is gone, for at most `patience`. Says whether it is.
///
/// # Errors
/// The process cannot be watched.
pub fn wait_gone(pid: u32, patience: Duration) -> io::Result<bool> {
    let process = match open_process(checked(pid)?) {
        Ok(process) => process,
        Err(Errno::ESRCH) => return Ok(true),
        Err(error) => return Err(error.into()),
    };
    let deadline = clock::deadline(patience);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last wait does not spin through its final millisecond.
        let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut watched = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, left) {
            Ok(0) if Instant::now() >= deadline => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// 0 and negative numbers would address process groups.
pub(crate) fn checked(pid: u32) -> io::Result<Pid> {
    match i32::try_from(pid) {
        Ok(number) if number > 0 => Ok(Pid::from_raw(number)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{pid} is no process id"))),
    }
}

/// A descriptor that becomes readable when the process ends (pidfd_open(2)).
pub(crate) fn open_process(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: takes two integers and gives a new descriptor or an error.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = Errno::result(result)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just gave this descriptor to us alone; pidfds are close-on-exec from birth.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_supervisor() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(running_supervisor(directory.path()), None);
        let claim = PidFile::claim(directory.path()).unwrap();
        assert_eq!(running_supervisor(directory.path()), Some(std::process::id()));
        assert!(matches!(PidFile::claim(directory.path()), Err(PidFileError::Running { .. })));
        drop(claim);
        assert_eq!(running_supervisor(directory.path()), None);
    }

    #[test]
    fn a_handover_keeps_strangers_out() {
        let directory = tempfile::tempdir().unwrap();
        let claim = PidFile::claim_unless_succeeded(directory.path()).unwrap();
        let guard = hold_handover(directory.path()).unwrap().unwrap();
        assert!(hold_handover(directory.path()).unwrap().is_none());
        drop(claim);
        assert_eq!(running_supervisor(directory.path()), Some(std::process::id()));
        drop(guard);
        assert_eq!(running_supervisor(directory.path()), None);
    }

    #[test]
    fn a_stale_pid_file_is_no_supervisor() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("work")).unwrap();
        std::fs::write(path(directory.path()), "1\n").unwrap();
        assert_eq!(running_supervisor(directory.path()), None);
    }

    #[test]
    fn waiting_for_a_process_ends_with_it_or_with_patience() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!wait_gone(child.id(), Duration::from_millis(20)).unwrap());
        signal(child.id(), Signal::Kill).unwrap();
        assert!(wait_gone(child.id(), Duration::from_secs(20)).unwrap());
        child.wait().unwrap();
        assert!(wait_gone(child.id(), Duration::ZERO).unwrap());
        assert!(signal(0, Signal::Kill).is_err(), "0 would be our own process group");
    }
}
