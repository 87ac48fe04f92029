//! WSDL 1.1: what a SOAP service offers, read from its description or written as one.
//!
//! Read are document/literal, wrapped or bare, and rpc/literal, over SOAP 1.1 and 1.2; any number of documents
//! that import each other; headers and faults. What is bound otherwise (SOAP's own encoding, HTTP GET) is left
//! out and told in the warnings. Descriptions of MIME parts are read past: attachments come as XOP, of which
//! a description says nothing.
//!
//! Written is document/literal wrapped with one port for each version.

mod binding;
mod message;
mod model;
mod read;
mod write;

#[cfg(test)]
mod tests;

pub use model::{
    Binding, Body, FaultMessage, HeaderPart, Holds, Message, Operation, Part, Port, Service, Wsdl,
};
pub use write::{FAULT_ELEMENT, MessageStyle, OperationDescription, ServiceDescription};
