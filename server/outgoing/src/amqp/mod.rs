//! Outgoings that are AMQP 0-9-1 brokers.
//!
//! One connection per worker publishes ([`link`]); each message has one of the connection's channels to itself
//! until the broker confirmed it ([`publish`]), because the library tells which confirmation a returned message
//! belongs to only where one is on its way. A consumer has a connection of its own ([`consume`]): a broker that
//! holds back publishers must not hold back acknowledgements.

mod consume;
mod failure;
mod link;
mod publish;
mod topology;
mod values;

pub(crate) use publish::MessageBroker;
