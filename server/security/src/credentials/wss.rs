//! User names and passwords in SOAP messages (WS-Security UsernameToken Profile 1.1).
//!
//! A channel reads the token out of the message and knows how to check it; here is decided what counts, and that
//! it counts once: its nonce becomes a unique row of the ODB, so that a message that was recorded is refused by
//! every server. That row is the one access to the ODB on a request's way.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crosstie_model::FailureKind;
use crosstie_model::definition::{WssPassword, WssUsernameToken};
use crosstie_model::message::Principal;
use crosstie_model::ports::Nonces;
use crosstie_model::refusal::RefusalReason;
use crosstie_model::secret::SecretValue;

use super::authenticator::Verdict;
use super::comparison::Expected;
use super::denial::Denial;
use super::presented::Presented;

/// When a caller is asked to come back while nobody can tell whether a nonce is new.
const RETRY: Duration = Duration::from_secs(2);

/// What a channel found of a username token in a message.
pub trait ShownUsernameToken: Send + Sync + fmt::Debug {
    /// Whose token it is, as it says; `None` where the message has no token.
    ///
    /// # Errors
    /// There is one that cannot be read.
    fn username(&self) -> Result<Option<&str>, RefusalReason>;

    /// Checks the token, and the timestamp beside it, against the password and the demands. Takes the same time
    /// whatever is wrong with the password.
    ///
    /// # Errors
    /// Why it is refused.
    fn verify(&self, password: &str, demands: &TokenDemands) -> Result<AcceptedToken, RefusalReason>;
}

/// What a security definition demands of a username token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenDemands {
    /// Whether a password may come as text.
    pub text: bool,
    /// Whether it may come as a digest.
    pub digest: bool,
    /// Whether text has to come with nonce and time, too.
    pub nonce: bool,
    /// How old the message may be.
    pub max_age: Duration,
    /// How far its sender's clock may be ahead.
    pub max_skew: Duration,
    /// What time it is, in seconds since 1970-01-01T00:00:00Z.
    pub now: i64,
}

/// What to remember of a token that is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedToken {
    /// What may be used once; `None` where the token has no nonce.
    pub once: Option<String>,
    /// From when on the token is too old anyway, in seconds since 1970-01-01T00:00:00Z.
    pub until: i64,
}

/// One user name and password.
pub(super) struct WssCheck {
    username: Expected,
    password: SecretValue,
    demands: TokenDemands,
    nonces: Arc<dyn Nonces>,
    principal: Arc<Principal>,
}

impl fmt::Debug for WssCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WssCheck")
    }
}

impl WssCheck {
    pub(super) fn new(
        body: &WssUsernameToken,
        password: &SecretValue,
        principal: Arc<Principal>,
        nonces: Arc<dyn Nonces>,
    ) -> Self {
        let demands = TokenDemands {
            text: body.passwords.contains(&WssPassword::Text),
            digest: body.passwords.contains(&WssPassword::Digest),
            nonce: body.require_nonce,
            max_age: Duration::from_secs(body.max_age_s.into()),
            max_skew: Duration::from_secs(body.max_skew_s.into()),
            now: 0,
        };
        let username = Expected::new(body.username.as_bytes());
        Self { username, password: password.clone(), demands, nonces, principal }
    }

    /// Checks everything but whether the token was used before; `None` when that is all that is left to ask.
    pub(super) fn decide(&self, presented: &Presented<'_>) -> Option<Verdict> {
        match self.check(presented) {
            Err(reason) => Some(Err(denial(reason))),
            Ok(AcceptedToken { once: None, .. }) => Some(Ok(Arc::clone(&self.principal))),
            Ok(_) => None,
        }
    }

    /// Checks everything.
    pub(super) async fn ask(&self, presented: &Presented<'_>) -> Verdict {
        let accepted = self.check(presented).map_err(denial)?;
        let Some(once) = &accepted.once else { return Ok(Arc::clone(&self.principal)) };
        match self.nonces.is_new(&self.principal.definition, once, accepted.until).await {
            Ok(true) => Ok(Arc::clone(&self.principal)),
            Ok(false) => Err(denial(RefusalReason::Replayed)),
            Err(_) => Err(Denial::unavailable(Some(RETRY))),
        }
    }

    fn check(&self, presented: &Presented<'_>) -> Result<AcceptedToken, RefusalReason> {
        let token = presented.username_token.ok_or(RefusalReason::Missing)?;
        let username = token.username()?.ok_or(RefusalReason::Missing)?;
        // The definition's pattern allows text only, and a secret that is none matches no password.
        let password = std::str::from_utf8(self.password.expose()).map_err(|_| RefusalReason::Wrong)?;
        let demands = TokenDemands { now: presented.unix_seconds(), ..self.demands };
        let verified = token.verify(password, &demands);
        // Compared after, so that a wrong user name takes as long as a wrong password.
        if !bool::from(self.username.matches(username.as_bytes())) {
            return Err(RefusalReason::Wrong);
        }
        verified
    }
}

/// 401, without a challenge: HTTP has none for it.
fn denial(reason: RefusalReason) -> Denial {
    Denial { challenge: None, kind: FailureKind::Unauthorized, ..Denial::unauthorized(reason, "") }
}
