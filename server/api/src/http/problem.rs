//! Errors as RFC 9457 problem documents: the one place where an error becomes an HTTP reply.
//!
//! What a caller reads is made of the public texts of [`OperationError`]; sources, tracebacks of the platform
//! and SQL stay in the log, under the same cid.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use crosstie_config::LocatedFault;
use crosstie_model::{Cid, Failure, Fault, Revision};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

use crate::operations::{OperationError, Refusal};
use crate::serving::ServingFailure;

/// What a problem's `type` starts with; the rest is one of the words below.
const TYPE_PREFIX: &str = "urn:crosstie:problem:";
/// The media type (RFC 9457, section 6.1).
pub(crate) const PROBLEM_JSON: &str = "application/problem+json";
/// How long a caller is asked to wait when the ODB is away or contended.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// An error reply. Boxed, as it travels in every result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem(Box<ProblemDocument>);

/// A problem document, with what its reply's headers and the log say beside it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(crate) struct ProblemDocument {
    /// What sort of problem: `urn:crosstie:problem:` and a word.
    pub r#type: String,
    /// The sort, for people.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened here, for people.
    pub detail: String,
    /// Correlation id: the log says more under it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cid: Option<String>,
    /// Every fault found, when there are some to point at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<ProblemFault>,
    /// A traceback of the caller's own artifact.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace: String,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) retry_after: Option<Duration>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) challenge: bool,
    /// What really happened, for the log alone.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) source: Option<String>,
}

impl Deref for Problem {
    type Target = ProblemDocument;
    fn deref(&self) -> &ProblemDocument {
        &self.0
    }
}

impl DerefMut for Problem {
    fn deref_mut(&mut self) -> &mut ProblemDocument {
        &mut self.0
    }
}

/// One fault: where it is, and what is wrong there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct ProblemFault {
    /// The file of an applied document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in that file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The key in that file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The definition or unit it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// JSON Pointer into the request body or the definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// What is wrong, for a person.
    pub detail: String,
}

impl Problem {
    /// A problem of the sort `word`.
    pub(crate) fn new(
        status: StatusCode,
        word: &str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self(Box::new(ProblemDocument {
            r#type: format!("{TYPE_PREFIX}{word}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            cid: None,
            faults: Vec::new(),
            trace: String::new(),
            retry_after: None,
            challenge: false,
            source: None,
        }))
    }

