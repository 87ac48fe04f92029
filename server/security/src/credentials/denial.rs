//! Why a request is not let in: what its caller is told, and what the audit is told.

use std::sync::Arc;
use std::time::Duration;

use crosstie_model::refusal::{RefusalReason, RefusedCredentials};
use crosstie_model::{Failure, FailureKind, Origin};

/// A request that is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What its caller is told.
    pub failure: Failure,
    /// What the audit is told.
    pub credentials: RefusedCredentials,
}

/// What one check has against a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denial {
    /// What sort of answer the caller gets.
    pub(super) kind: FailureKind,
    pub(super) reason: RefusalReason,
    /// The challenge that goes with it; none where other credentials would not help.
    pub(super) challenge: Option<String>,
    /// What the caller is told instead of the kind's own text.
    pub(super) text: Option<&'static str>,
    /// Whose credentials they are, where that is certain.
    pub(super) username: Option<String>,
    /// When to try again, where that helps.
    pub(super) retry_after: Option<Duration>,
}

impl Denial {
    /// 401 with a challenge.
    pub(super) fn unauthorized(reason: RefusalReason, challenge: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Unauthorized,
            reason,
            challenge: Some(challenge.into()),
            text: None,
            username: None,
            retry_after: None,
        }
    }

    /// 503: nobody can tell now whether the credentials are right, so they are not.
    pub(super) fn unavailable(retry_after: Option<Duration>) -> Self {
        Self {
            kind: FailureKind::Unavailable,
            reason: RefusalReason::Unavailable,
            challenge: None,
            text: None,
            username: None,
            retry_after,
        }
    }

    /// The refusal of one definition.
    pub(super) fn refuse(self, definition: &Arc<str>, kind: &'static str) -> Refusal {
        let mut failure = Failure::new(self.kind, origin(self.kind));
        if let Some(text) = self.text {
            text.clone_into(&mut failure.text);
        }
        failure.challenges = self.challenge.into_iter().collect();
        failure.retry_after = self.retry_after;
        let credentials = RefusedCredentials {
            definition: Arc::clone(definition),
            kind,
            reason: self.reason,
            username: self.username,
        };
        Refusal { failure, credentials }
    }
}

fn origin(kind: FailureKind) -> Origin {
    if kind == FailureKind::Unavailable { Origin::Platform } else { Origin::Client }
}
