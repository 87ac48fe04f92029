//! One security definition, ready to check requests.

use std::sync::Arc;

use crosstie_model::message::Principal;

use super::api_key::ApiKeyCheck;
use super::basic::BasicCheck;
use super::denial::{Denial, Refusal};
use super::presented::Presented;

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
    /// A secret has no value here: nobody gets in, and callers learn that it is not their doing.
    Unavailable,
}

/// The outcome of a check.
pub(super) type Verdict = Result<Arc<Principal>, Denial>;

impl Authenticator {
    pub(super) fn new(definition: Arc<str>, kind: &'static str, check: Check) -> Self {
        Self { definition, kind, check }
    }

    /// Checks a request.
    ///
    /// # Errors
    /// 401 with a challenge; 503 when the definition cannot be enforced here.
    pub async fn authenticate(&self, presented: &Presented<'_>) -> Result<Arc<Principal>, Box<Refusal>> {
        let verdict = match &self.check {
            Check::Basic(check) => check.authenticate(presented),
            Check::ApiKey(check) => check.authenticate(presented),
            Check::Unavailable => Err(Denial::unavailable(None)),
        };
        verdict.map_err(|denial| Box::new(denial.refuse(&self.definition, self.kind)))
    }
}
