//! The management API: operations on definitions, deployments, services, accounts and configuration, and
//! the HTTP interface to them.
//!
//! Runs in the singleton's control thread. [`operations::Operations`] does the work and can be called
//! without HTTP (the pickup watcher does); [`http`] serves it under `/api/v1`. What both need from the
//! process around comes in through [`host::Host`].

pub mod access;
pub mod checker;
mod clock;
pub mod host;
pub mod http;
pub mod operations;
pub mod serving;

pub use access::{Caller, Proof, Role};
pub use checker::{CheckError, UnitChecker};
pub use host::{Host, Quarantined, ServerProcesses, WorkerPhase, WorkerProcess};
pub use operations::{Operations, OperationsParts};
pub use serving::ServingState;
