//! A token that outgoings present.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{is_keep, keep};
use crate::secret::SecretRef;

/// A fixed token that outgoings send as `Authorization: Bearer …` (RFC 6750).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bearer {
    /// The token. May be left out of an `apply` document to keep the present one.
    #[serde(default = "keep", skip_serializing_if = "is_keep")]
    pub token: SecretRef,
}
