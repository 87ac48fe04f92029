//! Request objects of JSON-RPC 2.0 (specification of 2013-01-04, sections 4 and 6) and error objects
//! (section 5.1).

use crosstie_model::{Failure, FailureKind, Fault};
use serde_json::{Map, Value};

use crate::body::decode::too_deep;
use crate::problem;

/// A call with its members checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The method.
    pub method: String,
    /// Named or positional parameters.
    pub params: Option<Value>,
    /// `None` makes it a notification: no `id` member at all. A `null` id asks for an answer.
    pub id: Option<Value>,
}

/// A body: one call or a batch. Each call stands for itself, a wrong one gets its own error.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// One object.
    Single(Result<Call, CallError>),
    /// An array of them, at least one.
    Batch(Vec<Result<Call, CallError>>),
}

/// An error object with the id it answers.
#[derive(Debug, Clone, PartialEq)]
pub struct CallError {
    /// The error's number.
    pub code: i32,
    /// One sentence.
    pub message: String,
    /// The status HTTP has for it, and what else the caller may know.
    pub(super) status: u16,
    pub(super) problem: &'static str,
    pub(super) faults: Vec<Fault>,
    pub(super) retry_after: Option<u64>,
    pub(super) id: Value,
}

impl CallError {
    fn new(code: i32, kind: FailureKind, message: &str, faults: Vec<Fault>) -> Self {
        Self {
            code,
            message: message.to_owned(),
            status: kind.status(),
            problem: problem::type_of(kind),
            faults,
            retry_after: None,
            id: Value::Null,
        }
    }

    fn parse_error(detail: String) -> Self {
        let faults = vec![Fault { pointer: String::new(), detail }];
        Self::new(-32700, FailureKind::BadRequest, "Parse error", faults)
    }

    fn invalid_request(pointer: &str, detail: &str) -> Self {
        let faults = vec![Fault { pointer: pointer.to_owned(), detail: detail.to_owned() }];
        Self::new(-32600, FailureKind::BadRequest, "Invalid Request", faults)
    }

    pub(super) fn method_not_found(method: &str) -> Self {
        let faults = vec![Fault { pointer: "/method".to_owned(), detail: format!("there is no {method:?}") }];
        Self::new(-32601, FailureKind::NotFound, "Method not found", faults)
    }

    pub(super) fn with_id(mut self, id: Value) -> Self {
        self.id = id;
        self
    }

    /// The error object of a failed invocation. The specification's own codes stand for invalid parameters
    /// and internal errors; the rest is in the range it leaves to servers: -32000 minus the status without
    /// its hundreds for 4xx, minus another 50 for 5xx.
    #[must_use]
    pub fn of(failure: &Failure) -> Self {
        let code = match failure.kind {
            FailureKind::BadRequest => -32602,
            FailureKind::Internal => -32603,
            FailureKind::Unauthorized => -32001,
            FailureKind::Forbidden => -32003,
            FailureKind::NotFound => -32004,
            FailureKind::MethodNotAllowed => -32005,
            FailureKind::NotAcceptable => -32006,
            FailureKind::Conflict => -32009,
            FailureKind::PayloadTooLarge => -32013,
            FailureKind::UriTooLong => -32014,
            FailureKind::UnsupportedMediaType => -32015,
            FailureKind::TooManyRequests => -32029,
            FailureKind::HeaderTooLarge => -32031,
            FailureKind::BadGateway => -32052,
            FailureKind::Unavailable => -32053,
            FailureKind::Timeout => -32054,
        };
        Self {
            code,
            message: failure.text.clone(),
            status: problem::status_of(failure).as_u16(),
            problem: problem::type_of(failure.kind),
            faults: failure.faults.clone(),
            retry_after: failure.retry_after.map(crate::rate::seconds),
            id: Value::Null,
        }
    }
}

/// What a body may be.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Most calls in one batch.
    pub batch: usize,
    /// How deep it may nest.
    pub depth: usize,
}

/// Reads a body.
///
/// # Errors
/// What concerns the body as a whole: no JSON, too deep, an empty batch, too many calls.
pub fn parse(body: &[u8], limits: BodyLimits) -> Result<Body, CallError> {
    let max_batch = limits.batch;
    let value: Value =
        serde_json::from_slice(body).map_err(|error| CallError::parse_error(error.to_string()))?;
    if let Some(detail) = too_deep(&value, limits.depth) {
        return Err(CallError::invalid_request("", &detail));
    }
    match value {
        Value::Array(calls) if calls.is_empty() => {
            Err(CallError::invalid_request("", "a batch has at least one call"))
        }
        Value::Array(calls) if calls.len() > max_batch => {
            Err(CallError::invalid_request("", &format!("a batch has at most {max_batch} calls here")))
        }
        Value::Array(calls) => Ok(Body::Batch(calls.into_iter().map(check).collect())),
        single => Ok(Body::Single(check(single))),
    }
}

