//! The control channel: what supervisor and workers say to each other.
//!
//! One ordered stream per worker (a socketpair) carries state and readiness both ways. Frames are typed,
//! versioned and bounded (`frame`); the worker's side is asynchronous (`stream`), the supervisor's lives in
//! its poll loop. A closed channel means: drain.

mod frame;
mod stream;

use crosstie_model::event::Event;
use crosstie_model::names::ServiceName;
use serde::{Deserialize, Serialize};

pub use frame::{FrameError, MAX_FRAME_BYTES, PROTOCOL_VERSION, decode, encode};
pub use stream::{ControlError, ControlReader, ControlStream, ControlWriter};

/// What the supervisor tells a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", content = "body", rename_all = "snake_case")]
pub enum ToWorker {
    /// The answer to `Hello`: get ready, then say so.
    Start {
        /// How many workers the server runs; a worker's fair share is one part in so many.
        workers: u16,
        /// How long a drain may take, in milliseconds.
        drain_ms: u64,
    },
    /// Something changed: relayed from a worker, its sender included.
    Event(Event),
    /// Finish what is in flight, take no more, say `Drained` and leave.
    Drain {
        /// How long the supervisor waits before it kills, in milliseconds.
        deadline_ms: u64,
    },
}

/// What a worker tells the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "message", content = "body", rename_all = "snake_case")]
pub enum ToSupervisor {
    /// The first message, sent by [`crate::worker::inherit`].
    Hello {
        /// The worker's protocol version.
        version: u8,
        /// Its process id, which must be the one the supervisor started.
        pid: u32,
    },
    /// The worker serves traffic.
    Ready,
    /// The worker took (or gave up) the singleton lock.
    Singleton(bool),
    /// To be relayed to every worker, the sender included, in one order.
    Event(Event),
    /// A handler thread of the service will not come back. The strike itself is counted in shared memory
    /// by `Blame::thread_lost`; this wakes the supervisor to log and keep it.
    Lost {
        /// The service.
        service: ServiceName,
    },
    /// The worker asks to be drained once a successor is ready.
    Replace {
        /// Why, for the log.
        reason: String,
    },
    /// The worker stopped accepting. Unasked, it makes the supervisor start a replacement at once.
    Draining,
    /// Nothing is in flight any more; the worker is about to leave.
    Drained,
}
