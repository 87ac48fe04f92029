//! What became of each pickup file, remembered in the ODB by path and digest.
//!
//! A scan deploys only what differs from this memory, so a rollback or an undeploy survives a restart although
//! the newer file still lies in the directory.

use crosstie_api::operations::{DeployRequest, DeploySource, OperationError, Operations};
use crosstie_model::Digest;
use crosstie_model::unit::Artifact;
use crosstie_odb::{AttemptOutcome, NewAttempt, Odb, OdbError};

use super::Cause;
use super::layout::Candidate;

/// The memory of one server, and the way from a candidate to a deployment.
#[derive(Clone)]
pub(crate) struct Memory {
    server: String,
    odb: Odb,
    operations: Operations,
}

impl Memory {
    /// The memory of the server that `operations` belong to.
    pub(crate) fn new(odb: Odb, operations: Operations) -> Self {
        Self { server: operations.server().to_string(), odb, operations }
    }

    /// Deploys `artifact` unless it was handled already. Somebody who writes a file again wants it deployed
    /// again, unless just that version is active; a scan asks for nothing that was ever handled.
    pub(crate) async fn deploy(&self, path: &str, artifact: Artifact, cause: Cause) {
        let (unit, digest) = (artifact.unit.clone(), artifact.digest);
        match self.is_wanted(path, digest, cause).await {
            Ok(true) => {}
            Ok(false) => return,
            // The next scan finds it, as it is not in the memory.
            Err(error) => return tracing::warn!(path, %error, "a pickup file has to wait for the ODB"),
        }
        let source = DeploySource::Pickup { path: path.to_owned() };
        let outcome = match self.operations.deploy(DeployRequest { artifact, source, expected: None }).await {
            Ok(done) => {
                if done.changed {
                    tracing::info!(unit = %unit, digest = %digest.short(), revision = done.revision.0,
                        services = done.services.join(", "), "deployed");
                }
                AttemptOutcome::Deployed
            }
            Err(OperationError::Refused(refusal)) => {
                tracing::warn!(unit = %unit, digest = %digest.short(), reason = refusal.reason, "not deployed");
                AttemptOutcome::Refused
            }
            Err(error) => {
                return tracing::error!(unit = %unit, digest = %digest.short(), %error,
                    "a pickup file could not be deployed; it is tried again");
            }
        };
        self.remember(path, digest, outcome).await;
    }

    /// Keeps that `candidate` cannot be deployed, and why, once.
    pub(crate) async fn refuse(&self, path: &str, candidate: &Candidate, digest: Digest, reason: &str) {
        if !matches!(self.is_wanted(path, digest, Cause::Scan).await, Ok(true)) {
            return;
        }
        tracing::warn!(path, reason, "not deployed");
        let attempt = NewAttempt {
            server: self.server.clone(),
            unit: candidate.unit.clone(),
            digest: None,
            source: path.to_owned(),
            outcome: AttemptOutcome::Refused,
            reason: reason.to_owned(),
            detail: String::new(),
        };
        if let Err(error) = self.odb.record_attempt(&attempt).await {
            return tracing::warn!(path, %error, "the refusal could not be recorded");
        }
        self.remember(path, digest, AttemptOutcome::Refused).await;
    }

    async fn is_wanted(&self, path: &str, digest: Digest, cause: Cause) -> Result<bool, OdbError> {
        if cause == Cause::Event {
            return Ok(true);
        }
        let known = self.odb.pickup_files(&self.server).await?;
        Ok(!known.iter().any(|row| row.path == path && row.digest == digest))
    }

    async fn remember(&self, path: &str, digest: Digest, outcome: AttemptOutcome) {
        if let Err(error) = self.odb.record_pickup(&self.server, path, &digest, outcome).await {
            tracing::warn!(path, %error, "the pickup file could not be remembered; it is tried again");
        }
    }
}
