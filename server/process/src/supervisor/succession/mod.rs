//! How a server gets a new binary without losing a request: the supervisor starts it as its successor, hands
//! over what it owns, and leaves once the successor serves.
//!
//! Both speak over one socket pair, in the control channel's frames, and go through the same steps:
//!
//! 1. The old supervisor (`predecessor`) runs what lies at its own path now. The new one (`successor`)
//!    inherits the listening sockets and, if it lays it out alike, the shared memory, and says `Hello`.
//! 2. It starts its workers, which accept beside the old ones. All of them ready, it says `Ready`.
//! 3. The old one gives up the pid file's lock and says `Claim`. A second lock, on `work/upgrade.lock`, keeps
//!    strangers out of the moment in which nobody holds the first.
//! 4. The new one holds the pid file and says `Claimed`. From here on it is the server.
//! 5. The old one closes its sockets, drains its workers and leaves.
//!
//! Until step 4 the old one can go back at any moment, and does so when the new one ends, breaks the protocol
//! or takes too long: it goes on as if nothing had been. When the old one dies before, the new one takes over
//! what it can. Events are passed on both ways, so that the workers of both follow changes together.

mod heritage;
mod predecessor;
mod report;
mod successor;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use heritage::{HeritageError, Origin};
pub(super) use predecessor::{Heir, Succession};
pub(super) use report::keep as keep_report;
pub use report::{Outcome, Report, report};
pub(super) use successor::{Rank, introduce};

use super::link::Message;

/// The version of what is handed over and said. Supervisors of different releases meet here: a change that an
/// older one cannot follow raises it, and an upgrade between the two is refused then.
pub(super) const SUCCESSION_VERSION: u8 = 1;

/// What the predecessor tells its successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", content = "body", rename_all = "snake_case")]
pub(super) enum ToSuccessor {
    /// The pid file's lock is free: take it.
    Claim,
    /// Something changed; for its workers. Not decoded on the way: its vocabulary may differ between releases.
    Event(Value),
}

/// What the successor tells its predecessor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", content = "body", rename_all = "snake_case")]
pub(super) enum ToPredecessor {
    /// It understood what it inherited.
    Hello {
        /// Its process id, which must be the one that was started.
        pid: u32,
    },
    /// All its workers serve.
    Ready,
    /// It holds the pid file: it is the server.
    Claimed,
    /// It will not be the server.
    Refused {
        /// Why.
        reason: String,
    },
    /// Something changed; for the workers here.
    Event(Value),
}

impl Message for ToSuccessor {
    fn is_droppable(&self) -> bool {
        matches!(self, Self::Event(_))
    }
}

impl Message for ToPredecessor {
    fn is_droppable(&self) -> bool {
        matches!(self, Self::Event(_))
    }
}
