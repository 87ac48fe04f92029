//! Calls of external systems that speak SOAP.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::{Connection, HttpAnswer, HttpOutgoing, OutgoingError};
use crate::cid::TraceContext;
use crate::failure::Fault;
use crate::soap::{SoapAttachment, SoapHeader};

/// An outgoing that speaks SOAP, by a description of the other system.
#[async_trait]
pub trait SoapOutgoing: Connection {
    /// The operations that its description offers, in its order.
    fn operations(&self) -> &[String];

    /// The connection beneath: what goes through it is no message of the description.
    fn http(&self) -> Arc<dyn HttpOutgoing>;

    /// Calls an operation: the message is made by the description, and so is what is made of the answer.
    ///
    /// # Errors
    /// The message does not fit the description, there is no answer, it is none of the operation, or a fault.
    async fn call(&self, call: SoapCall) -> Result<SoapAnswer, SoapError>;

    /// Sends an envelope as it is, without credentials of WS-Security. The answer is given whatever it says.
    ///
    /// # Errors
    /// There is no answer.
    async fn send(&self, call: EnvelopeCall) -> Result<HttpAnswer, OutgoingError>;
}

/// One call of an operation.
pub struct SoapCall {
    /// The operation, as the description calls it.
    pub operation: String,
    /// What the body holds, as JSON text: an object of the operation's parameters.
    pub message: Bytes,
    /// Header blocks beside those of WS-Security and WS-Addressing.
    pub headers: Vec<SoapCallHeader>,
    /// Header fields of HTTP beyond the definition's.
    pub fields: HeaderMap,
    /// The caller's trace; the call gets a span below it.
    pub trace: TraceContext,
    /// When the caller stops waiting; the definition's own deadline counts where it is earlier.
    pub deadline: Instant,
}

/// A header block of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum SoapCallHeader {
    /// One that the description declares, by the name of its element or its part.
    Declared {
        /// The name.
        name: String,
        /// What it holds.
        value: Value,
    },
    /// A block as it is: an element that declares the prefixes it uses.
    Xml(String),
}

/// An envelope to be sent as it is.
pub struct EnvelopeCall {
    /// The envelope, in UTF-8.
    pub envelope: Bytes,
    /// What the message is for: `SOAPAction`, or the media type's `action`.
    pub action: Option<String>,
    /// Header fields of HTTP beyond the definition's.
    pub fields: HeaderMap,
    /// The caller's trace; the call gets a span below it.
    pub trace: TraceContext,
    /// When the caller stops waiting.
    pub deadline: Instant,
}

/// The answer of an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct SoapAnswer {
    /// The status of HTTP.
    pub status: StatusCode,
    /// Header fields of HTTP as they came.
    pub fields: HeaderMap,
    /// What the body holds: an object of the operation's results, where JSON has no type for a value marked with
    /// its own (see [`crate::tagged`]). `null` where there is no answer.
    pub message: Value,
    /// Header blocks in their order, without those of WS-Addressing and WS-Security; values marked like the
    /// message's.
    pub headers: Vec<SoapHeader>,
    /// What came beside the envelope.
    pub attachments: Vec<SoapAttachment>,
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{error}")]
pub struct SoapError {
    /// What every outgoing says.
    pub error: OutgoingError,
    /// The fault that the other system answered with.
    pub fault: Option<Box<AnsweredFault>>,
    /// What in the message does not fit the description, each with its place in it.
    pub faults: Vec<Fault>,
}

/// A fault that another system answered with.
#[derive(Debug, Clone, PartialEq)]
pub struct AnsweredFault {
    /// Who is to blame, as SOAP 1.2 calls it: `Sender`, `Receiver`, `MustUnderstand`, `VersionMismatch`,
    /// `DataEncodingUnknown`; or what a sender of SOAP 1.1 made up, as `{namespace}name`.
    pub code: String,
    /// What exactly, the broadest first, each as `{namespace}name`.
    pub subcodes: Vec<String>,
    /// What went wrong, for a person.
    pub text: String,
    /// Who found out.
    pub node: Option<String>,
    /// What the application says about it: an object of the elements in the detail, by the description where it
    /// declares them; `null` without any. Values are marked like an answer's.
    pub detail: Value,
    /// The fault as a document of its own.
    pub xml: String,
}

impl From<OutgoingError> for SoapError {
    fn from(error: OutgoingError) -> Self {
        Self { error, fault: None, faults: Vec::new() }
    }
}

/// Messages may hold credentials: they are not shown.
impl fmt::Debug for SoapCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoapCall").field("operation", &self.operation).finish_non_exhaustive()
    }
}

impl fmt::Debug for EnvelopeCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvelopeCall").field("action", &self.action).finish_non_exhaustive()
    }
}
