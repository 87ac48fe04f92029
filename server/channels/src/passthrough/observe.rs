//! Services that see what passes: each request before it is handed on, each answer before it is handed back.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use crosstie_model::definition::Bodies;
use crosstie_model::message::{HttpRequest, Message, Payload, Reply, ReplyBody};
use crosstie_model::{Failure, TraceContext};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::Passing;
use crate::response::Outgoing;
use crate::rest;
use crate::target::Target;

const JSON: &str = "application/json";

/// The services of a channel.
#[derive(Default)]
pub(super) struct Observers {
    pub(super) before: Option<Target>,
    pub(super) after: Option<Target>,
    /// Which bodies they see.
    pub(super) bodies: Bodies,
}

/// What the service before made of a request.
pub(super) enum Before {
    /// It is handed on as it is.
    Nothing,
    /// It has another body.
    Body(Bytes),
    /// This is the answer already.
    Answer(Response<Outgoing>),
}

impl Observers {
    pub(super) fn before(&self) -> Option<&Target> {
        self.before.as_ref()
    }

    pub(super) fn after(&self) -> Option<&Target> {
        self.after.as_ref()
    }

    /// Has the service after see the answer `response` of the request `seen`.
    pub(super) async fn after_answer(
        &self,
        service: &Target,
        (seen, trace): (HttpRequest, TraceContext),
        response: Response<Outgoing>,
        deadline: Instant,
    ) -> Result<Response<Outgoing>, Failure> {
        let _permit = service.admit()?;
        let (mut head, mut body) = response.into_parts();
        let mut raw = Bytes::new();
        if self.bodies.of_answers() {
            raw = body.whole().await?.unwrap_or_default();
            body = Outgoing::Whole(raw.clone());
        }
        let message = Message {
            trace,
            channel: Arc::clone(&service.info),
            payload: Payload::Json(described(head.status, &head.headers)),
            raw,
            http: Some(Box::new(seen)),
            soap: None,
            amqp: None,
            principal: None,
            deadline,
            depth: 0,
        };
        let reply = service.call(message).await?;
        if let Some(status) = reply.status {
            head.status = StatusCode::from_u16(status).map_err(|_| Failure::service())?;
        }
        if let Some(replaced) = replace(reply, &mut head.headers)? {
            body = Outgoing::Whole(replaced);
        }
        Ok(Response::from_parts(head, body))
    }
}

/// Has the service before see a request.
pub(super) async fn before(
    service: &Target,
    message: Message,
    headers: &mut HeaderMap,
) -> Result<Before, Failure> {
    let _permit = service.admit()?;
    let reply = service.call(message).await?;
    if reply.status.is_some() {
        return rest::encode(reply, None).await.map(Before::Answer);
    }
    Ok(replace(reply, headers)?.map_or(Before::Nothing, Before::Body))
}

/// Puts a reply's fields into `headers`; gives its body, if it has one, whose type and framing it then describes.
fn replace(reply: Reply, headers: &mut HeaderMap) -> Result<Option<Bytes>, Failure> {
    let Reply { headers: fields, content_type, body, .. } = reply;
    let (body, media_type) = match body {
        ReplyBody::Empty => (None, None),
        ReplyBody::Json(text) => (Some(text), Some(JSON)),
        ReplyBody::Text(text) => (Some(Bytes::from(text)), Some("text/plain; charset=utf-8")),
        ReplyBody::Bytes(bytes) => (Some(bytes), Some("application/octet-stream")),
        ReplyBody::Stream(_) => {
            tracing::error!("a service that sees what passes answers with a whole body or none");
            return Err(Failure::service());
        }
    };
    if body.is_some() {
        // They describe the body that there was.
        for name in [CONTENT_ENCODING, CONTENT_LENGTH] {
            headers.remove(name);
        }
        // Text and bytes are of the type that there was, unless the service says otherwise; data is JSON.
        let made = media_type.filter(|made| *made == JSON || !headers.contains_key(CONTENT_TYPE));
        if let Some(made) = made {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(made));
        }
    }
    if let Some(media_type) = content_type {
        headers.insert(CONTENT_TYPE, media_type);
    }
    let mut seen: Vec<HeaderName> = Vec::new();
    for (name, value) in fields {
        if rest::is_ours(&name) && name != CONTENT_TYPE {
            continue;
        }
        // The first of a name replaces what there was, others stand beside it.
        if seen.contains(&name) {
            headers.append(name, value);
        } else {
            headers.insert(name.clone(), value);
            seen.push(name);
        }
    }
    Ok(body)
}

/// What the service after is told of an answer beside its body.
fn described(status: StatusCode, headers: &HeaderMap) -> Value {
    let mut fields = Map::new();
    for name in headers.keys() {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let joined = values.collect::<Vec<_>>().join(", ");
        fields.insert(name.as_str().to_owned(), Value::String(joined));
    }
    json!({"status": status.as_u16(), "headers": fields})
}

/// The request as the service before sees it: `body` is what it may see of that.
pub(super) fn message(
    service: &Target,
    passing: &Passing,
    body: Option<&Bytes>,
    deadline: Instant,
) -> Message {
    let raw = body.cloned().unwrap_or_default();
    Message {
        trace: passing.trace,
        channel: Arc::clone(&service.info),
        payload: if raw.is_empty() { Payload::Empty } else { Payload::Bytes(raw.clone()) },
        raw,
        http: Some(Box::new(passing.request())),
        soap: None,
        amqp: None,
        principal: passing.principal.clone(),
        deadline,
        depth: 0,
    }
}
