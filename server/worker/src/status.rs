//! What the server's own pages on the service port show: readiness and metrics.

use std::sync::Arc;

use crosstie_channels::ports::{Readiness, ServerStatus};
use crosstie_model::Revision;
use crosstie_model::settings::ServerSettings;
use crosstie_process::shm::{Comparison, Segment, WorkerSlot, WorkerState};
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
    /// that lacks a deployment or a revision is not, as long as another server has it; were nobody to do better,
    /// a deployment that fails everywhere would take the whole cluster out of service, although each server
    /// goes on with what it had. One that is drained answers what comes nevertheless: whoever sends it has not
    /// heard yet.
    fn readiness(&self) -> Readiness {
        let draining = self.own.state() == WorkerState::Draining || self.segment.is_drain_wanted();
        let (degraded, revision) = (self.standing.degraded().is_some(), self.standing.revision());
        let comparison = self.segment.comparison();
        let own = self.failure();
        let failed = own.is_some() || comparison == Comparison::Behind;
        let (ready, state) = match (self.standing.is_started(), draining, failed) {
            (false, _, _) => (false, "starting"),
            (true, true, _) => (false, "draining"),
            (true, false, true) => (comparison == Comparison::Level, "failed"),
            // Nothing was ever read: whatever is asked for, another server knows better.
            (true, false, false) if degraded && revision == Revision::default() => (false, "starting"),
            (true, false, false) if degraded => (true, "degraded"),
            (true, false, false) => (true, "ready"),
        };
        let mut detail = json!({"status": state, "revision": revision});
        if let ("failed", Some(fields)) = (state, detail.as_object_mut()) {
            let reason = own.unwrap_or_else(|| "another worker lacks what other servers serve".to_owned());
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
