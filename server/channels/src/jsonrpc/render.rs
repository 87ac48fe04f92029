//! Response objects of JSON-RPC 2.0 (specification, section 5). The one way JSON-RPC channels say that
//! something went wrong: an error object whose `data` holds what a problem document would.

use crosstie_model::cid::Cid;
use crosstie_model::{Failure, Fault};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use serde::Serialize;
use serde_json::Value;

use super::call::CallError;
use crate::problem;
use crate::response::Outgoing;

#[derive(Serialize)]
struct ErrorResponse<'a> {
    jsonrpc: &'static str,
    error: ErrorObject<'a>,
    id: &'a Value,
}

#[derive(Serialize)]
struct ErrorObject<'a> {
    code: i32,
    message: &'a str,
    data: ErrorData<'a>,
}

#[derive(Serialize)]
struct ErrorData<'a> {
    r#type: &'static str,
    status: u16,
    cid: Cid,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    faults: &'a [Fault],
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

/// A response object for an error.
pub(super) fn error_object(error: &CallError, cid: Cid) -> Vec<u8> {
    let data = ErrorData {
        r#type: error.problem,
        status: error.status,
        cid,
        faults: &error.faults,
        retry_after: error.retry_after,
    };
    let error_object = ErrorObject { code: error.code, message: &error.message, data };
    // Texts and numbers always serialize.
    serde_json::to_vec(&ErrorResponse { jsonrpc: "2.0", error: error_object, id: &error.id })
        .unwrap_or_default()
}

/// A response object for a result, which is JSON text already.
pub(super) fn result_object(id: &Value, result: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(result.len() + 48);
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"result\":");
    out.extend_from_slice(result.as_bytes());
    out.extend_from_slice(b",\"id\":");
    // A vector takes whatever is written, and an id always serializes.
    let _ = serde_json::to_writer(&mut out, id);
    out.push(b'}');
    out
}

/// The answers of a batch; `None` when all calls were notifications.
pub(super) fn batch(answers: Vec<Option<Vec<u8>>>) -> Option<Vec<u8>> {
    let answers: Vec<_> = answers.into_iter().flatten().collect();
    if answers.is_empty() {
        return None;
    }
    let mut out = vec![b'['];
    out.extend(answers.join(&b','));
    out.push(b']');
    Some(out)
}

/// The reply to an HTTP request that failed as a whole: its HTTP status, and an error object under a null id,
/// as no call was looked at.
pub(crate) fn render_failure(failure: &Failure, cid: Cid) -> Response<Outgoing> {
    let body = error_object(&CallError::of(failure), cid);
    let mut response = Response::new(Outgoing::Whole(body.into()));
    *response.status_mut() = problem::status_of(failure);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    problem::write_headers(failure, response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::{FailureKind, Origin};
    use serde_json::json;

    #[test]
    fn results_and_errors_are_response_objects() {
        assert_eq!(
            String::from_utf8(result_object(&json!("a\"b"), "{\"x\":1}")).unwrap(),
            r#"{"jsonrpc":"2.0","result":{"x":1},"id":"a\"b"}"#
        );
        let failure = Failure::new(FailureKind::Unavailable, Origin::Platform);
        let cid: Cid = "4bf92f3577b34da6a3ce929d0e0e4736".parse().unwrap();
        let object = error_object(&CallError::of(&failure).with_id(json!(3)), cid);
        assert_eq!(
            serde_json::from_slice::<Value>(&object).unwrap(),
            json!({"jsonrpc": "2.0", "id": 3, "error": {"code": -32053,
                "message": "The service is not available now",
                "data": {"type": "urn:crosstie:problem:unavailable", "status": 503,
                    "cid": "4bf92f3577b34da6a3ce929d0e0e4736"}}})
        );
    }

    #[test]
    fn a_batch_of_notifications_has_no_answer() {
        assert_eq!(batch(vec![None, None]), None);
        assert_eq!(batch(vec![Some(b"1".to_vec()), None, Some(b"2".to_vec())]).unwrap(), b"[1,2]");
    }

    #[test]
    fn a_refused_request_keeps_its_status_and_header_fields() {
        let mut failure = Failure::new(FailureKind::Unauthorized, Origin::Client);
        failure.challenges = vec!["Basic realm=\"x\"".into()];
        let response = render_failure(&failure, Cid::random());
        assert_eq!(response.status(), 401);
        assert!(response.headers().contains_key("www-authenticate"));
    }
}
