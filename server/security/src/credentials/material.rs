//! Everything a security definition is made of on one server: the definition, the values of its secrets, the
//! files it refers to. Two equal materials make the same authenticator, so that one outlives its snapshot.
//!
//! Gathered on the control thread for every snapshot: costs the opening of its secrets and reads small files.

use std::collections::BTreeMap;

use crosstie_model::definition::{DefinitionId, DefinitionKind, DefinitionName, SecurityDefinition};
use crosstie_model::secret::SecretValue;
use crosstie_model::{Definition, DefinitionBody, Snapshot};

use crate::secret::{SecretError, SecretResolver};
use crate::tls::TlsError;

/// What stands before the path of a file in a field that otherwise holds text.
const FILE: &str = "file:";

/// Why a security definition cannot be enforced. Fit for a report: names fields, never a secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A secret has no value here, or a file cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A field holds what cannot be used.
    #[error("{field}: {detail}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// Its certificate authorities cannot be used.
    #[error("{field}: {source}")]
    Tls {
        /// The field that names them.
        field: &'static str,
        /// Why.
        #[source]
        source: TlsError,
    },
}

impl CredentialError {
    pub(super) fn field(field: &'static str, detail: impl Into<String>) -> Self {
        Self::Field { field, detail: detail.into() }
    }
}

/// See the module.
#[derive(Debug, PartialEq)]
pub(super) struct Material {
    definition: SecurityDefinition,
    secrets: BTreeMap<&'static str, SecretValue>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Material {
    /// Gathers what the definition `name` is made of.
    pub(super) fn gather(
        name: &DefinitionName,
        definition: &SecurityDefinition,
        snapshot: &Snapshot,
        resolver: &SecretResolver,
    ) -> Result<Self, CredentialError> {
        let id = DefinitionId { kind: DefinitionKind::Security, name: name.clone() };
        let owner = Definition { id, body: DefinitionBody::Security(definition.clone()) };
        let mut secrets = BTreeMap::new();
        for (field, secret) in owner.secrets() {
            secrets.insert(field, resolver.resolve(secret, snapshot)?);
        }
        let mut files = BTreeMap::new();
        for text in definition.texts() {
            if let Some(path) = text.strip_prefix(FILE) {
                files.insert(text.to_owned(), resolver.read_public(path)?);
            }
        }
        Ok(Self { definition: definition.clone(), secrets, files })
    }

    /// What can be told of `definition` before it is anywhere: no secrets, and of the fields that may name a
    /// file the text of those that do not.
    pub(super) fn of_text(definition: &SecurityDefinition) -> Option<Self> {
        let is_text = definition.texts().iter().all(|text| !text.starts_with(FILE));
        is_text.then(|| Self {
            definition: definition.clone(),
            secrets: BTreeMap::new(),
            files: BTreeMap::new(),
        })
    }

    pub(super) fn definition(&self) -> &SecurityDefinition {
        &self.definition
    }

    /// The secret in `field`.
    pub(super) fn secret(&self, field: &'static str) -> Result<&SecretValue, CredentialError> {
        self.secrets.get(field).ok_or_else(|| CredentialError::field(field, "has no value"))
    }

    /// What a field means that holds text or `file:PATH`.
    pub(super) fn text<'a>(&'a self, field: &'a str) -> &'a [u8] {
        self.files.get(field).map_or(field.as_bytes(), Vec::as_slice)
    }
}
