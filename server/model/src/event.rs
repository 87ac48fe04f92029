//! What servers and workers tell each other: that something changed and at which revision, never the
//! content. The ODB is the truth; a lost event costs one comparison interval.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::definition::DefinitionName;
use crate::names::{Digest, Revision, ServiceName, UnitName};

/// One event. The supervisor relays each to every worker of its server, the sender included, in one order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Definitions or deployments changed.
    RevisionChanged {
        /// The newest revision its sender knows.
        revision: Revision,
    },
    /// Certificate files of this server were replaced.
    CertificatesChanged,
    /// `server.toml` changed in a way that needs no restart.
    SettingsChanged,
    /// A worker finished (or failed) to apply a revision.
    Applied(ApplyReport),
    /// An operator lifted a quarantine.
    QuarantineReleased {
        /// The service.
        service: ServiceName,
    },
}

/// What one worker made of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyReport {
    /// The worker's index within its server.
    pub worker: u16,
    /// The revision it was asked to apply.
    pub revision: Revision,
    /// Whether it serves that revision now; otherwise the previous snapshot goes on serving.
    pub serving: bool,
    /// Why the snapshot could not be built, when it could not.
    pub error: Option<String>,
    /// Deployments that could not be loaded here.
    pub failed_units: Vec<FailedUnit>,
    /// Channels of that revision that nobody can use here, though they are active.
    #[serde(default)]
    pub closed_channels: Vec<ClosedChannel>,
    /// Outgoings of that revision that cannot be used here, though they are active.
    #[serde(default)]
    pub closed_outgoings: Vec<ClosedOutgoing>,
}

/// A channel that one worker cannot open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClosedChannel {
    /// The channel.
    pub channel: DefinitionName,
    /// What keeps it closed, each thing in one line.
    pub reasons: Vec<String>,
}

/// An outgoing that one worker cannot open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClosedOutgoing {
    /// The outgoing.
    pub outgoing: DefinitionName,
    /// What keeps it closed, each thing in one line.
    pub reasons: Vec<String>,
}

/// A deployment one worker could not load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedUnit {
    /// The unit.
    pub unit: UnitName,
    /// Which version of it.
    pub digest: Digest,
    /// Why, in one line.
    pub message: String,
}
