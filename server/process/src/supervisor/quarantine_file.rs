//! `work/quarantine.json`: what was quarantined, kept over restarts of the whole server. Written whole, to a
//! file beside it that then takes its place, so that a killed supervisor leaves the old or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::shm::Verdict;

const VERSION: u32 = 1;
/// A file larger than this is not ours.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    quarantined: Vec<Verdict>,
}

/// Why the file is of no use. The server starts without it and says so.
#[derive(Debug, thiserror::Error)]
pub(super) enum QuarantineFileError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It is too large.
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// It is no quarantine file.
    #[error("it is damaged")]
    Damaged(#[source] serde_json::Error),
    /// A later version of this program wrote it.
    #[error("it has version {0}, not {VERSION}")]
    Version(u32),
    /// It cannot be written.
    #[error("it cannot be written")]
    Write(#[source] io::Error),
}

/// The file of one server.
#[derive(Debug)]
pub(super) struct QuarantineFile {
    path: PathBuf,
    /// What is in it, so that only changes are written.
    written: Vec<Verdict>,
}

impl QuarantineFile {
    pub(super) fn new(directory: &Path) -> Self {
        Self { path: directory.join("work").join("quarantine.json"), written: Vec::new() }
    }

    /// Reads what an earlier run left; nothing when there is no file.
    pub(super) fn load(&mut self) -> Result<Vec<Verdict>, QuarantineFileError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(QuarantineFileError::Read(error)),
        };
        let mut bytes = Vec::new();
        let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(QuarantineFileError::Read)?;
        if read as u64 > MAX_BYTES {
            return Err(QuarantineFileError::TooLarge);
        }
        let content: Content = serde_json::from_slice(&bytes).map_err(QuarantineFileError::Damaged)?;
        if content.version != VERSION {
            return Err(QuarantineFileError::Version(content.version));
        }
        self.written.clone_from(&content.quarantined);
        Ok(content.quarantined)
    }

    /// Keeps `quarantined` if it differs from what the file says.
    pub(super) fn keep(&mut self, quarantined: Vec<Verdict>) -> Result<(), QuarantineFileError> {
        if quarantined == self.written {
            return Ok(());
        }
        let content = Content { version: VERSION, quarantined };
        let text = serde_json::to_vec_pretty(&content).map_err(QuarantineFileError::Damaged)?;
        self.replace(&text).map_err(QuarantineFileError::Write)?;
        self.written = content.quarantined;
        Ok(())
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let beside = self.path.with_extension("json.new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crosstie_model::names::ServiceName;

    use super::*;
    use crate::shm::{StrikeCause, Subject};

    fn verdict() -> Verdict {
        let subject = Subject::Service(ServiceName::new("crm.bad").unwrap());
        Verdict { subject, strikes: 3, cause: StrikeCause::Crash, since: Some(1_700_000_000) }
    }

    fn file() -> (tempfile::TempDir, QuarantineFile) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("work")).unwrap();
        let file = QuarantineFile::new(directory.path());
        (directory, file)
    }

    #[test]
    fn a_quarantine_survives_the_file() {
        let (directory, mut file) = file();
        assert_eq!(file.load().unwrap(), []);
        file.keep(vec![verdict()]).unwrap();
        assert_eq!(QuarantineFile::new(directory.path()).load().unwrap(), [verdict()]);
        file.keep(Vec::new()).unwrap();
        assert_eq!(QuarantineFile::new(directory.path()).load().unwrap(), []);
    }

    #[test]
    fn the_format_is_pinned() {
        let (_directory, mut file) = file();
        let text = r#"{"version":1,"quarantined":[{"subject":{"kind":"service","name":"crm.bad"},
            "strikes":3,"cause":"crash","since":1700000000}]}"#;
        fs::write(&file.path, text).unwrap();
        assert_eq!(file.load().unwrap(), [verdict()]);
    }

    #[test]
    fn a_damaged_or_foreign_file_is_refused() {
        let (_directory, mut file) = file();
        fs::write(&file.path, "{").unwrap();
        assert!(matches!(file.load(), Err(QuarantineFileError::Damaged(_))));
        fs::write(&file.path, r#"{"version":2,"quarantined":[]}"#).unwrap();
        assert!(matches!(file.load(), Err(QuarantineFileError::Version(2))));
    }
}
