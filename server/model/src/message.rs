//! What travels between a channel and a service: `Message` in, `Reply` or `Failure` out.
//!
//! A channel only translates between its protocol and these types. Bodies are `Bytes` and move; nothing here
//! copies one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::cid::TraceContext;
use crate::failure::Failure;
use crate::names::ServiceName;
use crate::outgoing::AmqpProperties;
use crate::soap::{SoapReply, SoapRequest};

/// One request to a service.
#[derive(Debug)]
pub struct Message {
    /// Correlation and tracing.
    pub trace: TraceContext,
    /// Where the message came in.
    pub channel: Arc<ChannelInfo>,
    /// The decoded body.
    pub payload: Payload,
    /// The body as it came, before decoding; empty for an internal call.
    pub raw: Bytes,
    /// HTTP's side of the message, for channels that speak it.
    pub http: Option<Box<HttpRequest>>,
    /// SOAP's side of the message, for channels that speak it.
    pub soap: Option<Box<SoapRequest>>,
    /// AMQP's side of the message, for channels that speak it.
    pub amqp: Option<Box<AmqpRequest>>,
    /// Who sent it, once authenticated.
    pub principal: Option<Arc<Principal>>,
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// How many services called each other to get here; 0 from a channel. Bounded by
    /// [`crate::limits::MAX_INVOKE_DEPTH`] so that services that call each other in a circle end.
    pub depth: u8,
}

/// The entrance a message came through, as a service sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelInfo {
    /// The channel's name; `invoke` for a call from another service or the management API.
    pub name: Arc<str>,
    /// `rest`, `http`, `jsonrpc`, `soap`, `amqp`, `invoke` …
    pub kind: &'static str,
    /// The service it leads to.
    pub service: ServiceName,
}

/// A decoded request body.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// There was none.
    Empty,
    /// JSON, or another format with the same shape (XML by the documented mapping).
    Json(Value),
    /// `application/x-www-form-urlencoded`: names may repeat, order is kept.
    Form(Vec<(String, String)>),
    /// `multipart/form-data`.
    Multipart(Vec<Part>),
    /// Text of another kind.
    Text(String),
    /// Anything else.
    Bytes(Bytes),
}

/// One part of a multipart body (RFC 7578).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The form field.
    pub name: String,
    /// The file's name as the client gave it; never trust it as a path.
    pub file_name: Option<String>,
    /// The part's media type.
    pub content_type: Option<String>,
    /// The part's content.
    pub content: Bytes,
}

/// HTTP's side of a request.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// The request method.
    pub method: Method,
    /// The path as matched, percent-encoded as it came.
    pub path: String,
    /// Path parameters in the pattern's order, decoded, checked against their declared types.
    pub params: Vec<(Arc<str>, String)>,
    /// Query parameters in order, decoded; names may repeat.
    pub query: Vec<(String, String)>,
    /// Header fields.
    pub headers: HeaderMap,
    /// The client's address, believed from a proxy only when that proxy is trusted.
    pub client: IpAddr,
    /// Whether the client's hop was encrypted.
    pub secure: bool,
}

/// AMQP's side of a message.
#[derive(Debug, Clone)]
pub struct AmqpRequest {
    /// The queue it came from.
    pub queue: String,
    /// The exchange it was published to, and the routing key.
    pub exchange: String,
    /// See [`AmqpRequest::exchange`].
    pub routing_key: String,
    /// Which attempt this is, from 1: one more than how often the service failed on it.
    pub attempt: u32,
    /// How often it came again because nobody acknowledged it.
    pub redeliveries: u32,
    /// What it says of itself.
    pub properties: AmqpProperties,
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The security definition that accepted the credentials.
    pub definition: Arc<str>,
    /// Its type: `basic_auth`, `api_key` …
    pub kind: &'static str,
    /// The user name, where the kind has one.
    pub username: Option<String>,
    /// What the issuer of a token says of its bearer; empty for other kinds.
    pub claims: Map<String, Value>,
    /// What a token allows; empty for other kinds.
    pub scopes: Vec<String>,
    /// The certificate, for kinds that demand one.
    pub certificate: Option<Certificate>,
}

