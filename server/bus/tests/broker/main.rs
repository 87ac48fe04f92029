//! The bus against a real RabbitMQ: what is heard, what is refused, and what happens while it is away.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

mod delivery;
mod outage;
mod support;
mod trust;
