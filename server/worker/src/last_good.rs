//! The last good snapshot on disk: what lets workers and whole servers start while the ODB is away.
//!
//! Owned by the singleton, which writes it after a revision is served; read by any worker that cannot reach
//! the ODB. One file holds the snapshot (secrets still sealed), one file per artifact holds code, each known
//! by its digest. Everything is written beside its place and renamed, so a reader sees the old state or the
//! new one. Writing costs a few milliseconds and happens off the hot path.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crosstie_model::definition::{Definition, DefinitionId};
use crosstie_model::snapshot::{ActiveUnit, Snapshot};
use crosstie_model::unit::Artifact;
use crosstie_model::{Digest, Revision, UnitName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The format's first line; a file that starts otherwise is of another release and is not read.
const MAGIC: &str = "crosstie-snapshot 1";

/// Why the last good snapshot could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LastGoodError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The content is damaged or of another format.
    #[error("{path}: {reason}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
}

/// The directory (`work/`) that holds the snapshot and its artifacts.
#[derive(Debug, Clone)]
pub(crate) struct LastGood {
    snapshot: PathBuf,
    artifacts: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    revision: Revision,
    definitions: Vec<StoredDefinition>,
    units: Vec<StoredUnit>,
    secrets: Vec<StoredSecret>,
    #[serde(default)]
    revoked: BTreeSet<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredDefinition {
    #[serde(flatten)]
    id: DefinitionId,
    body: Value,
}

#[derive(Serialize, Deserialize)]
struct StoredUnit {
    name: UnitName,
    #[serde(flatten)]
    active: ActiveUnit,
}

#[derive(Serialize, Deserialize)]
struct StoredSecret {
    name: String,
    version: u32,
    sealed: Vec<u8>,
}

impl LastGood {
    /// The store in `work`, a server's `work/` directory. Touches nothing yet.
    #[must_use]
    pub(crate) fn new(work: &Path) -> Self {
        Self { snapshot: work.join("snapshot"), artifacts: work.join("artifacts") }
    }

