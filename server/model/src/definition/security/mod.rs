//! Security definitions: named credentials that channels demand.
//!
//! A type is one file beside this one, one variant here and one line in the registry of shapes.

mod api_key;
mod basic_auth;

use serde::{Deserialize, Serialize};

pub use api_key::{ApiKey, ApiKeyLocation};
pub use basic_auth::BasicAuth;

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

/// A secret left out: an empty text, which is never a valid secret, stands for "the one there is".
fn keep() -> SecretRef {
    SecretRef::Text(String::new())
}

fn is_keep(secret: &SecretRef) -> bool {
    matches!(secret, SecretRef::Text(text) if text.is_empty())
}
