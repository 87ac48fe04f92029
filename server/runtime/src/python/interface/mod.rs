//! `self`: the objects a service sees, as Python classes in Rust. Made on first use; what a handler does not
//! look at costs nothing.

mod amqp;
mod amqp_request;
mod data;
mod http;
mod logger;
mod outgoing;
mod request;
mod response;
mod security;
mod service;
mod soap;
mod tables;
mod transform;

pub(crate) use data::Data;
pub(crate) use http::{Headers, Http};
pub(crate) use logger::{Logger, write as write_log};
pub(crate) use outgoing::{HttpFamily, HttpResponse, Out, SoapFamily};
pub(crate) use request::{Channel, Request};
pub(crate) use response::{Response, Written};
pub(crate) use service::ServiceBase;
pub(crate) use tables::{Dictionaries, Table};
pub(crate) use transform::Transforms;
