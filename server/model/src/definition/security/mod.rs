//! Security definitions: named credentials that channels demand and outgoings present.
//!
//! A type is one file beside this one, one variant here and one line in the registry of shapes.

mod api_key;
mod basic_auth;
mod bearer;
mod client_certificate;
mod group;
mod introspection;
mod jwt;
mod oauth2;
mod token;
mod wss_username_token;

use serde::{Deserialize, Serialize};

pub use api_key::{ApiKey, ApiKeyLocation};
pub use basic_auth::BasicAuth;
pub use bearer::Bearer;
pub use client_certificate::{ClientCertificate, DistinguishedName, attribute_name};
pub use group::Group;
pub use introspection::Oauth2Introspection;
pub use jwt::{Jwt, JwtAlgorithm};
pub use oauth2::{CredentialsIn, Oauth2ClientCredentials};
pub use token::TokenRules;
pub use wss_username_token::{WssPassword, WssUsernameToken};

use super::name::DefinitionName;
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
    /// A TLS client certificate.
    ClientCertificate(ClientCertificate),
    /// A signed token.
    Jwt(Box<Jwt>),
    /// A token that its authorization server is asked about.
    Oauth2Introspection(Box<Oauth2Introspection>),
    /// User name and password in SOAP messages.
    WssUsernameToken(WssUsernameToken),
    /// Any of several definitions.
    Group(Group),
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
            Self::ClientCertificate(_) => "client_certificate",
            Self::Jwt(_) => "jwt",
            Self::Oauth2Introspection(_) => "oauth2_introspection",
            Self::WssUsernameToken(_) => "wss_username_token",
            Self::Group(_) => "group",
            Self::Bearer(_) => "bearer",
            Self::Oauth2ClientCredentials(_) => "oauth2_client_credentials",
        }
    }

    /// Who can use it.
    #[must_use]
    pub fn used_by(&self) -> SecurityUse {
        match self {
            Self::BasicAuth(_) | Self::ApiKey(_) | Self::WssUsernameToken(_) => SecurityUse::Both,
            Self::ClientCertificate(_) | Self::Jwt(_) | Self::Oauth2Introspection(_) | Self::Group(_) => {
                SecurityUse::Channels
            }
            Self::Bearer(_) | Self::Oauth2ClientCredentials(_) => SecurityUse::Outgoings,
        }
    }

    /// What is wrong that a schema cannot say.
    pub(super) fn faults(&self) -> Vec<Fault> {
        match self {
            Self::ClientCertificate(body) => body.faults(),
            Self::Jwt(body) => body.faults(),
            Self::Oauth2Introspection(body) => body.faults(),
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
            Self::ClientCertificate(body) => &body.rate_limit,
            Self::Jwt(body) => &body.rules.rate_limit,
            Self::Oauth2Introspection(body) => &body.rules.rate_limit,
            Self::WssUsernameToken(body) => &body.rate_limit,
            Self::Group(_) | Self::Bearer(_) | Self::Oauth2ClientCredentials(_) => &[],
        }
    }

    /// The values of fields that hold text or `file:PATH`.
    #[must_use]
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Self::ClientCertificate(body) => {
                std::iter::once(&body.ca).chain(&body.crl).map(String::as_str).collect()
            }
            Self::Jwt(body) => body.texts(),
            Self::Oauth2Introspection(body) => body.texts(),
            _ => Vec::new(),
        }
    }

    /// The definitions this one needs, each with the pointer of the field that names it.
    pub(super) fn references(&self) -> Vec<(String, &DefinitionName)> {
        match self {
            Self::Group(body) => body.references().collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        match self {
            Self::BasicAuth(body) => vec![("password", &body.password)],
            Self::ApiKey(body) => vec![("key", &body.key)],
            Self::Jwt(body) => body.secrets(),
            Self::Oauth2Introspection(body) => body.secrets(),
            Self::WssUsernameToken(body) => vec![("password", &body.password)],
            Self::ClientCertificate(_) | Self::Group(_) => Vec::new(),
            Self::Bearer(body) => vec![("token", &body.token)],
            Self::Oauth2ClientCredentials(body) => body.secrets(),
        }
    }

    pub(super) fn secrets_mut(&mut self) -> Vec<(&'static str, &mut SecretRef)> {
        match self {
            Self::BasicAuth(body) => vec![("password", &mut body.password)],
            Self::ApiKey(body) => vec![("key", &mut body.key)],
            Self::Jwt(body) => body.secrets_mut(),
            Self::Oauth2Introspection(body) => body.secrets_mut(),
            Self::WssUsernameToken(body) => vec![("password", &mut body.password)],
            Self::ClientCertificate(_) | Self::Group(_) => Vec::new(),
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
