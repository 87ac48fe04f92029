//! Keys that callers send with each request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{is_keep, keep};
use crate::definition::RateRule;
use crate::secret::SecretRef;

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

fn default_header() -> String {
    "X-API-Key".to_owned()
}

fn is_default_header(name: &str) -> bool {
    name == default_header()
}
