//! Rolling a unit back: an earlier deployment is checked against today's library and definitions and
//! becomes the active one again, the same way a new one does.

use async_trait::async_trait;
use crosstie_model::unit::Artifact;
use crosstie_model::{Digest, Snapshot, UnitName};
use crosstie_odb::DeploymentRow;

use super::change::{Effect, Intent, Step};
use super::deploy::{Activated, Checks};
use super::draft::Draft;
use super::{DeployOutcome, OperationError, Operations, Refusal};

impl Operations {
    /// Re-activates an earlier deployment of `unit`: the one whose digest starts with `to`, or the one that
    /// was active before.
    ///
    /// # Errors
    /// No deployment fits, or several do; the deployment does not fit today's state.
    pub async fn rollback(
        &self,
        unit: &UnitName,
        to: Option<&str>,
        mut intent: Intent,
    ) -> Result<DeployOutcome, OperationError> {
        let rows = self.odb().deployments(Some(unit)).await?;
        let digest = choose(unit, &rows, to)?;
        let artifact = self.odb().artifact(unit, &digest).await?;
        let artifact = artifact.ok_or_else(|| OperationError::NotFound(format!("deployment {digest}")))?;
        if intent.message.is_empty() {
            intent.message = format!("Roll {unit} back to {}", digest.short());
        }
        let step = Rollback { artifact, checks: Checks::default() };
        let done = self.change(&intent, Effect::Make, step).await?;
        Ok(done.outcome.outcome(done.revision, done.changed))
    }
}

/// The deployment that is meant. Rows come the one stored or activated last first.
fn choose(unit: &UnitName, rows: &[DeploymentRow], to: Option<&str>) -> Result<Digest, OperationError> {
    if rows.is_empty() {
        return Err(OperationError::NotFound(format!("unit {unit}")));
    }
    let Some(prefix) = to else {
        let earlier = rows.iter().find(|row| !row.active).map(|row| row.digest);
        return earlier.ok_or_else(|| {
            OperationError::Refused(Refusal::new(format!("the unit {unit} has no other deployment")))
        });
    };
    one_by_prefix(unit, rows, prefix).map(|row| row.digest)
}

/// The one deployment whose digest starts with `prefix`.
pub(super) fn one_by_prefix<'a>(
    unit: &UnitName,
    rows: &'a [DeploymentRow],
    prefix: &str,
) -> Result<&'a DeploymentRow, OperationError> {
    let prefix = prefix.to_ascii_lowercase();
    if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(OperationError::Invalid(
            "a digest is hexadecimal digits, the first few or all 64".into(),
        ));
    }
    let mut fitting = rows.iter().filter(|row| row.digest.to_string().starts_with(&prefix));
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(OperationError::NotFound(format!("deployment {prefix} of the unit {unit}"))),
        (Some(_), Some(_)) => {
            Err(OperationError::Invalid(format!("several deployments of {unit} start with {prefix}")))
        }
    }
}

struct Rollback {
    artifact: Artifact,
    checks: Checks,
}

#[async_trait]
impl Step for Rollback {
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
