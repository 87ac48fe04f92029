//! The management API on a real SQLite ODB: every refusal, called through the router and over TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking, and so do the functions they share"
)]

mod accounts;
mod cluster;
mod configuration;
mod definitions;
mod deployments;
mod outage;
mod protocol;
mod services;
mod tls;
mod world;
