//! `[cluster]`: how servers know of each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[cluster]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSection {
    /// How often this server tells the cluster how it is, in milliseconds.
    #[schemars(range(min = 100, max = 60_000))]
    pub heartbeat_ms: u64,
    /// After how long without a sign of life a server counts as dead, and another may take the lead from one
    /// that had it, in milliseconds. At least three times `heartbeat_ms`; equal on all servers.
    #[schemars(range(min = 500, max = 600_000))]
    pub lapse_ms: u64,
    /// For how many days the audit is kept; for ever when 0. A rollback reaches back as far, and a server
    /// that joins later begins its `config/cluster` there, with other commit hashes than older servers have.
    #[schemars(range(max = 36_500))]
    pub audit_days: u32,
}

impl Default for ClusterSection {
    fn default() -> Self {
        Self { heartbeat_ms: 1_000, lapse_ms: 5_000, audit_days: 0 }
    }
}
