//! Looking at deployments: which version of a unit is active, where it is live, what else is kept, and
//! which attempts were refused and why.

use std::collections::BTreeMap;

use crosstie_model::unit::{Artifact, ArtifactKind, UnitManifest};
use crosstie_model::{Digest, Revision, UnitName};
use crosstie_odb::{AttemptOutcome, AttemptRow, DeploymentRow, NewAttempt, ReportRow, ReportState};
use schemars::JsonSchema;
use serde::Serialize;

use super::deploy::DeploySource;
use super::error::first_of;
use super::rollback::one_by_prefix;
use super::{OperationError, Operations};
use crate::clock::timestamp;
use crate::host::WorkerPhase;

/// How many attempts are looked through for the newest of each unit; as many as are kept.
const ALL_ATTEMPTS: u32 = 1000;

/// A unit and its active deployment.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct DeploymentView {
    /// The unit.
    pub unit: UnitName,
    /// The active version; absent when the unit is undeployed or never was deployed.
    #[serde(flatten)]
    pub active: Option<VersionView>,
    /// Where the active version is live, by server.
    pub live: Vec<LiveOn>,
    /// The newest attempt to deploy this unit, when it came to nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<AttemptView>,
}

/// One version of a unit.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct VersionView {
    /// SHA-256 of the artifact.
    #[schemars(with = "String")]
    pub digest: Digest,
    /// What the artifact is.
    pub kind: ArtifactKind,
    /// Bytes of the artifact.
    pub size: u64,
    /// Who deployed it first.
    pub author: String,
    /// When that was (RFC 3339).
    pub created: String,
    /// Whether it is the active one.
    pub active: bool,
    /// The services it defines.
    pub services: Vec<String>,
    /// The shared library it was checked with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub library: Option<Digest>,
}

