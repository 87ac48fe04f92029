//! Security definitions: named credentials that channels demand and outgoings present.
//!
//! A type is one file beside this one, one variant here and one line in the registry of shapes.

mod api_key;
mod basic_auth;
mod bearer;
mod oauth2;

use serde::{Deserialize, Serialize};

pub use api_key::{ApiKey, ApiKeyLocation};
pub use basic_auth::BasicAuth;
pub use bearer::Bearer;
pub use oauth2::{CredentialsIn, Oauth2ClientCredentials};

use super::rate_limit::RateRule;
use crate::failure::Fault;
use crate::secret::SecretRef;

/// A security definition by its `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SecurityDefinition {
    /// HTTP Basic (RFC 7617).
    BasicAuth(BasicAuth),
    /// A key in a header or a query parameter.
    ApiKey(ApiKey),
    /// A token that outgoings present.
    Bearer(Bearer),
    /// Tokens that outgoings fetch.
    Oauth2ClientCredentials(Oauth2ClientCredentials),
}

/// Who can use a type of security definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityUse {
    /// Channels, which demand its credentials.
    Channels,
    /// Outgoings, which present them.
    Outgoings,
    /// Both.
    Both,
}

impl SecurityDefinition {
    /// The `type` key.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::BasicAuth(_) => "basic_auth",
            Self::ApiKey(_) => "api_key",
            Self::Bearer(_) => "bearer",
            Self::Oauth2ClientCredentials(_) => "oauth2_client_credentials",
        }
    }

    /// Who can use it.
    #[must_use]
    pub fn used_by(&self) -> SecurityUse {
        match self {
            Self::BasicAuth(_) | Self::ApiKey(_) => SecurityUse::Both,
            Self::Bearer(_) | Self::Oauth2ClientCredentials(_) => SecurityUse::Outgoings,
        }
    }

    /// What is wrong that a schema cannot say.
    pub(super) fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Oauth2ClientCredentials(body) => body.faults(),
            _ => Vec::new(),
        }
    }

    /// Rate limits of everybody who presents these credentials, over all channels.
    #[must_use]
    pub fn rate_limit(&self) -> &[RateRule] {
        match self {
            Self::BasicAuth(body) => &body.rate_limit,
            Self::ApiKey(body) => &body.rate_limit,
            Self::Bearer(_) | Self::Oauth2ClientCredentials(_) => &[],
        }
    }

    pub(super) fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        match self {
            Self::BasicAuth(body) => vec![("password", &body.password)],
            Self::ApiKey(body) => vec![("key", &body.key)],
            Self::Bearer(body) => vec![("token", &body.token)],
            Self::Oauth2ClientCredentials(body) => body.secrets(),
        }
    }

    pub(super) fn secrets_mut(&mut self) -> Vec<(&'static str, &mut SecretRef)> {
        match self {
            Self::BasicAuth(body) => vec![("password", &mut body.password)],
            Self::ApiKey(body) => vec![("key", &mut body.key)],
            Self::Bearer(body) => vec![("token", &mut body.token)],
            Self::Oauth2ClientCredentials(body) => body.secrets_mut(),
        }
    }
}

/// A secret left out: an empty text, which is never a valid secret, stands for "the one there is".
pub(super) fn keep() -> SecretRef {
    SecretRef::Text(String::new())
}

pub(super) fn is_keep(secret: &SecretRef) -> bool {
    matches!(secret, SecretRef::Text(text) if text.is_empty())
}
