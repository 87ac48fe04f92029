//! `[message_log]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[message_log]`: how much of the messages that channels and outgoings keep stays on this server's disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MessageLogSection {
    /// Most MiB of disk that all kept messages take; the oldest go first.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub max_mib: u64,
    /// For how many hours messages are kept. They are deleted in bundles, which takes an eighth longer at most.
    #[schemars(range(min = 1, max = 87_600))]
    pub max_age_h: u64,
}

impl Default for MessageLogSection {
    fn default() -> Self {
        Self { max_mib: 1_024, max_age_h: 7 * 24 }
    }
}
