//! Services in the real interpreter.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests fail by panicking, and hold the services they are about"
)]

mod calls;
mod host;
mod limits;
mod models;
mod outgoing;
mod support;
mod transform;
mod units;
