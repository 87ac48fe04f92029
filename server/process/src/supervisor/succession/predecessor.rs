//! The old supervisor's side of an upgrade.
//!
//! Everything that can go wrong ends in `abandon`: the new binary is told to stop, or killed if it never said
//! a word, and the old one goes on with what it never gave away.

#![expect(unsafe_code, reason = "descriptors are passed on between fork and exec")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::heritage::{Testament, VARIABLE};
use super::{Outcome, Report, SUCCESSION_VERSION, ToPredecessor, ToSuccessor, keep_report};
use crate::inheritance;
use crate::lock::RecordLock;
use crate::pidfile::{self, PidFile, Signal};
use crate::supervisor::event_loop::{Supervisor, Turning};
use crate::supervisor::fleet::{CLOSED_GRACE, DRAIN_GRACE};
use crate::supervisor::link::{Heard, Link};
use crate::supervisor::verdict::Death;
use crate::supervisor::{notify, reap};

/// How long the successor may take to claim the pid file once it is free.
const CLAIM_PATIENCE: Duration = Duration::from_secs(5);

/// The steps of an upgrade, as the old supervisor sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// 1: the new binary runs.
    Started,
    /// 2: it understood what it inherited and starts its workers.
    Greeted,
    /// 3: they serve; it is to claim the pid file.
    Claiming,
    /// It will not be: it is on its way out.
    Abandoned,
}

/// An upgrade under way.
pub(in crate::supervisor) struct Succession {
    pid: u32,
    link: Link<ToPredecessor, ToSuccessor>,
    step: Step,
    /// When this step has taken too long.
    deadline: Instant,
    /// The other end of the channel is closed. Mostly its process has ended, and how it ended tells more.
    silent: bool,
    _handover: RecordLock,
}

/// The supervisor that is the server in this one's place. The channel stays open while this one drains, so
/// that the workers it still has hear of changes.
pub(in crate::supervisor) struct Heir {
    pid: u32,
    link: Link<ToPredecessor, ToSuccessor>,
}

impl Heir {
    pub(in crate::supervisor) fn pid(&self) -> u32 {
        self.pid
    }

    /// Its channel, for `poll`.
    pub(in crate::supervisor) fn link(&self) -> &Link<ToPredecessor, ToSuccessor> {
        &self.link
    }

    /// Passes on what changed here.
    pub(in crate::supervisor) fn tell(&mut self, event: &Value) {
        if let Err(error) = self.link.send(&ToSuccessor::Event(event.clone())) {
            tracing::error!(%error, "an event cannot be passed on to the new supervisor");
        }
    }
}

impl Succession {
    /// Its channel, for `poll`.
    pub(in crate::supervisor) fn link(&self) -> &Link<ToPredecessor, ToSuccessor> {
        &self.link
    }

    pub(in crate::supervisor) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The process that is to succeed.
    pub(in crate::supervisor) fn pid(&self) -> u32 {
        self.pid
    }

    /// Passes on what changed here.
    pub(in crate::supervisor) fn tell(&mut self, event: &Value) {
        if matches!(self.step, Step::Greeted | Step::Claiming)
            && let Err(error) = self.link.send(&ToSuccessor::Event(event.clone()))
        {
            tracing::error!(%error, "an event cannot be passed on to the successor");
        }
    }
}

impl Turning {
    /// Starts the binary that lies where this one was started from as the successor.
    pub(in crate::supervisor) fn upgrade(&mut self, now: Instant) {
        let obstacle = if self.fleet.stopping() {
            Some("the server is stopping")
        } else if self.succession.is_some() {
            Some("an upgrade is under way")
        } else if !self.is_server() {
            Some("this is a successor that does not serve yet")
        } else if std::process::id() == 1 {
            Some("the server is the first process of a container, which ends with it")
        } else {
            None
        };
        if let Some(obstacle) = obstacle {
            // An upgrade under way has its own report.
            return tracing::error!("no upgrade: {obstacle}");
        }
        self.attempts = self.attempts.saturating_add(1);
        self.report(Outcome::Starting);
        match start(&self.supervisor, now) {
            Ok(succession) => {
                let binary = self.supervisor.program.path().display().to_string();
                tracing::info!(pid = succession.pid, binary, "upgrading: the new binary starts");
                self.succession = Some(succession);
            }
            Err(error) => {
                let path = self.supervisor.program.path().display();
                self.upgrade_failed(format!("{path} cannot be run: {error}"));
            }
        }
    }

