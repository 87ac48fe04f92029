//! The supervisor: binds the sockets, starts, watches, drains and replaces workers. Runs no user code.
//!
//! One thread and one `poll` loop (`event_loop`), no asynchronous runtime. What should happen is decided by
//! state machines without I/O (`fleet` for the life of workers, `restart` for when to start one again,
//! `verdict` for whom to blame); the loop only carries it out. It must not be able to crash: nothing here
//! panics, every input of a child is bounded, and every failure of a system call has an answer.
//!
//! A successor binary can take over what this process owns because ownership is explicit: listening sockets,
//! shared memory and pid file are values that `run` holds, made in one place each.

mod burial;
mod conversation;
mod event_loop;
mod fleet;
mod link;
mod listeners;
mod notify;
mod quarantine_file;
mod reap;
mod restart;
mod signals;
mod spawn;
mod verdict;

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use event_loop::Supervisor;
use fleet::FleetRules;
pub use listeners::{ListenError, Listeners};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use notify::Notifier;
use quarantine_file::QuarantineFile;
use signals::Signals;

use crate::adopt::adopt;
use crate::pidfile::{self, PidFile, PidFileError};
use crate::privilege::{PrivilegeError, ServiceUser};
use crate::shm::{Segment, SegmentError};

/// Most workers of one server.
pub const MAX_WORKERS: u16 = 64;

/// How many descriptors a worker may hold, unless the hard limit is lower.
const DESCRIPTORS: u64 = 1 << 20;

/// The longest drain that is waited for.
const LONGEST_DRAIN: Duration = Duration::from_secs(24 * 3600);

/// A listening socket that the supervisor binds once and keeps for life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSpec {
    /// What it is for: `http`, `https` or `management`. Workers find it by this name.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// Length of the kernel's queue of connections not yet accepted.
    pub backlog: u32,
}

/// Everything a supervisor needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The server's name, for logs.
    pub server: String,
    /// The server's directory; `work/` in it is made and written.
    pub directory: PathBuf,
    /// Its listening sockets.
    pub listeners: Vec<ListenerSpec>,
    /// How many workers to run: 1 to 64.
    pub workers: u16,
    /// How long a drain may take before the worker is killed; a day at most.
    pub drain: Duration,
    /// Deaths in a row within a second of readiness before restarts are delayed.
    pub restart_budget: u32,
    /// The command line of a worker, without the program.
    pub worker_arguments: Vec<OsString>,
}

/// Validates the configuration at SIGHUP: the new plan, or why the running one stays. `drain`,
/// `restart_budget` and `worker_arguments` of the new plan hold from then on; the rest needs a restart.
pub type Reload = Box<dyn FnMut() -> Result<Plan, String>>;

impl Plan {
    /// What the fleet obeys of it.
    fn rules(&self) -> FleetRules {
        FleetRules { drain: self.drain.min(LONGEST_DRAIN), restart_budget: self.restart_budget }
    }

    /// Whether `other` differs in something that is fixed at start.
    fn needs_restart_for(&self, other: &Self) -> bool {
        self.server != other.server
            || self.directory != other.directory
            || self.listeners != other.listeners
            || self.workers != other.workers
    }
}

/// Why a supervisor does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The plan asks for no workers, or too many.
    #[error("a server has 1 to {MAX_WORKERS} workers, not {0}")]
    Workers(u16),
    /// Another supervisor runs in the directory, or it cannot be written.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// A socket cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// There is no shared memory.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// Root cannot become the service user.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// Signals cannot be handled.
    #[error("signals cannot be handled")]
    Signals(#[source] io::Error),
}

/// Runs a server until SIGTERM or SIGINT ends it: 0 then, 1 when it could not start (the log says why).
/// `listeners` are those of the plan where the caller had to bind them, being somebody else before; without
/// them they are bound here.
///
/// Takes over the process: its signals, all its children, and the calling thread, which workers are tied to
/// and which must live as long as they do.
#[must_use]
pub fn run(plan: Plan, listeners: Option<Listeners>, reload: Reload) -> ExitCode {
    match try_run(plan, listeners, reload) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = &error as &dyn Error, "the server cannot start");
            ExitCode::FAILURE
        }
    }
}

/// Like [`run`], for a caller that tells people itself why the server could not start.
///
/// # Errors
/// Something the server needs is not to be had; nothing was started.
pub fn try_run(plan: Plan, listeners: Option<Listeners>, reload: Reload) -> Result<(), StartError> {
    prepare(plan, listeners, reload).map(Supervisor::run)
}

/// Does what takes root's rights, and then becomes `user` for good: what root left in the server's directory
/// is given to them, and the plan's addresses are bound. To be called before the process has threads.
///
/// # Errors
/// A supervisor runs there already, an address is taken, or the kernel refuses. The process must end then.
pub fn bind_and_drop(plan: &Plan, user: &ServiceUser) -> Result<Listeners, StartError> {
    // Its addresses are taken, and waiting for them would only hide why.
    if let Some(pid) = pidfile::running_supervisor(&plan.directory) {
        return Err(PidFileError::Running { pid }.into());
    }
    adopt(&plan.directory, user)?;
    let listeners = Listeners::bind(&plan.listeners)?;
    user.become_for_good()?;
    Ok(listeners)
}

/// Claims everything that a supervisor owns.
fn prepare(plan: Plan, listeners: Option<Listeners>, reload: Reload) -> Result<Supervisor, StartError> {
    if !(1..=MAX_WORKERS).contains(&plan.workers) {
        return Err(StartError::Workers(plan.workers));
    }
    // Before anybody can learn this process's id from the pid file.
    let signals = Signals::install().map_err(StartError::Signals)?;
    let pid_file = PidFile::claim(&plan.directory)?;
    raise_descriptor_limit();
    let listeners = listeners.map_or_else(|| Listeners::bind(&plan.listeners), Ok)?;
    let segment = Segment::create()?;
    segment.set_worker_count(plan.workers);
    let mut quarantine = QuarantineFile::new(&plan.directory);
    match quarantine.load() {
        Ok(verdicts) => verdicts.iter().for_each(|verdict| segment.restore_verdict(verdict)),
        Err(error) => {
            tracing::error!(error = &error as &dyn Error, "work/quarantine.json is ignored");
        }
    }
    // What a dead worker leaves behind comes to this process and is reaped here. A kernel that refuses
    // leaves it to init, which does the same.
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        tracing::warn!(%error, "orphans go to init");
    }
    let notifier = Notifier::from_environment(Instant::now());
    Ok(Supervisor { plan, reload, listeners, segment, signals, notifier, quarantine, pid_file })
}

/// Workers hold a descriptor per connection; the usual soft limit of 1,024 is a relic of select(2). Not to
/// "infinity": programs that walk through all possible descriptors would take seconds to start.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(DESCRIPTORS)), hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
