//! Runs a command in a throw-away process: how code that nobody has checked yet is checked.
//!
//! The child leads a process group of its own, under limits of memory and processor time, with nothing
//! inherited but three pipes. When it ends, when its time is up, or when the caller loses interest, the
//! whole group is killed; when the worker dies, the kernel kills the child. One thread per run does all the
//! waiting, so any number of asynchronous callers cost their runtime nothing; runs are rare (deployments).

#![expect(unsafe_code, reason = "limits are set between fork and exec")]

mod pipes;

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::{clock, pidfile};
use pipes::Pipes;

/// The program this process runs, as a path that stays right when the file on disk is replaced.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// What to run, and within which limits.
#[derive(Debug, Clone)]
pub struct ScratchCommand {
    /// The program; [`OWN_PROGRAM`] for this one.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its working directory; the caller's when absent.
    pub directory: Option<PathBuf>,
    /// What it reads on standard input.
    pub stdin: Vec<u8>,
    /// How long it may take.
    pub timeout: Duration,
    /// How much address space it may use, in bytes.
    pub memory_limit: Option<u64>,
    /// How much processor time it may use; rounded up to whole seconds.
    pub cpu_limit: Option<Duration>,
    /// How much it may write to standard output, and keeps of standard error, in bytes.
    pub output_limit: usize,
}

impl ScratchCommand {
    /// A command that reads nothing, may take 20 seconds and write 16 MiB.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, arguments: Vec<OsString>) -> Self {
        Self {
            program: program.into(),
            arguments,
            directory: None,
            stdin: Vec::new(),
            timeout: Duration::from_secs(20),
            memory_limit: None,
            cpu_limit: None,
            output_limit: 16 * 1024 * 1024,
        }
    }
}

/// How a scratch process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScratchEnd {
    /// It left by itself with this exit code.
    Exited(i32),
    /// This signal ended it: its own fault, or a limit (SIGXCPU, SIGKILL).
    Signalled(i32),
}

/// What a scratch process left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScratchOutput {
    /// How it ended.
    pub end: ScratchEnd,
    /// All of standard output.
    pub stdout: Vec<u8>,
    /// Standard error, cut at the limit.
    pub stderr: Vec<u8>,
    /// How long it ran.
    pub elapsed: Duration,
}

/// Why a scratch process gave no output.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// It could not be started.
    #[error("the scratch process could not be started")]
    Start(#[source] io::Error),
    /// It was still running when its time was up, and was killed.
    #[error("the scratch process did not finish within {} ms", limit.as_millis())]
    TimedOut {
        /// How long it was given.
        limit: Duration,
        /// What it had written to standard error.
        stderr: Vec<u8>,
    },
    /// It wrote more than it may, and was killed.
    #[error("the scratch process wrote more than {limit} bytes")]
    OutputTooLarge {
        /// How much it was allowed.
        limit: usize,
    },
    /// Its pipes or its end could not be watched.
    #[error("the scratch process could not be watched")]
    Watch(#[source] io::Error),
}

/// Runs `command` to its end. Dropping the future kills the process with its whole group.
///
/// # Errors
/// It could not be started, took too long, or wrote too much. An exit code is no error here.
pub async fn run(command: ScratchCommand) -> Result<ScratchOutput, ScratchError> {
    let cancel = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map_err(|error| ScratchError::Start(error.into()))?;
    let cancel = Arc::new(cancel);
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let watched = Arc::clone(&cancel);
    // A thread of its own, also because the kernel kills the child when the *thread* that started it ends.
    std::thread::Builder::new()
        .name("scratch".into())
        .spawn(move || {
            let _ = sender.send(run_here(command, &watched));
        })
        .map_err(ScratchError::Start)?;
    let cancel_on_drop = CancelOnDrop(cancel);
    let result = receiver.await;
    drop(cancel_on_drop);
    result.unwrap_or_else(|_| Err(ScratchError::Watch(io::Error::other("the watching thread ended"))))
}

struct CancelOnDrop(Arc<EventFd>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let _ = self.0.write(1);
    }
}

