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

impl Status {
    /// What this worker lacks that other servers may have. Names units and no more: anybody may ask.
    fn failure(&self) -> Option<String> {
        let units = self.standing.failed_units();
        if !units.is_empty() {
            let names: Vec<&str> = units.iter().map(|failed| failed.unit.as_str()).collect();
            return Some(format!("cannot load {}", names.join(", ")));
        }
        self.standing.membership.refused().map(|_| "cannot serve the newest revision".to_owned())
    }
}

impl ServerStatus for Status {
    /// A server should get traffic while it serves a snapshot and is not to be drained. One that serves its
    /// last good snapshot because the ODB is away is still ready: its answers are as right as anyone's. One
    /// that lacks a deployment or a revision the others have is not. One that is drained answers what comes
    /// nevertheless: whoever sends it has not heard yet.
    fn readiness(&self) -> Readiness {
        let draining = self.own.state() == WorkerState::Draining || self.segment.is_drain_wanted();
        let failure = self.failure();
        let (ready, state) = match (self.standing.is_started(), draining, &failure) {
            (false, _, _) => (false, "starting"),
            (true, true, _) => (false, "draining"),
            (true, false, Some(_)) => (false, "failed"),
            (true, false, None) if self.standing.degraded().is_some() => (true, "degraded"),
            (true, false, None) => (true, "ready"),
        };
        let mut detail = json!({"status": state, "revision": self.standing.revision()});
        if let (Some(reason), "failed", Some(fields)) = (failure, state, detail.as_object_mut()) {
            fields.insert("reason".into(), reason.into());
        }
        Readiness { ready, detail }
    }

    fn metrics(&self) -> String {
        render(&self.metrics, &self.segment, &self.standing)
    }

    fn title(&self) -> String {
        self.title.clone()
    }
}
