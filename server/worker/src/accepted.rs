//! The accepted settings: what `server.toml` said when it was last valid.
//!
//! The supervisor writes them at start and at each accepted reload; workers read only these. So a worker
//! that is replaced while somebody edits `server.toml` starts with what runs, not with half an edit.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crosstie_model::settings::ServerSettings;

use crate::last_good::{LastGoodError, replace};

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
pub(crate) fn save(directory: &Path, settings: &ServerSettings) -> Result<(), LastGoodError> {
    let path = path(directory);
    let text = serde_json::to_vec_pretty(settings)
        .map_err(|error| LastGoodError::Damaged { path: path.clone(), reason: error.to_string() })?;
    replace(&path, &text)
}

/// The settings the supervisor accepted.
///
/// # Errors
/// The file is missing, unreadable or of another release.
pub(crate) fn load(directory: &Path) -> Result<ServerSettings, AcceptedError> {
    let path = path(directory);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(source) => return Err(AcceptedError::Read { path, source }),
    };
    serde_json::from_slice(&text).map_err(|source| AcceptedError::Content { path, source })
}

fn path(directory: &Path) -> PathBuf {
    directory.join("work/settings.json")
}
