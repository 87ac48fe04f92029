//! What the server's own pages on the service port show: readiness and metrics.

use std::sync::Arc;

use crosstie_channels::ports::{Readiness, ServerStatus};
use crosstie_model::settings::ServerSettings;
use crosstie_process::shm::{Segment, WorkerSlot, WorkerState};
use crosstie_telemetry::metrics::Metrics;
use serde_json::json;

use crate::follow::Standing;
use crate::observe::render;

/// See the module.
pub(crate) struct Status {
    own: &'static WorkerSlot,
    standing: Arc<Standing>,
    metrics: Metrics,
    segment: Arc<Segment>,
    title: String,
}

impl Status {
    /// The status of the worker in slot `own`.
    pub(crate) fn new(
        own: &'static WorkerSlot,
        standing: &Arc<Standing>,
        metrics: &Metrics,
        segment: &Arc<Segment>,
        settings: &ServerSettings,
    ) -> Self {
        Self {
            own,
            standing: Arc::clone(standing),
            metrics: metrics.clone(),
            segment: Arc::clone(segment),
            title: format!("Services of {}", settings.server.name),
        }
    }
}

impl ServerStatus for Status {
    /// A server should get traffic while it serves a snapshot and does not drain. One that serves its last
    /// good snapshot because the ODB is away is still ready: its answers are as right as anyone's. One that
    /// lacks a deployment the others have is not.
    fn readiness(&self) -> Readiness {
        let started = self.standing.is_started();
        let draining = self.own.state() == WorkerState::Draining;
        let failed = self.standing.failed_units().len();
        let state = match (started, draining, failed) {
            (false, _, _) => "starting",
            (true, true, _) => "draining",
            (true, false, 0) if self.standing.degraded().is_some() => "degraded",
            (true, false, 0) => "ready",
            (true, false, _) => "incomplete",
        };
        Readiness {
            ready: started && !draining && failed == 0,
            detail: json!({"status": state, "revision": self.standing.revision()}),
        }
    }

    fn metrics(&self) -> String {
        render(&self.metrics, &self.segment, &self.standing)
    }

    fn title(&self) -> String {
        self.title.clone()
    }
}
