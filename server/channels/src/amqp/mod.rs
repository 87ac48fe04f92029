//! AMQP channels: messages of a queue go to a service, and are acknowledged once it is done with them.
//!
//! The broker is an outgoing, met through its trait; nothing here speaks the protocol. [`plan`] compiles the
//! channels of a snapshot, [`consumers`] keeps their consumers running from one snapshot to the next, [`consumer`]
//! is one of those, [`delivery`] one message's way.
//!
//! A message is never given up before it is safe elsewhere: what is to be tried again or is a dead letter is
//! published, with the broker's confirmation, before the original is acknowledged. Whatever dies in between, the
//! message is there once or twice, never not at all. What is to be tried again waits in a queue beside the channel's
//! own, which is consumed as well: a message is in hand until it is due, and then worked on as if it had just come.
//!
//! None of its ways is a circle without a count: failures are counted in a header, and so is that the broker sent a
//! message again.

mod consumer;
mod consumers;
mod delivery;
mod letter;
mod once;
mod plan;
mod reply;

pub use consumers::{AmqpChannels, AmqpSurroundings};
pub use plan::PlannedAmqp;
pub(crate) use plan::Work;
