//! Outgoings that speak HTTP, against real servers on loopback: well-behaved ones made with hyper, and ones that
//! hang, break off or talk nonsense.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, and their functions beside `#[test]` ones are tests too"
)]

mod calls;
mod circuit;
mod http2;
mod message_log;
mod oauth;
mod pool;
mod proxy;
mod redirects;
mod retries;
mod support;
mod tls;
mod trouble;
