//! A fault in a configuration file: where it is and what is wrong there.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One fault of a configuration file. Sorts by file and line. The texts never quote a value, which might be
/// a secret; keys are quoted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LocatedFault {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The key: `server.workers` in TOML, `channel/NAME/rate_limit/0/limit` in YAML; empty for the whole file.
    pub key: String,
    /// What is wrong there, for a person.
    pub detail: String,
}

impl LocatedFault {
    /// A fault at `line` of `file`.
    #[must_use]
    pub fn new(file: &Path, line: usize, key: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, key: key.into(), detail: detail.into() }
    }
}

impl fmt::Display for LocatedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file.display(), self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.detail)
    }
}

impl std::error::Error for LocatedFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_like_a_compilers() {
        let fault = LocatedFault::new(Path::new("server.toml"), 7, "server.workers", "must be a number");
        assert_eq!(fault.to_string(), "server.toml:7: server.workers: must be a number");
        let whole = LocatedFault::new(Path::new("a.yaml"), 1, "", "is empty");
        assert_eq!(whole.to_string(), "a.yaml:1: is empty");
    }
}
