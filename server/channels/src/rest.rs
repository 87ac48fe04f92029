//! `rest` and `http` channels: a decoded (REST) or raw (plain) body in, a negotiated (REST) or plain reply
//! out.

use std::pin::Pin;

use bytes::Bytes;
use crosstie_model::definition::DataFormat;
use crosstie_model::message::{HttpRequest, Message, Payload, Reply, ReplyBody};
use crosstie_model::{Cid, Failure, FailureKind, Origin, TraceContext};
use futures_util::StreamExt;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, PROXY_AUTHENTICATE, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VARY,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::aside::{INLINE_BYTES, aside, aside_if_large};
use crate::body::decode::{Expectation, decode};
use crate::body::media::Media;
use crate::body::xml;
use crate::negotiate::{Choice, Format};
use crate::response::{Held, Outgoing, Pieces};
use crate::target::{Permit, Target};
use crate::transform::{Errand, Pipelines};

/// A request with its body read, about to become a message.
pub(crate) struct Arrived {
    pub(crate) trace: TraceContext,
    pub(crate) http: Box<HttpRequest>,
    pub(crate) raw: Bytes,
    pub(crate) media: Media,
    pub(crate) principal: Option<std::sync::Arc<crosstie_model::Principal>>,
}

impl Arrived {
    fn into_message(self, target: &Target, payload: Payload) -> Message {
        Message {
            trace: self.trace,
            channel: std::sync::Arc::clone(&target.info),
            payload,
            raw: self.raw,
            http: Some(self.http),
            soap: None,
            amqp: None,
            principal: self.principal,
            deadline: target.deadline_from_now(),
            depth: 0,
        }
    }
}

/// Answers a REST request whose body is of a format, if the channel insists on one, and nests so deep at most.
/// `choice` is what the client accepts.
///
/// # Errors
/// 406 before the service runs when it declares structured output that the client does not accept; 415 and
/// 400 from decoding; the service's failure; a body that cannot be transformed.
pub(crate) async fn answer_rest(
    target: &Target,
    (format, depth): (Option<DataFormat>, usize),
    transforms: &Pipelines,
    mut arrived: Arrived,
    choice: Choice,
) -> Result<Response<Outgoing>, Failure> {
    // What is transformed is the service's JSON; what becomes of it no client chooses.
    let choice = if transforms.response.is_some() { Choice::Take(Format::Json) } else { choice };
    let description = target.description();
    if choice == Choice::Nothing && description.is_some_and(|d| d.output.is_some()) {
        return Err(not_acceptable());
    }
    if transforms.request.is_some() {
        take_in(target, transforms, &mut arrived).await?;
    }
    let payload = if arrived.raw.len() <= INLINE_BYTES {
        let expected = Expectation { format, input: description.and_then(|d| d.input.as_ref()), depth };
        decode(arrived.raw.clone(), &arrived.media, expected)?
    } else {
        decode_aside(target, (format, depth), &arrived).await?
    };
    let cid = arrived.trace.cid;
    let reply = target.call(arrived.into_message(target, payload)).await?;
    let is_chosen = format.is_none() && matches!(reply.body, ReplyBody::Json(_));
    let mut response = encode(reply, Some(choice)).await?;
    if transforms.response.is_some() {
        return give_out(target, transforms, response, cid).await;
    }
    if is_chosen {
        // Caches must not give one client's JSON to another that wants XML (RFC 9110, section 12.5.5).
        response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
    }
    Ok(response)
}

/// Answers a plain HTTP request.
///
/// # Errors
/// The service's failure; a body that cannot be transformed.
pub(crate) async fn answer_plain(
    target: &Target,
    transforms: &Pipelines,
    mut arrived: Arrived,
) -> Result<Response<Outgoing>, Failure> {
    if transforms.request.is_some() {
        take_in(target, transforms, &mut arrived).await?;
    }
    let payload = if arrived.raw.is_empty() { Payload::Empty } else { Payload::Bytes(arrived.raw.clone()) };
    let cid = arrived.trace.cid;
    let reply = target.call(arrived.into_message(target, payload)).await?;
    let response = encode(reply, None).await?;
    if transforms.response.is_some() {
        return give_out(target, transforms, response, cid).await;
    }
    Ok(response)
}

