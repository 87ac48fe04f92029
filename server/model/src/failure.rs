//! The one error that crosses the seam between channels, services and outgoings.
//!
//! `Failure` carries everything a caller's protocol needs and nothing it must not learn: one function per
//! channel kind turns it into that protocol's error. Internal detail (a traceback, a database message) goes
//! to the log under the cid and never into a `Failure`'s public text.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What went wrong, in terms every protocol can express.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request is malformed or breaks the declared input (400).
    BadRequest,
    /// Credentials are missing or wrong (401).
    Unauthorized,
    /// The caller is known and may not do this (403).
    Forbidden,
    /// Nothing answers here (404).
    NotFound,
    /// The path exists, the method does not (405).
    MethodNotAllowed,
    /// No representation the caller accepts (406).
    NotAcceptable,
    /// The state forbids it (409).
    Conflict,
    /// The body exceeds its limit (413).
    PayloadTooLarge,
    /// The request target exceeds its limit (414).
    UriTooLong,
    /// The body's media type or coding is not understood here (415).
    UnsupportedMediaType,
    /// A rate limit is used up (429).
    TooManyRequests,
    /// The header section exceeds its limit (431).
    HeaderTooLarge,
    /// The service failed (500).
    Internal,
    /// An external system failed or answered nonsense (502).
    BadGateway,
    /// No capacity, quarantined, or draining (503).
    Unavailable,
    /// The deadline passed (504).
    Timeout,
}

impl FailureKind {
    /// The HTTP status code of this kind (RFC 9110, RFC 6585).
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::Conflict => 409,
            Self::PayloadTooLarge => 413,
            Self::UriTooLong => 414,
            Self::UnsupportedMediaType => 415,
            Self::TooManyRequests => 429,
            Self::HeaderTooLarge => 431,
            Self::Internal => 500,
            Self::BadGateway => 502,
            Self::Unavailable => 503,
            Self::Timeout => 504,
        }
    }

    /// The public text used when nobody gave a better one.
    #[must_use]
    pub fn default_text(self) -> &'static str {
        match self {
            Self::BadRequest => "The request is not valid",
            Self::Unauthorized => "Valid credentials are required",
            Self::Forbidden => "Access is not allowed",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::NotAcceptable => "No acceptable representation exists",
            Self::Conflict => "The request conflicts with the current state",
            Self::PayloadTooLarge => "The request body is too large",
            Self::UriTooLong => "The request target is too long",
            Self::UnsupportedMediaType => "The media type or content coding is not supported",
            Self::TooManyRequests => "Too many requests",
            Self::HeaderTooLarge => "The request headers are too large",
            Self::Internal => "The service failed",
            Self::BadGateway => "An external system failed",
            Self::Unavailable => "The service is not available now",
            Self::Timeout => "The service did not answer in time",
        }
    }
}

/// Who caused a failure; decides who is told what and who is blamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The caller: a wrong request.
    Client,
    /// User code.
    Service,
    /// An external system a service called.
    Upstream,
    /// Crosstie itself.
    Platform,
}

/// One fault of a request, located by a JSON Pointer (RFC 6901) into the body, or a parameter's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Where: `/customer/age`, or `/` followed by a parameter's name; empty for the whole body.
    pub pointer: String,
    /// What is wrong there, for a person.
    pub detail: String,
}

/// A failed invocation, as its caller may see it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// Who caused it.
    pub origin: Origin,
    /// Whether trying the same again may succeed.
    pub retryable: bool,
    /// What the caller is told. Never internal detail.
    pub text: String,
    /// Every fault found in the request, when there are some to point at.
    pub faults: Vec<Fault>,
    /// When to try again (Retry-After), if known.
    pub retry_after: Option<Duration>,
    /// The status a service chose itself, when it differs from the kind's.
    pub status: Option<u16>,
    /// Methods the path does allow (the Allow header of a 405); empty otherwise.
    pub allow: Vec<String>,
    /// The challenges of refused credentials (WWW-Authenticate), each one that would do; empty otherwise.
    pub challenges: Vec<String>,
}

impl Failure {
    /// A failure of `kind`, caused by `origin`, with the kind's own public text.
    #[must_use]
    pub fn new(kind: FailureKind, origin: Origin) -> Self {
        let retryable =
            matches!(kind, FailureKind::TooManyRequests | FailureKind::Unavailable | FailureKind::Timeout);
        Self {
            kind,
            origin,
            retryable,
            text: kind.default_text().to_owned(),
            faults: Vec::new(),
            retry_after: None,
            status: None,
            allow: Vec::new(),
            challenges: Vec::new(),
        }
    }

    /// A wrong request: the caller's doing, told why.
    #[must_use]
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::new(FailureKind::BadRequest, Origin::Client).with_text(text)
    }

    /// User code failed; the caller learns no more than that.
    #[must_use]
    pub fn service() -> Self {
        Self::new(FailureKind::Internal, Origin::Service)
    }

    /// No capacity now; `retry_after` becomes the Retry-After header.
    #[must_use]
    pub fn overloaded(text: impl Into<String>, retry_after: Duration) -> Self {
        let mut failure = Self::new(FailureKind::Unavailable, Origin::Platform).with_text(text);
        failure.retry_after = Some(retry_after);
        failure
    }

    /// The deadline passed before an answer.
    #[must_use]
    pub fn timeout() -> Self {
        Self::new(FailureKind::Timeout, Origin::Service)
    }

    /// The same failure with another public text.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// The same failure listing what is wrong where.
    #[must_use]
    pub fn with_faults(mut self, faults: Vec<Fault>) -> Self {
        self.faults = faults;
        self
    }

    /// The HTTP status: the service's own choice, or the kind's.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        self.status.unwrap_or_else(|| self.kind.status())
    }
}
