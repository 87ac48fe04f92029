//! `[python]`: how services in Python run.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[python]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PythonSettings {
    /// Handler threads of one worker: so many synchronous services run (or wait for something) at once.
    #[schemars(range(min = 1, max = 1000))]
    pub handler_threads: u16,
    /// Requests that may wait for a handler thread; more get 503 with Retry-After.
    #[schemars(range(min = 0, max = 100_000))]
    pub queue: u32,
    /// Calls of `async def` services that one worker runs at once; more get 503 with Retry-After.
    #[schemars(range(min = 1, max = 100_000))]
    pub async_calls: u32,
    /// How long a handler past its deadline may take to end before its thread counts as lost, in
    /// milliseconds.
    #[schemars(range(min = 100, max = 600_000))]
    pub stuck_after_ms: u64,
    /// Lost threads at which a worker is drained and replaced.
    #[schemars(range(min = 1, max = 1000))]
    pub max_lost_threads: u16,
    /// The virtual environment whose packages services may import, relative to the server's directory.
    /// Read when a worker starts.
    pub venv: PathBuf,
}

impl Default for PythonSettings {
    fn default() -> Self {
        Self {
            handler_threads: 32,
            queue: 256,
            async_calls: 1_000,
            stuck_after_ms: 5_000,
            max_lost_threads: 4,
            venv: "venv".into(),
        }
    }
}
