//! `work/upgrade.json`: how the last upgrade stands, for whoever asked for it by a signal, which has no answer.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A file larger than this is not ours.
const MAX_BYTES: u64 = 64 * 1024;

/// How an upgrade stands or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Outcome {
    /// The new binary starts.
    Starting,
    /// It serves, and the old supervisor drains its workers and leaves.
    Serving {
        /// The new supervisor.
        pid: u32,
    },
    /// The old supervisor goes on.
    Failed {
        /// Why, in a sentence.
        reason: String,
    },
}

/// What is known of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The supervisor that was asked.
    pub supervisor: u32,
    /// Counts the upgrades it was asked for.
    pub attempt: u32,
    /// How this one stands.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What is known of the last upgrade of the server in `directory`; `None` when there was none.
#[must_use]
pub fn report(directory: &Path) -> Option<Report> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path(directory)).ok()?;
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Keeps `report`, whole or not at all.
pub(in crate::supervisor) fn keep(directory: &Path, report: &Report) -> io::Result<()> {
    let path = path(directory);
    let beside = path.with_extension("json.new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec_pretty(report)?)?;
    fs::rename(beside, path)
}

fn path(directory: &Path) -> PathBuf {
    directory.join("work").join("upgrade.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_kept_and_its_format_is_pinned() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("work")).unwrap();
        assert_eq!(report(directory.path()), None);
        let kept = Report { supervisor: 7, attempt: 2, outcome: Outcome::Serving { pid: 9 } };
        keep(directory.path(), &kept).unwrap();
        assert_eq!(report(directory.path()), Some(kept.clone()));
        let text = r#"{"supervisor":7,"attempt":2,"state":"serving","pid":9}"#;
        assert_eq!(serde_json::from_str::<Report>(text).unwrap(), kept);
    }
}