impl Principal {
    /// A caller that `definition` of type `kind` let in, of whom nothing more is known.
    #[must_use]
    pub fn new(definition: impl Into<Arc<str>>, kind: &'static str) -> Self {
        Self {
            definition: definition.into(),
            kind,
            username: None,
            claims: Map::new(),
            scopes: Vec::new(),
            certificate: None,
        }
    }

    /// The same caller with a user name.
    #[must_use]
    pub fn named(mut self, username: impl Into<String>) -> Self {
        self.username = Some(username.into());
        self
    }
}

/// A client's verified certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its subject (RFC 4514).
    pub subject: String,
    /// Who issued it (RFC 4514).
    pub issuer: String,
    /// Its other names, as `dns:…`, `email:…`, `uri:…` and `ip:…`, in its order.
    pub sans: Vec<String>,
    /// Its serial number in hexadecimal, as its authority wrote it.
    pub serial: String,
    /// The SHA-256 of all of it, in hexadecimal.
    pub fingerprint: String,
    /// From when on it is valid.
    pub not_before: OffsetDateTime,
    /// Until when it is valid.
    pub not_after: OffsetDateTime,
}

/// A successful answer.
#[derive(Debug)]
pub struct Reply {
    /// The status a service chose; `None` lets the channel choose (200, or 204 without a body).
    pub status: Option<u16>,
    /// Header fields a service set. Hop-by-hop and framing fields are the channel's and are dropped there.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The media type a service chose; `None` lets the channel negotiate.
    pub content_type: Option<HeaderValue>,
    /// The body.
    pub body: ReplyBody,
    /// What a service added to a SOAP answer; other channels leave it out.
    pub soap: Option<Box<SoapReply>>,
}

impl Reply {
    /// A plain answer with `body`.
    #[must_use]
    pub fn new(body: ReplyBody) -> Self {
        Self { status: None, headers: Vec::new(), content_type: None, body, soap: None }
    }
}

/// A reply's body. Structured answers are JSON text already: a REST channel sends it as it is, JSON-RPC
/// embeds it, and only channels that re-encode (XML, SOAP) parse it.
#[derive(Debug)]
pub enum ReplyBody {
    /// Nothing.
    Empty,
    /// One JSON value, encoded.
    Json(Bytes),
    /// Text.
    Text(String),
    /// Bytes of the service's own making.
    Bytes(Bytes),
    /// Pieces that arrive as the service makes them; ends when the sender is dropped.
    Stream(Box<dyn ReplyStream>),
}

impl ReplyBody {
    /// The body as a JSON value, for a channel that re-encodes: text becomes a string, bytes and streams
    /// have none.
    ///
    /// # Errors
    /// What the JSON parser says; a runtime that made invalid JSON is at fault.
    pub fn to_value(&self) -> Result<Option<Value>, serde_json::Error> {
        match self {
            Self::Empty => Ok(Some(Value::Null)),
            Self::Json(text) => serde_json::from_slice(text).map(Some),
            Self::Text(text) => Ok(Some(Value::String(text.clone()))),
            Self::Bytes(_) | Self::Stream(_) => Ok(None),
        }
    }

    /// The body as raw JSON to embed in a larger document, without a parse into a tree.
    ///
    /// # Errors
    /// As for [`ReplyBody::to_value`].
    pub fn to_raw_json(&self) -> Result<Option<Box<RawValue>>, serde_json::Error> {
        match self {
            Self::Empty => RawValue::from_string("null".to_owned()).map(Some),
            Self::Json(text) => serde_json::from_slice(text).map(Some),
            Self::Text(text) => RawValue::from_string(serde_json::to_string(text)?).map(Some),
            Self::Bytes(_) | Self::Stream(_) => Ok(None),
        }
    }
}

/// A body made piece by piece.
#[async_trait::async_trait]
pub trait ReplyStream: Send + std::fmt::Debug {
    /// The next piece; `None` at the end. A failure ends the stream: the channel cuts the connection, as
    /// the status line is gone by then.
    async fn next(&mut self) -> Option<Result<Bytes, Failure>>;
}
