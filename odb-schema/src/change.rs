//! Changes of the cluster's configuration: definitions, secrets and deployments. A set of them is one
//! transaction and makes one revision, or nothing at all.

use std::collections::BTreeSet;

use crosstie_model::limits::MAX_ARTIFACT_BYTES;
use crosstie_model::names::{Digest, Revision, UnitName};
use crosstie_model::secret::{SecretRef, SecretSource};
use crosstie_model::unit::{Artifact, UnitManifest};
use crosstie_model::{Definition, DefinitionId};

use crate::decode;
use crate::error::OdbError;
use crate::handle::{Odb, run};

/// Longest serial number of a certificate, in hexadecimal digits.
pub(crate) const MAX_SERIAL_BYTES: usize = 64;

/// Longest name of a secret, in bytes.
pub(crate) const MAX_SECRET_NAME_BYTES: usize = 256;

/// What is to be changed, by whom, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeSet {
    /// Who changes it; kept in the audit.
    pub author: String,
    /// Why, in a line or more; kept in the audit.
    pub message: String,
    /// The revision the change was made for. `None` takes whatever is current.
    pub expected: Option<Revision>,
    /// The changes, in this order.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Clone, PartialEq)]
pub enum Change {
    /// Makes or replaces a definition. Secrets it refers to must be stored, before or in the same set.
    PutDefinition(Definition),
    /// Removes a definition, which must be there.
    DeleteDefinition(DefinitionId),
    /// Stores one version of a secret. Versions are never overwritten or removed.
    PutSecret {
        /// The secret's name.
        name: String,
        /// A version that is not there yet (`next_secret_version`).
        version: u32,
        /// The value, encrypted with the cluster key.
        sealed: Vec<u8>,
    },
    /// Stores a deployment, without activating it. One with the same digest only gets the new manifest.
    StoreDeployment {
        /// The bytes.
        artifact: Artifact,
        /// What the check found in them.
        manifest: UnitManifest,
    },
    /// Makes a stored deployment its unit's active one.
    Activate {
        /// The unit.
        unit: UnitName,
        /// Which of its deployments.
        digest: Digest,
    },
    /// Takes a unit's active deployment out of service. Its deployments stay for a rollback.
    Undeploy {
        /// The unit.
        unit: UnitName,
    },
    /// Makes a certificate worthless, for good: no rollback takes that back.
    Revoke {
        /// Its serial number, hexadecimal.
        serial: String,
    },
}

impl std::fmt::Debug for Change {
    /// Says what changes, without bodies.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PutDefinition(definition) => write!(f, "PutDefinition({})", definition.id),
            Self::DeleteDefinition(id) => write!(f, "DeleteDefinition({id})"),
            Self::PutSecret { name, version, .. } => write!(f, "PutSecret({name}@{version})"),
            Self::StoreDeployment { artifact, .. } => write!(f, "StoreDeployment({artifact:?})"),
            Self::Activate { unit, digest } => write!(f, "Activate({unit} {})", digest.short()),
            Self::Undeploy { unit } => write!(f, "Undeploy({unit})"),
            Self::Revoke { serial } => write!(f, "Revoke({serial})"),
        }
    }
}

/// What an audit row is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A definition.
    Definition(DefinitionId),
    /// A unit and its active deployment.
    Unit(UnitName),
    /// Whether a certificate is revoked, by its serial number.
    Certificate(String),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Definition(id) => id.fmt(f),
            Self::Unit(unit) => write!(f, "deployment/{unit}"),
            Self::Certificate(serial) => write!(f, "certificate/{serial}"),
        }
    }
}

impl std::str::FromStr for Subject {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once('/').ok_or("it has no kind")?;
        if kind == "deployment" {
            return UnitName::new(name).map(Self::Unit).map_err(|error| error.to_string());
        }
        if kind == "certificate" {
            return Ok(Self::Certificate(name.to_owned()));
        }
        let kind = kind.parse()?;
        let name = name.parse().map_err(|error| format!("{error}"))?;
        Ok(Self::Definition(DefinitionId { kind, name }))
    }
}