    /// Keeps `snapshot` and its `artifacts`, and removes artifacts no unit of it uses. Artifacts are written
    /// first, so a snapshot on disk always finds its code.
    ///
    /// # Errors
    /// The disk refused; the previous snapshot is still whole.
    pub(crate) fn save(&self, snapshot: &Snapshot, artifacts: &[Artifact]) -> Result<(), LastGoodError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.artifacts)
            .map_err(|source| LastGoodError::File { path: self.artifacts.clone(), source })?;
        for artifact in artifacts {
            let path = self.artifact_path(&artifact.digest);
            if !path.exists() {
                replace(&path, &artifact.content)?;
            }
        }
        replace(&self.snapshot, &self.encode(snapshot)?)?;
        self.remove_unused(snapshot);
        Ok(())
    }

    /// The snapshot last kept; `None` when there never was one.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub(crate) fn load(&self) -> Result<Option<Snapshot>, LastGoodError> {
        let text = match fs::read(&self.snapshot) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LastGoodError::File { path: self.snapshot.clone(), source }),
        };
        self.decode(&text).map(Some)
    }

    /// Whether the artifact with `digest` is kept, damaged or not.
    #[must_use]
    pub(crate) fn has_artifact(&self, digest: &Digest) -> bool {
        self.artifact_path(digest).exists()
    }

    /// The artifact with `digest`, if it is kept and undamaged.
    #[must_use]
    pub(crate) fn artifact(&self, unit: &UnitName, active: &ActiveUnit) -> Option<Artifact> {
        let content = fs::read(self.artifact_path(&active.digest)).ok()?;
        let artifact = Artifact::new(unit.clone(), active.kind, Bytes::from(content));
        (artifact.digest == active.digest).then_some(artifact)
    }

    fn artifact_path(&self, digest: &Digest) -> PathBuf {
        self.artifacts.join(digest.to_string())
    }

    fn remove_unused(&self, snapshot: &Snapshot) {
        let used: BTreeSet<String> = snapshot.units.values().map(|unit| unit.digest.to_string()).collect();
        let Ok(entries) = fs::read_dir(&self.artifacts) else { return };
        for entry in entries.flatten() {
            if !used.contains(entry.file_name().to_string_lossy().as_ref()) {
                // A file that stays is only disk space; the next save tries again.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn damaged(&self, reason: impl Into<String>) -> LastGoodError {
        LastGoodError::Damaged { path: self.snapshot.clone(), reason: reason.into() }
    }

    fn encode(&self, snapshot: &Snapshot) -> Result<Vec<u8>, LastGoodError> {
        let definitions = snapshot
            .definitions
            .iter()
            .map(|(id, body)| Ok(StoredDefinition { id: id.clone(), body: serde_json::to_value(body)? }))
            .collect::<Result<Vec<_>, serde_json::Error>>()
            .map_err(|error| self.damaged(error.to_string()))?;
        let stored = Stored {
            revision: snapshot.revision,
            definitions,
            units: snapshot
                .units
                .iter()
                .map(|(name, active)| StoredUnit { name: name.clone(), active: active.clone() })
                .collect(),
            secrets: snapshot
                .secrets
                .iter()
                .map(|((name, version), sealed)| StoredSecret {
                    name: name.clone(),
                    version: *version,
                    sealed: sealed.clone(),
                })
                .collect(),
            revoked: snapshot.revoked.clone(),
        };
        let body = serde_json::to_vec(&stored).map_err(|error| self.damaged(error.to_string()))?;
        let mut file = format!("{MAGIC} {}\n", Digest::of(&body)).into_bytes();
        file.extend_from_slice(&body);
        Ok(file)
    }

    fn decode(&self, file: &[u8]) -> Result<Snapshot, LastGoodError> {
        let end = file.iter().position(|byte| *byte == b'\n').ok_or_else(|| self.damaged("no header"))?;
        let (header, body) = file.split_at(end);
        let body = body.get(1..).unwrap_or_default();
        let expected = std::str::from_utf8(header)
            .ok()
            .and_then(|header| header.strip_prefix(MAGIC))
            .and_then(|digest| digest.trim().parse::<Digest>().ok())
            .ok_or_else(|| self.damaged("not a snapshot of this release"))?;
        if Digest::of(body) != expected {
            return Err(self.damaged("its digest does not match its content"));
        }
        let stored: Stored = serde_json::from_slice(body).map_err(|error| self.damaged(error.to_string()))?;
        let mut snapshot = Snapshot { revision: stored.revision, ..Snapshot::default() };
        for StoredDefinition { id, body } in stored.definitions {
            let name = id.to_string();
            let definition = Definition::from_value(id, body)
                .map_err(|_| self.damaged(format!("{name} is not valid in this release")))?;
            snapshot.definitions.insert(definition.id, definition.body);
        }
        snapshot.units = stored.units.into_iter().map(|unit| (unit.name, unit.active)).collect();
        snapshot.secrets = stored.secrets.into_iter().map(|s| ((s.name, s.version), s.sealed)).collect();
        snapshot.revoked = stored.revoked;
        Ok(snapshot)
    }
}

/// Writes `content` beside `path`, makes it durable and renames it into place; mode 0600.
///
/// # Errors
/// What the system said, with the path.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), LastGoodError> {
    let fail = |source| LastGoodError::File { path: path.to_owned(), source };
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let write = || -> io::Result<()> {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(content)?;
        file.sync_data()?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&beside);
        fail(source)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::definition::{DefinitionKind, DefinitionName};
    use crosstie_model::unit::{ArtifactKind, UnitManifest};
    use serde_json::json;

    fn sample() -> (Snapshot, Artifact) {
        let unit = UnitName::new("hello").unwrap();
        let artifact = Artifact::new(unit.clone(), ArtifactKind::PythonFile, Bytes::from_static(b"x = 1"));
        let id = DefinitionId {
            kind: DefinitionKind::Security,
            name: DefinitionName::new("crm.clients").unwrap(),
        };
        let body = json!({
            "type": "basic_auth", "username": "crm",
            "password": {"ref": "security/crm.clients/password", "version": 3}
        });
        let definition = Definition::from_value(id, body).unwrap();
        let snapshot = Snapshot {
            revision: Revision(7),
            definitions: [(definition.id, definition.body)].into(),
            units: [(
                unit,
                ActiveUnit {
                    digest: artifact.digest,
                    kind: artifact.kind,
                    manifest: UnitManifest::default(),
                },
            )]
            .into(),
            secrets: [(("security/crm.clients/password".to_owned(), 3), vec![1, 2, 3])].into(),
            revoked: ["4f0a".to_owned()].into(),
        };
        (snapshot, artifact)
    }

    #[test]
    fn a_snapshot_survives_the_disk() {
        let work = tempfile::tempdir().unwrap();
        let store = LastGood::new(work.path());
        assert!(store.load().unwrap().is_none());
        let (snapshot, artifact) = sample();
        store.save(&snapshot, std::slice::from_ref(&artifact)).unwrap();
        assert_eq!(store.load().unwrap().unwrap(), snapshot);
        let (name, active) = snapshot.units.iter().next().unwrap();
        assert_eq!(store.artifact(name, active).unwrap(), artifact);
    }

    #[test]
    fn a_damaged_snapshot_is_refused() {
        let work = tempfile::tempdir().unwrap();
        let store = LastGood::new(work.path());
        let (snapshot, artifact) = sample();
        store.save(&snapshot, &[artifact]).unwrap();
        let mut file = fs::read(work.path().join("snapshot")).unwrap();
        let last = file.len() - 2;
        file[last] ^= 1;
        fs::write(work.path().join("snapshot"), file).unwrap();
        assert!(matches!(store.load(), Err(LastGoodError::Damaged { .. })));
    }

    #[test]
    fn artifacts_no_unit_uses_are_removed() {
        let work = tempfile::tempdir().unwrap();
        let store = LastGood::new(work.path());
        let (mut snapshot, artifact) = sample();
        store.save(&snapshot, &[artifact]).unwrap();
        snapshot.units.clear();
        store.save(&snapshot, &[]).unwrap();
        assert_eq!(fs::read_dir(work.path().join("artifacts")).unwrap().count(), 0);
    }
}
