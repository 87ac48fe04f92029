//! Deployments: the versions of units and their bytes.

use crosstie_model::names::{Digest, UnitName};
use crosstie_model::unit::{Artifact, ArtifactKind, UnitManifest};
use serde_json::{Value, json};

use crate::error::OdbError;
use crate::handle::{Odb, run};

/// Artifacts are stored in pieces of this many bytes: MariaDB refuses packets above 16 MiB by default.
pub(crate) const CHUNK_BYTES: usize = 1024 * 1024;

/// A stored deployment, without its bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct DeploymentRow {
    /// The unit.
    pub unit: UnitName,
    /// Which version of it.
    pub digest: Digest,
    /// What the artifact is.
    pub kind: ArtifactKind,
    /// Bytes of the artifact.
    pub size: u64,
    /// What it defines.
    pub manifest: UnitManifest,
    /// Who stored it first.
    pub author: String,
    /// When it was stored first: µs since 1970 UTC.
    pub created_us: i64,
    /// Whether it is the one in service.
    pub active: bool,
}

/// What the audit and the cluster's repository say of a unit's active deployment.
pub(crate) fn document(digest: &str, kind: &str, manifest: &UnitManifest) -> Value {
    let mut services: Vec<_> = manifest.services.iter().map(|service| service.name.as_str()).collect();
    services.sort_unstable();
    let mut document = json!({"digest": digest, "kind": kind, "services": services, "active": true});
    if let (Some(library), Some(object)) = (&manifest.library, document.as_object_mut()) {
        object.insert("library".into(), library.to_string().into());
    }
    document
}

impl Odb {
    /// The bytes of a deployment.
    ///
    /// # Errors
    /// The database is away, or the stored bytes no longer have their digest.
    pub async fn artifact(&self, unit: &UnitName, digest: &Digest) -> Result<Option<Artifact>, OdbError> {
        run!(self, Read, deployment::artifact(unit, digest))
    }

    /// The stored deployments, of one unit or of all: by unit, the one stored or activated last first.
    ///
    /// # Errors
    /// The database is away.
    pub async fn deployments(&self, unit: Option<&UnitName>) -> Result<Vec<DeploymentRow>, OdbError> {
        run!(self, Single, deployment::deployments(unit))
    }
}