impl ChangeSet {
    /// Refuses what no database needs to be asked about.
    fn check(&self) -> Result<(), OdbError> {
        for change in &self.changes {
            match change {
                Change::PutDefinition(definition) => check_definition(definition)?,
                Change::PutSecret { name, version, sealed } => {
                    decode::key("the secret's name", name, MAX_SECRET_NAME_BYTES)?;
                    if *version == 0 || sealed.is_empty() {
                        return Err(OdbError::invalid(name, "versions start at 1 and have a sealed value"));
                    }
                }
                Change::StoreDeployment { artifact, .. } => check_artifact(artifact)?,
                Change::Revoke { serial } => {
                    decode::key("the serial number", serial, MAX_SERIAL_BYTES)?;
                }
                Change::DeleteDefinition(_) | Change::Activate { .. } | Change::Undeploy { .. } => {}
            }
        }
        Ok(())
    }

    /// The stored secrets that the definitions of this set refer to.
    pub(crate) fn secrets(&self) -> BTreeSet<(String, u32)> {
        let definitions = self.changes.iter().filter_map(|change| match change {
            Change::PutDefinition(definition) => Some(definition),
            _ => None,
        });
        definitions.flat_map(stored_secrets).collect()
    }
}

/// A definition's references to stored secrets.
pub(crate) fn stored_secrets(definition: &Definition) -> Vec<(String, u32)> {
    let stored = |secret: &SecretRef| match secret.source() {
        SecretSource::Stored { name, version } => Some((name.to_owned(), version)),
        _ => None,
    };
    definition.secrets().into_iter().filter_map(|(_, secret)| stored(secret)).collect()
}

/// The last line of defence against secrets in the database, the audit and git.
fn check_definition(definition: &Definition) -> Result<(), OdbError> {
    for (field, secret) in definition.secrets() {
        if let SecretSource::Plain(_) = secret.source() {
            return Err(OdbError::invalid(
                &definition.id,
                format!("{field} holds a secret that is not sealed"),
            ));
        }
    }
    Ok(())
}

fn check_artifact(artifact: &Artifact) -> Result<(), OdbError> {
    let what = format!("the artifact of {}", artifact.unit);
    if artifact.content.len() > MAX_ARTIFACT_BYTES {
        let size = artifact.content.len();
        return Err(OdbError::invalid(what, format!("it has {size} bytes; at most {MAX_ARTIFACT_BYTES}")));
    }
    if Digest::of(&artifact.content) != artifact.digest {
        return Err(OdbError::invalid(what, "its content does not have its digest"));
    }
    Ok(())
}

impl Odb {
    /// Makes all changes of `set` in one transaction, with an audit row, at the next revision, and gives
    /// that revision. Concurrent writers take turns, so revisions have no gaps. A set that leaves
    /// definitions and active deployments as they are makes no revision and gives the current one.
    ///
    /// # Errors
    /// [`OdbError::Conflict`] when `expected` is not current; [`OdbError::NotFound`] for a definition,
    /// deployment or secret that is not there; [`OdbError::Exists`] for a secret's version that is;
    /// [`OdbError::Invalid`] for an unsealed secret and values beyond the limits. Nothing is changed then.
    pub async fn change(&self, set: &ChangeSet) -> Result<Revision, OdbError> {
        set.check()?;
        run!(self, Write, change::change(set))
    }

    /// The version the next value of the secret `name` should have. Another writer may take it first; the
    /// change then says [`OdbError::Exists`].
    ///
    /// # Errors
    /// The database is away.
    pub async fn next_secret_version(&self, name: &str) -> Result<u32, OdbError> {
        run!(self, Single, change::next_secret_version(name))
    }

    /// One version of a secret, sealed.
    ///
    /// # Errors
    /// The database is away.
    pub async fn secret(&self, name: &str, version: u32) -> Result<Option<Vec<u8>>, OdbError> {
        run!(self, Single, change::secret(name, version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::DefinitionKind;
    use serde_json::json;

    #[test]
    fn a_plain_secret_is_refused_and_not_repeated() {
        let id = DefinitionId { kind: DefinitionKind::Security, name: "crm".parse().unwrap() };
        let body = json!({"type": "basic_auth", "username": "crm", "password": "hush"});
        let definition = Definition::from_value(id, body).unwrap();
        let error = check_definition(&definition).unwrap_err().to_string();
        assert!(error.contains("security/crm") && error.contains("password"), "{error}");
        assert!(!error.contains("hush"), "{error}");
    }

    #[test]
    fn subjects_survive_text() {
        for text in ["deployment/crm", "channel/demo.hello:rest:/hello/{name}", "certificate/4f0a"] {
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        }
        assert!("deployment".parse::<Subject>().is_err());
        assert!("magic/x".parse::<Subject>().is_err());
    }
}