/// Something to wait for that is not carried about by those who have no use for it: most channels transform nothing.
type Apart<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// Transforms a request. The service sees what it became.
fn take_in<'a>(target: &Target, transforms: &'a Pipelines, arrived: &'a mut Arrived) -> Apart<'a, ()> {
    Box::pin(transforms.take_in(arrived, target.deadline_from_now()))
}

/// Transforms a service's answer.
fn give_out<'a>(
    target: &Target,
    transforms: &'a Pipelines,
    response: Response<Outgoing>,
    cid: Cid,
) -> Apart<'a, Response<Outgoing>> {
    let errand = Errand { cid, origin: Origin::Service, deadline: target.deadline_from_now() };
    Box::pin(transforms.give_out(response, errand))
}

/// Decodes a large body on a blocking thread.
async fn decode_aside(
    target: &Target,
    (format, depth): (Option<DataFormat>, usize),
    arrived: &Arrived,
) -> Result<Payload, Failure> {
    let (raw, media, service) = (arrived.raw.clone(), arrived.media.clone(), target.service.clone());
    aside(move || {
        let input = service.as_ref().and_then(|service| service.description().input.as_ref());
        decode(raw, &media, Expectation { format, input, depth })
    })
    .await?
}

/// Turns a service's reply into a response. `choice` is given where the channel negotiates.
pub(crate) async fn encode(reply: Reply, choice: Option<Choice>) -> Result<Response<Outgoing>, Failure> {
    let Reply { status, headers, content_type, body, .. } = reply;
    let named = || headers.iter().find(|(name, _)| name == CONTENT_TYPE).map(|(_, value)| value.clone());
    let content_type = content_type.or_else(named);
    let (body, media) = encode_body(body, content_type.is_some(), choice).await?;
    let empty = matches!(&body, Outgoing::Whole(bytes) if bytes.is_empty());
    let status = match status {
        Some(code) => service_status(code)?,
        None if empty => StatusCode::NO_CONTENT,
        None => StatusCode::OK,
    };
    // These never have a body (RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5).
    let bodiless =
        matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    let mut response = Response::new(if bodiless { Outgoing::empty() } else { body });
    *response.status_mut() = status;
    let target = response.headers_mut();
    if let (false, false, Some(media)) = (empty, bodiless, content_type.or(media)) {
        target.insert(CONTENT_TYPE, media);
    }
    for (name, value) in headers {
        if !is_ours(&name) {
            target.append(name, value);
        }
    }
    Ok(response)
}

/// The body as it is sent, and its media type where the service chose none.
async fn encode_body(
    body: ReplyBody,
    typed: bool,
    choice: Option<Choice>,
) -> Result<(Outgoing, Option<HeaderValue>), Failure> {
    let json = HeaderValue::from_static("application/json");
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    let octets = HeaderValue::from_static("application/octet-stream");
    Ok(match body {
        ReplyBody::Empty => (Outgoing::empty(), None),
        // A service that names a media type means these very bytes.
        ReplyBody::Json(bytes) if typed => (Outgoing::Whole(bytes), None),
        ReplyBody::Json(bytes) => match choice {
            None | Some(Choice::Take(Format::Json)) => (Outgoing::Whole(bytes), Some(json)),
            Some(Choice::Nothing) => return Err(not_acceptable()),
            Some(Choice::Take(Format::Xml)) => {
                let document = aside_if_large(bytes.len(), move || to_xml(&bytes)).await??;
                let media = HeaderValue::from_static("application/xml; charset=utf-8");
                (Outgoing::Whole(document.into()), Some(media))
            }
        },
        ReplyBody::Text(content) => (Outgoing::Whole(content.into()), Some(text)),
        ReplyBody::Bytes(bytes) => (Outgoing::Whole(bytes), Some(octets)),
        ReplyBody::Stream(stream) => {
            let pieces = futures_util::stream::unfold(stream, |mut stream| async move {
                stream.next().await.map(|piece| (piece.map_err(Into::into), stream))
            });
            (Outgoing::Stream(pieces.boxed()), Some(octets))
        }
    })
}

fn to_xml(json: &[u8]) -> Result<String, Failure> {
    match serde_json::from_slice(json) {
        Ok(value) => Ok(xml::from_json(&value)),
        Err(error) => {
            tracing::error!(%error, "a runtime handed over invalid JSON");
            Err(Failure::new(FailureKind::Internal, Origin::Platform))
        }
    }
}

