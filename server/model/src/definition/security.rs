//! Security definitions: named credentials that channels demand.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rate_limit::RateRule;
use crate::secret::SecretRef;

/// A security definition by its `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SecurityDefinition {
    /// HTTP Basic (RFC 7617).
    BasicAuth(BasicAuth),
    /// A key in a header or a query parameter.
    ApiKey(ApiKey),
}

impl SecurityDefinition {
    /// The `type` key.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::BasicAuth(_) => "basic_auth",
            Self::ApiKey(_) => "api_key",
        }
    }

    /// Rate limits of everybody who presents these credentials, over all channels.
    #[must_use]
    pub fn rate_limit(&self) -> &[RateRule] {
        match self {
            Self::BasicAuth(body) => &body.rate_limit,
            Self::ApiKey(body) => &body.rate_limit,
        }
    }

    pub(super) fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        match self {
            Self::BasicAuth(body) => vec![("password", &body.password)],
            Self::ApiKey(body) => vec![("key", &body.key)],
        }
    }

    pub(super) fn secrets_mut(&mut self) -> Vec<(&'static str, &mut SecretRef)> {
        match self {
            Self::BasicAuth(body) => vec![("password", &mut body.password)],
            Self::ApiKey(body) => vec![("key", &mut body.key)],
        }
    }
}

/// User name and password.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BasicAuth {
    /// The user name; without a colon, as RFC 7617 demands.
    #[schemars(length(min = 1, max = 255), pattern(r"^[^:\x00-\x1f\x7f]+$"))]
    pub username: String,
    /// The password. May be left out of an `apply` document to keep the present one.
    #[serde(default = "keep", skip_serializing_if = "is_keep")]
    pub password: SecretRef,
    /// The realm named in the challenge.
    #[serde(default = "default_realm", skip_serializing_if = "is_default_realm")]
    #[schemars(length(max = 100), pattern(r#"^[ !#-\[\]-~]*$"#))]
    pub realm: String,
    /// Rate limits of these credentials over all channels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rate_limit: Vec<RateRule>,
}

/// A key that callers send with each request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApiKey {
    /// Where the key is sent.
    #[serde(default, skip_serializing_if = "ApiKeyLocation::is_header")]
    pub r#in: ApiKeyLocation,
    /// The header's or the parameter's name.
    #[serde(default = "default_header", skip_serializing_if = "is_default_header")]
    #[schemars(length(min = 1, max = 100), pattern(r"^[A-Za-z0-9_-]+$"))]
    pub name: String,
    /// The key. May be left out of an `apply` document to keep the present one.
    #[serde(default = "keep", skip_serializing_if = "is_keep")]
    pub key: SecretRef,
    /// Rate limits of this key over all channels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rate_limit: Vec<RateRule>,
}

/// Where an API key is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApiKeyLocation {
    /// A request header.
    #[default]
    Header,
    /// A query parameter, which the access log never shows.
    Query,
}

impl ApiKeyLocation {
    fn is_header(&self) -> bool {
        *self == Self::Header
    }
}

/// A secret left out: an empty text, which is never a valid secret, stands for "the one there is".
fn keep() -> SecretRef {
    SecretRef::Text(String::new())
}

fn is_keep(secret: &SecretRef) -> bool {
    matches!(secret, SecretRef::Text(text) if text.is_empty())
}

fn default_realm() -> String {
    "crosstie".to_owned()
}

fn is_default_realm(realm: &str) -> bool {
    realm == default_realm()
}

fn default_header() -> String {
    "X-API-Key".to_owned()
}

fn is_default_header(name: &str) -> bool {
    name == default_header()
}