    /// The request is malformed.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-request", "The request is not valid", detail)
    }

    /// The body breaks its schema.
    pub(crate) fn invalid_body(faults: Vec<Fault>) -> Self {
        let mut problem = Self::bad_request("the body does not fit its schema");
        problem.faults = faults
            .into_iter()
            .map(|fault| ProblemFault {
                pointer: Some(fault.pointer),
                detail: fault.detail,
                ..ProblemFault::default()
            })
            .collect();
        problem
    }

    /// Credentials are missing or wrong; which of both is nobody's business.
    pub(crate) fn unauthorized() -> Self {
        let detail = "present a user name and password, a bearer token, or a client certificate of this \
                      environment";
        let mut problem =
            Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Valid credentials are required", detail);
        problem.challenge = true;
        problem
    }

    /// The caller's role does not reach.
    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "The role does not allow this", detail)
    }

    /// Too many failed attempts to authenticate.
    pub(crate) fn too_many_attempts(retry_after: Duration) -> Self {
        let detail = "too many failed attempts to authenticate";
        let mut problem =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-attempts", "Too many attempts", detail);
        problem.retry_after = Some(retry_after);
        problem
    }

    /// The work took longer than a request may.
    pub(crate) fn timeout() -> Self {
        let detail = "the operation did not end in time; it may still take effect";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "The operation took too long", detail)
    }

    /// The body is larger than allowed.
    pub(crate) fn too_large(limit: u64) -> Self {
        let detail = format!("the body may have {limit} bytes at most");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request body is too large", detail)
    }

    /// The body did not arrive in time.
    pub(crate) fn slow_body() -> Self {
        let detail = "the body did not arrive in time";
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "The request took too long to arrive", detail)
    }

    /// No endpoint has this path.
    pub(crate) fn no_endpoint() -> Self {
        let detail = "no endpoint has this path; /api/v1/openapi.json lists them all";
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// The path exists and this method does not.
    pub(crate) fn no_method() -> Self {
        let detail = "the endpoint does not have this method; /api/v1/openapi.json lists those it has";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
    }

    /// A stored change that a worker cannot serve.
    pub(crate) fn not_served(revision: Revision, failure: &ServingFailure) -> Self {
        let what = match &failure.unit {
            Some(unit) => format!("could not load the unit {unit}"),
            None => "could not apply it".to_owned(),
        };
        let detail = format!(
            "revision {revision} is stored, but worker {} {what} and goes on with what it had: {}",
            failure.worker, failure.message
        );
        let title = "The change is stored but not served";
        let mut problem = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "not-served", title, detail);
        let faults = failure.closed_channels.iter().flat_map(|closed| {
            closed.reasons.iter().map(|reason| ProblemFault {
                subject: Some(format!("channel/{}", closed.channel)),
                detail: reason.clone(),
                ..ProblemFault::default()
            })
        });
        problem.0.faults = faults.collect();
        problem
    }

    /// The media type is not one that the endpoint takes.
    pub(crate) fn unsupported_media_type(wanted: &str) -> Self {
        let detail = format!("the body must be {wanted}");
        let title = "The media type is not supported";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", title, detail)
    }

    /// An answer that could not be written down.
    pub(crate) fn unserializable(error: serde_json::Error) -> Self {
        OperationError::Internal(error.to_string()).into()
    }

    fn of_refusal(refusal: Refusal) -> Self {
        let mut problem =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "refused", "The change was refused", refusal.reason);
        problem.trace = refusal.detail;
        problem.faults = refusal
            .faults
            .into_iter()
            .map(|fault| ProblemFault {
                subject: Some(fault.subject.to_string()),
                pointer: Some(fault.pointer),
                detail: fault.detail,
                ..ProblemFault::default()
            })
            .collect();
        problem
    }

    fn of_documents(faults: Vec<LocatedFault>, text: String) -> Self {
        let title = "The documents are not valid; nothing was applied";
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-documents", title, text);
        problem.faults = faults
            .into_iter()
            .map(|fault| ProblemFault {
                // What the documents would break elsewhere stands in none of them.
                file: Some(fault.file.display().to_string()).filter(|file| !file.is_empty()),
                line: Some(fault.line).filter(|line| *line > 0),
                key: Some(fault.key),
                detail: fault.detail,
                ..ProblemFault::default()
            })
            .collect();
        problem
    }

    fn of_failure(failure: Failure) -> Self {
        let status = StatusCode::from_u16(failure.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let title = if status.is_client_error() { "The service refused" } else { "The service failed" };
        let mut problem = Self::new(status, "service-failed", title, failure.text);
        problem.retry_after = failure.retry_after;
        problem.faults = failure
            .faults
            .into_iter()
            .map(|fault| ProblemFault {
                pointer: Some(fault.pointer),
                detail: fault.detail,
                ..ProblemFault::default()
            })
            .collect();
        problem
    }

    fn unavailable(word: &str, title: &'static str, detail: String) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, word, title, detail);
        problem.retry_after = Some(RETRY_AFTER);
        problem
    }

    /// The same problem with the correlation id it is logged under.
    pub(crate) fn with_cid(mut self, cid: Cid) -> Self {
        self.cid = Some(cid.to_string());
        self
    }
}

/// The error and everything it came from, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

impl From<OperationError> for Problem {
    fn from(error: OperationError) -> Self {
        let source = chain(&error);
        let mut problem = Self::public(error);
        problem.source = Some(source);
        problem
    }
}

impl Problem {
    /// What the caller may read of `error`.
    fn public(error: OperationError) -> Self {
        let text = error.to_string();
        match error {
            OperationError::NotFound(_) => Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", text),
            OperationError::Invalid(_) => Self::bad_request(text),
            OperationError::Faults(faults) => Self::of_documents(faults, text),
            OperationError::Refused(refusal) => Self::of_refusal(refusal),
            OperationError::Outdated { .. } => {
                let title = "The configuration changed meanwhile";
                Self::new(StatusCode::PRECONDITION_FAILED, "outdated", title, text)
            }
            OperationError::Contended => Self::unavailable("contended", "Others are changing it", text),
            OperationError::CheckNotRun(_) => {
                let detail = "the check of the artifact could not be run; the log says why".to_owned();
                Self::unavailable("check-not-run", "The check could not be run", detail)
            }
            OperationError::Service(failure) => Self::of_failure(failure),
            OperationError::OdbUnreachable(_) => {
                let detail = format!("{text}; traffic goes on from what is loaded, management does not");
                Self::unavailable("odb-unreachable", "The operational database is not reachable", detail)
            }
            OperationError::OutcomeUnknown(_) => {
                Self::unavailable("outcome-unknown", "The change was not confirmed", text)
            }
            OperationError::Odb(_)
            | OperationError::Secret(_)
            | OperationError::Repository(_)
            | OperationError::Internal(_) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "The operation failed",
                "the operation failed inside the server; the log says why, under the cid",
            ),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&*self.0).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.challenge {
            let basic = HeaderValue::from_static(r#"Basic realm="crosstie management", charset="UTF-8""#);
            headers.append(header::WWW_AUTHENTICATE, basic);
            headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        response
    }
}
