//! Calls of external systems over HTTP.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Instant;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version};
use http_body::Body;

use super::{Connection, ExpandError, OutgoingError};
use crate::cid::TraceContext;
use crate::definition::OutgoingFormat;
use crate::failure::Failure;

/// An outgoing that speaks HTTP.
#[async_trait]
pub trait HttpOutgoing: Connection {
    /// How its definition says that data is encoded.
    fn data_format(&self) -> OutgoingFormat;

    /// The path of its address without the slash at its end: what stands before the path of every call.
    fn base_path(&self) -> &str;

    /// The target of a call, as a request line has it: the address's path, the definition's path with
    /// `params` in their places, the definition's query parameters, those of `params` that have no place in
    /// the path, and `query`.
    ///
    /// # Errors
    /// A parameter of the path is missing or would lead elsewhere.
    fn target(&self, params: &[(String, String)], query: &[(String, String)]) -> Result<String, ExpandError>;

    /// Calls the other system. The answer is given as soon as its head is there, whatever its status; its
    /// body follows. Dropping either cuts the call off.
    ///
    /// # Errors
    /// There is no answer.
    async fn send(&self, call: HttpCall) -> Result<HttpAnswer, OutgoingError>;
}

/// One call of an external system.
pub struct HttpCall {
    /// The method.
    pub method: Method,
    /// Path and query, percent-encoded: [`HttpOutgoing::target`] makes it, or the caller from
    /// [`HttpOutgoing::base_path`] and a path of its own.
    pub target: String,
    /// Header fields beyond the definition's, which these replace. Those that belong to one connection are
    /// left out.
    pub headers: HeaderMap,
    /// The body.
    pub body: CallBody,
    /// The caller's trace; the call gets a span below it.
    pub trace: TraceContext,
    /// When the caller stops waiting; the definition's own deadline counts where it is earlier.
    pub deadline: Instant,
    /// What the deadline is for.
    pub pace: Pace,
}

/// What a call's deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// The whole answer.
    Whole,
    /// The answer's head. Each piece of the body may then take as long as the definition allows a call.
    Pieces,
}

/// The body of a call.
pub enum CallBody {
    /// There is none.
    Empty,
    /// All of it. Such a call can be repeated.
    Full(Bytes),
    /// Pieces as they come. A failure cuts the call off and is what it fails with.
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = Failure> + Send>>),
}

/// An answer whose head has come.
pub struct HttpAnswer {
    /// The status.
    pub status: StatusCode,
    /// The version of HTTP that was spoken.
    pub version: Version,
    /// Header fields as they came, those of the connection left out.
    pub headers: HeaderMap,
    /// The body, as it comes.
    pub body: AnswerBody,
}

/// The body of an answer: within its size limit and in time, or an error. Dropping it cuts the rest off.
pub type AnswerBody = Pin<Box<dyn Body<Data = Bytes, Error = OutgoingError> + Send>>;

/// Most memory set aside on a Content-Length's word alone, in bytes.
const TRUSTED_LENGTH: usize = 1 << 20;

/// All of an answer's body in one piece; one that came as one is not copied. Trailers are left out.
///
/// # Errors
/// It breaks off, is late, or beyond its size limit.
pub async fn whole_answer(mut body: AnswerBody) -> Result<Bytes, OutgoingError> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            let more = usize::try_from(body.size_hint().lower()).unwrap_or_default();
            all.reserve(first.len() + data.len() + more.min(TRUSTED_LENGTH));
            all.extend_from_slice(&first);
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

impl fmt::Debug for CallBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(body) => write!(f, "Full({} bytes)", body.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// Headers and targets may hold credentials: neither is shown.
impl fmt::Debug for HttpCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCall")
            .field("method", &self.method)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HttpAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpAnswer")
            .field("status", &self.status)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
