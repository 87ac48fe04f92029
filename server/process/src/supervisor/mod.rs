//! The supervisor: binds the sockets, starts, watches, drains and replaces workers. Runs no user code.
//!
//! One thread and one `poll` loop (`event_loop`), no asynchronous runtime. What should happen is decided by
//! state machines without I/O (`fleet` for the life of workers, `restart` for when to start one again,
//! `verdict` for whom to blame); the loop only carries it out. It must not be able to crash: nothing here
//! panics, every input of a child is bounded, and every failure of a system call has an answer.
//!
//! A successor binary can take over what this process owns (`succession`) because ownership is explicit:
//! listening sockets, shared memory and pid file are values that `run` holds, made in one place each.

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
mod succession;
mod verdict;

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_loop::Supervisor;
use fleet::FleetRules;
pub use listeners::ListenError;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use notify::Notifier;
use quarantine_file::QuarantineFile;
use signals::Signals;
use succession::Rank;
pub use succession::{HeritageError, Origin, Outcome, Report, report};

use crate::pidfile::{PidFile, PidFileError};
use crate::privilege::PrivilegeError;
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
    /// How long a new binary may take to serve before an upgrade is given up.
    pub upgrade: Duration,
    /// The command line of a new binary that is to succeed this supervisor, without the program. It must make
    /// [`Origin::of_this_process`] the first thing it does, in this release and in others.
    pub successor_arguments: Vec<OsString>,
}

/// Validates the configuration at SIGHUP: the new plan, or why the running one stays. `drain`,
/// `restart_budget`, `worker_arguments` and `upgrade` of the new plan hold from then on; the rest needs a
/// restart.
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
    /// The predecessor cannot be spoken to.
    #[error("the running supervisor cannot be spoken to")]
    Succession(#[source] io::Error),
    /// Signals cannot be handled.
    #[error("signals cannot be handled")]
    Signals(#[source] io::Error),
}

/// Runs a server until SIGTERM or SIGINT ends it, or until another supervisor took it over after SIGUSR2: 0
/// then, 1 when it could not start (the log says why).
///
/// Takes over the process: its signals, all its children, and the calling thread, which workers are tied to
/// and which must live as long as they do.
#[must_use]
pub fn run(plan: Plan, origin: Origin, reload: Reload) -> ExitCode {
    match try_run(plan, origin, reload) {
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
pub fn try_run(plan: Plan, origin: Origin, reload: Reload) -> Result<(), StartError> {
    prepare(plan, origin, reload).map(Supervisor::run)
}

/// Claims everything that a supervisor owns.
fn prepare(plan: Plan, mut origin: Origin, reload: Reload) -> Result<Supervisor, StartError> {
    if !(1..=MAX_WORKERS).contains(&plan.workers) {
        return Err(StartError::Workers(plan.workers));
    }
    // Before anybody can learn this process's id from the pid file.
    let signals = Signals::install().map_err(StartError::Signals)?;
    // A successor gets it from its predecessor.
    let claim = || PidFile::claim_unless_succeeded(&plan.directory);
    let pid_file = if origin.is_successor() { None } else { Some(claim()?) };
    raise_descriptor_limit();
    let listeners = origin.listen(&plan)?;
    let (rank, inherited) = match origin.heritage.take() {
        None => (Rank::Server, None),
        Some(heritage) => (succession::introduce(heritage.channel)?, inherited_segment(heritage.segment)),
    };
    let mut quarantine = QuarantineFile::new(&plan.directory);
    let verdicts = quarantine.load().unwrap_or_else(|error| {
        tracing::error!(error = &error as &dyn Error, "work/quarantine.json is ignored");
        Vec::new()
    });
    let segment = match inherited {
        Some(segment) => segment,
        None => {
            let segment = Segment::create()?;
            segment.set_worker_count(plan.workers);
            verdicts.iter().for_each(|verdict| segment.restore_verdict(verdict));
            segment
        }
    };
    // What a dead worker leaves behind comes to this process and is reaped here. A kernel that refuses
    // leaves it to init, which does the same.
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        tracing::warn!(%error, "orphans go to init");
    }
    let notifier = Notifier::from_environment(Instant::now());
    let program = origin.program;
    Ok(Supervisor {
        plan,
        reload,
        program,
        listeners,
        segment,
        signals,
        notifier,
        quarantine,
        pid_file,
        rank,
    })
}

/// The predecessor's shared memory, if this release lays it out alike: counters, rates and limits then go on
/// without a break. Otherwise they begin anew, as after a restart.
fn inherited_segment(file: OwnedFd) -> Option<Arc<Segment>> {
    Segment::succeed(file)
        .inspect_err(|error| tracing::warn!(error = error as &dyn Error, "counters and limits begin anew"))
        .ok()
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
