//! This worker process as the management operations see it.

use std::os::unix::process::parent_id;
use std::sync::Arc;

use crosstie_api::host::{
    BusStatus, Host, Quarantined, Replaying, ServerProcesses, WorkerPhase, WorkerProcess,
};
use crosstie_channels::replay::Replay;
use crosstie_channels::routes::Routes;
use crosstie_channels::staged::Staged;
use crosstie_model::certificate::CertificateEnd;
use crosstie_model::ports::ServiceDirectory;
use crosstie_model::settings::ServerSettings;
use crosstie_model::{Event, ServiceName};
use crosstie_odb::MemberState;
use crosstie_process::shm::{Segment, Verdict, WorkerState, WorkerView};
use crosstie_telemetry::metrics::{Metrics, counters};

use crate::follow::Standing;
use crate::live::CurrentLive;
use crate::observe::render;
use crate::outbox::Outbox;
use crate::singleton::BusLink;

/// See the module.
pub(crate) struct WorkerHost {
    /// The server's shared memory.
    pub(crate) segment: Arc<Segment>,
    /// To the supervisor.
    pub(crate) outbox: Outbox,
    /// What is loaded here.
    pub(crate) current: Arc<CurrentLive>,
    /// Where the worker stands.
    pub(crate) standing: Arc<Standing>,
    /// The settings in force.
    pub(crate) settings: Arc<ServerSettings>,
    /// The server's metrics.
    pub(crate) metrics: Metrics,
    /// To the other servers, while this worker is the singleton.
    pub(crate) bus: BusLink,
    /// The channels.
    pub(crate) routes: Arc<Staged<Routes>>,
}

impl Host for WorkerHost {
    fn publish(&self, event: Event) {
        self.bus.publish(&event);
        self.outbox.event(event);
    }

    fn processes(&self) -> ServerProcesses {
        ServerProcesses {
            supervisor: parent_id(),
            workers: self.segment.workers().into_iter().map(|view| self.process(view)).collect(),
        }
    }

    fn is_revoked(&self, serial: &str) -> bool {
        self.standing.revoked.contains(serial)
    }

    fn quarantined(&self) -> Vec<Quarantined> {
        self.segment.quarantined().into_iter().map(quarantined).collect()
    }

    fn release(&self, service: &ServiceName) -> bool {
        self.segment.release(service.as_str())
    }

    fn services(&self) -> Arc<dyn ServiceDirectory> {
        self.current.load_full()
    }

    fn settings(&self) -> Arc<ServerSettings> {
        Arc::clone(&self.settings)
    }

    fn degraded(&self) -> Option<String> {
        self.standing.degraded()
    }

    fn metrics(&self) -> String {
        render(&self.metrics, &self.segment, &self.standing)
    }

    fn member_state(&self) -> Option<MemberState> {
        self.standing.membership.state()
    }

    fn certificates(&self) -> Vec<CertificateEnd> {
        self.standing.membership.certificates().as_ref().clone()
    }

    fn bus(&self) -> BusStatus {
        self.bus.status()
    }

    fn replay(&self, replay: Replay) -> Replaying {
        let routes = self.routes.load_full();
        Box::pin(async move { crosstie_channels::replay::replay(&routes, replay).await })
    }

    fn count_deployment(&self, outcome: &'static str) {
        self.metrics.counter(&counters::DEPLOYMENTS, &[("outcome", outcome)]).add(1);
    }
}

impl WorkerHost {
    fn process(&self, view: WorkerView) -> WorkerProcess {
        WorkerProcess {
            index: view.index,
            pid: view.pid,
            state: match view.state {
                WorkerState::Vacant => WorkerPhase::Dead,
                WorkerState::Starting => WorkerPhase::Starting,
                WorkerState::Ready => WorkerPhase::Ready,
                WorkerState::Draining => WorkerPhase::Draining,
            },
            singleton: view.singleton,
            // Only the singleton leads, and only it is asked.
            leader: view.singleton && self.standing.membership.is_leading(),
            connections: u64::from(view.connections),
            in_flight: u64::from(view.in_flight),
            requests: view.requests,
            restarts: u64::from(view.restarts),
        }
    }
}

fn quarantined(verdict: Verdict) -> Quarantined {
    Quarantined {
        name: verdict.subject.name().to_owned(),
        reason: format!("{} ({} strikes)", verdict.cause.as_str(), verdict.strikes),
        since: verdict.since.unwrap_or_default(),
    }
}