/// Starts the process, feeds and drains it, and waits, on the calling thread.
fn run_here(mut command: ScratchCommand, cancel: &EventFd) -> Result<ScratchOutput, ScratchError> {
    let started = Instant::now();
    let stdin = std::mem::take(&mut command.stdin);
    let mut child = Group(start(&command).map_err(ScratchError::Start)?);
    let mut pipes = Pipes::new(&mut child.0, stdin, command.output_limit).map_err(ScratchError::Watch)?;
    let pid = Pid::from_raw(i32::try_from(child.0.id()).unwrap_or(i32::MAX));
    let process = pidfile::open_process(pid).map_err(|error| ScratchError::Watch(error.into()))?;
    let deadline = clock::deadline(command.timeout);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let stderr = pipes.into_output().1;
            return Err(ScratchError::TimedOut { limit: command.timeout, stderr });
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let (ended, cancelled) = {
            let mut watched = vec![
                PollFd::new(process.as_fd(), PollFlags::POLLIN),
                PollFd::new(cancel.as_fd(), PollFlags::POLLIN),
            ];
            pipes.watch(&mut watched);
            match poll(&mut watched, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(ScratchError::Watch(error.into())),
            }
            let mut ready = watched.iter().map(|fd| fd.any().unwrap_or(false));
            (ready.next().unwrap_or(false), ready.next().unwrap_or(false))
        };
        pipes.transfer().map_err(ScratchError::Watch)?;
        if pipes.too_large() {
            return Err(ScratchError::OutputTooLarge { limit: command.output_limit });
        }
        if cancelled {
            return Err(ScratchError::Watch(io::Error::from(io::ErrorKind::Interrupted)));
        }
        if ended {
            // What the process wrote before its end is in the pipes by now and was just read, unless there
            // was more than one round's worth.
            while pipes.transfer().map_err(ScratchError::Watch)? > 0 && !pipes.too_large() {}
            let end = child.finish().map_err(ScratchError::Watch)?;
            if pipes.too_large() {
                return Err(ScratchError::OutputTooLarge { limit: command.output_limit });
            }
            let (stdout, stderr) = pipes.into_output();
            return Ok(ScratchOutput { end, stdout, stderr, elapsed: started.elapsed() });
        }
    }
}

/// A child and the group it leads, killed and reaped when dropped.
struct Group(Child);

impl Group {
    /// Kills what is left of the group and reaps its leader, which has ended.
    fn finish(&mut self) -> io::Result<ScratchEnd> {
        self.kill();
        let status: ExitStatus = self.0.wait()?;
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => ScratchEnd::Exited(code),
            (None, signal) => ScratchEnd::Signalled(signal.unwrap_or(0)),
        })
    }

    /// The leader is not reaped yet, so its number can be nobody else's.
    fn kill(&self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.kill();
            let _ = self.0.wait();
        }
    }
}

fn start(command: &ScratchCommand) -> io::Result<Child> {
    let mut prepared = Command::new(&command.program);
    prepared
        .args(&command.arguments)
        .env_remove(crate::inheritance::VARIABLE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(directory) = &command.directory {
        prepared.current_dir(directory);
    }
    let memory = command.memory_limit;
    let cpu = command.cpu_limit.map(|limit| limit.as_secs() + u64::from(limit.subsec_nanos() > 0));
    let parent = std::process::id();
    // SAFETY: the closure makes plain system calls only; it captures integers and allocates nothing.
    unsafe { prepared.pre_exec(move || confine(parent, memory, cpu)) };
    prepared.spawn()
}

/// Runs in the child between fork and exec.
fn confine(parent: u32, memory: Option<u64>, cpu: Option<u64>) -> io::Result<()> {
    crate::inheritance::die_with_parent(parent, libc::SIGKILL)?;
    crate::inheritance::close_all_on_exec();
    limit(libc::RLIMIT_CORE, 0, 0)?;
    if let Some(bytes) = memory {
        limit(libc::RLIMIT_AS, bytes, bytes)?;
    }
    if let Some(seconds) = cpu {
        // SIGXCPU at the limit, SIGKILL a second later.
        limit(libc::RLIMIT_CPU, seconds, seconds.saturating_add(1))?;
    }
    Ok(())
}

fn limit(resource: libc::__rlimit_resource_t, soft: u64, hard: u64) -> io::Result<()> {
    let limits = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limits` outlives the call; the call is async-signal-safe.
    if unsafe { libc::setrlimit(resource, &raw const limits) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests;
