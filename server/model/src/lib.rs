//! The vocabulary every other crate speaks: names, messages, failures, definitions, snapshots and the
//! ports through which crates of one layer meet without importing each other.
//!
//! Layer 0: this crate does no I/O, starts no thread and imports none of its siblings. What stands here is
//! what at least two crates must agree on; anything only one crate needs lives in that crate.

pub mod certificate;
pub mod cid;
pub mod definition;
pub mod event;
pub mod failure;
pub mod inquiry;
pub mod kept;
pub mod limits;
pub mod message;
pub mod names;
pub mod outgoing;
pub mod ports;
pub mod refusal;
pub mod schema;
pub mod secret;
pub mod settings;
pub mod snapshot;
pub mod soap;
pub mod tagged;
pub mod transform;
pub mod unit;

pub use cid::{Cid, TraceContext};
pub use definition::{Definition, DefinitionBody, DefinitionId, DefinitionKind};
pub use event::Event;
pub use failure::{Failure, FailureKind, Fault, Origin};
pub use message::{HttpRequest, Message, Payload, Principal, Reply, ReplyBody};
pub use names::{Digest, Revision, ServiceName, UnitName};
pub use snapshot::Snapshot;
