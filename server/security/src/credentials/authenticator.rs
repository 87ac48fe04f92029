//! One security definition, ready to check requests.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crosstie_model::message::Principal;
use rustls::RootCertStore;

use super::api_key::ApiKeyCheck;
use super::basic::BasicCheck;
use super::client_certificate::ClientCertificateCheck;
use super::denial::{Denial, Refusal};
use super::group::GroupCheck;
use super::introspection::IntrospectionCheck;
use super::jwt::JwtCheck;
use super::presented::Presented;
use super::wss::WssCheck;

/// One security definition, ready to check requests. A route keeps the one it needs.
#[derive(Debug)]
pub struct Authenticator {
    definition: Arc<str>,
    kind: &'static str,
    check: Check,
}

/// How a type of credentials is checked.
#[derive(Debug)]
pub(super) enum Check {
    Basic(BasicCheck),
    ApiKey(ApiKeyCheck),
    ClientCertificate(Box<ClientCertificateCheck>),
    Jwt(Box<JwtCheck>),
    Introspection(Box<IntrospectionCheck>),
    Wss(Box<WssCheck>),
    Group(GroupCheck),
    /// A secret has no value here: nobody gets in, and callers learn that it is not their doing.
    Unavailable,
}

/// The outcome of a check.
pub(super) type Verdict = Result<Arc<Principal>, Denial>;
/// The outcome of an authentication.
pub(super) type Outcome = Result<Arc<Principal>, Box<Refusal>>;

impl Authenticator {
    pub(super) fn new(definition: Arc<str>, kind: &'static str, check: Check) -> Self {
        Self { definition, kind, check }
    }

    /// Checks a request. Never waits, unless somebody else has to be asked who was not asked lately.
    ///
    /// # Errors
    /// What the credentials lack, as the caller and as the audit may know it.
    pub async fn authenticate(&self, presented: &Presented<'_>) -> Outcome {
        match self.decide(presented) {
            Some(outcome) => outcome,
            // Boxed: requests that need not wait should not carry what waiting takes.
            None => self.ask(presented).await,
        }
    }

    /// Checks a request with what is known; `None` when somebody has to be asked.
    pub(super) fn decide(&self, presented: &Presented<'_>) -> Option<Outcome> {
        let verdict = match &self.check {
            Check::Basic(check) => check.authenticate(presented),
            Check::ApiKey(check) => check.authenticate(presented),
            Check::ClientCertificate(check) => check.authenticate(presented),
            Check::Jwt(check) => check.decide(presented)?,
            Check::Introspection(check) => check.decide(presented)?,
            Check::Wss(check) => check.decide(presented)?,
            Check::Group(group) => return group.decide(presented, &self.definition, self.kind),
            Check::Unavailable => Err(Denial::unavailable(None)),
        };
        Some(self.outcome(verdict))
    }

    /// Checks a request, asking whoever has to be asked.
    pub(super) fn ask<'a>(
        &'a self,
        presented: &'a Presented<'_>,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>> {
        Box::pin(async move {
            let verdict = match &self.check {
                Check::Jwt(check) => check.ask(presented).await,
                Check::Introspection(check) => check.ask(presented).await,
                Check::Wss(check) => check.ask(presented).await,
                Check::Group(group) => return group.ask(presented, &self.definition, self.kind).await,
                // These decide without asking.
                Check::Basic(_) | Check::ApiKey(_) | Check::ClientCertificate(_) | Check::Unavailable => {
                    let decided = self.decide(presented);
                    return decided.unwrap_or_else(|| self.outcome(Err(Denial::unavailable(None))));
                }
            };
            self.outcome(verdict)
        })
    }

    fn outcome(&self, verdict: Verdict) -> Outcome {
        verdict.map_err(|denial| Box::new(denial.refuse(&self.definition, self.kind)))
    }

    /// Whether its credentials stand in the message itself, so that a request can only be checked once its body
    /// was read.
    #[must_use]
    pub fn reads_messages(&self) -> bool {
        match &self.check {
            Check::Wss(_) => true,
            Check::Group(group) => group.reads_messages(),
            _ => false,
        }
    }

    /// The authorities of certificates that this definition wants clients to show.
    #[must_use]
    pub fn client_authorities(&self) -> Vec<Arc<RootCertStore>> {
        match &self.check {
            Check::ClientCertificate(check) => vec![Arc::clone(check.authorities())],
            Check::Group(group) => group.client_authorities(),
            _ => Vec::new(),
        }
    }
}
