//! Signed tokens (JWT), verified with keys known beforehand or with those that their issuer publishes.
//!
//! The signature is checked before anything else is believed; which algorithms a key serves is the key's to
//! say, never the token's. A signature costs 20 to 100 µs, so a token that was verified is remembered, by its
//! hash, until its end or until the keys change. The only thing a request ever waits for is a fetch of keys:
//! the first one, and one for a key that is not there.

mod key;
mod key_set;
mod remote;
mod schedule;
mod token;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crosstie_model::definition::Jwt;
use crosstie_model::message::Principal;
use crosstie_model::refusal::RefusalReason;
use sha2::{Digest as _, Sha256};

use self::key_set::{KeySet, NoKey};
use self::remote::{Current, RemoteKeys};
use self::schedule::Schedule;
use self::token::Token;
use super::authenticator::Verdict;
use super::bearer::BearerScheme;
use super::claims::{ClaimRules, Ends};
use super::denial::Denial;
use super::expiring::{Digest, Expiring};
use super::inquirer::{Inquirer, Place, Workshop};
use super::material::{CredentialError, Material};
use super::presented::Presented;

/// How many tokens are remembered by each definition.
const REMEMBERED: usize = 8_192;

/// See the module.
#[derive(Debug)]
pub(super) struct JwtCheck {
    scheme: BearerScheme,
    rules: ClaimRules,
    source: Source,
    /// What the principals of this definition have in common.
    template: Principal,
    known: Mutex<Expiring<Verified>>,
}

/// Where the keys come from.
#[derive(Debug)]
enum Source {
    Fixed(Arc<KeySet>),
    Remote(Arc<RemoteKeys>),
}

/// A token that was verified.
#[derive(Debug, Clone)]
struct Verified {
    principal: Arc<Principal>,
    /// The digest of the keys that vouched for it.
    keys: Digest,
}

impl JwtCheck {
    pub(super) fn new(
        body: &Jwt,
        material: &Material,
        template: Principal,
        workshop: &Workshop<'_>,
    ) -> Result<Self, CredentialError> {
        let source = match &body.jwks_url {
            Some(address) => {
                let place = Place {
                    field: "jwks_url",
                    address,
                    tls: body.tls.as_ref(),
                    deadline: Duration::from_millis(body.deadline_ms),
                    max_bytes: body.max_jwks_bytes,
                    connections: 1,
                };
                let inquirer = Inquirer::open(workshop, &place)?;
                let seconds = |seconds: u32| Duration::from_secs(seconds.into());
                let schedule = Schedule::new(seconds(body.refresh_s), seconds(body.keep_s));
                let definition = Arc::clone(&template.definition);
                Source::Remote(RemoteKeys::new(definition, inquirer, &body.algorithms, schedule))
            }
            None => Source::Fixed(Arc::new(fixed_keys(body, material)?)),
        };
        Ok(Self {
            scheme: BearerScheme::new(&body.rules),
            rules: ClaimRules::new(&body.rules, &["sub"]),
            source,
            template,
            known: Mutex::new(Expiring::new(REMEMBERED)),
        })
    }

    /// Checks a request with the keys there are; `None` when they have to be waited for.
    pub(super) fn decide(&self, presented: &Presented<'_>) -> Option<Verdict> {
        let token = match self.scheme.token(presented.headers) {
            Ok(token) => token,
            Err(denial) => return Some(Err(denial)),
        };
        let keys = match &self.source {
            Source::Fixed(keys) => Arc::clone(keys),
            Source::Remote(remote) => match remote.current() {
                Current::Keys(keys) => keys,
                Current::Wait => return None,
                Current::None { retry_after } => return Some(Err(Denial::unavailable(Some(retry_after)))),
            },
        };
        match (self.verify(token, &keys, presented.unix_seconds()), &self.source) {
            (Err(Unverified::Unknown(_)), Source::Remote(remote)) if remote.is_worth_asking() => None,
            (outcome, _) => Some(self.verdict(outcome)),
        }
    }

    /// Checks a request, waiting for keys where that is needed.
    pub(super) async fn ask(&self, presented: &Presented<'_>) -> Verdict {
        let token = self.scheme.token(presented.headers)?;
        let now = presented.unix_seconds();
        let outcome = match &self.source {
            Source::Fixed(keys) => self.verify(token, keys, now),
            Source::Remote(remote) => {
                let keys = remote.wait().await.map_err(|after| Denial::unavailable(Some(after)))?;
                match self.verify(token, &keys, now) {
                    Err(Unverified::Unknown(_)) => self.verify(token, &*remote.renew(&keys).await, now),
                    outcome => outcome,
                }
            }
        };
        self.verdict(outcome)
    }

    fn verify(&self, text: &str, keys: &KeySet, now: i64) -> Result<Arc<Principal>, Unverified> {
        let digest: Digest = Sha256::digest(text).into();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&digest, now);
        if let Some(known) = known.filter(|known| known.keys == keys.digest) {
            return Ok(known.principal);
        }
        let token = Token::parse(text)?;
        keys.verify(&token).map_err(|no_key| match no_key {
            NoKey::Unknown => Unverified::Unknown(RefusalReason::Untrusted),
            NoKey::Refused(reason) => reason.into(),
        })?;
        let claims = token.claims()?;
        let accepted = self.rules.check(&claims, Ends::Always, now);
        let accepted = accepted
            .map_err(|unfit| Unverified::Refused { reason: unfit.reason, username: unfit.username })?;
        let mut principal = self.template.clone();
        (principal.username, principal.scopes, principal.claims) =
            (accepted.username, accepted.scopes, claims);
        let principal = Arc::new(principal);
        let verified = Verified { principal: Arc::clone(&principal), keys: keys.digest };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(digest, verified, accepted.until.unwrap_or(now));
        Ok(principal)
    }

    fn verdict(&self, outcome: Result<Arc<Principal>, Unverified>) -> Verdict {
        outcome.map_err(|unverified| match unverified {
            Unverified::Unknown(reason) => self.scheme.refuse(reason, None),
            Unverified::Refused { reason, username } => self.scheme.refuse(reason, username),
        })
    }
}

/// Why a token is not taken.
#[derive(Debug)]
enum Unverified {
    /// It names a key that is not there.
    Unknown(RefusalReason),
    Refused {
        reason: RefusalReason,
        username: Option<String>,
    },
}

impl From<RefusalReason> for Unverified {
    fn from(reason: RefusalReason) -> Self {
        Self::Refused { reason, username: None }
    }
}

/// Checks the public keys that a definition brings along.
///
/// # Errors
/// They cannot be used.
pub(super) fn check_public_keys(body: &Jwt, material: &Material) -> Result<(), CredentialError> {
    if body.public_keys.is_some() { fixed_keys(body, material).map(drop) } else { Ok(()) }
}

/// The keys that a definition brings along.
fn fixed_keys(body: &Jwt, material: &Material) -> Result<KeySet, CredentialError> {
    match &body.public_keys {
        Some(text) => KeySet::of_public_text(material.text(text), &body.algorithms)
            .map_err(|detail| CredentialError::field("public_keys", detail)),
        None => KeySet::of_secret(material.secret("secret")?, &body.algorithms)
            .map_err(|detail| CredentialError::field("secret", detail)),
    }
}

#[cfg(test)]
mod tests;
