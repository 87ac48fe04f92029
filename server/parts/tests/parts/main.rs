//! The parts for real: made, started, killed, started again, stopped.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests report by panicking and on stdout")]

mod life;
mod support;
