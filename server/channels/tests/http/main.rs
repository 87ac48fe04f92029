//! The HTTP server on real sockets, with services made for the tests.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking, their helpers too"
)]

mod body_limits;
mod builtin_pages;
mod connections;
mod cross_origin;
mod draining;
mod garbage;
mod http2;
mod json_rpc;
mod message_log;
mod negotiation;
mod observation;
mod protection;
mod routing;
mod soap;
mod support;
mod tls;
