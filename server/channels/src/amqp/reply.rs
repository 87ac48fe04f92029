//! Answers to messages that ask for one: to the queue that `reply_to` names, with the correlation id of the
//! question.

use bytes::{Bytes, BytesMut};
use crosstie_model::message::{Reply, ReplyBody};
use crosstie_model::outgoing::{AmqpProperties, AmqpValue};
use crosstie_model::{Cid, Failure, FailureKind, Origin};
use serde_json::json;

use super::letter::Letter;

/// The answer to `letter` that a service gave, of at most `limit` bytes.
///
/// # Errors
/// It is a stream that broke, or is too long.
pub(super) async fn of_service(
    letter: &Letter,
    reply: Reply,
    limit: usize,
) -> Result<(AmqpProperties, Bytes), Failure> {
    let own = reply.content_type.as_ref().and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (body, media) = match reply.body {
        ReplyBody::Empty => (Bytes::new(), None),
        ReplyBody::Json(bytes) => (bytes, Some("application/json")),
        ReplyBody::Text(text) => (text.into(), Some("text/plain; charset=utf-8")),
        ReplyBody::Bytes(bytes) => (bytes, Some("application/octet-stream")),
        ReplyBody::Stream(mut stream) => {
            let mut whole = BytesMut::new();
            while let Some(piece) = stream.next().await {
                whole.extend_from_slice(&piece?);
                if whole.len() > limit {
                    let text = format!("The answer has more than {limit} bytes");
                    return Err(Failure::new(FailureKind::Internal, Origin::Service).with_text(text));
                }
            }
            (whole.freeze(), Some("application/octet-stream"))
        }
    };
    let mut properties = answer_to(letter);
    properties.content_type = own.or_else(|| media.map(str::to_owned));
    for (name, value) in &reply.headers {
        if let Ok(text) = value.to_str() {
            properties.headers.insert(name.as_str().to_owned(), text.into());
        }
    }
    if let Some(status) = reply.status {
        properties.headers.insert("x-crosstie-status".to_owned(), AmqpValue::Int(status.into()));
    }
    Ok((properties, body))
}

/// The answer to `letter` that says that it failed for good: a problem (RFC 9457).
pub(super) fn of_failure(letter: &Letter, failure: &Failure, cid: Cid) -> (AmqpProperties, Bytes) {
    let mut problem = json!({
        "type": "about:blank", "title": failure.kind.default_text(), "status": failure.http_status(),
        "detail": failure.text, "cid": cid.to_string(),
    });
    if let (false, Some(members)) = (failure.faults.is_empty(), problem.as_object_mut()) {
        let fault = |fault: &crosstie_model::Fault| json!({"pointer": fault.pointer, "detail": fault.detail});
        members.insert("errors".to_owned(), failure.faults.iter().map(fault).collect());
    }
    let mut properties = answer_to(letter);
    properties.content_type = Some("application/problem+json".to_owned());
    let status = AmqpValue::Int(failure.http_status().into());
    properties.headers.insert("x-crosstie-status".to_owned(), status);
    (properties, problem.to_string().into())
}

/// Who asks knows the answer by the correlation id of the question, or by its message-id.
fn answer_to(letter: &Letter) -> AmqpProperties {
    let asked = &letter.properties;
    AmqpProperties {
        correlation_id: asked.correlation_id.clone().or_else(|| asked.message_id.clone()),
        persistent: asked.persistent,
        ..AmqpProperties::default()
    }
}
