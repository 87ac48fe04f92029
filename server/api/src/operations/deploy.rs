//! Deploying and undeploying: an uploaded artifact is checked in a scratch process, stored as a deployment
//! of its unit and activated, all in one revision, or refused with the reason kept.

use std::collections::HashMap;

use async_trait::async_trait;
use crosstie_model::limits::MAX_ARTIFACT_BYTES;
use crosstie_model::unit::{Artifact, ArtifactKind, LIBRARY_UNIT, UnitManifest};
use crosstie_model::{Digest, Revision, Snapshot, UnitName};
use schemars::JsonSchema;
use serde::Serialize;

use super::change::{Effect, Intent, Step};
use super::draft::Draft;
use super::{OperationError, Operations, Refusal};
use crate::checker::CheckError;

/// One artifact to deploy.
#[derive(Debug, Clone)]
pub struct DeployRequest {
    /// The artifact.
    pub artifact: Artifact,
    /// Where it came from, and so who deploys it.
    pub source: DeploySource,
    /// The revision the caller looked at, when that matters to it.
    pub expected: Option<Revision>,
}

/// Where an artifact came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeploySource {
    /// A file in the pickup directory.
    Pickup {
        /// Its path there.
        path: String,
    },
    /// The management API.
    Api {
        /// Who sent it.
        author: String,
    },
}

impl DeploySource {
    /// Who the audit names.
    #[must_use]
    pub fn author(&self) -> &str {
        match self {
            Self::Pickup { .. } => "pickup",
            Self::Api { author } => author,
        }
    }
}

/// A deployment that was made.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct DeployOutcome {
    /// The revision at which it is active.
    pub revision: Revision,
    /// Whether anything changed; not when this artifact was active already.
    pub changed: bool,
    /// The unit.
    pub unit: UnitName,
    /// SHA-256 of the artifact.
    #[schemars(with = "String")]
    pub digest: Digest,
    /// What the artifact is.
    pub kind: ArtifactKind,
    /// The services it defines.
    pub services: Vec<String>,
    /// Units that were checked and activated anew because they use the shared library.
    pub redeployed: Vec<UnitName>,
}

/// What a check without a deployment found.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CheckedArtifact {
    /// The unit it would be a version of.
    pub unit: UnitName,
    /// SHA-256 of the artifact.
    #[schemars(with = "String")]
    pub digest: Digest,
    /// Whether deploying it would change anything.
    pub changes: bool,
    /// What it defines.
    pub manifest: UnitManifest,
    /// Units that would be checked and activated anew.
    pub redeployed: Vec<UnitName>,
}

/// What activating a deployment comes to.
#[derive(Debug, Clone)]
pub(super) struct Activated {
    pub artifact: Artifact,
    pub manifest: UnitManifest,
    pub redeployed: Vec<UnitName>,
}

impl Activated {
    pub(super) fn outcome(&self, revision: Revision, changed: bool) -> DeployOutcome {
        DeployOutcome {
            revision,
            changed,
            unit: self.artifact.unit.clone(),
            digest: self.artifact.digest,
            kind: self.artifact.kind,
            services: self.manifest.services.iter().map(|service| service.name.to_string()).collect(),
            redeployed: self.redeployed.clone(),
        }
    }
}

impl Operations {
    /// Checks, stores and activates an artifact. Refusals and failures are kept in the list of attempts.
    ///
    /// # Errors
    /// [`OperationError::Refused`] when the artifact or what would come of it is at fault: nothing changed
    /// and trying again is pointless. Anything else says nothing about the artifact.
    pub async fn deploy(&self, request: DeployRequest) -> Result<DeployOutcome, OperationError> {
        let DeployRequest { artifact, source, expected } = request;
        let (unit, digest) = (artifact.unit.clone(), artifact.digest);
        let message = format!("Deploy {unit} {}", digest.short());
        let intent = Intent { author: source.author().to_owned(), message, expected };
        let done = match self.check_size_and_name(&artifact) {
            Ok(()) => {
                let step = Deploy { artifact, checks: Checks::default() };
                self.change(&intent, Effect::Make, step).await
            }
            Err(refusal) => Err(OperationError::Refused(refusal)),
        };
        let done = done.map(|done| done.outcome.outcome(done.revision, done.changed));
        self.keep_attempt(&unit, Some(digest), &source, done.as_ref().map(|_| ())).await;
        done
    }

    /// Finds out what deploying an artifact would do, without doing it.
    ///
    /// # Errors
    /// As for [`Operations::deploy`].
    pub async fn check_artifact(&self, artifact: Artifact) -> Result<CheckedArtifact, OperationError> {
        self.check_size_and_name(&artifact).map_err(OperationError::Refused)?;
        let intent = Intent { author: String::new(), message: String::new(), expected: None };
        let step = Deploy { artifact, checks: Checks::default() };
        let done = self.change(&intent, Effect::Try, step).await?;
        Ok(CheckedArtifact {
            unit: done.outcome.artifact.unit,
            digest: done.outcome.artifact.digest,
            changes: done.changed,
            manifest: done.outcome.manifest,
            redeployed: done.outcome.redeployed,
        })
    }

