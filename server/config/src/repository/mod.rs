//! The two git repositories of a server: `config` ([`ConfigRepository`]: `server.toml` and its siblings, the
//! history of what people changed) and `config/cluster` ([`ClusterRepository`]: the definitions as YAML, one
//! commit per revision, equal on all servers).
//!
//! One writer each: the worker that holds the singleton lock, which is also what makes it safe to remove lock
//! files that a killed process left. People read them with the ordinary `git`. Every write goes objects →
//! reference → work files → index, so a process killed anywhere in between leaves a repository that the next
//! [`ConfigRepository::open`] completes: objects and references are renamed into place, and work files are
//! behind a note of what is being checked out. Commits are written byte by byte, through no filter, hook or
//! setting of the user, so equal input has equal hashes.
//!
//! All calls block on the disk: off the reactor, please. A commit costs about a millisecond.

mod checkout;
mod cluster;
mod history;
mod isolation;
mod layout;
mod message;
mod pack;
mod path;
mod process;
mod reclaim;
mod server;
mod store;
mod work_tree;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crosstie_model::Revision;
use git2::Oid;
use serde::{Serialize, Serializer};

pub use cluster::{ClusterCommit, ClusterRepository};
pub use history::{LogEntry, MAX_DIFF_BYTES};
pub use pack::PACK_AFTER;
pub use path::file_path;
pub use server::{ConfigRepository, Restored};
pub use work_tree::WorkTree;

/// The hash of a commit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(Oid);

impl CommitId {
    /// The first 12 digits: what people read in lists.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(12);
        text
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for CommitId {
    type Err = RepositoryError;
    fn from_str(text: &str) -> Result<Self, RepositoryError> {
        let unknown = || RepositoryError::NoSuchCommit(text.to_owned());
        if text.len() != 40 {
            return Err(unknown());
        }
        Oid::from_str(text).map(Self).map_err(|_| unknown())
    }
}

impl Serialize for CommitId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What failed.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// A repository cannot be made or opened.
    #[error("the git repository {} cannot be opened", .directory.display())]
    Open {
        /// Its directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: git2::Error,
    },
    /// A file of the repository or its work tree cannot be read or written.
    #[error("{} cannot be {action}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried: "read", "written", "removed".
        action: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An object or reference cannot be read or written.
    #[error("git could not {action}")]
    Git {
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: git2::Error,
    },
    /// Nothing goes by this name, or more than one commit does.
    #[error("no commit is called {0:?}; give at least 4 digits of one that `config log` shows")]
    NoSuchCommit(String),
    /// A path that could leave the repository or that git does not allow.
    #[error("{0:?} cannot be a path in the repository")]
    BadPath(String),
    /// The work tree holds more than a configuration does.
    #[error("{what} of {} is more than {limit}", .path.display())]
    TooLarge {
        /// The file or directory.
        path: PathBuf,
        /// What is counted.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// A commit was to be appended out of order, which would give this server other hashes than the rest.
    #[error("revision {found} cannot follow revision {head}")]
    OutOfOrder {
        /// The newest revision of the repository.
        head: Revision,
        /// The one that was given.
        found: Revision,
    },
}

impl RepositoryError {
    fn git(action: &'static str) -> impl FnOnce(git2::Error) -> Self {
        move |source| Self::Git { action, source }
    }

    fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, action, source }
    }
}

/// The result of what a repository does.
pub type Result<T, E = RepositoryError> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_id_survives_text() {
        let text = "0123456789abcdef0123456789abcdef01234567";
        let id: CommitId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.short(), "0123456789ab");
        assert!("0123".parse::<CommitId>().is_err());
        assert!("HEAD".parse::<CommitId>().is_err());
        assert!("z".repeat(40).parse::<CommitId>().is_err());
    }
}
