//! Reads a candidate whole or not at all.
//!
//! A file may be written, replaced or removed while it is read. What comes out is what lay there at one
//! moment: a reading during which the file's identity, size or time changed is thrown away and tried again.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bytes::Bytes;
use crosstie_model::unit::{Artifact, ArtifactKind};
use crosstie_model::{Digest, UnitName};
use crosstie_process::files::is_open_for_writing;
use crosstie_runtime::archive;

use super::layout::{Candidate, is_ignored};

/// How often a file that changes under the reader is read again before it is left to its next event.
const ATTEMPTS: usize = 5;

/// What reading a candidate gave.
#[derive(Debug)]
pub(crate) enum Reading {
    /// The artifact.
    Whole(Artifact),
    /// It is not there any more; deleting undeploys nothing.
    Gone,
    /// Somebody still writes to it.
    Unfinished,
    /// It can never be deployed as it is; the reason is for the person who put it there. The digest is that
    /// of the reason when the content could not be read, so that the same refusal is recorded once.
    Refused { digest: Digest, reason: String },
}

/// Reads `candidate` below `pickup`. Blocking: call it off the reactor.
pub(crate) fn read(pickup: &Path, candidate: &Candidate, max_bytes: u64) -> Reading {
    let unit = match UnitName::new(&candidate.unit) {
        Ok(unit) => unit,
        Err(error) => return refused(format!("{:?} cannot name a unit: {error}", candidate.unit)),
    };
    let path = pickup.join(&candidate.path);
    let content = match candidate.kind {
        ArtifactKind::PythonFile => read_file(&path, max_bytes),
        ArtifactKind::PythonPackage | ArtifactKind::PythonLibrary => read_tree(&path, max_bytes),
    };
    match content {
        Ok(content) => Reading::Whole(Artifact::new(unit, candidate.kind, content)),
        Err(Stop::Gone) => Reading::Gone,
        Err(Stop::Unfinished) => Reading::Unfinished,
        Err(Stop::Refused(reason)) => refused(reason),
    }
}

fn refused(reason: String) -> Reading {
    Reading::Refused { digest: Digest::of(reason.as_bytes()), reason }
}

enum Stop {
    Gone,
    Unfinished,
    Refused(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Gone,
            _ => Self::Refused(format!("it cannot be read: {error}")),
        }
    }
}

fn read_file(path: &Path, max_bytes: u64) -> Result<Bytes, Stop> {
    for _ in 0..ATTEMPTS {
        let mut file = File::open(path)?;
        let before = file.metadata()?;
        if !before.is_file() {
            return Err(Stop::Refused("it is not a regular file".into()));
        }
        if is_open_for_writing(&file) {
            return Err(Stop::Unfinished);
        }
        if before.len() > max_bytes {
            return Err(Stop::Refused(format!(
                "it has {} bytes; at most {max_bytes} are allowed",
                before.len()
            )));
        }
        let mut content = Vec::new();
        file.by_ref().take(max_bytes + 1).read_to_end(&mut content)?;
        if same(&before, &file.metadata()?) && same(&before, &fs::metadata(path)?) {
            return Ok(Bytes::from(content));
        }
    }
    Err(Stop::Unfinished)
}

fn read_tree(path: &Path, max_bytes: u64) -> Result<Bytes, Stop> {
    let before = tree_state(path)?;
    let packed = archive::pack(path, max_bytes).map_err(|error| Stop::Refused(error.to_string()))?;
    if tree_state(path)? == before { Ok(packed) } else { Err(Stop::Unfinished) }
}

/// What would differ if anything in the tree were written, replaced, added or removed.
fn tree_state(path: &Path) -> Result<Vec<(u64, u64, i64, i64)>, Stop> {
    let mut state = Vec::new();
    let mut directories = vec![path.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if is_ignored(&entry.file_name()) {
                continue;
            }
            let found = entry.metadata()?;
            if found.is_dir() {
                directories.push(entry.path());
            } else if found.is_file() && is_open_for_writing(&File::open(entry.path())?) {
                return Err(Stop::Unfinished);
            }
            state.push((found.ino(), found.len(), found.mtime(), found.mtime_nsec()));
        }
    }
    state.sort_unstable();
    Ok(state)
}

fn same(before: &Metadata, after: &Metadata) -> bool {
    let identity = |m: &Metadata| (m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec());
    identity(before) == identity(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(path: &str, kind: ArtifactKind) -> Candidate {
        Candidate { path: path.into(), unit: path.trim_end_matches(".py").into(), kind }
    }

    #[test]
    fn a_file_that_is_still_open_for_writing_is_unfinished() {
        let pickup = tempfile::tempdir().unwrap();
        let path = pickup.path().join("hello.py");
        let writer = File::create(&path).unwrap();
        let hello = candidate("hello.py", ArtifactKind::PythonFile);
        assert!(matches!(read(pickup.path(), &hello, 100), Reading::Unfinished));
        drop(writer);
        assert!(matches!(read(pickup.path(), &hello, 100), Reading::Whole(_)));
    }

    #[test]
    fn a_deleted_file_is_gone_and_a_large_one_refused() {
        let pickup = tempfile::tempdir().unwrap();
        let hello = candidate("hello.py", ArtifactKind::PythonFile);
        assert!(matches!(read(pickup.path(), &hello, 100), Reading::Gone));
        fs::write(pickup.path().join("hello.py"), [b'#'; 101]).unwrap();
        assert!(matches!(read(pickup.path(), &hello, 100), Reading::Refused { .. }));
    }

    #[test]
    fn a_package_is_read_whole() {
        let pickup = tempfile::tempdir().unwrap();
        fs::create_dir(pickup.path().join("crm")).unwrap();
        fs::write(pickup.path().join("crm/__init__.py"), "").unwrap();
        let crm = candidate("crm", ArtifactKind::PythonPackage);
        let Reading::Whole(artifact) = read(pickup.path(), &crm, 100_000) else { panic!("not whole") };
        assert_eq!(artifact.kind, ArtifactKind::PythonPackage);
    }
}
