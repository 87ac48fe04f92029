//! The processes of a server: puts the other crates together.
//!
//! [`run_server`] is the supervisor's side: settings in, a plan for the supervisor out. [`run_worker`] is a
//! worker process: traffic on the main thread, everything slow on the control thread, and in one worker of
//! each server the singleton's duties. Nothing here is called by another crate but the command.

mod accepted;
mod closed;
mod control;
mod follow;
mod host;
mod inquiries;
mod keep;
mod last_good;
mod live;
mod membership;
mod nonces;
mod observe;
mod outbox;
mod outgoings;
mod pickup;
mod ports;
mod refusals;
mod server;
mod singleton;
mod status;
mod watch;
mod worker;

pub use accepted::AcceptedSettings;
pub use server::{ServerRun, run_server};
pub use worker::run_worker;
