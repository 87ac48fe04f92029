//! Service traffic over HTTP: accepting connections, finding the channel, translating between its protocol
//! and `Message`/`Reply`.
//!
//! The worker builds [`routes::Routes`] from each snapshot, swaps them into the [`server::HttpServer`], and
//! implements the traits of [`ports`]. The API crate uses [`check`] before it stores a definition.

#![expect(clippy::result_large_err, reason = "the model's failure type; a refusal ends the request")]

pub mod amqp;
mod aside;
pub mod body;
mod builtin;
pub mod check;
mod client_address;
mod components;
mod cors;
mod document;
mod entrance;
mod exchange;
mod handle;
pub mod jsonrpc;
mod methods;
mod negotiate;
pub mod openapi;
pub mod openrpc;
mod passthrough;
pub mod pattern;
pub mod ports;
mod problem;
mod rate;
pub mod replay;
mod response;
mod rest;
pub mod routes;
pub mod server;
pub mod soap;
pub mod staged;
mod target;
mod transform;
