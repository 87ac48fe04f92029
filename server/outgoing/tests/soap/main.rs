//! Outgoings that speak SOAP, against servers that others wrote: gSOAP (C), spyne (Python), and Python's own
//! parsers where bytes on the wire are looked at.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, and their functions beside `#[test]` ones are tests too"
)]

mod attachments;
mod gsoap;
mod messages;
mod server;
mod spyne;
#[path = "../http/support.rs"]
#[allow(dead_code, reason = "shared with the tests of HTTP")]
mod support;
