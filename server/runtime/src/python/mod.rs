//! Services in Python: CPython embedded in the worker, with handler threads and an event loop.
//!
//! A message takes one of two ways. A `def` service's goes through the [`pool`] to a handler thread, an
//! `async def` service's through the [`event_loop`]; both end in [`handler`]. Units live in private
//! namespaces ([`unit`]); declared input is checked in Rust ([`input`]) and converted by compiled codecs
//! ([`codec`]). The reactor never waits for the interpreter: everything it does here is queues and tickets.

pub mod check;
mod codec;
mod config;
mod context;
mod event_loop;
mod failure;
mod handler;
mod host_call;
mod housekeeping;
mod input;
mod interface;
mod interpreter;
mod json;
mod native;
mod options;
mod pool;
mod resources;
mod runtime;
mod service;
mod stream;
mod ticket;
mod unit;

pub use options::{Activity, PythonOptions, StartError};
pub use runtime::PythonRuntime;
