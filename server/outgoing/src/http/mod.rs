//! Outgoings that speak HTTP.
//!
//! A call goes through [`client`]: circuit, headers, then [`follow`]: redirects around repetitions around one
//! [`exchange`] each, which takes a connection from the [`pool`] or has [`connect`] make one. The answer's body
//! is an [`answer`], which gives the connection back. Nothing on the way holds a lock across an await or copies
//! a body.

mod answer;
mod body;
mod client;
mod connect;
mod credentials;
mod exchange;
mod follow;
mod headers;
mod origin;
mod pool;
mod redirect;
mod retry;
mod token;

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

pub(crate) use client::HttpClient;

use crate::circuit;

/// What calls present themselves as, unless the definition or the caller says otherwise.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("crosstie/", env!("CARGO_PKG_VERSION")));

/// What a query's names and values keep as it is: the unreserved characters (RFC 3986, section 2.3).
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
