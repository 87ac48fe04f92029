//! The next state, being drafted: every edit changes the snapshot that is checked and the list of changes
//! that is stored in one go, so the two cannot say different things.

use std::collections::BTreeSet;

use crosstie_model::definition::DefinitionId;
use crosstie_model::snapshot::ActiveUnit;
use crosstie_model::unit::{Artifact, UnitManifest};
use crosstie_model::{Definition, Digest, Snapshot, UnitName};
use crosstie_odb::Change;

use super::check::Subject;

/// A state in the making.
#[derive(Debug)]
pub(crate) struct Draft {
    after: Snapshot,
    changes: Vec<Change>,
    touched: BTreeSet<Subject>,
}

impl Draft {
    /// A draft that changes nothing yet.
    pub(crate) fn of(now: &Snapshot) -> Self {
        Self { after: now.clone(), changes: Vec::new(), touched: BTreeSet::new() }
    }

    /// The state as it would be.
    pub(crate) fn after(&self) -> &Snapshot {
        &self.after
    }

    /// What leads there; empty when nothing changes.
    pub(crate) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The changes, to store them.
    pub(crate) fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// What the changes are about.
    pub(crate) fn touched(&self) -> &BTreeSet<Subject> {
        &self.touched
    }

    /// Writes a definition; says whether that changes anything. One that is as it was still counts as
    /// touched: whoever applies it wants to hear what is wrong with it.
    pub(crate) fn put(&mut self, definition: Definition) -> bool {
        self.touched.insert(Subject::Definition(definition.id.clone()));
        if self.after.definitions.get(&definition.id) == Some(&definition.body) {
            return false;
        }
        self.after.definitions.insert(definition.id.clone(), definition.body.clone());
        self.changes.push(Change::PutDefinition(definition));
        true
    }

    /// Removes a definition; says whether it was there.
    pub(crate) fn delete(&mut self, id: &DefinitionId) -> bool {
        let was_there = self.after.definitions.remove(id).is_some();
        if was_there {
            self.touched.insert(Subject::Definition(id.clone()));
            self.changes.push(Change::DeleteDefinition(id.clone()));
        }
        was_there
    }

    /// Stores a sealed secret version.
    pub(crate) fn put_secret(&mut self, name: String, version: u32, sealed: Vec<u8>) {
        self.after.secrets.insert((name.clone(), version), sealed.clone());
        self.changes.push(Change::PutSecret { name, version, sealed });
    }

    /// Stores an artifact with what a check found in it, and makes it its unit's active deployment.
    pub(crate) fn deploy(&mut self, artifact: Artifact, manifest: UnitManifest) {
        let (unit, digest, kind) = (artifact.unit.clone(), artifact.digest, artifact.kind);
        self.changes.push(Change::StoreDeployment { artifact, manifest: manifest.clone() });
        self.activate(unit, ActiveUnit { digest, kind, manifest });
    }

    /// Makes a stored deployment its unit's active one.
    pub(crate) fn activate(&mut self, unit: UnitName, active: ActiveUnit) {
        self.touched.insert(Subject::Unit(unit.clone()));
        self.changes.push(Change::Activate { unit: unit.clone(), digest: active.digest });
        self.after.units.insert(unit, active);
    }

    /// Takes a unit's active deployment away; says which it was.
    pub(crate) fn undeploy(&mut self, unit: &UnitName) -> Option<Digest> {
        let active = self.after.units.remove(unit)?;
        self.touched.insert(Subject::Unit(unit.clone()));
        self.changes.push(Change::Undeploy { unit: unit.clone() });
        Some(active.digest)
    }
}
