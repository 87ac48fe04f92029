//! What the process around gives to outgoings.

use std::sync::Arc;

use crosstie_model::ports::GaugeCells;
use crosstie_telemetry::Metrics;
use crosstie_telemetry::messages::MessageLog;
use crosstie_telemetry::traces::Tracer;

/// Metrics, traces and message log of the process outgoings run in.
#[derive(Clone)]
pub struct Environment {
    /// The server's metrics.
    pub metrics: Metrics,
    /// The server's figures that go up and down.
    pub gauges: Arc<dyn GaugeCells>,
    /// Records spans; `None` where no collector is configured.
    pub tracer: Option<Tracer>,
    /// Where messages are kept; `None` where none are.
    pub messages: Option<MessageLog>,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Environment")
    }
}
