//! The accepted settings: what `server.toml` said when it was last valid.
//!
//! The supervisor writes them at start and at each accepted reload; workers read only these. So a worker
//! that is replaced while somebody edits `server.toml` starts with what runs, not with half an edit.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crosstie_model::settings::ServerSettings;

use crate::last_good::{LastGoodError, replace};

/// Which file holds the accepted settings. There are two, because during an upgrade two supervisors run, whose
/// releases need not write them alike: a successor uses the one that its predecessor does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AcceptedSettings {
    /// `work/settings.json`, which a server that starts uses.
    #[default]
    First,
    /// `work/settings-2.json`.
    Second,
}

impl AcceptedSettings {
    /// The other one, for a successor.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// Its name on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
        }
    }
}

impl std::fmt::Display for AcceptedSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for AcceptedSettings {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::First, Self::Second]
            .into_iter()
            .find(|one| one.as_str() == text)
            .ok_or("neither first nor second")
    }
}

/// Why the accepted settings could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptedError {
    /// The file is missing or unreadable.
    #[error("{path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The content is not of this release.
    #[error("{path}: {source}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        #[source]
        source: serde_json::Error,
    },
}

/// Keeps `settings` in the server's `work/` directory.
///
/// # Errors
/// The disk refused.
pub(crate) fn save(
    directory: &Path,
    accepted: AcceptedSettings,
    settings: &ServerSettings,
) -> Result<(), LastGoodError> {
    let path = path(directory, accepted);
    let text = serde_json::to_vec_pretty(settings)
        .map_err(|error| LastGoodError::Damaged { path: path.clone(), reason: error.to_string() })?;
    replace(&path, &text)
}

/// The settings the supervisor accepted.
///
/// # Errors
/// The file is missing, unreadable or of another release.
pub(crate) fn load(directory: &Path, accepted: AcceptedSettings) -> Result<ServerSettings, AcceptedError> {
    let path = path(directory, accepted);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(source) => return Err(AcceptedError::Read { path, source }),
    };
    serde_json::from_slice(&text).map_err(|source| AcceptedError::Content { path, source })
}

fn path(directory: &Path, accepted: AcceptedSettings) -> PathBuf {
    directory.join("work").join(match accepted {
        AcceptedSettings::First => "settings.json",
        AcceptedSettings::Second => "settings-2.json",
    })
}