/// What one server makes of an active deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LiveOn {
    /// The server.
    pub server: String,
    /// `serving`, `failed` (a worker could not load it) or `pending`.
    pub state: String,
    /// Workers that serve it; known of the answering server alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<usize>,
    /// Workers that take part; known of the answering server alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
    /// Why it is not served.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// One attempt to deploy something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AttemptView {
    /// Grows with every attempt.
    pub id: i64,
    /// When (RFC 3339).
    pub time: String,
    /// The server that tried.
    pub server: String,
    /// The unit.
    pub unit: String,
    /// SHA-256 of the artifact, when it could be read.
    #[schemars(with = "Option<String>")]
    pub digest: Option<Digest>,
    /// Where it came from: a path in the pickup directory, or `api`.
    pub source: String,
    /// `deployed`, `refused` or `failed`.
    pub outcome: String,
    /// Why, in one line; of several faults the first, and how many more there are.
    pub reason: String,
    /// Every fault, when there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// A traceback or the like.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Operations {
    /// Every unit that has a deployment or an attempt at one, by name.
    ///
    /// # Errors
    /// The ODB is away.
    pub async fn deployments(&self) -> Result<Vec<DeploymentView>, OperationError> {
        let rows = self.odb().deployments(None).await?;
        let attempts = self.odb().attempts(ALL_ATTEMPTS).await?;
        let reports = self.odb().reports().await?;
        let revision = self.odb().revision().await?;
        let mut views: BTreeMap<String, DeploymentView> = BTreeMap::new();
        for row in rows {
            let view = views.entry(row.unit.to_string()).or_insert_with(|| DeploymentView {
                unit: row.unit.clone(),
                active: None,
                live: Vec::new(),
                refused: None,
            });
            if row.active {
                view.live = self.live_on(&row, revision, &reports);
                view.active = Some(version(row));
            }
        }
        for (name, attempt) in newest_failures(attempts) {
            // A file whose name makes no unit is in the list of attempts only.
            let Ok(unit) = UnitName::new(&name) else { continue };
            let view = views.entry(name).or_insert_with(|| DeploymentView {
                unit,
                active: None,
                live: Vec::new(),
                refused: None,
            });
            view.refused = Some(attempt_view(attempt));
        }
        Ok(views.into_values().collect())
    }

    /// One unit.
    ///
    /// # Errors
    /// There is no such unit.
    pub async fn deployment(&self, unit: &UnitName) -> Result<DeploymentView, OperationError> {
        let all = self.deployments().await?;
        let found = all.into_iter().find(|view| view.unit == *unit);
        found.ok_or_else(|| OperationError::NotFound(format!("unit {unit}")))
    }

    /// The kept versions of a unit, the one stored or activated last first.
    ///
    /// # Errors
    /// There is no such unit.
    pub async fn history(&self, unit: &UnitName) -> Result<Vec<VersionView>, OperationError> {
        let rows = self.odb().deployments(Some(unit)).await?;
        if rows.is_empty() {
            return Err(OperationError::NotFound(format!("unit {unit}")));
        }
        Ok(rows.into_iter().map(version).collect())
    }

    /// The bytes and the manifest of the version of `unit` whose digest starts with `prefix`.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub async fn artifact(
        &self,
        unit: &UnitName,
        prefix: &str,
    ) -> Result<(Artifact, UnitManifest), OperationError> {
        let rows = self.odb().deployments(Some(unit)).await?;
        let row = one_by_prefix(unit, &rows, prefix)?;
        let artifact = self.odb().artifact(unit, &row.digest).await?;
        let artifact = artifact.ok_or_else(|| OperationError::NotFound(format!("deployment {prefix}")))?;
        Ok((artifact, row.manifest.clone()))
    }

    /// The newest attempts to deploy anything, newest first.
    ///
    /// # Errors
    /// The ODB is away.
    pub async fn attempts(&self, limit: u32) -> Result<Vec<AttemptView>, OperationError> {
        Ok(self.odb().attempts(limit).await?.into_iter().map(attempt_view).collect())
    }

    /// Notes an attempt that never got as far as [`Operations::deploy`]: a pickup file that is too large,
    /// unreadable or badly named.
    pub async fn note_refused_file(&self, unit: &str, digest: Option<Digest>, path: &str, reason: &str) {
        let outcome = AttemptOutcome::Refused;
        self.store_attempt(unit, digest, path, outcome, reason.to_owned(), String::new()).await;
    }

    pub(super) async fn keep_attempt(
        &self,
        unit: &UnitName,
        digest: Option<Digest>,
        source: &DeploySource,
        done: Result<(), &OperationError>,
    ) {
        let (outcome, reason, detail) = match done {
            Ok(()) => (AttemptOutcome::Deployed, String::new(), String::new()),
            Err(OperationError::Refused(refusal)) => {
                (AttemptOutcome::Refused, refusal.lines().join("\n"), refusal.detail.clone())
            }
            Err(error) => (AttemptOutcome::Failed, error.to_string(), String::new()),
        };
        self.host().count_deployment(outcome.as_str());
        let source = match source {
            DeploySource::Pickup { path } => path,
            DeploySource::Api { .. } => "api",
        };
        match outcome {
            AttemptOutcome::Deployed => tracing::info!(%unit, source, "deployed"),
            _ => tracing::warn!(%unit, source, %outcome, reason, detail, "not deployed"),
        }
        self.store_attempt(unit.as_str(), digest, source, outcome, reason, detail).await;
    }

    /// Losing a line of the history must not undo a deployment, so a failure is only logged.
    async fn store_attempt(
        &self,
        unit: &str,
        digest: Option<Digest>,
        source: &str,
        outcome: AttemptOutcome,
        reason: String,
        detail: String,
    ) {
        let (server, unit, source) = (self.server().to_string(), unit.to_owned(), source.to_owned());
        let attempt = NewAttempt { server, unit, digest, source, outcome, reason, detail };
        if let Err(error) = self.odb().record_attempt(&attempt).await {
            tracing::warn!(%error, unit = attempt.unit, "the attempt to deploy could not be noted");
        }
    }

    /// Where the active deployment `row` is live: this server by its workers' reports, the others by theirs.
    fn live_on(&self, row: &DeploymentRow, revision: Revision, reports: &[ReportRow]) -> Vec<LiveOn> {
        let mut live = vec![self.live_here(row, revision)];
        let others = reports
            .iter()
            .filter(|report| report.unit == row.unit && report.server != self.server().as_str());
        live.extend(others.map(|report| LiveOn {
            server: report.server.clone(),
            state: match report.state {
                _ if report.digest != row.digest => "pending".to_owned(),
                ReportState::Serving => "serving".to_owned(),
                ReportState::Failed => "failed".to_owned(),
            },
            serving: None,
            workers: None,
            message: report.message.clone(),
        }));
        live
    }

    fn live_here(&self, row: &DeploymentRow, revision: Revision) -> LiveOn {
        let known = self.serving().workers();
        let processes = self.host().processes();
        let ready: Vec<_> = processes.workers.iter().filter(|w| w.state == WorkerPhase::Ready).collect();
        let (mut serving, mut failure) = (0, None);
        for worker in &ready {
            let Some(serves) = known.get(&worker.index) else { continue };
            let failed = serves.failed_units.iter().find(|f| f.unit == row.unit && f.digest == row.digest);
            match failed {
                Some(failed) => failure = Some(format!("worker {}: {}", worker.index, failed.message)),
                None if serves.revision >= revision => serving += 1,
                None => {}
            }
        }
        let state = match &failure {
            Some(_) => "failed",
            None if serving == ready.len() && serving > 0 => "serving",
            None => "pending",
        };
        LiveOn {
            server: self.server().to_string(),
            state: state.to_owned(),
            serving: Some(serving),
            workers: Some(ready.len()),
            message: failure.unwrap_or_default(),
        }
    }
}

/// The newest attempt of each unit, where that is none that succeeded. Rows come newest first.
fn newest_failures(attempts: Vec<AttemptRow>) -> BTreeMap<String, AttemptRow> {
    let mut newest: BTreeMap<String, AttemptRow> = BTreeMap::new();
    for row in attempts {
        newest.entry(row.attempt.unit.clone()).or_insert(row);
    }
    newest.retain(|_, row| row.attempt.outcome != AttemptOutcome::Deployed);
    newest
}

fn version(row: DeploymentRow) -> VersionView {
    VersionView {
        digest: row.digest,
        kind: row.kind,
        size: row.size,
        author: row.author,
        created: timestamp(row.created_us),
        active: row.active,
        services: row.manifest.services.iter().map(|service| service.name.to_string()).collect(),
        library: row.manifest.library,
    }
}

fn attempt_view(row: AttemptRow) -> AttemptView {
    let AttemptRow { id, time_us, attempt } = row;
    // One fault a line, as it was noted.
    let mut faults: Vec<String> = attempt.reason.lines().map(str::to_owned).collect();
    let reason = first_of(&faults);
    if faults.len() < 2 {
        faults.clear();
    }
    AttemptView {
        id,
        time: timestamp(time_us),
        server: attempt.server,
        unit: attempt.unit,
        digest: attempt.digest,
        source: attempt.source,
        outcome: attempt.outcome.to_string(),
        reason,
        faults,
        detail: attempt.detail,
    }
}
