//! The next state, being drafted: every edit changes the snapshot that is checked and the list of changes
//! that is stored in one go, so the two cannot say different things.

use std::collections::BTreeSet;

use crosstie_model::definition::{DefinitionBody, DefinitionId, DefinitionKind};
use crosstie_model::snapshot::ActiveUnit;
use crosstie_model::unit::{Artifact, UnitManifest};
use crosstie_model::{Definition, Digest, Snapshot, UnitName};
use crosstie_odb::Change;
use serde_json::json;

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

    /// Counts a definition as there whose body nobody knows: others may refer to it, and it claims nothing.
    /// Only for finding out what is wrong with the others; such a draft is never stored.
    pub(crate) fn presume(&mut self, id: &DefinitionId) {
        let stand_in = stand_in(id.kind);
        debug_assert!(stand_in.is_ok(), "{stand_in:?}");
        if let Ok(body) = stand_in {
            self.after.definitions.insert(id.clone(), body);
        }
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

/// A description of nothing in particular.
const MINIMAL_WSDL: &str = r#"<definitions xmlns="http://schemas.xmlsoap.org/wsdl/"
    xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/" xmlns:a="urn:a" targetNamespace="urn:a">
    <message name="M"/><portType name="P"><operation name="O"><input message="a:M"/></operation></portType>
    <binding name="B" type="a:P"><soap:binding transport="http://schemas.xmlsoap.org/soap/http"/>
    <operation name="O"><input><soap:body use="literal"/></input></operation></binding>
    <service name="S"><port name="P" binding="a:B"><soap:address location="http://localhost/"/></port></service>
</definitions>"#;

/// A stylesheet for nothing in particular.
const MINIMAL_STYLESHEET: &str =
    r#"<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform"/>"#;

/// A definition that nothing can be wrong with but its name.
fn stand_in(kind: DefinitionKind) -> serde_json::Result<DefinitionBody> {
    use serde_json::from_value;
    match kind {
        DefinitionKind::Channel => {
            let body = json!({"type": "jsonrpc", "path": "/", "methods": {}, "active": false});
            from_value(body).map(DefinitionBody::Channel)
        }
        DefinitionKind::Dictionary => from_value(json!({"entries": {}})).map(DefinitionBody::Dictionary),
        DefinitionKind::Outgoing => {
            from_value(json!({"type": "http", "address": "http://localhost"})).map(DefinitionBody::Outgoing)
        }
        // The type that everything can use.
        DefinitionKind::Security => {
            from_value(json!({"type": "basic_auth", "username": "a"})).map(DefinitionBody::Security)
        }
        DefinitionKind::Service => from_value(json!({})).map(DefinitionBody::Service),
        DefinitionKind::Stylesheet => {
            from_value(json!({"text": MINIMAL_STYLESHEET})).map(DefinitionBody::Stylesheet)
        }
        DefinitionKind::Wsdl => from_value(json!({"text": MINIMAL_WSDL})).map(DefinitionBody::Wsdl),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::check::{Rules, faults_of_state};

    #[test]
    fn what_is_presumed_to_be_there_has_no_faults() {
        let mut draft = Draft::of(&Snapshot::default());
        for kind in DefinitionKind::ALL {
            draft.presume(&DefinitionId { kind, name: "a".parse().unwrap() });
        }
        assert_eq!(draft.after().definitions.len(), DefinitionKind::ALL.len());
        let rules = Rules { require_security: true, reserved_paths: vec!["/".to_owned()] };
        assert_eq!(faults_of_state(draft.after(), &rules), []);
        assert_eq!(draft.changes(), []);
    }
}
