//! Outgoings that speak SOAP.
//!
//! A [`client`] has a [`description`], compiled when it is opened, and an HTTP client beneath, which does all that
//! has to do with connections. A call is a [`request`] made by the description, sent, and its [`answer`] read by
//! the description. Large messages are made and read on a thread that may be busy for long.

mod answer;
mod client;
mod description;
mod request;
mod token;

pub(crate) use client::SoapClient;

/// Messages up to this size are made and read on the reactor: tens of microseconds, less than a thread switch and
/// back costs.
const INLINE_BYTES: usize = 64 * 1024;
