//! The agent with a real HAProxy in front of real TLS servers in processes of their own.
//!
//! This test binary is also those processes: `programs` holds what they do, and a test that starts one runs
//! the binary again with its name.

mod configuration;
mod deaths;
mod entrance;
mod members;
mod programs;
mod traffic;
mod world;
