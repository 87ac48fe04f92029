//! `Host`: what the management operations need from the process they run in, and nothing else.
//!
//! The worker crate implements it once, for the singleton. Every method is called on the control thread,
//! returns at once and touches no ODB: an operation must be able to say that the ODB is away. Tests
//! implement it with plain values.

use std::pin::Pin;
use std::sync::Arc;

use crosstie_channels::replay::{Replay, ReplayError, Replayed};
use crosstie_model::certificate::CertificateEnd;
use crosstie_model::ports::ServiceDirectory;
use crosstie_model::settings::ServerSettings;
use crosstie_model::{Event, ServiceName};
use crosstie_odb::MemberState;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A kept message on its way through its channel.
pub type Replaying = Pin<Box<dyn Future<Output = Result<Replayed, ReplayError>> + Send>>;

/// The process that management operations run in.
pub trait Host: Send + Sync {
    /// Sends `event` to every worker of this server, this one included, and to the other servers if there is
    /// a broker. Never waits; a lost event costs one revision comparison.
    fn publish(&self, event: Event);

    /// The supervisor and the workers as the shared memory shows them now.
    fn processes(&self) -> ServerProcesses;

    /// Services that are quarantined on this server.
    fn quarantined(&self) -> Vec<Quarantined>;

    /// Lifts the quarantine of `service` on this server and forgets its strikes; says whether there was one.
    /// The caller publishes [`Event::QuarantineReleased`] afterwards.
    fn release(&self, service: &ServiceName) -> bool;

    /// The services this worker has loaded.
    fn services(&self) -> Arc<dyn ServiceDirectory>;

    /// The settings in force: those read last, not those read at start.
    fn settings(&self) -> Arc<ServerSettings>;

    /// Why this server runs from its last good snapshot; `None` while it follows the ODB.
    fn degraded(&self) -> Option<String>;

    /// All metrics of this server in Prometheus text form (version 0.0.4).
    fn metrics(&self) -> String;

    /// How this server is, as it last told the cluster; `None` before it did.
    fn member_state(&self) -> Option<MemberState> {
        None
    }

    /// When the certificates this server uses end.
    fn certificates(&self) -> Vec<CertificateEnd> {
        Vec::new()
    }

    /// Whether the certificate of a component with this serial number (hexadecimal) is worth nothing any more.
    fn is_revoked(&self, serial: &str) -> bool {
        let _ = serial;
        false
    }

    /// How this server hears of changes that others make.
    fn bus(&self) -> BusStatus {
        BusStatus::in_host()
    }

    /// Sends a kept message through its channel once more.
    fn replay(&self, replay: Replay) -> Replaying {
        let Replay { channel, method, target, .. } = replay;
        let path = target.path().to_owned();
        Box::pin(std::future::ready(Err(ReplayError::NoWay { channel, method, path })))
    }

    /// Counts an attempt to deploy that ended as `deployed`, `refused` or `failed`. A host without metrics
    /// counts nothing.
    fn count_deployment(&self, outcome: &'static str) {
        let _ = outcome;
    }
}

/// How a server hears of changes that others make. Without the broker it compares every two seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BusStatus {
    /// `in-host` when no broker is configured, or `rabbitmq`.
    pub kind: String,
    /// Whether the broker is connected; true without one.
    pub reachable: bool,
    /// Since when it has been so (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub since: Option<OffsetDateTime>,
    /// Why the broker is not connected, or takes no messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl BusStatus {
    /// Of a server without a broker.
    #[must_use]
    pub fn in_host() -> Self {
        Self { kind: "in-host".to_owned(), reachable: true, since: None, error: None }
    }
}

/// One server's processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerProcesses {
    /// The supervisor's process id.
    pub supervisor: u32,
    /// Its workers, by index.
    pub workers: Vec<WorkerProcess>,
}

/// One worker process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerProcess {
    /// Its index within the server.
    pub index: u16,
    /// Its process id.
    pub pid: u32,
    /// The phase of its life.
    pub state: WorkerPhase,
    /// Whether it is the server's singleton.
    pub singleton: bool,
    /// Whether it is the cluster's leader.
    pub leader: bool,
    /// Open client connections.
    pub connections: u64,
    /// Requests being worked on.
    pub in_flight: u64,
    /// Requests answered since it started.
    pub requests: u64,
    /// How often this slot's process was replaced after a death.
    pub restarts: u64,
}

/// The phase of a worker's life, as the management API names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkerPhase {
    /// Loading; does not accept yet.
    Starting,
    /// Serving traffic.
    Ready,
    /// Finishing what it has in hand.
    Draining,
    /// Gone; its replacement is on its way or waits for its back-off to pass.
    Dead,
}

/// A quarantined service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quarantined {
    /// The service's name (or a unit's, when loading it was what killed workers).
    pub name: String,
    /// Why: which strikes.
    pub reason: String,
    /// Since when, in seconds of the Unix epoch.
    pub since: u64,
}
