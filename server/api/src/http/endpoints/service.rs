//! Services: looking, calling, lifting quarantines.

use axum::response::Response;
use bytes::{Bytes, BytesMut};
use crosstie_model::message::{Payload, Reply, ReplyBody, ReplyStream};
use crosstie_model::{Failure, FailureKind, Origin, ServiceName};
use http::{HeaderValue, StatusCode, header};

use crate::access::Role;
use crate::http::call::{Call, Outcome, json, nothing, text};
use crate::http::problem::Problem;
use crate::http::table::{Answer, Body, Endpoint, Verb, schema_of};
use crate::operations::{Invocation, OperationError, ServiceView};

/// Most bytes of a streamed reply that are gathered for the caller.
const MAX_STREAMED: usize = 16 * 1024 * 1024;

pub(crate) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Verb::Get,
        path: "/services",
        operation: "listServices",
        summary: "All services of active deployments.",
        role: Some(Role::Viewer),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<Vec<ServiceView>>),
        run: |call| Box::pin(list(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/services/{service}",
        operation: "getService",
        summary: "One service.",
        role: Some(Role::Viewer),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<ServiceView>),
        run: |call| Box::pin(show(call)),
    },
    Endpoint {
        method: Verb::Post,
        path: "/services/{service}/invoke",
        operation: "invokeService",
        summary: "Calls a service, as another service would, and answers what it answers.",
        role: Some(Role::Operator),
        query: None,
        body: Body::Payload,
        answer: Answer::Payload,
        run: |call| Box::pin(invoke(call)),
    },
    Endpoint {
        method: Verb::Post,
        path: "/services/{service}/release",
        operation: "releaseService",
        summary: "Lifts the quarantine of a service on the answering server.",
        role: Some(Role::Operator),
        query: None,
        body: Body::None,
        answer: Answer::Nothing,
        run: |call| Box::pin(release(call)),
    },
];

async fn list(call: Call) -> Outcome {
    json(StatusCode::OK, &call.operations().services().await?)
}

async fn show(call: Call) -> Outcome {
    json(StatusCode::OK, &call.operations().service(&call.path("service")?).await?)
}

async fn release(call: Call) -> Outcome {
    let service: ServiceName = call.path("service")?;
    call.operations().release(call.caller()?, &service)?;
    nothing()
}

async fn invoke(call: Call) -> Outcome {
    let media_type = call.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let payload = decode(media_type.unwrap_or("application/json"), &call.body)?;
    let service = call.path("service")?;
    let invocation = Invocation { service, payload, raw: call.body.clone(), trace: call.trace };
    let reply = call.operations().invoke(call.caller()?, invocation).await?;
    encode(reply).await
}

/// The body as a service sees it: by its media type; JSON when it says none.
fn decode(media_type: &str, body: &Bytes) -> Result<Payload, Problem> {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if body.is_empty() {
        return Ok(Payload::Empty);
    }
    if essence == "application/json" || essence.ends_with("+json") {
        return serde_json::from_slice(body)
            .map(Payload::Json)
            .map_err(|error| Problem::bad_request(format!("the body is not JSON (line {})", error.line())));
    }
    match std::str::from_utf8(body) {
        Ok(content) if essence.starts_with("text/") => Ok(Payload::Text(content.to_owned())),
        _ => Ok(Payload::Bytes(body.clone())),
    }
}

async fn encode(reply: Reply) -> Outcome {
    let status = reply.status.map_or(Ok(StatusCode::OK), StatusCode::from_u16);
    let status = status.map_err(|_| Problem::from(OperationError::Service(Failure::service())))?;
    let mut response = match reply.body {
        ReplyBody::Empty if reply.status.is_none() => return nothing(),
        ReplyBody::Empty => text(status, "text/plain; charset=utf-8", Bytes::new()),
        ReplyBody::Json(body) => text(status, "application/json", body),
        ReplyBody::Text(body) => text(status, "text/plain; charset=utf-8", body),
        ReplyBody::Bytes(body) => text(status, "application/octet-stream", body),
        ReplyBody::Stream(stream) => text(status, "application/octet-stream", gather(stream).await?),
    };
    set_media_type(&mut response, reply.content_type);
    Ok(response)
}

fn set_media_type(response: &mut Response, chosen: Option<HeaderValue>) {
    if let Some(chosen) = chosen {
        response.headers_mut().insert(header::CONTENT_TYPE, chosen);
    }
}

async fn gather(mut stream: Box<dyn ReplyStream>) -> Result<Bytes, Problem> {
    let mut whole = BytesMut::new();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(OperationError::Service)?;
        if whole.len() + piece.len() > MAX_STREAMED {
            let text = format!("the reply has more than {MAX_STREAMED} bytes; call a channel of the service");
            let failure = Failure::new(FailureKind::BadGateway, Origin::Service).with_text(text);
            return Err(OperationError::Service(failure).into());
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_decoded_by_its_media_type() {
        let body = Bytes::from_static(b"{\"a\": 1}");
        assert!(matches!(decode("application/json; charset=utf-8", &body), Ok(Payload::Json(_))));
        assert!(matches!(decode("application/problem+json", &body), Ok(Payload::Json(_))));
        assert!(matches!(decode("text/plain", &body), Ok(Payload::Text(_))));
        assert!(matches!(decode("application/pdf", &body), Ok(Payload::Bytes(_))));
        assert!(matches!(decode("application/json", &Bytes::new()), Ok(Payload::Empty)));
        assert_eq!(decode("application/json", &Bytes::from_static(b"{")).unwrap_err().status, 400);
    }
}
