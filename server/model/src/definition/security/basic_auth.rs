//! User names and passwords (RFC 7617).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{is_keep, keep};
use crate::definition::RateRule;
use crate::secret::SecretRef;

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

fn default_realm() -> String {
    "crosstie".to_owned()
}

fn is_default_realm(realm: &str) -> bool {
    realm == default_realm()
}
