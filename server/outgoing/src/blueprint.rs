//! Everything one outgoing is made of, read and resolved: its definition, the security definitions it names,
//! the values of their secrets, the files they refer to. Two equal blueprints make the same outgoing.
//!
//! Drawn on the control thread for every snapshot: costs the opening of its secrets and reads small files.

use std::collections::BTreeMap;
use std::path::Path;

use crosstie_model::definition::{
    ClientTls, DefinitionId, DefinitionKind, DefinitionName, OutgoingDefinition, SecurityDefinition,
    WsdlDefinition,
};
use crosstie_model::secret::SecretValue;
use crosstie_model::{Definition, DefinitionBody, Snapshot};
use crosstie_security::SecretResolver;
use crosstie_security::private_file::{PrivateFileError, read_public};
use crosstie_security::secret::SecretError;
use crosstie_security::tls::TlsError;

/// What stands before the path of a file in a field that otherwise holds text.
const FILE: &str = "file:";

/// Why an outgoing cannot be opened. Fit for a report: names fields and definitions, never a secret.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A secret has no value here.
    #[error("{field}: {source}")]
    Secret {
        /// The field that holds it.
        field: String,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// A security definition is not there.
    #[error("there is no security definition {0}")]
    Unknown(DefinitionName),
    /// A description is not there.
    #[error("there is no wsdl definition {0}")]
    Undescribed(DefinitionName),
    /// A security definition is of a type that cannot be presented here.
    #[error("the security definition {name} is of type {type_name}, which {place} cannot present")]
    Unfit {
        /// The security definition.
        name: DefinitionName,
        /// Its type.
        type_name: &'static str,
        /// Who cannot.
        place: &'static str,
    },
    /// TLS cannot be configured.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A field holds what it cannot.
    #[error("{field}: {detail}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

impl OpenError {
    pub(crate) fn field(field: &'static str, detail: impl Into<String>) -> Self {
        Self::Field { field, detail: detail.into() }
    }
}

/// See the module.
#[derive(Debug, PartialEq)]
pub struct Blueprint {
    name: DefinitionName,
    definition: OutgoingDefinition,
    secrets: Secrets,
    credentials: BTreeMap<&'static str, Credentials>,
    files: BTreeMap<String, Vec<u8>>,
    wsdl: Option<WsdlDefinition>,
}

/// Secrets by the field that holds them.
type Secrets = BTreeMap<&'static str, SecretValue>;

/// A security definition whose credentials are presented.
#[derive(Debug, PartialEq)]
pub(crate) struct Credentials {
    pub(crate) name: DefinitionName,
    pub(crate) definition: SecurityDefinition,
    secrets: Secrets,
}

impl Credentials {
    /// The secret in `field`.
    pub(crate) fn secret(&self, field: &'static str) -> Result<&SecretValue, OpenError> {
        self.secrets.get(field).ok_or_else(|| OpenError::field(field, "has no value"))
    }

    /// That these cannot be presented by `place`.
    pub(crate) fn unfit(&self, place: &'static str) -> OpenError {
        OpenError::Unfit { name: self.name.clone(), type_name: self.definition.type_name(), place }
    }
}

impl Blueprint {
    /// Reads what the outgoing `name` is made of. Paths of files are below `directory`, the server's own.
    ///
    /// # Errors
    /// Something is missing on this server.
    pub fn draw(
        name: &DefinitionName,
        definition: &OutgoingDefinition,
        snapshot: &Snapshot,
        resolver: &SecretResolver,
        directory: &Path,
    ) -> Result<Self, OpenError> {
        let own = Definition {
            id: DefinitionId { kind: DefinitionKind::Outgoing, name: name.clone() },
            body: DefinitionBody::Outgoing(Box::new(definition.clone())),
        };
        let secrets = resolve(&own, "", snapshot, resolver)?;
        let mut files = BTreeMap::new();
        read_files(definition.tls(), directory, &mut files)?;
        let mut credentials = BTreeMap::new();
        for (pointer, security) in definition.security() {
            let body = snapshot.security(security).ok_or_else(|| OpenError::Unknown(security.clone()))?;
            let id = DefinitionId { kind: DefinitionKind::Security, name: security.clone() };
            let owner = Definition { id, body: DefinitionBody::Security(body.clone()) };
            let place = format!("security definition {security}, ");
            let secrets = resolve(&owner, &place, snapshot, resolver)?;
            if let SecurityDefinition::Oauth2ClientCredentials(oauth) = body {
                read_files(oauth.tls.as_ref(), directory, &mut files)?;
            }
            let found = Credentials { name: security.clone(), definition: body.clone(), secrets };
            credentials.insert(pointer, found);
        }
        let wsdl = definition
            .wsdl()
            .map(|name| snapshot.wsdl(name).cloned().ok_or_else(|| OpenError::Undescribed(name.clone())));
        let wsdl = wsdl.transpose()?;
        Ok(Self { name: name.clone(), definition: definition.clone(), secrets, credentials, files, wsdl })
    }

    /// The outgoing's name.
    #[must_use]
    pub fn name(&self) -> &DefinitionName {
        &self.name
    }

    /// Its definition.
    #[must_use]
    pub fn definition(&self) -> &OutgoingDefinition {
        &self.definition
    }

    /// The description of the other system, where its definition names one.
    pub(crate) fn wsdl(&self) -> Option<&WsdlDefinition> {
        self.wsdl.as_ref()
    }

    /// The definition's own secrets.
    pub(crate) fn secrets(&self) -> &BTreeMap<&'static str, SecretValue> {
        &self.secrets
    }

    /// The credentials that the field at `pointer` names.
    pub(crate) fn credentials(&self, pointer: &str) -> Option<&Credentials> {
        self.credentials.get(pointer)
    }

    /// What a field means that holds text or `file:PATH`.
    pub(crate) fn text<'a>(&'a self, field: &'a str) -> &'a [u8] {
        let file = field.strip_prefix(FILE).and_then(|path| self.files.get(path));
        file.map_or(field.as_bytes(), Vec::as_slice)
    }
}

impl Credentials {
    /// All secrets of the security definition.
    pub(crate) fn secrets(&self) -> &BTreeMap<&'static str, SecretValue> {
        &self.secrets
    }
}

fn resolve(
    definition: &Definition,
    place: &str,
    snapshot: &Snapshot,
    resolver: &SecretResolver,
) -> Result<Secrets, OpenError> {
    let value_of = |(field, secret)| match resolver.resolve(secret, snapshot) {
        Ok(value) => Ok((field, value)),
        Err(source) => Err(OpenError::Secret { field: format!("{place}{field}"), source }),
    };
    definition.secrets().into_iter().map(value_of).collect()
}

fn read_files(
    tls: Option<&ClientTls>,
    directory: &Path,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), OpenError> {
    let fields = tls.into_iter().flat_map(|tls| [&tls.ca, &tls.certificate]).flatten();
    for path in fields.filter_map(|field| field.strip_prefix(FILE)) {
        if !files.contains_key(path) {
            files.insert(path.to_owned(), read_public(&directory.join(path))?);
        }
    }
    Ok(())
}
