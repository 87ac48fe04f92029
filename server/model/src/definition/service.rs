//! Settings of a service that whoever runs it decides, not its code. Named after the service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Run-time settings of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceSettings {
    /// An inactive service answers 503.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub active: bool,
    /// How long one call may take, in milliseconds; overrides what the code says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400_000))]
    pub deadline_ms: Option<u64>,
    /// How many calls one server runs at once; more get 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_concurrency: Option<u32>,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self { active: true, deadline_ms: None, max_concurrency: None }
    }
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}
