//! Limits that are part of the design and not settings: raising one is a decision, not a configuration.

use std::time::Duration;

/// How many services may call each other in one chain.
pub const MAX_INVOKE_DEPTH: u8 = 32;

/// Largest artifact of a deployment, in bytes.
pub const MAX_ARTIFACT_BYTES: usize = 32 * 1024 * 1024;

/// How many deployments of a unit are kept for rollback.
pub const KEPT_DEPLOYMENTS: usize = 20;

/// How deep a JSON document may nest. serde_json refuses more on its own; XML decoding and stored definitions
/// obey the same number. For request bodies `[http] max_depth` may say less.
pub const MAX_DOCUMENT_DEPTH: usize = 128;

/// How often a singleton compares its revision with the ODB's, so that a lost event costs nothing more.
pub const REVISION_POLL: Duration = Duration::from_secs(2);

/// Strikes after which a service is quarantined.
pub const QUARANTINE_STRIKES: u32 = 3;
