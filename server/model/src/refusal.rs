//! Credentials that were refused, as the audit tells of them: which definition, and why. Never what was
//! presented.

use std::fmt;
use std::sync::Arc;

/// Credentials that were refused. Holds no secret and nothing unverified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedCredentials {
    /// The security definition that they do not satisfy.
    pub definition: Arc<str>,
    /// Its type: `basic_auth`, `jwt` …
    pub kind: &'static str,
    /// Why.
    pub reason: RefusalReason,
    /// Whose they are, where a signature or the issuer vouches for it.
    pub username: Option<String>,
}

/// Why credentials are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalReason {
    /// None were presented.
    Missing,
    /// What was presented cannot be read.
    Malformed,
    /// They are not the right ones: another password or key, a signature that does not fit.
    Wrong,
    /// Nobody who is trusted issued them: an unknown authority or key.
    Untrusted,
    /// They are signed in a way that their key is not for.
    Algorithm,
    /// They are over.
    Expired,
    /// Their time has not begun.
    NotYetValid,
    /// They were taken back, or never given.
    Revoked,
    /// They were used before.
    Replayed,
    /// Another issuer made them.
    Issuer,
    /// They are for somebody else.
    Audience,
    /// They do not say what they must, or are another caller's.
    Claims,
    /// They do not allow what is asked for.
    Scope,
    /// Nobody can tell now.
    Unavailable,
}

impl RefusalReason {
    /// The word for it in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Wrong => "wrong",
            Self::Untrusted => "untrusted",
            Self::Algorithm => "algorithm",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::Replayed => "replayed",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claims => "claims",
            Self::Scope => "scope",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
