//! Why a part could not be made, started or stopped.

use std::io;
use std::path::PathBuf;

/// Why a part could not be made, started or stopped. No variant holds a password.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// A program is not installed.
    #[error("{program} is not installed: install the package {package}")]
    NotInstalled {
        /// The program.
        program: String,
        /// The Debian package that brings it.
        package: &'static str,
    },
    /// The part was made earlier.
    #[error("{} exists already", directory.display())]
    Exists {
        /// Where.
        directory: PathBuf,
    },
    /// The part was never made.
    #[error("there is no {part} in {}", directory.display())]
    NotCreated {
        /// Which part.
        part: &'static str,
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// The user that the part runs as cannot enter a directory above the part's.
    #[error(
        "the user {user} cannot enter {}, which is above the directory of {part}: allow it \
         (chmod o+x) or choose another place", directory.display()
    )]
    Unreachable {
        /// Which part.
        part: &'static str,
        /// Its user.
        user: String,
        /// The directory that is closed to it.
        directory: PathBuf,
    },
    /// Part of the plan or the credentials is not usable.
    #[error("{what} is not usable: {detail}")]
    Invalid {
        /// Which.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// Something else listens where the part should.
    #[error("{part} cannot listen on {address}: the address is taken")]
    AddressTaken {
        /// Which part.
        part: &'static str,
        /// The address.
        address: std::net::SocketAddr,
    },
    /// A program of the part failed.
    #[error("{program} failed ({status}): {said}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// Its last words.
        said: String,
    },
    /// The part ended while it was being waited for.
    #[error("{part} ended at once; see {}: {said}", log.display())]
    Ended {
        /// Which part.
        part: &'static str,
        /// Its log.
        log: PathBuf,
        /// The end of the log.
        said: String,
    },
    /// The part did not answer, or did not end, in time.
    #[error("{part} did not {verb} within {seconds} s; see {}: {said}", log.display())]
    TooSlow {
        /// Which part.
        part: &'static str,
        /// `answer` or `end`.
        verb: &'static str,
        /// How long was waited.
        seconds: u64,
        /// Its log.
        log: PathBuf,
        /// The end of the log.
        said: String,
    },
    /// A user database or the process table could not be asked.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: nix::Error,
    },
    /// A file could not be read, written or given to its owner.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl PartError {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