    /// Takes what the successor said.
    pub(in crate::supervisor) fn hear_successor(&mut self) {
        let Some(succession) = &mut self.succession else { return };
        succession.link.flush();
        let heard = succession.link.read();
        while let Some(succession) = &mut self.succession {
            match succession.link.next_message() {
                Ok(Some(message)) => self.obey_successor(message),
                Ok(None) => break,
                Err(error) => return self.abandon(&format!("the new binary cannot be understood: {error}")),
            }
        }
        if let (Heard::End, Some(succession)) = (heard, &mut self.succession) {
            succession.silent = true;
            succession.deadline = succession.deadline.min(Instant::now() + CLOSED_GRACE);
        }
    }

    /// Takes what the new supervisor passes on while this one drains.
    pub(in crate::supervisor) fn hear_heir(&mut self) {
        let Some(heir) = &mut self.heir else { return };
        heir.link.flush();
        heir.link.read();
        while let Some(heir) = &mut self.heir {
            match heir.link.next_message() {
                Ok(Some(ToPredecessor::Event(event))) => self.relay_foreign(event),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => heir.link.shut(),
            }
        }
    }

    fn obey_successor(&mut self, message: ToPredecessor) {
        let Some(succession) = &mut self.succession else { return };
        match (succession.step, message) {
            (Step::Abandoned, _) => {}
            (Step::Started, ToPredecessor::Hello { pid }) if pid == succession.pid => {
                succession.step = Step::Greeted;
            }
            (Step::Greeted | Step::Claiming, ToPredecessor::Event(event)) => self.relay_foreign(event),
            (Step::Greeted, ToPredecessor::Ready) => self.cede(),
            (Step::Claiming, ToPredecessor::Claimed) => self.leave(),
            (_, ToPredecessor::Refused { reason }) => self.abandon(&reason),
            (step, message) => {
                tracing::error!(?step, ?message, "the new binary spoke out of turn");
                self.abandon("the new binary broke the protocol");
            }
        }
    }

    /// Step 3: gives up the pid file. From here on either of the two may be the server.
    fn cede(&mut self) {
        let Some(succession) = &mut self.succession else { return };
        drop(self.supervisor.pid_file.take());
        succession.step = Step::Claiming;
        succession.deadline = Instant::now() + CLAIM_PATIENCE;
        if let Err(error) = succession.link.send(&ToSuccessor::Claim) {
            self.abandon(&error.to_string());
        }
    }

    /// Step 5: the successor is the server; what is left to do here is to drain.
    fn leave(&mut self) {
        let Some(Succession { pid, link, .. }) = self.succession.take() else { return };
        tracing::info!(pid, "upgraded: the new supervisor serves, this one drains its workers and leaves");
        self.report(Outcome::Serving { pid });
        self.heir = Some(Heir { pid, link });
        self.supervisor.notifier.succeeded_by(pid);
        self.supervisor.listeners.close();
        self.supervisor.segment.set_succeeded(true);
        if std::mem::take(&mut self.reload_pending)
            && let Err(error) = pidfile::signal(pid, Signal::Reload)
        {
            tracing::warn!(%error, "the new supervisor cannot be asked to reload");
        }
        self.fleet.stop(Instant::now());
    }

    /// Gives the upgrade up and goes on.
    pub(in crate::supervisor) fn abandon(&mut self, reason: &str) {
        let drain = self.supervisor.plan.drain;
        let Some(succession) = &mut self.succession else { return };
        let has_workers = match succession.step {
            Step::Abandoned => return,
            Step::Started => false,
            Step::Greeted | Step::Claiming => true,
        };
        succession.step = Step::Abandoned;
        succession.link.shut();
        if has_workers {
            // They may have requests in hand: asked to stop, it drains them.
            reap::stop_child(succession.pid);
            succession.deadline = Instant::now() + drain + 2 * DRAIN_GRACE;
        } else {
            succession.deadline = Instant::now();
        }
        self.upgrade_failed(reason.to_owned());
    }

