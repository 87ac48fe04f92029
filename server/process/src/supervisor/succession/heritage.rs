//! What a successor inherits, and where a supervisor gets its sockets from.
//!
//! The heritage is described in an environment variable, as a worker's is. A change of its form that an older
//! or newer release cannot read must raise [`SUCCESSION_VERSION`].

#![expect(unsafe_code, reason = "inherited descriptors come as numbers, and the environment is changed")]

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::SUCCESSION_VERSION;
use crate::adopt::adopt;
use crate::inheritance;
use crate::pidfile::{self, PidFileError};
use crate::privilege::ServiceUser;
use crate::program::Program;
use crate::supervisor::listeners::Listeners;
use crate::supervisor::{Plan, StartError};

/// The environment variable that describes the heritage.
pub(super) const VARIABLE: &str = "CROSSTIE_SUCCESSION";

/// The description of what is handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Testament {
    pub(super) version: u8,
    /// The socket to the predecessor.
    pub(super) channel: RawFd,
    pub(super) segment: RawFd,
    /// Name, address and descriptor of each listening socket.
    pub(super) listeners: Vec<(String, SocketAddr, RawFd)>,
    /// The program that runs the successor, and its directory.
    pub(super) program: PathBuf,
    pub(super) program_directory: Option<RawFd>,
}

impl Testament {
    /// Every descriptor in it.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        let listeners = self.listeners.iter().map(|(_, _, fd)| *fd);
        [self.channel, self.segment].into_iter().chain(self.program_directory).chain(listeners).collect()
    }
}

/// Why a successor cannot take over.
#[derive(Debug, thiserror::Error)]
pub enum HeritageError {
    /// Threads run already: the environment can no longer be changed safely.
    #[error("a supervisor must take over its heritage before it starts threads")]
    TooLate,
    /// The process's own state cannot be read.
    #[error("the process's threads cannot be counted")]
    Threads(#[source] io::Error),
    /// What the predecessor left cannot be understood.
    #[error("what the running server hands over cannot be read: stop it and start this binary instead")]
    Unreadable(#[source] serde_json::Error),
    /// The predecessor hands over in another way.
    #[error(
        "the running server hands over by version {0}, this binary takes over by version \
         {SUCCESSION_VERSION}: stop it and start this binary instead"
    )]
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
}

/// What a predecessor left.
#[derive(Debug)]
pub(in crate::supervisor) struct Heritage {
    pub(in crate::supervisor) channel: UnixStream,
    pub(in crate::supervisor) segment: OwnedFd,
}

/// Where a supervisor comes from: from nothing, or from one that runs and wants to be succeeded.
#[derive(Debug)]
pub struct Origin {
    pub(in crate::supervisor) program: Program,
    pub(in crate::supervisor) heritage: Option<Heritage>,
    /// Sockets of the predecessor, until they are taken over.
    inherited: Vec<(String, SocketAddr, TcpListener)>,
    /// Sockets that are bound already.
    listeners: Option<Listeners>,
}

impl Origin {
    /// What this process is. The first thing to be called in a supervisor: later calls find no heritage.
    ///
    /// # Errors
    /// It was started as a successor and cannot be one.
    pub fn of_this_process() -> Result<Self, HeritageError> {
        let Some(text) = std::env::var_os(VARIABLE) else {
            let program = Program::of_this_process();
            return Ok(Self { program, heritage: None, inherited: Vec::new(), listeners: None });
        };
        if std::fs::read_dir("/proc/self/task").map_err(HeritageError::Threads)?.count() != 1 {
            return Err(HeritageError::TooLate);
        }
        // SAFETY: this is the process's only thread, as was just counted, so nobody reads the environment.
        unsafe { std::env::remove_var(VARIABLE) };
        Self::inherit(&text.to_string_lossy())
    }

    fn inherit(text: &str) -> Result<Self, HeritageError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u8,
        }
        let Versioned { version } = serde_json::from_str(text).map_err(HeritageError::Unreadable)?;
        if version != SUCCESSION_VERSION {
            return Err(HeritageError::Version(version));
        }
        let testament: Testament = serde_json::from_str(text).map_err(HeritageError::Unreadable)?;
        let mut seen = BTreeSet::new();
        for fd in testament.descriptors() {
            let refuse = |source| HeritageError::Descriptor { fd, source };
            if fd <= libc::STDERR_FILENO || !seen.insert(fd) {
                return Err(refuse(io::Error::from_raw_os_error(libc::EBADF)));
            }
            inheritance::close_on_exec(fd).map_err(refuse)?;
        }
        let listeners = testament.listeners.iter();
        Ok(Self {
            program: Program::inherited(testament.program.clone(), testament.program_directory.map(take)),
            heritage: Some(Heritage {
                channel: UnixStream::from(take(testament.channel)),
                segment: take(testament.segment),
            }),
            inherited: listeners
                .map(|(name, address, fd)| (name.clone(), *address, TcpListener::from(take(*fd))))
                .collect(),
            listeners: None,
        })
    }

    /// Whether a predecessor still is the server.
    #[must_use]
    pub fn is_successor(&self) -> bool {
        self.heritage.is_some()
    }

    /// Does what takes root's rights, and then becomes `user` for good: what root left in the server's
    /// directory is given to them, and the plan's addresses are bound. To be called before the process has
    /// threads.
    ///
    /// # Errors
    /// A supervisor runs there already, an address is taken, or the kernel refuses. The process must end then.
    pub fn bind_and_drop(&mut self, plan: &Plan, user: &ServiceUser) -> Result<(), StartError> {
        // Its addresses are taken, and waiting for them would only hide why.
        if let Some(pid) = pidfile::running_supervisor(&plan.directory).filter(|_| !self.is_successor()) {
            return Err(PidFileError::Running { pid }.into());
        }
        adopt(&plan.directory, user)?;
        self.listeners = Some(self.listen(plan)?);
        user.become_for_good()?;
        Ok(())
    }

    /// The plan's sockets: those that were bound before, those of a predecessor at the same address, or new
    /// ones. A predecessor's that the plan does not want are closed here.
    pub(in crate::supervisor) fn listen(&mut self, plan: &Plan) -> Result<Listeners, StartError> {
        match self.listeners.take() {
            Some(bound) => Ok(bound),
            None => Ok(Listeners::take_over(&plan.listeners, std::mem::take(&mut self.inherited))?),
        }
    }
}

/// Takes ownership of a descriptor that `inherit` has checked.
fn take(fd: RawFd) -> OwnedFd {
    // SAFETY: `inherit` saw that it is open, above the standard ones and named once; the process has just
    // begun and nothing else in it knows the number.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_the_testament_is_pinned() {
        let text = r#"{"version":1,"channel":5,"segment":6,"listeners":[["http","127.0.0.1:17010",7]],
            "program":"/usr/bin/crosstie","program_directory":8}"#;
        let testament: Testament = serde_json::from_str(text).unwrap();
        assert_eq!(testament.descriptors(), [5, 6, 8, 7]);
        assert_eq!(testament.listeners[0].1, "127.0.0.1:17010".parse().unwrap());
    }

    #[test]
    fn another_version_is_refused_whatever_else_it_says() {
        assert!(matches!(Origin::inherit(r#"{"version":9,"new":true}"#), Err(HeritageError::Version(9))));
        assert!(matches!(Origin::inherit("{}"), Err(HeritageError::Unreadable(_))));
        let standard = r#"{"version":1,"channel":1,"segment":6,"listeners":[],"program":"/x"}"#;
        assert!(matches!(Origin::inherit(standard), Err(HeritageError::Descriptor { fd: 1, .. })));
    }
}
