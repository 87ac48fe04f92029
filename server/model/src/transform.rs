//! Stylesheets as channels and runtimes reach them: compiled, whoever did that.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;

use crate::failure::{Failure, FailureKind, Fault, Origin};

/// A compiled stylesheet. Any number of transformations may be under way at once.
#[async_trait]
pub trait Stylesheet: Send + Sync + fmt::Debug {
    /// Transforms a document, away from the caller's thread.
    ///
    /// # Errors
    /// There is no result, or it may not be used.
    async fn transform(&self, transformation: Transformation) -> Result<Transformed, TransformError>;
}

/// A stylesheet that was found; or, where it cannot be used here, why.
pub type FoundStylesheet = Result<Arc<dyn Stylesheet>, Arc<str>>;

/// What is to be transformed, and how.
#[derive(Debug, Clone)]
pub struct Transformation {
    /// The document.
    pub source: Bytes,
    /// The encoding that its protocol names.
    pub charset: Option<String>,
    /// Values of the stylesheet's parameters. Those that it does not have are left alone.
    pub parameters: Vec<(String, Parameter)>,
    /// How deep the document may nest.
    pub depth: usize,
    /// When whoever asks stops waiting. The stylesheet's own limit may be shorter.
    pub deadline: Instant,
}

/// A value of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    /// Text, whatever it holds.
    Text(String),
    /// A number, which is finite.
    Number(f64),
    /// A truth value.
    Truth(bool),
}

/// What a transformation made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transformed {
    /// The result, as `xsl:output` says.
    pub body: Bytes,
    /// Its media type, without parameters.
    pub media_type: String,
    /// Its encoding, by the name that the stylesheet has for it.
    pub encoding: String,
    /// What the stylesheet said with `xsl:message`, in its order.
    pub messages: Vec<String>,
}

impl Transformed {
    /// Whether its bytes are UTF-8.
    #[must_use]
    pub fn is_utf8(&self) -> bool {
        self.encoding.eq_ignore_ascii_case("utf-8")
    }

    /// The value of its `Content-Type`.
    #[must_use]
    pub fn content_type(&self) -> String {
        format!("{}; charset={}", self.media_type, self.encoding.to_ascii_lowercase())
    }
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct TransformError {
    /// What went wrong.
    pub trouble: TransformTrouble,
    /// More of it, for whoever wrote the document or the stylesheet.
    pub detail: String,
}

/// What goes wrong with a transformation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransformTrouble {
    /// What is to be transformed is not what it should be, or is beyond its limits.
    Source,
    /// The stylesheet ended it with a message, which is the detail.
    Terminated,
    /// It took too long.
    Late,
    /// The result is too large, or took too much memory to make.
    TooLarge,
    /// Templates call each other too deep.
    TooDeep,
    /// The stylesheet tried to read or write something.
    Forbidden,
    /// The stylesheet is wrong in a way that only its use shows.
    Failed,
    /// The caller asks for what makes no sense.
    Misuse,
    /// It cannot be used now.
    Closed,
}

impl TransformTrouble {
    /// The word for it in logs and exceptions.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Terminated => "terminated",
            Self::Late => "late",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::Forbidden => "forbidden",
            Self::Failed => "failed",
            Self::Misuse => "misuse",
            Self::Closed => "closed",
        }
    }
}

impl TransformError {
    /// An error with its detail.
    #[must_use]
    pub fn new(trouble: TransformTrouble, detail: impl Into<String>) -> Self {
        Self { trouble, detail: detail.into() }
    }

    /// The failure of a request whose body, sent by `origin`, was to be transformed. Whoever sent it is told what is
    /// wrong with it, and what the stylesheet says of it; what is wrong with the stylesheet is for the log.
    #[must_use]
    pub fn failure(&self, origin: Origin) -> Failure {
        let is_clients = origin == Origin::Client;
        let senders = match origin {
            Origin::Client => FailureKind::BadRequest,
            Origin::Upstream => FailureKind::BadGateway,
            Origin::Service | Origin::Platform => FailureKind::Internal,
        };
        match self.trouble {
            TransformTrouble::Source if is_clients => {
                let fault = Fault { pointer: String::new(), detail: self.detail.clone() };
                Failure::new(senders, origin).with_text("The body is malformed").with_faults(vec![fault])
            }
            TransformTrouble::Terminated if is_clients => {
                let text: &str = if self.detail.is_empty() { "The body is refused" } else { &self.detail };
                Failure::new(senders, origin).with_text(text)
            }
            TransformTrouble::Source | TransformTrouble::Terminated => Failure::new(senders, origin),
            TransformTrouble::TooLarge if is_clients => Failure::new(FailureKind::PayloadTooLarge, origin)
                .with_text("What the body is transformed into is too large"),
            TransformTrouble::Late => {
                let mut failure = Failure::new(FailureKind::Timeout, Origin::Platform)
                    .with_text("The transformation took too long");
                failure.retryable = false;
                failure
            }
            TransformTrouble::Closed => Failure::new(FailureKind::Unavailable, Origin::Platform),
            _ => Failure::new(FailureKind::Internal, Origin::Platform).with_text("The transformation failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_what_depends_on_who_sent_the_body() {
        use TransformTrouble::{Failed, Late, Source, Terminated, TooLarge};
        let of = |trouble, origin| {
            let failure = TransformError::new(trouble, "line 2: secret").failure(origin);
            let told = format!("{} {:?}", failure.text, failure.faults);
            (failure.http_status(), failure.origin, told.contains("line 2"))
        };
        for (trouble, origin, expected) in [
            (Source, Origin::Client, (400, Origin::Client, true)),
            (Source, Origin::Upstream, (502, Origin::Upstream, false)),
            (Source, Origin::Service, (500, Origin::Service, false)),
            (Terminated, Origin::Client, (400, Origin::Client, true)),
            (Terminated, Origin::Upstream, (502, Origin::Upstream, false)),
            (TooLarge, Origin::Client, (413, Origin::Client, false)),
            (TooLarge, Origin::Upstream, (500, Origin::Platform, false)),
            (Failed, Origin::Client, (500, Origin::Platform, false)),
            (Late, Origin::Client, (504, Origin::Platform, false)),
        ] {
            assert_eq!(of(trouble, origin), expected, "{trouble:?} {origin:?}");
        }
    }
}
