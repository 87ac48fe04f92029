//! `apply`: documents full of definitions become the configuration, all of them or none, with every fault
//! listed by file and line.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use crosstie_config::LocatedFault;
use crosstie_config::document::{self, Parsed};
use crosstie_model::{Revision, Snapshot};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::change::{Effect, Intent, Step};
use super::check::{Rules, StateFault, Subject, faults_of_change, unknown_definition, unknown_service};
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
    /// [`OperationError::Faults`] with every fault of every stage: form, secrets, references, clashes.
    pub async fn apply(&self, request: ApplyRequest) -> Result<ApplyOutcome, OperationError> {
        let ApplyRequest { documents, mut intent, dry_run } = request;
        let files: Vec<_> =
            documents.into_iter().map(|document| (PathBuf::from(document.name), document.content)).collect();
        let parsed = document::parse(&files);
        if intent.message.is_empty() {
            intent.message = match parsed.definitions.as_slice() {
                [only] => format!("Apply {}", only.definition.id),
                several => format!("Apply {} definitions", several.len()),
            };
        }
        let effect = if dry_run { Effect::Try } else { Effect::Make };
        match self.change(&intent, effect, Apply { parsed: &parsed }).await {
            Ok(done) => Ok(ApplyOutcome { revision: done.revision, dry_run, definitions: done.outcome }),
            // Whatever keeps the rest from being checked, these are there to be mended.
            Err(error) if !parsed.faults.is_empty() && !matches!(error, OperationError::Faults(_)) => {
                Err(OperationError::Faults(parsed.faults))
            }
            Err(error) => Err(error),
        }
    }
}

struct Apply<'a> {
    parsed: &'a Parsed,
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
        let mut applied = Vec::new();
        let mut faults = self.parsed.faults.clone();
        for located in &self.parsed.definitions {
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
        presume_faulty(self.parsed, draft);
        faults.extend(needs_of_faulty(self.parsed, draft.after()));
        // Checked here as well as by whoever stores the draft, as only here the lines are known.
        let rules = Rules::of(&operations.host().settings());
        let (of_documents, others): (Vec<_>, Vec<_>) =
            faults_of_change(now, draft.after(), draft.touched(), &rules)
                .into_iter()
                .map(|fault| locate(self.parsed, &fault).ok_or(fault))
                .partition(Result::is_ok);
        faults.extend(of_documents.into_iter().flatten());
        document::arrange(&mut faults);
        let others: Vec<_> = others.into_iter().filter_map(Result::err).collect();
        if faults.is_empty() && others.is_empty() {
            return Ok(applied);
        }
        if faults.is_empty() {
            return Err(OperationError::Refused(Refusal::of_faults(others)));
        }
        // What else the documents would break stands in none of them; it comes last.
        faults.extend(others.into_iter().map(elsewhere));
        Err(OperationError::Faults(faults))
    }
}

/// Lets the faulty definitions count as there, and all that sound ones refer to when it may stand where
/// nothing could be read: what comes of a fault is no other fault.
fn presume_faulty(parsed: &Parsed, draft: &mut Draft) {
    for faulty in &parsed.faulty {
        draft.presume(&faulty.id);
    }
    if parsed.complete {
        return;
    }
    let of_sound = parsed.definitions.iter().flat_map(|located| located.definition.references());
    for (_, needed) in of_sound.chain(parsed.faulty.iter().flat_map(|faulty| faulty.references())) {
        if !draft.after().definitions.contains_key(&needed) {
            draft.presume(&needed);
        }
    }
}

/// References of faulty definitions that lead nowhere.
fn needs_of_faulty(parsed: &Parsed, after: &Snapshot) -> Vec<LocatedFault> {
    let mut faults = Vec::new();
    for faulty in &parsed.faulty {
        for (pointer, needed) in faulty.references() {
            if !after.definitions.contains_key(&needed) {
                faults.push(faulty.fault(&pointer, unknown_definition(&needed)));
            }
        }
        for (pointer, service) in faulty.services() {
            if after.owner(service.as_str()).is_none() {
                faults.push(faulty.fault(&pointer, unknown_service(&service)));
            }
        }
    }
    faults
}

fn locate(parsed: &Parsed, fault: &StateFault) -> Option<LocatedFault> {
    let Subject::Definition(id) = &fault.subject else { return None };
    let sound = parsed.definitions.iter().find(|located| located.definition.id == *id);
    match sound {
        Some(located) => Some(located.fault(&fault.pointer, fault.detail.clone())),
        None => {
            let faulty = parsed.faulty.iter().find(|faulty| faulty.id == *id)?;
            Some(faulty.fault(&fault.pointer, fault.detail.clone()))
        }
    }
}

fn elsewhere(fault: StateFault) -> LocatedFault {
    LocatedFault::new(Path::new(""), 0, format!("{}{}", fault.subject, fault.pointer), fault.detail)
}
