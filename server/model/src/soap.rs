//! SOAP's side of a message: what a channel read of an envelope beside its body, and what a service adds to
//! the answer's.

use bytes::Bytes;
use serde_json::Value;

use crate::definition::SoapVersion;

/// SOAP's side of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct SoapRequest {
    /// The version of its envelope.
    pub version: SoapVersion,
    /// The operation it asks for, as the description calls it.
    pub operation: String,
    /// Its action: of WS-Addressing, or of the transport.
    pub action: Option<String>,
    /// Its id, where WS-Addressing gives one.
    pub message_id: Option<String>,
    /// Where it was sent, where WS-Addressing says so.
    pub to: Option<String>,
    /// Where its answer is wanted, where WS-Addressing says so.
    pub reply_to: Option<String>,
    /// The message it answers, where WS-Addressing names one.
    pub relates_to: Option<String>,
    /// Its header blocks in their order, without those of WS-Addressing and WS-Security.
    pub headers: Vec<SoapHeader>,
    /// What came beside the envelope.
    pub attachments: Vec<SoapAttachment>,
}

/// A header block of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct SoapHeader {
    /// The namespace of its name.
    pub namespace: String,
    /// Its local name.
    pub name: String,
    /// Whether whoever receives it has to understand it.
    pub must_understand: bool,
    /// What it holds: by the description where that names it, else by the mapping of XML without a schema.
    pub value: Value,
    /// The block as a document of its own.
    pub xml: String,
}

/// SOAP's side of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SoapReply {
    /// Header blocks in their order.
    pub headers: Vec<SoapReplyHeader>,
    /// What goes beside the envelope, apart from binary values of the answer.
    pub attachments: Vec<SoapAttachment>,
}

/// A header block of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct SoapReplyHeader {
    /// The namespace of its name.
    pub namespace: String,
    /// Its local name.
    pub name: String,
    /// Whether whoever receives it has to understand it.
    pub must_understand: bool,
    /// What it holds.
    pub value: Value,
}

/// What stands beside an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoapAttachment {
    /// What the envelope refers to it by, without brackets.
    pub content_id: String,
    /// Its media type.
    pub content_type: String,
    /// Its content.
    pub content: Bytes,
}
