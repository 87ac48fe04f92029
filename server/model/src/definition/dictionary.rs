//! Dictionaries: read-only lookup tables that services read as `self.dictionary["NAME"]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A lookup table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DictionaryDefinition {
    /// What the table is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The entries; values may be anything JSON can say.
    pub entries: Map<String, Value>,
}
