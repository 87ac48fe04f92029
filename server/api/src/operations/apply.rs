//! `apply`: documents full of definitions become the configuration, all of them or none, with every fault
//! listed by file and line.

use std::path::PathBuf;

use async_trait::async_trait;
use crosstie_config::LocatedFault;
use crosstie_config::document::{self, LocatedDefinition};
use crosstie_model::{Revision, Snapshot};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::change::{Effect, Intent, Step};
use super::check::{Rules, StateFault, Subject, faults_of_change};
use super::draft::Draft;
use super::{OperationError, Operations, Refusal};

/// One YAML document as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The file's name, for the list of faults.
    pub name: String,
    /// The file's text.
    pub content: String,
}

/// What to apply.
#[derive(Debug, Clone)]
pub struct ApplyRequest {
    /// The documents.
    pub documents: Vec<Document>,
    /// Who and what for.
    pub intent: Intent,
    /// Whether everything is only checked.
    pub dry_run: bool,
}

/// What an apply came to.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ApplyOutcome {
    /// The revision that holds it.
    pub revision: Revision,
    /// Whether it was only tried.
    pub dry_run: bool,
    /// What became of each definition, in the documents' order.
    pub definitions: Vec<AppliedDefinition>,
}

/// What became of one definition.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct AppliedDefinition {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What was done.
    pub action: ApplyAction,
}

/// What was (or would be) done with a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApplyAction {
    /// It was not there.
    Created,
    /// It was there and differs.
    Updated,
    /// It was there and is the same.
    Unchanged,
}

impl Operations {
    /// Applies documents: all of them or none.
    ///
    /// # Errors
    /// [`OperationError::Faults`] with every fault.
    pub async fn apply(&self, request: ApplyRequest) -> Result<ApplyOutcome, OperationError> {
        let ApplyRequest { documents, mut intent, dry_run } = request;
        let files: Vec<_> =
            documents.into_iter().map(|document| (PathBuf::from(document.name), document.content)).collect();
        let located = document::parse(&files).map_err(OperationError::Faults)?;
        if intent.message.is_empty() {
            intent.message = match located.as_slice() {
                [only] => format!("Apply {}", only.definition.id),
                several => format!("Apply {} definitions", several.len()),
            };
        }
        let effect = if dry_run { Effect::Try } else { Effect::Make };
        let done = self.change(&intent, effect, Apply { located: &located }).await?;
        Ok(ApplyOutcome { revision: done.revision, dry_run, definitions: done.outcome })
    }
}

struct Apply<'a> {
    located: &'a [LocatedDefinition],
}

#[async_trait]
impl Step for Apply<'_> {
    type Outcome = Vec<AppliedDefinition>;

    async fn draft(
        &mut self,
        operations: &Operations,
        now: &Snapshot,
        draft: &mut Draft,
    ) -> Result<Vec<AppliedDefinition>, OperationError> {
        let (mut applied, mut faults) = (Vec::new(), Vec::new());
        for located in self.located {
            let mut definition = located.definition.clone();
            let of_secrets = operations.take_in_secrets(&mut definition, now, draft).await?;
            faults.extend(of_secrets.into_iter().map(|(pointer, detail)| located.fault(&pointer, detail)));
            let id = definition.id.clone();
            let known = now.definitions.contains_key(&id);
            let action = match (draft.put(definition), known) {
                (false, _) => ApplyAction::Unchanged,
                (true, true) => ApplyAction::Updated,
                (true, false) => ApplyAction::Created,
            };
            applied.push(AppliedDefinition { kind: id.kind.to_string(), name: id.name.to_string(), action });
        }
        // Checked here as well as by whoever stores the draft, as only here the lines are known.
        let rules = Rules::of(&operations.host().settings());
        let (of_documents, others): (Vec<_>, Vec<_>) =
            faults_of_change(now, draft.after(), draft.touched(), &rules)
                .into_iter()
                .map(|fault| locate(self.located, &fault).ok_or(fault))
                .partition(Result::is_ok);
        faults.extend(of_documents.into_iter().flatten());
        if !faults.is_empty() {
            faults.sort();
            faults.dedup();
            return Err(OperationError::Faults(faults));
        }
        let others: Vec<_> = others.into_iter().filter_map(Result::err).collect();
        if others.is_empty() { Ok(applied) } else { Err(OperationError::Refused(Refusal::of_faults(others))) }
    }
}

fn locate(located: &[LocatedDefinition], fault: &StateFault) -> Option<LocatedFault> {
    let Subject::Definition(id) = &fault.subject else { return None };
    let found = located.iter().find(|located| located.definition.id == *id)?;
    Some(found.fault(&fault.pointer, fault.detail.clone()))
}
