//! The shared library (`pickup/lib`): one unit whose change checks and activates every unit that uses it,
//! in the same revision, or changes nothing.

use crosstie_model::snapshot::ActiveUnit;
use crosstie_model::unit::{Artifact, LIBRARY_UNIT};
use crosstie_model::{Snapshot, UnitName};

use super::check::{StateFault, Subject};
use super::deploy::Checks;
use super::draft::Draft;
use super::{OperationError, Operations, Refusal};

impl Operations {
    /// The artifact of the active library, when there is one.
    pub(super) async fn active_library(&self, now: &Snapshot) -> Result<Option<Artifact>, OperationError> {
        match now.units.get_key_value(LIBRARY_UNIT) {
            Some((unit, active)) => self.stored_artifact(unit, active).await.map(Some),
            None => Ok(None),
        }
    }

    /// The bytes of an active deployment.
    pub(super) async fn stored_artifact(
        &self,
        unit: &UnitName,
        active: &ActiveUnit,
    ) -> Result<Artifact, OperationError> {
        self.odb().artifact(unit, &active.digest).await?.ok_or_else(|| {
            // Another change undeployed it meanwhile and its deployment was the oldest kept: a new round
            // would not see it any more, but this is rare enough to leave to the caller.
            OperationError::NotFound(format!("stored artifact of the unit {unit}"))
        })
    }

    /// Drafts every unit that uses the shared library anew, checked with `library`. All failures are
    /// reported together.
    pub(super) async fn draft_dependants(
        &self,
        library: &Artifact,
        now: &Snapshot,
        draft: &mut Draft,
        checks: &mut Checks,
    ) -> Result<Vec<UnitName>, OperationError> {
        let (mut redeployed, mut failures) = (Vec::new(), Vec::new());
        for (unit, active) in dependants(now) {
            let artifact = self.stored_artifact(unit, active).await?;
            match checks.check(self, &artifact, Some(library)).await {
                Ok(manifest) => {
                    draft.deploy(artifact, manifest);
                    redeployed.push(unit.clone());
                }
                Err(OperationError::Refused(refusal)) => failures.push((unit.clone(), refusal)),
                Err(other) => return Err(other),
            }
        }
        if failures.is_empty() { Ok(redeployed) } else { Err(OperationError::Refused(breaks(failures))) }
    }
}

/// The active units that use the shared library.
fn dependants(now: &Snapshot) -> impl Iterator<Item = (&UnitName, &ActiveUnit)> {
    now.units
        .iter()
        .filter(|(unit, active)| unit.as_str() != LIBRARY_UNIT && !active.manifest.library_modules.is_empty())
}

/// Taking the library away from units that use it would break them at their next load.
pub(super) fn refuse_to_orphan(unit: &UnitName, now: &Snapshot) -> Result<(), OperationError> {
    if unit.as_str() != LIBRARY_UNIT {
        return Ok(());
    }
    let users: Vec<_> = dependants(now).map(|(unit, _)| unit.as_str()).collect();
    if users.is_empty() {
        return Ok(());
    }
    let reason = format!("the shared library is used by {}", users.join(", "));
    Err(OperationError::Refused(Refusal::new(reason)))
}

fn breaks(failures: Vec<(UnitName, Refusal)>) -> Refusal {
    let faults = failures.iter().map(|(unit, refusal)| {
        let detail = format!("does not load with the shared library: {}", refusal.reason);
        StateFault::new(Subject::Unit(unit.clone()), "", detail)
    });
    let faults = faults.collect();
    let details: Vec<_> = failures
        .iter()
        .filter(|(_, refusal)| !refusal.detail.is_empty())
        .map(|(unit, refusal)| format!("{unit}:\n{}", refusal.detail))
        .collect();
    Refusal { detail: details.join("\n\n"), ..Refusal::of_faults(faults) }
}
