//! The agent with a real HAProxy in front of real TLS servers in processes of their own.
//!
//! This test binary is also those processes: `programs` holds what they do, and a test that starts one runs
//! the binary again with its name.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::zombie_processes,
    reason = "tests report by panicking, their parts too; a world ends its processes"
)]

mod configuration;
mod deaths;
mod entrance;
mod members;
mod privilege;
mod programs;
mod traffic;
mod world;
