//! JSON-RPC 2.0 channels: single calls, batches, notifications.
//!
//! HTTP side: POST with a JSON body. What concerns the whole request has its HTTP status (400 for a body that
//! is no JSON or no request, 401, 413, 415, 429 …) and an error object as its body; what concerns a call is
//! 200 with a response object. A request of notifications only gets 204.
//!
//! GET, and the method `rpc.discover`, give the channel's OpenRPC document unless its definition says no.
//!
//! A batch runs up to eight calls at once and answers in the order of its calls. Every call counts
//! against the rate limits, so a batch is no way around them.

mod call;
mod render;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use crosstie_model::message::{HttpRequest, Message, Payload};
use crosstie_model::{Failure, FailureKind, Fault, Origin, Principal, TraceContext};
use futures_util::StreamExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::aside::{INLINE_BYTES, aside};
use crate::body::media::Media;
use crate::document::Document;
use crate::entrance::Entrance;
use crate::openrpc::DISCOVER;
use crate::response::Outgoing;
use crate::rest::Arrived;
use crate::target::Target;
pub use call::{Body, BodyLimits, Call, CallError, parse};
pub(crate) use render::render_failure;

/// Calls of one batch that run at the same time.
const BATCH_AT_ONCE: usize = 8;

/// What a JSON-RPC channel leads to.
pub(crate) struct JsonRpc {
    /// By method name. Nothing outside can be called.
    pub(crate) methods: HashMap<String, Target>,
    pub(crate) max_batch: usize,
    /// Its OpenRPC document; `None` where the channel does not describe itself.
    pub(crate) document: Option<Arc<Document>>,
}

/// What all calls of one request share.
struct Request<'r> {
    entrance: &'r Entrance,
    channel: &'r JsonRpc,
    client: IpAddr,
    trace: TraceContext,
    http: &'r HttpRequest,
    raw: &'r Bytes,
    principal: Option<&'r Arc<Principal>>,
}

/// Answers one HTTP request. Gives the target of a single call, which the request is reported under.
pub(crate) async fn answer<'c>(
    entrance: &'c Entrance,
    channel: &'c JsonRpc,
    client: IpAddr,
    arrived: Arrived,
) -> (Result<Response<Outgoing>, Failure>, Option<&'c Target>) {
    if let Some(document) = channel.document.as_ref().filter(|_| arrived.http.method == Method::GET) {
        return (document.text().await.map(described), None);
    }
    if !matches!(arrived.media, Media::Json | Media::Absent) {
        let failure = Failure::new(FailureKind::UnsupportedMediaType, Origin::Client)
            .with_text("JSON-RPC requests are application/json in UTF-8");
        return (Err(failure), None);
    }
    let limits = BodyLimits { batch: channel.max_batch, depth: entrance.max_depth };
    let parsed = if arrived.raw.len() <= INLINE_BYTES {
        parse(&arrived.raw, limits)
    } else {
        let raw = arrived.raw.clone();
        match aside(move || parse(&raw, limits)).await {
            Ok(parsed) => parsed,
            Err(failure) => return (Err(failure), None),
        }
    };
    let request = Request {
        entrance,
        channel,
        client,
        trace: arrived.trace,
        http: &arrived.http,
        raw: &arrived.raw,
        principal: arrived.principal.as_ref(),
    };
    match parsed {
        Err(error) => (Ok(error_response(&error, arrived.trace)), None),
        Ok(Body::Single(call)) => {
            let target = call.as_ref().ok().and_then(|call| channel.methods.get(&call.method));
            let response = match call {
                // Not even a request: there is nothing else in the body, so HTTP may say so too.
                Err(error) => error_response(&error, arrived.trace),
                Ok(call) => respond(request.run(call, Units::Taken).await),
            };
            (Ok(response), target)
        }
        Ok(Body::Batch(calls)) => {
            let answers: Vec<Option<Vec<u8>>> = futures_util::stream::iter(calls.into_iter().enumerate())
                .map(|(index, call)| {
                    let (request, units) = (&request, if index == 0 { Units::Taken } else { Units::Due });
                    async move {
                        match call {
                            Ok(call) => request.run(call, units).await,
                            Err(error) => Some(render::error_object(&error, request.trace.cid)),
                        }
                    }
                })
                .buffered(BATCH_AT_ONCE)
                .collect()
                .await;
            (Ok(respond(render::batch(answers))), None)
        }
    }
}

