//! Outgoings: named connections to external systems.
//!
//! A type is one file beside this one (types of one family share theirs), one variant here and one line in
//! the registry of shapes.

mod http;
mod policy;
mod sql;
mod tls;

use serde::{Deserialize, Serialize};

use super::name::DefinitionName;
use crate::failure::Fault;
use crate::secret::SecretRef;

pub use http::{
    HttpEndpoint, HttpProxy, HttpVersions, OutgoingFormat, PingSettings, PlainHttpOutgoing, Redirects,
    RestOutgoing,
};
pub use policy::{CircuitPolicy, RetryPolicy};
pub use sql::{SqlAuthentication, SqlEncryption, SqlEndpoint, SqlEngine};
pub use tls::ClientTls;

/// An outgoing by its `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum OutgoingDefinition {
    /// A REST interface: bodies are encoded and decoded.
    Rest(RestOutgoing),
    /// Plain HTTP: bodies are sent and given as they are.
    Http(PlainHttpOutgoing),
    /// A database.
    Sql(SqlEndpoint),
}

impl OutgoingDefinition {
    /// The `type` key.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Rest(_) => "rest",
            Self::Http(_) => "http",
            Self::Sql(_) => "sql",
        }
    }

    /// Whether services may call it.
    #[must_use]
    pub fn is_active(&self) -> bool {
        match self {
            Self::Rest(RestOutgoing { endpoint, .. }) | Self::Http(PlainHttpOutgoing { endpoint }) => {
                endpoint.active
            }
            Self::Sql(endpoint) => endpoint.active,
        }
    }

    /// The security definitions it presents credentials of, each with the pointer of the field that names it.
    #[must_use]
    pub fn security(&self) -> Vec<(&'static str, &DefinitionName)> {
        match self {
            Self::Rest(RestOutgoing { endpoint, .. }) | Self::Http(PlainHttpOutgoing { endpoint }) => {
                endpoint.security()
            }
            Self::Sql(_) => Vec::new(),
        }
    }

    /// How TLS is spoken to it, where it says.
    #[must_use]
    pub fn tls(&self) -> Option<&ClientTls> {
        match self {
            Self::Rest(RestOutgoing { endpoint, .. }) | Self::Http(PlainHttpOutgoing { endpoint }) => {
                endpoint.tls.as_ref()
            }
            Self::Sql(endpoint) => endpoint.tls.as_ref(),
        }
    }

    /// What is wrong that a schema cannot say.
    pub(super) fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Rest(RestOutgoing { endpoint, .. }) | Self::Http(PlainHttpOutgoing { endpoint }) => {
                endpoint.faults()
            }
            Self::Sql(endpoint) => endpoint.faults(),
        }
    }

    pub(super) fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        match self {
            Self::Rest(RestOutgoing { endpoint, .. }) | Self::Http(PlainHttpOutgoing { endpoint }) => {
                endpoint.tls.iter().flat_map(ClientTls::secrets).collect()
            }
            Self::Sql(endpoint) => endpoint.secrets(),
        }
    }

    pub(super) fn secrets_mut(&mut self) -> Vec<(&'static str, &mut SecretRef)> {
        match self {
            Self::Rest(RestOutgoing { endpoint, .. }) | Self::Http(PlainHttpOutgoing { endpoint }) => {
                endpoint.tls.iter_mut().flat_map(ClientTls::secrets_mut).collect()
            }
            Self::Sql(endpoint) => endpoint.secrets_mut(),
        }
    }
}

fn fault(pointer: impl Into<String>, detail: impl Into<String>) -> Fault {
    Fault { pointer: pointer.into(), detail: detail.into() }
}
