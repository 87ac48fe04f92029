//! What one process knows of its repositories: who is writing, and which were already put in order.
//!
//! The watcher, the API and the history writer open the same directory again and again. Removing a killed
//! process's leftovers belongs to the first of them alone (later it could hit a living one), and writers take
//! turns.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

static DIRECTORIES: LazyLock<Mutex<HashMap<PathBuf, Arc<Turn>>>> = LazyLock::new(Mutex::default);

/// The turn to write a repository. Holds whether this process already put it in order.
#[derive(Debug, Default)]
pub(super) struct Turn(Mutex<bool>);

impl Turn {
    /// The turn of `directory`, the same for every opening of it in this process.
    pub(super) fn of(directory: &Path) -> Arc<Self> {
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let directory = directory.canonicalize().unwrap_or(directory);
        let mut directories = DIRECTORIES.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(directories.entry(directory).or_default())
    }

    /// Waits for the turn. A writer that panicked left nothing that the next one could not work with: what
    /// holds for a killed process holds for it.
    pub(super) fn wait(&self) -> MutexGuard<'_, bool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