fn check(value: Value) -> Result<Call, CallError> {
    let Value::Object(mut members) = value else {
        return Err(CallError::invalid_request("", "a call is an object"));
    };
    let id = members.remove("id");
    // Section 5: an id that cannot be read is answered as null.
    let known = match &id {
        Some(id @ (Value::String(_) | Value::Number(_))) => id.clone(),
        _ => Value::Null,
    };
    check_members(&mut members, id).map_err(|error| error.with_id(known))
}

fn check_members(members: &mut Map<String, Value>, id: Option<Value>) -> Result<Call, CallError> {
    if members.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(CallError::invalid_request("/jsonrpc", "must be \"2.0\""));
    }
    if !matches!(id, None | Some(Value::Null | Value::String(_) | Value::Number(_))) {
        return Err(CallError::invalid_request("/id", "must be a string, a number or null"));
    }
    let Some(Value::String(method)) = members.remove("method") else {
        return Err(CallError::invalid_request("/method", "must be a string"));
    };
    let params = members.remove("params");
    if !matches!(params, None | Some(Value::Array(_) | Value::Object(_))) {
        return Err(CallError::invalid_request("/params", "must be an array or an object"));
    }
    Ok(Call { method, params, id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const LIMITS: BodyLimits = BodyLimits { batch: 3, depth: 4 };

    fn single(value: Value) -> Result<Call, CallError> {
        match parse(value.to_string().as_bytes(), LIMITS).unwrap() {
            Body::Single(call) => call,
            Body::Batch(_) => panic!("a batch"),
        }
    }

    #[test]
    fn a_call_is_told_from_a_notification() {
        let call = single(json!({"jsonrpc": "2.0", "method": "m", "params": [1], "id": 7})).unwrap();
        assert_eq!(call, Call { method: "m".into(), params: Some(json!([1])), id: Some(json!(7)) });
        assert_eq!(single(json!({"jsonrpc": "2.0", "method": "m"})).unwrap().id, None);
        let null = single(json!({"jsonrpc": "2.0", "method": "m", "id": null})).unwrap();
        assert_eq!(null.id, Some(Value::Null));
    }

    #[test]
    fn a_wrong_call_is_an_invalid_request_under_its_id() {
        for (value, pointer, id) in [
            (json!(1), "", json!(null)),
            (json!({"method": "m", "id": 1}), "/jsonrpc", json!(1)),
            (json!({"jsonrpc": "1.0", "method": "m", "id": "x"}), "/jsonrpc", json!("x")),
            (json!({"jsonrpc": "2.0", "method": 1, "id": 1}), "/method", json!(1)),
            (json!({"jsonrpc": "2.0", "id": 1}), "/method", json!(1)),
            (json!({"jsonrpc": "2.0", "method": "m", "params": "p", "id": 1}), "/params", json!(1)),
            (json!({"jsonrpc": "2.0", "method": "m", "params": null, "id": 1}), "/params", json!(1)),
            (json!({"jsonrpc": "2.0", "method": "m", "id": {}}), "/id", json!(null)),
        ] {
            let error = single(value).unwrap_err();
            assert_eq!((error.code, error.faults[0].pointer.as_str(), error.id), (-32600, pointer, id));
        }
    }

    #[test]
    fn bodies_that_are_no_request_at_all() {
        let code = |body: &[u8]| parse(body, LIMITS).unwrap_err().code;
        assert_eq!(code(b"{"), -32700);
        assert_eq!(code(b"\"\xff\""), -32700);
        assert_eq!(code(b""), -32700);
        assert_eq!(code("[".repeat(10_000).as_bytes()), -32700);
        assert_eq!(code(b"[]"), -32600);
        assert_eq!(code(b"[1,2,3,4]"), -32600);
        assert_eq!(code(br#"{"jsonrpc": "2.0", "method": "m", "params": [[[[1]]]]}"#), -32600);
        assert!(
            matches!(parse(b"[1,2,3]", LIMITS), Ok(Body::Batch(calls)) if calls.iter().all(Result::is_err))
        );
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), text in "[\\[\\]{}\":,a-z0-9]{0,60}") {
            let _ = parse(&bytes, LIMITS);
            let _ = parse(text.as_bytes(), LIMITS);
        }
    }
}
