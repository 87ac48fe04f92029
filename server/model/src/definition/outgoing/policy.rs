//! What an outgoing does about an external system that fails: try again, and leave it alone for a while.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a call is tried again. A call that never left this server is safe to repeat whatever it asks for; one
/// that did is repeated for the listed methods alone. All within the call's deadline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// How often one call is tried again at most.
    #[schemars(range(max = 10))]
    pub max: u32,
    /// Methods that may be repeated after the request was sent: those that have the same effect twice as once
    /// (RFC 9110, section 9.2.2).
    #[schemars(inner(pattern(r"^[A-Z]{1,20}$")))]
    pub methods: Vec<String>,
    /// Statuses of the answer after which a call is repeated.
    #[schemars(inner(range(min = 400, max = 599)))]
    pub statuses: Vec<u16>,
    /// The pause before the first repetition, in milliseconds; doubled for each further one, and varied by
    /// half. A `Retry-After` of the answer is obeyed instead.
    #[schemars(range(min = 1, max = 60_000))]
    pub pause_ms: u64,
    /// The longest pause, in milliseconds; an answer that asks for a longer one is given to the service.
    #[schemars(range(min = 1, max = 600_000))]
    pub max_pause_ms: u64,
    /// Repetitions for every 100 calls, over all calls of the outgoing in one worker; a few more are allowed
    /// where there are few calls. A system that is down gets this much more load and no more.
    #[schemars(range(max = 1_000))]
    pub budget_percent: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let methods = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"];
        Self {
            max: 2,
            methods: methods.map(str::to_owned).to_vec(),
            statuses: vec![502, 503, 504],
            pause_ms: 100,
            max_pause_ms: 5_000,
            budget_percent: 20,
        }
    }
}

impl RetryPolicy {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When calls are refused without being tried, because those before them failed. Each worker judges by its
/// own calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CircuitPolicy {
    /// How many calls in a row must fail for the circuit to open: no answer in time, a broken connection, or
    /// status 502, 503 or 504. 0 keeps it closed whatever happens.
    #[schemars(range(max = 10_000))]
    pub failures: u32,
    /// How long an open circuit refuses calls before one is let through to try, in milliseconds; doubled each
    /// time that fails.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub pause_ms: u64,
    /// The longest such pause, in milliseconds.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub max_pause_ms: u64,
}

impl Default for CircuitPolicy {
    fn default() -> Self {
        Self { failures: 10, pause_ms: 5_000, max_pause_ms: 60_000 }
    }
}

impl CircuitPolicy {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