    /// What the deadline of the current step means.
    pub(in crate::supervisor) fn enforce_upgrade(&mut self, now: Instant) {
        let patience = self.supervisor.plan.upgrade;
        let Some(succession) = self.succession.as_mut().filter(|succession| succession.deadline <= now)
        else {
            return;
        };
        match succession.step {
            Step::Started | Step::Greeted | Step::Claiming if succession.silent => {
                self.abandon("the new binary closed the channel to the old one");
            }
            Step::Started | Step::Greeted => {
                self.abandon(&format!("the new binary did not serve within {} s", patience.as_secs_f32()));
            }
            Step::Claiming => self.abandon("the new supervisor did not claim the pid file"),
            Step::Abandoned => {
                // Whatever it started itself dies with it, but for its workers, which have groups of their own
                // and lose their supervisor.
                reap::kill_group(succession.pid);
                reap::kill_child(succession.pid);
                succession.deadline = now + DRAIN_GRACE;
            }
        }
    }

    /// The successor is dead and not reaped yet.
    pub(in crate::supervisor) fn successor_died(&mut self, death: Death) {
        self.hear_successor();
        // What it said last may have been that it is the server.
        let Some(Succession { pid, .. }) = &self.succession else { return };
        let pid = *pid;
        self.abandon(&format!("the new binary ended ({}) before it served", death.describe()));
        reap::kill_group(pid);
        reap::reap(pid);
        if self.supervisor.pid_file.is_none() {
            match PidFile::claim(&self.supervisor.plan.directory) {
                Ok(claim) => self.supervisor.pid_file = Some(claim),
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the pid file cannot be claimed back"
                    );
                }
            }
        }
        self.succession = None;
        if std::mem::take(&mut self.reload_pending) && !self.fleet.stopping() {
            self.reload(Instant::now());
        }
    }

    fn upgrade_failed(&self, reason: String) {
        tracing::error!(reason, "upgrade failed; the running server goes on");
        self.report(Outcome::Failed { reason });
    }

    fn report(&self, outcome: Outcome) {
        let report = Report { supervisor: std::process::id(), attempt: self.attempts, outcome };
        if let Err(error) = keep_report(&self.supervisor.plan.directory, &report) {
            tracing::error!(%error, "work/upgrade.json cannot be written");
        }
    }
}

/// Step 1: runs the new binary with everything it is to inherit.
fn start(owned: &Supervisor, now: Instant) -> io::Result<Succession> {
    let handover = pidfile::hold_handover(&owned.plan.directory).map_err(io::Error::other)?;
    let handover = handover.ok_or_else(|| io::Error::other("another process holds work/upgrade.lock"))?;
    let (ours, theirs) = UnixStream::pair()?;
    let listeners: Vec<(String, SocketAddr, RawFd)> =
        owned.listeners.descriptors().map(|(name, address, fd)| (name.to_owned(), address, fd)).collect();
    let testament = Testament {
        version: SUCCESSION_VERSION,
        channel: theirs.as_raw_fd(),
        segment: owned.segment.as_fd().as_raw_fd(),
        listeners,
        program: owned.program.path().to_owned(),
        program_directory: owned.program.directory().map(|directory| directory.as_raw_fd()),
    };
    let mut command = owned.program.command();
    command
        .args(&owned.plan.successor_arguments)
        .env(VARIABLE, serde_json::to_string(&testament)?)
        // It names this process; the successor is asked for signs of life once it is the server.
        .env_remove(notify::WATCHDOG_PID)
        .stdin(Stdio::null())
        // A group of its own, so that it can be killed with what it started, and Ctrl-C stops only this one.
        .process_group(0);
    let kept = testament.descriptors();
    // SAFETY: the closure makes plain system calls only, over a list made before the fork; it allocates
    // nothing.
    unsafe {
        command.pre_exec(move || {
            inheritance::close_all_on_exec();
            kept.iter().try_for_each(|fd| inheritance::keep_on_exec(*fd))
        });
    }
    let link = Link::new(ours)?;
    let child = command.spawn()?;
    let deadline = now + owned.plan.upgrade;
    Ok(Succession {
        pid: child.id(),
        link,
        step: Step::Started,
        deadline,
        silent: false,
        _handover: handover,
    })
}
