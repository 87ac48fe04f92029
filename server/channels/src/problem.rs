//! Failures as RFC 9457 problem documents: the one way `rest` and `http` channels, and the server itself, say
//! that something went wrong.
//!
//! ```json
//! {"type": "urn:crosstie:problem:bad-request", "title": "Bad Request", "status": 400,
//!  "detail": "The request is not valid", "cid": "4bf9…", "faults": [{"pointer": "/age", "detail": "…"}]}
//! ```
//! `type` names the kind of failure, `status` may be the service's own choice. Nothing internal is in a
//! [`Failure`], so nothing internal can be here.

use bytes::Bytes;
use crosstie_model::cid::Cid;
use crosstie_model::{Failure, FailureKind, Fault};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::rate::seconds;
use crate::response::Outgoing;

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    cid: Cid,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    faults: &'a [Fault],
}

/// The reply to a request that failed.
pub(crate) fn render(failure: &Failure, cid: Cid) -> Response<Outgoing> {
    let status = status_of(failure);
    let problem = Problem {
        r#type: type_of(failure.kind),
        title: status.canonical_reason().unwrap_or("Error"),
        status: status.as_u16(),
        detail: &failure.text,
        cid,
        faults: &failure.faults,
    };
    // Texts and numbers always serialize.
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let mut response = Response::new(Outgoing::Whole(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    write_headers(failure, headers);
    response
}

/// The status of a failure; one that a service chose outside of 400–599 is no error status and becomes 500.
pub(crate) fn status_of(failure: &Failure) -> StatusCode {
    match failure.http_status() {
        code @ 400..=599 => StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Adds the header fields that a failure demands whatever its body is.
pub(crate) fn write_headers(failure: &Failure, headers: &mut HeaderMap) {
    if let Some(wait) = failure.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds(wait).max(1)));
    }
    if failure.kind == FailureKind::MethodNotAllowed
        && let Ok(allow) = HeaderValue::from_str(&failure.allow.join(", "))
    {
        headers.insert(ALLOW, allow);
    }
    // One field each, as many clients read no more than one challenge in a field.
    for challenge in failure.challenges.iter().filter_map(|text| HeaderValue::from_str(text).ok()) {
        headers.append(WWW_AUTHENTICATE, challenge);
    }
}

/// The problem type of a kind of failure.
pub(crate) fn type_of(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::BadRequest => "urn:crosstie:problem:bad-request",
        FailureKind::Unauthorized => "urn:crosstie:problem:unauthorized",
        FailureKind::Forbidden => "urn:crosstie:problem:forbidden",
        FailureKind::NotFound => "urn:crosstie:problem:not-found",
        FailureKind::MethodNotAllowed => "urn:crosstie:problem:method-not-allowed",
        FailureKind::NotAcceptable => "urn:crosstie:problem:not-acceptable",
        FailureKind::Conflict => "urn:crosstie:problem:conflict",
        FailureKind::PayloadTooLarge => "urn:crosstie:problem:payload-too-large",
        FailureKind::UriTooLong => "urn:crosstie:problem:uri-too-long",
        FailureKind::UnsupportedMediaType => "urn:crosstie:problem:unsupported-media-type",
        FailureKind::TooManyRequests => "urn:crosstie:problem:too-many-requests",
        FailureKind::HeaderTooLarge => "urn:crosstie:problem:header-too-large",
        FailureKind::Internal => "urn:crosstie:problem:internal",
        FailureKind::BadGateway => "urn:crosstie:problem:bad-gateway",
        FailureKind::Unavailable => "urn:crosstie:problem:unavailable",
        FailureKind::Timeout => "urn:crosstie:problem:timeout",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::Origin;
    use serde_json::{Value, json};
    use std::time::Duration;

    fn rendered(failure: &Failure) -> (Response<()>, Value) {
        let cid = "4bf92f3577b34da6a3ce929d0e0e4736".parse().unwrap();
        let (head, body) = render(failure, cid).into_parts();
        let Outgoing::Whole(bytes) = body else { panic!("a stream") };
        (Response::from_parts(head, ()), serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn a_failure_becomes_a_problem_with_every_fault() {
        let faults = vec![Fault { pointer: "/age".into(), detail: "is not of type integer".into() }];
        let failure = Failure::new(FailureKind::BadRequest, Origin::Client).with_faults(faults);
        let (response, body) = rendered(&failure);
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(
            body,
            json!({"type": "urn:crosstie:problem:bad-request", "title": "Bad Request", "status": 400,
                "detail": "The request is not valid", "cid": "4bf92f3577b34da6a3ce929d0e0e4736",
                "faults": [{"pointer": "/age", "detail": "is not of type integer"}]})
        );
    }

    #[test]
    fn a_failure_brings_its_header_fields() {
        let mut failure = Failure::new(FailureKind::TooManyRequests, Origin::Client);
        failure.retry_after = Some(Duration::from_millis(1_500));
        assert_eq!(rendered(&failure).0.headers()[RETRY_AFTER], "2");
        let mut failure = Failure::new(FailureKind::MethodNotAllowed, Origin::Client);
        failure.allow = vec!["GET".into(), "HEAD".into()];
        assert_eq!(rendered(&failure).0.headers()[ALLOW], "GET, HEAD");
        let mut failure = Failure::new(FailureKind::Unauthorized, Origin::Client);
        failure.challenges = vec!["Basic realm=\"x\"".into(), "Bearer".into()];
        let rendered_headers = rendered(&failure).0.into_parts().0.headers;
        assert!(rendered_headers.get_all(WWW_AUTHENTICATE).iter().eq(["Basic realm=\"x\"", "Bearer"]));
    }

    #[test]
    fn a_status_of_a_services_own_is_kept_if_it_is_an_error() {
        let mut failure = Failure::new(FailureKind::BadRequest, Origin::Service);
        failure.status = Some(422);
        assert_eq!(rendered(&failure).1["title"], "Unprocessable Entity");
        failure.status = Some(200);
        assert_eq!(rendered(&failure).0.status(), 500);
    }
}
