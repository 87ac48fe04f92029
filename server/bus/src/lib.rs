//! How servers tell each other, over RabbitMQ, that something changed.
//!
//! One connection per server, made by its singleton: what is published here goes to a fanout exchange, and a
//! queue of this server's own brings what the others published. A notice says that there is a newer revision
//! and which; the ODB is the truth and every server compares by itself every two seconds, so a notice that is
//! lost, late or doubled costs nothing. That is why nothing here is stored, waited for or retried beyond the
//! newest revision, and why a broker that is away, slow or full changes nothing but how fast changes arrive.

mod backoff;
mod bus;
mod connect;
mod frame;
mod session;
mod state;

pub use bus::{Bus, BusOptions, BusSecrets, Heard};
/// Why there is no connection to the broker.
pub use crosstie_amqp::BrokerError as BusError;
/// What [`BusSecrets`] gives.
pub use rustls::ClientConfig;
pub use state::{BusCounts, BusState};