/// Whether a call's unit of the rate limits was taken with the HTTP request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Units {
    Taken,
    Due,
}

impl Request<'_> {
    /// Runs one call. `None` for a notification, whatever became of it.
    async fn run(&self, call: Call, units: Units) -> Option<Vec<u8>> {
        let Call { method, params, id } = call;
        let result = match self.channel.methods.get(&method) {
            None => match &self.channel.document {
                Some(document) if method == DISCOVER => {
                    discover(document, params).await.map_err(|failure| CallError::of(&failure))
                }
                _ => Err(CallError::method_not_found(&method)),
            },
            Some(target) => {
                self.invoke(target, params, units).await.map_err(|failure| CallError::of(&failure))
            }
        };
        match (id, result) {
            (None, Ok(_)) => None,
            (None, Err(error)) => {
                tracing::debug!(cid = %self.trace.cid, method, error = %error.message, "a notification failed");
                None
            }
            (Some(id), Ok(result)) => Some(render::result_object(&id, result.get())),
            (Some(id), Err(error)) => Some(render::error_object(&error.with_id(id), self.trace.cid)),
        }
    }

    async fn invoke(
        &self,
        target: &Target,
        params: Option<Value>,
        units: Units,
    ) -> Result<Box<RawValue>, Failure> {
        if units == Units::Due {
            self.entrance.take(self.client, self.principal.map(|principal| &**principal)).0?;
        }
        let _permit = target.admit()?;
        let message = Message {
            trace: self.trace,
            channel: Arc::clone(&target.info),
            payload: params.map_or(Payload::Empty, Payload::Json),
            raw: self.raw.clone(),
            http: Some(Box::new(self.http.clone())),
            soap: None,
            amqp: None,
            principal: self.principal.cloned(),
            deadline: target.deadline_from_now(),
            depth: 0,
        };
        let reply = target.call(message).await?;
        match reply.body.to_raw_json() {
            Ok(Some(result)) => Ok(result),
            Ok(None) => Err(Failure::new(FailureKind::Internal, Origin::Service)
                .with_text("The service's reply is not JSON")),
            Err(error) => {
                tracing::error!(cid = %self.trace.cid, %error, "a runtime handed over invalid JSON");
                Err(Failure::new(FailureKind::Internal, Origin::Platform))
            }
        }
    }
}

/// The document as the result of a call.
async fn discover(document: &Arc<Document>, params: Option<Value>) -> Result<Box<RawValue>, Failure> {
    let is_empty = match &params {
        None => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(members)) => members.is_empty(),
        Some(_) => false,
    };
    if !is_empty {
        let fault = Fault { pointer: String::new(), detail: format!("{DISCOVER} takes no parameters") };
        return Err(Failure::new(FailureKind::BadRequest, Origin::Client).with_faults(vec![fault]));
    }
    let text = document.text().await?;
    serde_json::from_slice(&text).map_err(|_| Failure::new(FailureKind::Internal, Origin::Platform))
}

/// The document as the answer to GET. Who may see it is the channel's to say, so no one else may keep it.
fn described(document: Bytes) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::Whole(document));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

fn respond(body: Option<Vec<u8>>) -> Response<Outgoing> {
    match body {
        None => {
            let mut response = Response::new(Outgoing::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        Some(body) => {
            let mut response = Response::new(Outgoing::Whole(body.into()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
    }
}

fn error_response(error: &CallError, trace: TraceContext) -> Response<Outgoing> {
    let mut response = respond(Some(render::error_object(error, trace.cid)));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}