    /// Takes a unit out of service. Its deployments are kept for a rollback.
    ///
    /// # Errors
    /// There is no such unit; explicit channels still lead to its services; other units use the library.
    pub async fn undeploy(&self, unit: &UnitName, mut intent: Intent) -> Result<Revision, OperationError> {
        if intent.message.is_empty() {
            intent.message = format!("Undeploy {unit}");
        }
        Ok(self.change(&intent, Effect::Make, Undeploy { unit: unit.clone() }).await?.revision)
    }

    fn check_size_and_name(&self, artifact: &Artifact) -> Result<(), Refusal> {
        let limit = self.host().settings().deploy.max_artifact_bytes;
        let limit = usize::try_from(limit).unwrap_or(MAX_ARTIFACT_BYTES).min(MAX_ARTIFACT_BYTES);
        let size = artifact.content.len();
        if size > limit {
            let hint = "server.toml, [deploy] max_artifact_bytes";
            return Err(Refusal::new(format!("the artifact has {size} bytes; at most {limit} ({hint})")));
        }
        let is_library = artifact.kind == ArtifactKind::PythonLibrary;
        match (artifact.unit.as_str() == LIBRARY_UNIT, is_library) {
            (true, false) => Err(Refusal::new(format!(
                "a unit cannot be called {LIBRARY_UNIT}: that is the shared library"
            ))),
            (false, true) => Err(Refusal::new(format!("the shared library is always called {LIBRARY_UNIT}"))),
            _ => Ok(()),
        }
    }

    /// Drafts `artifact` as its unit's active deployment; a library brings along every unit that uses it.
    pub(super) async fn draft_activation(
        &self,
        artifact: &Artifact,
        now: &Snapshot,
        draft: &mut Draft,
        checks: &mut Checks,
    ) -> Result<Activated, OperationError> {
        if let Some(active) = now.units.get(&artifact.unit)
            && active.digest == artifact.digest
        {
            let manifest = active.manifest.clone();
            return Ok(Activated { artifact: artifact.clone(), manifest, redeployed: Vec::new() });
        }
        let manifest = if artifact.kind == ArtifactKind::PythonLibrary {
            checks.check(self, artifact, None).await?
        } else {
            let library = self.active_library(now).await?;
            let manifest = checks.check(self, artifact, library.as_ref()).await?;
            if manifest.services.is_empty() {
                return Err(OperationError::Refused(Refusal::new("it defines no service")));
            }
            manifest
        };
        draft.deploy(artifact.clone(), manifest.clone());
        let redeployed = if artifact.kind == ArtifactKind::PythonLibrary {
            self.draft_dependants(artifact, now, draft, checks).await?
        } else {
            Vec::new()
        };
        Ok(Activated { artifact: artifact.clone(), manifest, redeployed })
    }
}

/// Checks made for one operation, kept so that a lost race does not run user code again.
#[derive(Debug, Default)]
pub(super) struct Checks {
    made: HashMap<(UnitName, Digest, Option<Digest>), UnitManifest>,
}

impl Checks {
    /// What `artifact` defines when it is loaded with `library`.
    pub(super) async fn check(
        &mut self,
        operations: &Operations,
        artifact: &Artifact,
        library: Option<&Artifact>,
    ) -> Result<UnitManifest, OperationError> {
        let key = (artifact.unit.clone(), artifact.digest, library.map(|library| library.digest));
        if let Some(manifest) = self.made.get(&key) {
            return Ok(manifest.clone());
        }
        let permit = operations.inner.checks.acquire().await;
        let checked = operations.inner.parts.checker.check(artifact, library).await;
        drop(permit);
        let manifest = checked.map_err(refused_by_check)?;
        self.made.insert(key, manifest.clone());
        Ok(manifest)
    }
}

fn refused_by_check(error: CheckError) -> OperationError {
    match error {
        CheckError::NotRun(why) => OperationError::CheckNotRun(why),
        refused => {
            let (reason, detail) = (refused.to_string(), refused.detail().to_owned());
            OperationError::Refused(Refusal { reason, detail, faults: Vec::new() })
        }
    }
}

struct Deploy {
    artifact: Artifact,
    checks: Checks,
}

#[async_trait]
impl Step for Deploy {
    type Outcome = Activated;

    async fn draft(
        &mut self,
        operations: &Operations,
        now: &Snapshot,
        draft: &mut Draft,
    ) -> Result<Activated, OperationError> {
        operations.draft_activation(&self.artifact, now, draft, &mut self.checks).await
    }
}

struct Undeploy {
    unit: UnitName,
}

#[async_trait]
impl Step for Undeploy {
    type Outcome = ();

    async fn draft(
        &mut self,
        _: &Operations,
        now: &Snapshot,
        draft: &mut Draft,
    ) -> Result<(), OperationError> {
        if draft.undeploy(&self.unit).is_none() {
            return Err(OperationError::NotFound(format!("active deployment of a unit {}", self.unit)));
        }
        super::library::refuse_to_orphan(&self.unit, now)
    }
}
