//! One way to change the configuration: read the state, draft the next one, check it, store it in one
//! transaction that insists on the revision that was read; start again when somebody else was faster.

use std::time::Duration;

use async_trait::async_trait;
use crosstie_model::{Event, Revision, Snapshot};
use crosstie_odb::{ChangeSet, OdbError};

use super::check::{Rules, faults_of_change};
use super::draft::Draft;
use super::{OperationError, Operations, Refusal};

/// How often a lost race is run again before the caller is told. Each round is lost only to a change that
/// somebody else made, so this many in a row mean a busy cluster, not a fault.
const MAX_ROUNDS: u32 = 40;

/// Who changes what, for the audit.
#[derive(Debug, Clone)]
pub struct Intent {
    /// Who: a user, a component, `pickup`.
    pub author: String,
    /// What for, in one line; becomes the audit row's and the commit's message.
    pub message: String,
    /// The revision the caller looked at; the change is refused when it is no longer current.
    pub expected: Option<Revision>,
}

/// One change, as a function of the state it starts from. Run again, from the newer state, when a race was
/// lost.
#[async_trait]
pub(crate) trait Step: Send {
    /// What the operation answers.
    type Outcome: Send;

    /// Drafts the next state.
    async fn draft(
        &mut self,
        operations: &Operations,
        now: &Snapshot,
        draft: &mut Draft,
    ) -> Result<Self::Outcome, OperationError>;
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Changed<T> {
    /// The revision that holds it: a new one, or the one there was when nothing had to change.
    pub revision: Revision,
    /// Whether anything changed.
    pub changed: bool,
    /// What the step answered.
    pub outcome: T,
}

/// Whether a change is made, or only tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Checked, stored and announced.
    Make,
    /// Checked alone.
    Try,
}

impl Operations {
    /// Makes (or tries) one change.
    ///
    /// # Errors
    /// What the step says; a refusal when the next state would be wrong; that others kept changing it.
    pub(crate) async fn change<S: Step>(
        &self,
        intent: &Intent,
        effect: Effect,
        mut step: S,
    ) -> Result<Changed<S::Outcome>, OperationError> {
        let mut turn = None;
        for round in 0..MAX_ROUNDS {
            let now = self.odb().snapshot().await?;
            if let Some(expected) = intent.expected.filter(|expected| *expected != now.revision) {
                return Err(OperationError::Outdated { expected, found: now.revision });
            }
            let mut draft = Draft::of(&now);
            let outcome = step.draft(self, &now, &mut draft).await?;
            let rules = Rules::of(&self.host().settings());
            let faults = faults_of_change(&now, draft.after(), draft.touched(), &rules);
            if !faults.is_empty() {
                return Err(OperationError::Refused(Refusal::of_faults(faults)));
            }
            if effect == Effect::Try || draft.changes().is_empty() {
                let changed = !draft.changes().is_empty();
                return Ok(Changed { revision: now.revision, changed, outcome });
            }
            let set = ChangeSet {
                author: intent.author.clone(),
                message: intent.message.clone(),
                expected: Some(now.revision),
                changes: draft.into_changes(),
            };
            match self.odb().change(&set).await {
                Ok(revision) => {
                    self.host().publish(Event::RevisionChanged { revision });
                    return Ok(Changed { revision, changed: true, outcome });
                }
                Err(OdbError::Conflict { .. } | OdbError::Busy) => {
                    if turn.is_none() {
                        turn = Some(self.inner.overtaken.lock().await);
                    }
                    pause(round).await;
                }
                Err(error) if error.is_unreachable() => return Err(OperationError::OutcomeUnknown(error)),
                Err(error) => return Err(error.into()),
            }
        }
        Err(OperationError::Contended)
    }
}

/// Grows from 5 to 80 ms; spread, so that two losers do not meet again.
async fn pause(round: u32) {
    let base = 5u64 << round.min(4);
    let spread = u64::from(crosstie_model::Cid::random().as_bytes()[1]) * base / 256;
    tokio::time::sleep(Duration::from_millis(base / 2 + spread)).await;
}