fn service_status(code: u16) -> Result<StatusCode, Failure> {
    let valid = StatusCode::from_u16(code).ok().filter(|status| (200..=599).contains(&status.as_u16()));
    valid.ok_or_else(|| {
        tracing::error!(code, "a service chose a status that is none");
        Failure::new(FailureKind::Internal, Origin::Service)
    })
}

fn not_acceptable() -> Failure {
    Failure::new(FailureKind::NotAcceptable, Origin::Client)
}

/// Fields that frame or route the message; a service that sets them would break the connection.
pub(crate) fn is_ours(name: &HeaderName) -> bool {
    matches!(
        *name,
        CONNECTION | CONTENT_LENGTH | DATE | PROXY_AUTHENTICATE | TE | TRAILER | TRANSFER_ENCODING | UPGRADE
    ) || name == "keep-alive"
        || name == "proxy-connection"
        || name == CONTENT_TYPE
}

/// Keeps permits for as long as a streamed reply lasts; those of a whole one are done with.
pub(crate) fn hold(response: Response<Outgoing>, permits: Vec<Permit>) -> Response<Outgoing> {
    if permits.is_empty() {
        return response;
    }
    response.map(|body| match body {
        Outgoing::Whole(bytes) => Outgoing::Whole(bytes),
        Outgoing::Passed(body) => Outgoing::Passed(Box::pin(Held { body, _permits: permits })),
        Outgoing::Stream(pieces) => {
            let held: Pieces = Box::pin(pieces.map(move |piece| {
                let _ = &permits;
                piece
            }));
            Outgoing::Stream(held)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    fn encoded(reply: Reply, choice: Option<Choice>) -> (u16, http::HeaderMap, Bytes) {
        let (head, body) = run(encode(reply, choice)).unwrap().into_parts();
        let Outgoing::Whole(bytes) = body else { panic!("a stream") };
        (head.status.as_u16(), head.headers, bytes)
    }

    #[test]
    fn a_reply_gets_the_status_and_type_its_body_suggests() {
        let json = || Reply::new(ReplyBody::Json(Bytes::from_static(b"{\"a\":1}")));
        let (status, headers, body) = encoded(json(), Some(Choice::Take(Format::Json)));
        assert_eq!(
            (status, &headers[CONTENT_TYPE], &body[..]),
            (200, &"application/json".parse().unwrap(), &b"{\"a\":1}"[..])
        );
        let (_, headers, body) = encoded(json(), Some(Choice::Take(Format::Xml)));
        assert!(body.ends_with(b"<response><a>1</a></response>"));
        assert_eq!(headers[CONTENT_TYPE], "application/xml; charset=utf-8");
        assert_eq!(run(encode(json(), Some(Choice::Nothing))).unwrap_err_kind(), FailureKind::NotAcceptable);
        let (status, headers, _) = encoded(Reply::new(ReplyBody::Empty), None);
        assert_eq!((status, headers.len()), (204, 0));
        let (_, headers, _) = encoded(Reply::new(ReplyBody::Text("x".into())), Some(Choice::Nothing));
        assert_eq!(headers[CONTENT_TYPE], "text/plain; charset=utf-8");
    }

    #[test]
    fn what_a_service_sets_wins_unless_it_frames_the_message() {
        let mut reply = Reply::new(ReplyBody::Json(Bytes::from_static(b"1")));
        reply.status = Some(201);
        reply.content_type = Some("application/vnd.x+json".parse().unwrap());
        for (name, value) in [
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("content-length", "99"),
            ("connection", "close"),
            ("x-own", "y"),
        ] {
            reply.headers.push((name.parse().unwrap(), value.parse().unwrap()));
        }
        let (status, headers, _) = encoded(reply, Some(Choice::Nothing));
        assert_eq!(status, 201);
        assert_eq!(headers[CONTENT_TYPE], "application/vnd.x+json");
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
        assert!(!headers.contains_key("content-length") && !headers.contains_key("connection"));
        let mut reply = Reply::new(ReplyBody::Empty);
        reply.status = Some(101);
        assert!(run(encode(reply, None)).is_err());
        let mut reply = Reply::new(ReplyBody::Text("ignored".into()));
        reply.status = Some(304);
        assert_eq!(encoded(reply, None).2.len(), 0);
    }

    trait ErrKind {
        fn unwrap_err_kind(self) -> FailureKind;
    }
    impl ErrKind for Result<Response<Outgoing>, Failure> {
        fn unwrap_err_kind(self) -> FailureKind {
            self.err().unwrap().kind
        }
    }
}
