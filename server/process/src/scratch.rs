//! Runs a command in a throw-away process: how code that nobody has checked yet is checked.
//!
//! The child leads a process group of its own, under limits of memory and processor time, with nothing
//! inherited but three pipes. When it ends, when its time is up, or when the caller loses interest, the
//! whole group is killed; when the worker dies, the kernel kills the child. One thread per process does all
//! the waiting, so any number of asynchronous callers cost their runtime nothing; runs are rare (deployments).
//!
//! A program that takes a while before it reads its input can be started ahead: see [`Prepared`].

#![expect(unsafe_code, reason = "limits are set between fork and exec")]

mod pipes;

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::{clock, pidfile};
use pipes::Pipes;

/// The program this process runs, as a path that stays right when the file on disk is replaced.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// What to run, and within which limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScratchCommand {
    /// The program; [`OWN_PROGRAM`] for this one.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its working directory; the caller's when absent.
    pub directory: Option<PathBuf>,
    /// How long it may take, from the moment it gets its input.
    pub timeout: Duration,
    /// How much address space it may use, in bytes.
    pub memory_limit: Option<u64>,
    /// How much processor time it may use, its start included; rounded up to whole seconds.
    pub cpu_limit: Option<Duration>,
    /// How much it may write to standard output, and keeps of standard error, in bytes.
    pub output_limit: usize,
}

impl ScratchCommand {
    /// A command that may take 20 seconds and write 16 MiB.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, arguments: Vec<OsString>) -> Self {
        Self {
            program: program.into(),
            arguments,
            directory: None,
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
    /// How long it ran since it got its input.
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
    /// It was started ahead, and nothing was asked of it for as long as it was to wait.
    #[error("the scratch process waited in vain")]
    Unused,
}

/// Runs `command` to its end, with `stdin` on its standard input. Dropping the future kills the process with
/// its whole group.
///
/// # Errors
/// It could not be started, took too long, or wrote too much. An exit code is no error here.
pub async fn run(command: ScratchCommand, stdin: Vec<u8>) -> Result<ScratchOutput, ScratchError> {
    Prepared::start(command, Some(stdin), Duration::MAX)?.finish().await
}

/// A scratch process that was started before there was anything for it to read. Dropping it kills the process
/// with its whole group.
#[derive(Debug)]
pub struct Prepared {
    orders: Arc<Orders>,
    result: oneshot::Receiver<Result<ScratchOutput, ScratchError>>,
}

impl Prepared {
    /// Starts `command` and lets it wait for its input; it is killed when none came for the time of
    /// `patience`.
    ///
    /// # Errors
    /// [`ScratchError::Start`]: there is no thread to watch it. Whether the program itself could be started
    /// is told by [`Self::is_waiting`] and by [`Self::run`].
    pub fn ahead(command: ScratchCommand, patience: Duration) -> Result<Self, ScratchError> {
        Self::start(command, None, patience)
    }

    fn start(
        command: ScratchCommand,
        stdin: Option<Vec<u8>>,
        patience: Duration,
    ) -> Result<Self, ScratchError> {
        let orders = Arc::new(Orders::new(stdin).map_err(ScratchError::Start)?);
        let (sender, result) = oneshot::channel();
        let followed = Arc::clone(&orders);
        // A thread of its own, also because the kernel kills the child when the *thread* that started it ends.
        std::thread::Builder::new()
            .name("scratch".into())
            .spawn(move || {
                let _ = sender.send(run_here(&command, &followed, patience));
            })
            .map_err(ScratchError::Start)?;
        Ok(Self { orders, result })
    }

    /// Whether the process still waits. It does not when it could not be started, has ended, or has lost its
    /// patience.
    pub fn is_waiting(&mut self) -> bool {
        matches!(self.result.try_recv(), Err(TryRecvError::Empty))
    }

    /// Gives the process its input and lets it run to its end. Dropping the future kills it.
    ///
    /// # Errors
    /// As those of [`run`], and [`ScratchError::Unused`]: its patience ended just now.
    pub async fn run(self, stdin: Vec<u8>) -> Result<ScratchOutput, ScratchError> {
        self.orders.give(stdin);
        self.finish().await
    }

    async fn finish(mut self) -> Result<ScratchOutput, ScratchError> {
        let result = (&mut self.result).await;
        result.unwrap_or_else(|_| Err(ScratchError::Watch(io::Error::other("the watching thread ended"))))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.orders.cancel();
    }
}

/// What the watching thread is told from outside.
#[derive(Debug)]
struct Orders {
    /// Becomes readable with every order.
    bell: EventFd,
    order: Mutex<Order>,
}

#[derive(Debug)]
enum Order {
    /// Nothing new.
    None,
    /// Feed this to the process.
    Feed(Vec<u8>),
    /// Kill the process.
    Cancel,
}

impl Orders {
    fn new(stdin: Option<Vec<u8>>) -> io::Result<Self> {
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { bell, order: Mutex::new(stdin.map_or(Order::None, Order::Feed)) })
    }

    fn give(&self, stdin: Vec<u8>) {
        self.set(Order::Feed(stdin));
    }

    fn cancel(&self) {
        self.set(Order::Cancel);
    }

    fn set(&self, order: Order) {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner) = order;
        let _ = self.bell.write(1);
    }

    fn take(&self) -> Order {
        let _ = self.bell.read();
        std::mem::replace(&mut *self.order.lock().unwrap_or_else(PoisonError::into_inner), Order::None)
    }
}

/// Starts the process, feeds and drains it, and waits, on the calling thread.
fn run_here(
    command: &ScratchCommand,
    orders: &Orders,
    patience: Duration,
) -> Result<ScratchOutput, ScratchError> {
    let mut child = Group(start(command).map_err(ScratchError::Start)?);
    let mut pipes = Pipes::new(&mut child.0, command.output_limit).map_err(ScratchError::Watch)?;
    let pid = Pid::from_raw(i32::try_from(child.0.id()).unwrap_or(i32::MAX));
    let process = pidfile::open_process(pid).map_err(|error| ScratchError::Watch(error.into()))?;
    // When it got its input; until then it waits as long as its caller's patience lasts.
    let mut fed = None;
    let mut deadline = clock::deadline(patience);
    loop {
        match orders.take() {
            Order::None => {}
            Order::Feed(stdin) => {
                pipes.give(stdin);
                fed = Some(Instant::now());
                deadline = clock::deadline(command.timeout);
            }
            Order::Cancel => return Err(ScratchError::Watch(io::ErrorKind::Interrupted.into())),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let stderr = pipes.into_output().1;
            return Err(match fed {
                Some(_) => ScratchError::TimedOut { limit: command.timeout, stderr },
                None => ScratchError::Unused,
            });
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let ended = {
            let mut watched = vec![
                PollFd::new(process.as_fd(), PollFlags::POLLIN),
                PollFd::new(orders.bell.as_fd(), PollFlags::POLLIN),
            ];
            pipes.watch(&mut watched);
            match poll(&mut watched, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(ScratchError::Watch(error.into())),
            }
            watched.first().and_then(PollFd::any).unwrap_or(false)
        };
        pipes.transfer().map_err(ScratchError::Watch)?;
        if pipes.too_large() {
            return Err(ScratchError::OutputTooLarge { limit: command.output_limit });
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
            let elapsed = fed.map(|instant: Instant| instant.elapsed()).unwrap_or_default();
            return Ok(ScratchOutput { end, stdout, stderr, elapsed });
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
