//! Connections to AMQP 0-9-1 brokers, for whoever needs one: the bus between servers, and outgoings.
//!
//! Layer 1. TCP and TLS are this crate's own, so that both ends are verified by the server's rules and a
//! connection can be torn down at will; the protocol above them is the library's. Nothing here connects again:
//! who holds a connection knows best when.

mod connect;
mod error;
mod stream;

pub use connect::{Broker, BrokerTls, Login, connect, timed};
pub use error::BrokerError;
