//! Outgoing connections: what services call in the outside world.
//!
//! Layer 2. Implements the traits of `crosstie_model::outgoing`; whoever calls knows only those. A worker draws
//! a [`Blueprint`] of every outgoing of a snapshot and opens those whose blueprint changed: the others keep
//! their connections, tokens and circuits from one snapshot to the next.
//!
//! An outgoing belongs to no reactor: its calls run where they are made, and connections prefer the reactor
//! they were opened on.

mod amqp;
mod blueprint;
mod circuit;
mod environment;
mod http;
mod kept;
mod observe;
mod open;
mod soap;
mod sql;
mod tls;

pub use blueprint::{Blueprint, OpenError};
pub use environment::Environment;
pub use open::open;

#[cfg(test)]
mod testing;
