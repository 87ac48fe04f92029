//! The snippets that HAProxy last found good, kept so that a broken `lb.d` takes nothing away from a
//! configuration that has to change for another reason, such as a server that joins.

use std::path::Path;

use crosstie_security::private_file::{PrivateFileError, read_public, write_private};

use crate::snippet::Snippet;

/// Where they are kept, relative to the load balancer's directory.
const FILE: &str = "work/accepted.json";

/// What was kept; `None` when nothing was, or it cannot be read.
pub(crate) fn load(directory: &Path) -> Option<Vec<Snippet>> {
    serde_json::from_slice(&read_public(&directory.join(FILE)).ok()?).ok()
}

/// Keeps `snippets`.
pub(crate) fn save(directory: &Path, snippets: &[Snippet]) -> Result<(), PrivateFileError> {
    write_private(&directory.join(FILE), &serde_json::to_vec(snippets).unwrap_or_default())
}
