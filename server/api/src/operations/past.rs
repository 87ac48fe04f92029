//! Going back to an earlier revision: definitions and active deployments become what they were then, as a
//! new revision, checked like any other change.

use async_trait::async_trait;
use crosstie_model::snapshot::ActiveUnit;
use crosstie_model::unit::{Artifact, LIBRARY_UNIT};
use crosstie_model::{Definition, Digest, Revision, Snapshot, UnitName};
use crosstie_odb::PastState;

use super::change::{Effect, Intent, Step};
use super::deploy::Checks;
use super::draft::Draft;
use super::{ConfigRollback, OperationError, Operations, Refusal};

impl Operations {
    /// Brings definitions and active deployments back to what they were at `revision`.
    ///
    /// # Errors
    /// There never was such a revision; a deployment that was active then is no longer kept; the state does
    /// not fit today's settings.
    pub async fn rollback_to_revision(
        &self,
        revision: Revision,
        mut intent: Intent,
    ) -> Result<ConfigRollback, OperationError> {
        if intent.message.is_empty() {
            intent.message = format!("Roll back to revision {revision}");
        }
        let past = self.odb().state_at(revision).await?;
        if !past.missing.is_empty() {
            let gone: Vec<_> =
                past.missing.iter().map(|(unit, digest)| format!("{unit} {}", digest.short())).collect();
            let reason = format!("deployments of that revision are no longer kept: {}", gone.join(", "));
            return Err(OperationError::Refused(Refusal::new(reason)));
        }
        let step = GoBack { past, checks: Checks::default() };
        let done = self.change(&intent, Effect::Make, step).await?;
        Ok(ConfigRollback {
            commit: None,
            revision: Some(done.revision),
            set_aside: None,
            needs_restart: Vec::new(),
        })
    }
}

struct GoBack {
    past: PastState,
    checks: Checks,
}

#[async_trait]
impl Step for GoBack {
    type Outcome = ();

    async fn draft(
        &mut self,
        operations: &Operations,
        now: &Snapshot,
        draft: &mut Draft,
    ) -> Result<(), OperationError> {
        let past = &self.past.snapshot;
        for id in now.definitions.keys().filter(|id| !past.definitions.contains_key(id)) {
            draft.delete(id);
        }
        for (id, body) in &past.definitions {
            if now.definitions.get(id) != Some(body) {
                draft.put(Definition { id: id.clone(), body: body.clone() });
            }
        }
        for unit in now.units.keys().filter(|unit| !past.units.contains_key(*unit)) {
            draft.undeploy(unit);
        }
        let library = operations.active_library(past).await?;
        for (unit, active) in &past.units {
            let same = now.units.get(unit).is_some_and(|current| current.digest == active.digest);
            if unit.as_str() != LIBRARY_UNIT && lacks_library(active, library.as_ref()) {
                redo(operations, unit, active, library.as_ref(), draft, &mut self.checks).await?;
            } else if !same {
                draft.activate(unit.clone(), active.clone());
            }
        }
        Ok(())
    }
}

/// Whether the manifest, as it is stored now, was made with another library than the one of the past state.
fn lacks_library(active: &ActiveUnit, library: Option<&Artifact>) -> bool {
    let library: Option<Digest> = library.map(|artifact| artifact.digest);
    !active.manifest.library_modules.is_empty() && active.manifest.library != library
}

async fn redo(
    operations: &Operations,
    unit: &UnitName,
    active: &ActiveUnit,
    library: Option<&Artifact>,
    draft: &mut Draft,
    checks: &mut Checks,
) -> Result<(), OperationError> {
    let artifact = operations.stored_artifact(unit, active).await?;
    let manifest = checks.check(operations, &artifact, library).await?;
    draft.deploy(artifact, manifest);
    Ok(())
}
