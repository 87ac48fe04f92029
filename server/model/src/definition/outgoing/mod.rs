//! Outgoings: named connections to external systems.
//!
//! A type is one file beside this one (types of one family share theirs), one variant here and one line in
//! the registry of shapes.

mod amqp;
mod http;
mod policy;
mod soap;
mod sql;
mod tls;

use serde::{Deserialize, Serialize};

use super::message_log::KeptMessages;
use super::name::DefinitionName;
use crate::failure::Fault;
use crate::secret::SecretRef;

pub use amqp::{AmqpAddress, AmqpEndpoint};
pub use http::{
    HttpEndpoint, HttpProxy, HttpVersions, OutgoingFormat, PingSettings, PlainHttpOutgoing, Redirects,
    RestOutgoing,
};
pub use policy::{CircuitPolicy, RetryPolicy};
pub use soap::SoapEndpoint;
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
    /// SOAP, by a description.
    Soap(Box<SoapEndpoint>),
    /// A database.
    Sql(SqlEndpoint),
    /// A broker.
    Amqp(AmqpEndpoint),
}

impl OutgoingDefinition {
    /// The `type` key.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Rest(_) => "rest",
            Self::Http(_) => "http",
            Self::Soap(_) => "soap",
            Self::Sql(_) => "sql",
            Self::Amqp(_) => "amqp",
        }
    }

    /// Whether services may call it.
    #[must_use]
    pub fn is_active(&self) -> bool {
        match self {
            Self::Rest(RestOutgoing { endpoint, .. }) | Self::Http(PlainHttpOutgoing { endpoint }) => {
                endpoint.active
            }
            Self::Soap(soap) => soap.endpoint.active,
            Self::Sql(endpoint) => endpoint.active,
            Self::Amqp(endpoint) => endpoint.active,
        }
    }

    /// The security definitions it presents credentials of, each with the pointer of the field that names it.
    #[must_use]
    pub fn security(&self) -> Vec<(&'static str, &DefinitionName)> {
        match self {
            Self::Rest(RestOutgoing { endpoint, .. }) | Self::Http(PlainHttpOutgoing { endpoint }) => {
                endpoint.security()
            }
            Self::Soap(soap) => soap.endpoint.security(),
            Self::Sql(_) | Self::Amqp(_) => Vec::new(),
        }
    }

    /// How it is reached over HTTP, where that is how it is reached.
    #[must_use]
    pub fn http(&self) -> Option<&HttpEndpoint> {
        match self {
            Self::Rest(RestOutgoing { endpoint, .. }) | Self::Http(PlainHttpOutgoing { endpoint }) => {
                Some(endpoint)
            }
            Self::Soap(soap) => Some(&soap.endpoint),
            _ => None,
        }
    }

    /// The `wsdl` definition that describes it.
    #[must_use]
    pub fn wsdl(&self) -> Option<&DefinitionName> {
        match self {
            Self::Soap(soap) => Some(&soap.wsdl),
            _ => None,
        }
    }

    /// What is kept of its calls in the message log; nothing where it does not say.
    #[must_use]
    pub fn message_log(&self) -> Option<&KeptMessages> {
        match self {
            Self::Rest(RestOutgoing { endpoint, .. }) | Self::Http(PlainHttpOutgoing { endpoint }) => {
                endpoint.message_log.as_ref()
            }
            Self::Soap(soap) => soap.endpoint.message_log.as_ref(),
            Self::Sql(endpoint) => endpoint.message_log.as_ref(),
            Self::Amqp(endpoint) => endpoint.message_log.as_ref(),
        }
    }

    /// How TLS is spoken to it, where it says.
    #[must_use]
    pub fn tls(&self) -> Option<&ClientTls> {
        match self {
            Self::Rest(RestOutgoing { endpoint, .. }) | Self::Http(PlainHttpOutgoing { endpoint }) => {
                endpoint.tls.as_ref()
            }
            Self::Soap(soap) => soap.endpoint.tls.as_ref(),
            Self::Sql(endpoint) => endpoint.tls.as_ref(),
            Self::Amqp(endpoint) => endpoint.tls.as_ref(),
        }
    }

    /// What is wrong that a schema cannot say.
    pub(super) fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Rest(RestOutgoing { endpoint, .. }) | Self::Http(PlainHttpOutgoing { endpoint }) => {
                endpoint.faults()
            }
            Self::Soap(soap) => soap.faults(),
            Self::Sql(endpoint) => endpoint.faults(),
            Self::Amqp(endpoint) => endpoint.faults(),
        }
    }

    pub(super) fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        match self {
            Self::Rest(RestOutgoing { endpoint, .. }) | Self::Http(PlainHttpOutgoing { endpoint }) => {
                endpoint.tls.iter().flat_map(ClientTls::secrets).collect()
            }
            Self::Soap(soap) => soap.endpoint.tls.iter().flat_map(ClientTls::secrets).collect(),
            Self::Sql(endpoint) => endpoint.secrets(),
            Self::Amqp(endpoint) => endpoint.secrets(),
        }
    }

    pub(super) fn secrets_mut(&mut self) -> Vec<(&'static str, &mut SecretRef)> {
        match self {
            Self::Rest(RestOutgoing { endpoint, .. }) | Self::Http(PlainHttpOutgoing { endpoint }) => {
                endpoint.tls.iter_mut().flat_map(ClientTls::secrets_mut).collect()
            }
            Self::Soap(soap) => soap.endpoint.tls.iter_mut().flat_map(ClientTls::secrets_mut).collect(),
            Self::Sql(endpoint) => endpoint.secrets_mut(),
            Self::Amqp(endpoint) => endpoint.secrets_mut(),
        }
    }
}

fn fault(pointer: impl Into<String>, detail: impl Into<String>) -> Fault {
    Fault { pointer: pointer.into(), detail: detail.into() }
}
