//! Short ways to say what tests change.

use crosstie_model::definition::DefinitionName;
use crosstie_model::names::{Revision, UnitName};
use crosstie_model::unit::{Artifact, ArtifactKind, UnitManifest};
use crosstie_model::{Definition, DefinitionId, DefinitionKind};
use crosstie_odb::{Change, ChangeSet, NewMember, Odb, OdbError};
use serde_json::{Value, json};

pub(crate) use crate::database::Database;

pub(crate) fn id(kind: DefinitionKind, name: &str) -> DefinitionId {
    DefinitionId { kind, name: DefinitionName::new(name).unwrap() }
}

/// A dictionary with one entry, the smallest definition there is.
pub(crate) fn dictionary(name: &str, value: impl Into<Value>) -> Definition {
    let body = json!({"entries": {"value": value.into()}});
    Definition::from_value(id(DefinitionKind::Dictionary, name), body).unwrap()
}

/// A security definition whose password is the stored secret `name` at `version`.
pub(crate) fn basic_auth(name: &str, secret: &str, version: u32) -> Definition {
    let body = json!({
        "type": "basic_auth", "username": "crm", "password": {"ref": secret, "version": version}
    });
    Definition::from_value(id(DefinitionKind::Security, name), body).unwrap()
}

/// A server of that name on this host.
pub(crate) fn member(name: &str) -> NewMember {
    NewMember {
        name: name.into(),
        address: "127.0.0.1:17010".into(),
        tls: true,
        management: "127.0.0.1:17110".into(),
        version: "1".into(),
    }
}

pub(crate) fn unit(name: &str) -> UnitName {
    UnitName::new(name).unwrap()
}

pub(crate) fn artifact(name: &str, content: &str) -> Artifact {
    Artifact::new(unit(name), ArtifactKind::PythonFile, content.to_owned().into())
}

pub(crate) fn manifest(service: &str) -> UnitManifest {
    serde_json::from_value(json!({"services": [{"name": service, "class": "m.C"}]})).unwrap()
}

/// Stores and activates.
pub(crate) fn deploy(artifact: &Artifact, manifest: UnitManifest) -> Vec<Change> {
    vec![
        Change::StoreDeployment { artifact: artifact.clone(), manifest },
        Change::Activate { unit: artifact.unit.clone(), digest: artifact.digest },
    ]
}

pub(crate) async fn change(odb: &Odb, changes: Vec<Change>) -> Result<Revision, OdbError> {
    change_at(odb, None, changes).await
}

pub(crate) async fn change_at(
    odb: &Odb,
    expected: Option<Revision>,
    changes: Vec<Change>,
) -> Result<Revision, OdbError> {
    let set = ChangeSet { author: "ada".into(), message: "a test".into(), expected, changes };
    odb.change(&set).await
}

pub(crate) fn put(definition: Definition) -> Change {
    Change::PutDefinition(definition)
}
