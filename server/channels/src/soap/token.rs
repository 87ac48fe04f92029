//! The username token of a message, for whoever checks credentials.

use crosstie_model::refusal::RefusalReason;
use crosstie_security::credentials::{AcceptedToken, ShownUsernameToken, TokenDemands};
use crosstie_xml::soap::security::{Policy, WSSE};
use crosstie_xml::soap::{Envelope, HeaderBlock, SecurityError, Target, Timestamp, UsernameToken};
use time::OffsetDateTime;

/// What a message's security header holds.
#[derive(Debug)]
pub(crate) struct Token {
    token: Result<Option<UsernameToken>, SecurityError>,
    timestamp: Result<Option<Timestamp>, SecurityError>,
}

impl Token {
    /// Nothing.
    pub(super) const NONE: Self = Self { token: Ok(None), timestamp: Ok(None) };

    pub(super) fn read(envelope: &Envelope<'_>) -> Self {
        match envelope.headers.iter().find(|block| is_security(block)) {
            None => Self::NONE,
            Some(block) => {
                Self { token: UsernameToken::read(block.element), timestamp: Timestamp::read(block.element) }
            }
        }
    }
}

/// Whether a header block is a security header for this server.
pub(super) fn is_security(block: &HeaderBlock<'_>) -> bool {
    block.element.is(WSSE, "Security") && matches!(block.target, Target::UltimateReceiver | Target::Next)
}

impl ShownUsernameToken for Token {
    fn username(&self) -> Result<Option<&str>, RefusalReason> {
        match &self.token {
            Ok(token) => Ok(token.as_ref().map(|token| token.username.as_str())),
            Err(error) => Err(reason(*error)),
        }
    }

    fn verify(&self, password: &str, demands: &TokenDemands) -> Result<AcceptedToken, RefusalReason> {
        let policy = Policy {
            accepts_text: demands.text,
            accepts_digest: demands.digest,
            needs_nonce: demands.nonce,
            max_age: demands.max_age,
            max_skew: demands.max_skew,
        };
        let now = OffsetDateTime::from_unix_timestamp(demands.now).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let token = self.token.as_ref().map_err(|error| reason(*error))?;
        let token = token.as_ref().ok_or(RefusalReason::Missing)?;
        let accepted = token.verify(password, now, &policy).map_err(reason)?;
        if let Some(timestamp) = self.timestamp.as_ref().map_err(|error| reason(*error))? {
            timestamp.verify(now, &policy).map_err(reason)?;
        }
        Ok(AcceptedToken { once: accepted.once, until: accepted.forget_at })
    }
}

fn reason(error: SecurityError) -> RefusalReason {
    match error {
        SecurityError::Malformed(_) => RefusalReason::Malformed,
        SecurityError::Unsupported => RefusalReason::Algorithm,
        SecurityError::Authentication => RefusalReason::Wrong,
        SecurityError::Expired => RefusalReason::Expired,
    }
}

/// The error that WS-Security has for a refusal.
pub(super) fn error_of(reason: RefusalReason) -> SecurityError {
    match reason {
        RefusalReason::Malformed => SecurityError::Malformed("it cannot be read"),
        RefusalReason::Algorithm => SecurityError::Unsupported,
        RefusalReason::Expired | RefusalReason::NotYetValid => SecurityError::Expired,
        _ => SecurityError::Authentication,
    }
}
