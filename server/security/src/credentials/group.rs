//! Groups: the first member that lets a request in lets it in.
//!
//! The members are tried in their order, and a request that one of them lets in is that member's. One that
//! none lets in gets the challenges of all, and the answer of the member that has most to say about it.

use std::sync::Arc;

use crosstie_model::FailureKind;
use crosstie_model::refusal::RefusalReason;
use rustls::RootCertStore;

use super::authenticator::{Authenticator, Outcome};
use super::denial::{Denial, Refusal};
use super::presented::Presented;

/// The members of a group, in their order.
#[derive(Debug)]
pub(super) struct GroupCheck {
    members: Vec<Arc<Authenticator>>,
}

impl GroupCheck {
    pub(super) fn new(members: Vec<Arc<Authenticator>>) -> Self {
        Self { members }
    }

    /// As [`Authenticator::decide`], for the group called `definition`.
    pub(super) fn decide(
        &self,
        presented: &Presented<'_>,
        definition: &Arc<str>,
        kind: &'static str,
    ) -> Option<Outcome> {
        let mut refusals = Vec::new();
        for member in &self.members {
            match member.decide(presented)? {
                Ok(principal) => return Some(Ok(principal)),
                Err(refusal) => refusals.push(*refusal),
            }
        }
        Some(Err(Box::new(merge(refusals, definition, kind))))
    }

    /// As [`Authenticator::ask`], for the group called `definition`.
    pub(super) async fn ask(
        &self,
        presented: &Presented<'_>,
        definition: &Arc<str>,
        kind: &'static str,
    ) -> Outcome {
        let mut refusals = Vec::new();
        for member in &self.members {
            match member.authenticate(presented).await {
                Ok(principal) => return Ok(principal),
                Err(refusal) => refusals.push(*refusal),
            }
        }
        Err(Box::new(merge(refusals, definition, kind)))
    }

    pub(super) fn reads_messages(&self) -> bool {
        self.members.iter().any(|member| member.reads_messages())
    }

    pub(super) fn client_authorities(&self) -> Vec<Arc<RootCertStore>> {
        self.members.iter().flat_map(|member| member.client_authorities()).collect()
    }
}

/// One refusal of those of all members.
fn merge(refusals: Vec<Refusal>, definition: &Arc<str>, kind: &'static str) -> Refusal {
    let mut challenges: Vec<String> = Vec::new();
    for challenge in refusals.iter().flat_map(|refusal| &refusal.failure.challenges) {
        if !challenges.contains(challenge) {
            challenges.push(challenge.clone());
        }
    }
    // Of several that say as much, the first: `max_by_key` would take the last.
    let most = refusals.into_iter().rev().max_by_key(weight);
    let mut most = most.unwrap_or_else(|| Denial::unavailable(None).refuse(definition, kind));
    if most.failure.kind != FailureKind::Unavailable {
        most.failure.challenges = challenges;
    }
    if most.credentials.reason == RefusalReason::Missing {
        // Nobody knows which member the caller would have come by.
        most.credentials.definition = Arc::clone(definition);
        most.credentials.kind = kind;
    }
    most
}

/// How much a refusal tells among those of several definitions. What cannot be decided comes first, as the
/// caller may be in the right; then credentials that are genuine and not enough; then those that are there at
/// all.
fn weight(refusal: &Refusal) -> u8 {
    match (refusal.failure.kind, refusal.credentials.reason) {
        (FailureKind::Unavailable, _) => 4,
        (FailureKind::Forbidden, _) => 3,
        (FailureKind::BadRequest, _) => 2,
        (_, RefusalReason::Missing) => 0,
        _ => 1,
    }
}
