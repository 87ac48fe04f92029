//! What became of files and uploads: attempts to deploy, refused ones too, and which pickup files a server
//! has handled. Neither makes a revision.

use std::fmt;
use std::str::FromStr;

use crosstie_model::names::Digest;

use crate::decode;
use crate::error::OdbError;
use crate::handle::{Odb, run};

/// How many attempts are kept; older ones go as new ones come.
pub(crate) const KEPT_ATTEMPTS: i64 = 1000;

/// Longest path of a pickup file, relative to the pickup directory, in bytes.
pub(crate) const MAX_PATH_BYTES: usize = 1024;

/// How an attempt to deploy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// It is the active deployment.
    Deployed,
    /// The artifact was found wanting; nothing that runs was changed.
    Refused,
    /// It could not be tried to the end, through no fault of the artifact.
    Failed,
}

impl AttemptOutcome {
    /// The outcome's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployed => "deployed",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for AttemptOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AttemptOutcome {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Deployed, Self::Refused, Self::Failed]
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
            .ok_or_else(|| format!("unknown outcome {text:?}"))
    }
}

/// An attempt to note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAttempt {
    /// The server that tried.
    pub server: String,
    /// The unit it would have been a version of; a file's name when that makes no unit name.
    pub unit: String,
    /// The artifact, when it could be read.
    pub digest: Option<Digest>,
    /// Where it came from: a path within the pickup directory, or `api`.
    pub source: String,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// Why, one fault a line; empty when deployed.
    pub reason: String,
    /// A traceback or the like; cut off at 64 KiB.
    pub detail: String,
}

/// A noted attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRow {
    /// Grows with every attempt.
    pub id: i64,
    /// When: µs since 1970 UTC, by the database's clock.
    pub time_us: i64,
    /// What was noted.
    pub attempt: NewAttempt,
}

/// A pickup file a server has handled, so that it is not deployed again at the next start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PickupRow {
    /// The path within the pickup directory.
    pub path: String,
    /// What the file held then.
    pub digest: Digest,
    /// What became of it.
    pub outcome: AttemptOutcome,
    /// When: µs since 1970 UTC.
    pub time_us: i64,
}

impl Odb {
    /// Notes an attempt to deploy. The last 1000 are kept.
    ///
    /// # Errors
    /// The database is away.
    pub async fn record_attempt(&self, attempt: &NewAttempt) -> Result<(), OdbError> {
        decode::key("the server's name", &attempt.server, 190)?;
        run!(self, Write, attempt::record_attempt(attempt))
    }

    /// The newest attempts first, at most `limit`.
    ///
    /// # Errors
    /// The database is away.
    pub async fn attempts(&self, limit: u32) -> Result<Vec<AttemptRow>, OdbError> {
        run!(self, Single, attempt::attempts(limit))
    }

    /// Notes that `server` has handled the pickup file at `path`.
    ///
    /// # Errors
    /// The database is away, or `path` is longer than 1024 bytes.
    pub async fn record_pickup(
        &self,
        server: &str,
        path: &str,
        digest: &Digest,
        outcome: AttemptOutcome,
    ) -> Result<(), OdbError> {
        decode::key("the server's name", server, 190)?;
        decode::key("the file's path", path, MAX_PATH_BYTES)?;
        run!(self, Write, attempt::record_pickup(server, path, digest, outcome))
    }

    /// The pickup files `server` has handled, by path.
    ///
    /// # Errors
    /// The database is away.
    pub async fn pickup_files(&self, server: &str) -> Result<Vec<PickupRow>, OdbError> {
        run!(self, Single, attempt::pickup_files(server))
    }
}
