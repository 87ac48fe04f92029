//! What can go wrong with a call of an external system.

use crate::failure::{Failure, FailureKind, Origin};

/// Why a call of an outgoing has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct OutgoingError {
    /// What the caller of the service may be told when the service lets this pass. Boxed, as calls are many
    /// and errors few.
    pub failure: Box<Failure>,
    /// What went wrong, as metrics count it.
    pub trouble: Trouble,
    /// What went wrong where, in one line for whoever runs the server: names hosts, never a secret.
    pub detail: String,
}

/// What goes wrong with calls of external systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The outgoing is inactive or could not be opened.
    Closed,
    /// Its circuit is open: earlier calls failed.
    Circuit,
    /// All of its connections were busy until the deadline.
    Busy,
    /// No connection could be made.
    Connect,
    /// TLS failed: an unknown authority, a wrong name, a refused client certificate.
    Tls,
    /// The proxy refused.
    Proxy,
    /// No credentials could be had, or the other system refused them.
    Credentials,
    /// It did not answer in time.
    Deadline,
    /// The connection broke.
    Broken,
    /// What came is not what the protocol allows.
    Protocol,
    /// The answer exceeds its limit.
    TooLarge,
    /// Redirects led nowhere.
    Redirect,
    /// The other system answered that it failed.
    Refused,
    /// What the service asked for makes no sense.
    Misuse,
    /// The service's own data broke off while it was sent.
    Caller,
}

impl Trouble {
    /// Every kind of trouble.
    pub const ALL: [Self; 15] = [
        Self::Closed,
        Self::Circuit,
        Self::Busy,
        Self::Connect,
        Self::Tls,
        Self::Proxy,
        Self::Credentials,
        Self::Deadline,
        Self::Broken,
        Self::Protocol,
        Self::TooLarge,
        Self::Redirect,
        Self::Refused,
        Self::Misuse,
        Self::Caller,
    ];

    /// The word for it in metrics, logs and Python.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Circuit => "circuit",
            Self::Busy => "busy",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Proxy => "proxy",
            Self::Credentials => "credentials",
            Self::Deadline => "deadline",
            Self::Broken => "broken",
            Self::Protocol => "protocol",
            Self::TooLarge => "too_large",
            Self::Redirect => "redirect",
            Self::Refused => "refused",
            Self::Misuse => "misuse",
            Self::Caller => "caller",
        }
    }

    /// What a caller is told of it: that the other system is not there now (503), did not answer in time
    /// (504) or failed (502); what the service did wrong is the service's failure (500).
    #[must_use]
    pub fn kind(self) -> FailureKind {
        match self {
            Self::Closed | Self::Circuit | Self::Busy => FailureKind::Unavailable,
            Self::Deadline => FailureKind::Timeout,
            Self::Misuse | Self::Caller => FailureKind::Internal,
            Self::Connect
            | Self::Tls
            | Self::Proxy
            | Self::Credentials
            | Self::Broken
            | Self::Protocol
            | Self::TooLarge
            | Self::Redirect
            | Self::Refused => FailureKind::BadGateway,
        }
    }
}

impl OutgoingError {
    /// The error for `trouble`, with the public text of its kind.
    #[must_use]
    pub fn new(trouble: Trouble, detail: impl Into<String>) -> Self {
        let origin = match trouble {
            Trouble::Closed => Origin::Platform,
            Trouble::Misuse | Trouble::Caller => Origin::Service,
            _ => Origin::Upstream,
        };
        let mut failure = Failure::new(trouble.kind(), origin);
        match failure.kind {
            FailureKind::Unavailable => {
                "An external system is not available now".clone_into(&mut failure.text)
            }
            FailureKind::Timeout => "An external system did not answer in time".clone_into(&mut failure.text),
            _ => {}
        }
        Self { failure: Box::new(failure), trouble, detail: detail.into() }
    }

    /// The same error for a caller that may be told when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: std::time::Duration) -> Self {
        self.failure.retry_after = Some(after);
        self
    }
}

impl From<OutgoingError> for Failure {
    fn from(error: OutgoingError) -> Self {
        *error.failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trouble_has_a_word_of_its_own_and_tells_callers_no_detail() {
        let words: std::collections::BTreeSet<_> =
            Trouble::ALL.iter().map(|trouble| trouble.as_str()).collect();
        assert_eq!(words.len(), Trouble::ALL.len());
        for trouble in Trouble::ALL {
            let failure = Failure::from(OutgoingError::new(trouble, "10.0.0.7 refused"));
            assert!(!failure.text.contains("10.0.0.7"), "{failure}");
            assert_eq!(failure.kind, trouble.kind());
        }
    }
}
