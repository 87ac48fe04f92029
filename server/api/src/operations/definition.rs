//! Single definitions: looking at them, writing one, removing one.

use std::collections::BTreeMap;

use async_trait::async_trait;
use crosstie_config::document;
use crosstie_model::definition::{DefinitionBody, DefinitionId, DefinitionKind};
use crosstie_model::{Definition, Revision, Snapshot};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::apply::ApplyAction;
use super::change::{Effect, Intent, Step};
use super::check::{StateFault, Subject};
use super::draft::Draft;
use super::{OperationError, Operations, Refusal};

/// A definition as the API shows it. Secrets are references, never values.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct DefinitionView {
    /// Its kind.
    pub kind: DefinitionKind,
    /// Its name.
    pub name: String,
    /// What it says, in its YAML shape.
    pub body: Value,
    /// Whether a service's code declares it: read-only, and left out of exports.
    pub in_code: bool,
    /// What the answering server makes of it, when it is a channel or an outgoing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<DefinitionState>,
    /// What keeps it closed, each thing in one line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// What a server makes of a channel or an outgoing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DefinitionState {
    /// It takes requests, or makes calls.
    Open,
    /// It should and cannot.
    Closed,
    /// Its definition says that it does not.
    Inactive,
    /// Not every worker serves the newest revision yet.
    Pending,
}

impl Operations {
    /// All definitions (of one kind), with the channels that are declared in code, and the revision they
    /// are of.
    ///
    /// # Errors
    /// The ODB is away.
    pub async fn definitions(
        &self,
        kind: Option<DefinitionKind>,
    ) -> Result<(Revision, Vec<DefinitionView>), OperationError> {
        let snapshot = self.odb().snapshot().await?;
        let mut views = views(&snapshot)?;
        views.retain(|view| kind.is_none_or(|kind| view.kind == kind));
        self.tell_closed(&mut views, snapshot.revision);
        Ok((snapshot.revision, views))
    }

    /// Corrects the states of channels and outgoings that do not do what they should.
    fn tell_closed(&self, views: &mut [DefinitionView], revision: Revision) {
        let complete = self.serving().state(revision, self.host()).complete;
        let channels = self.serving().closed_channels(self.host()).into_iter();
        let channels = channels.map(|closed| ((DefinitionKind::Channel, closed.channel), closed.reasons));
        let outgoings = self.serving().closed_outgoings(self.host()).into_iter();
        let outgoings = outgoings.map(|closed| ((DefinitionKind::Outgoing, closed.outgoing), closed.reasons));
        let mut reasons: BTreeMap<_, _> = channels
            .chain(outgoings)
            .map(|((kind, name), reasons)| ((kind, name.to_string()), reasons))
            .collect();
        for view in views.iter_mut().filter(|view| view.state == Some(DefinitionState::Open)) {
            if let Some(reasons) = reasons.remove(&(view.kind, view.name.clone())) {
                (view.state, view.reasons) = (Some(DefinitionState::Closed), reasons);
            } else if !complete {
                view.state = Some(DefinitionState::Pending);
            }
        }
    }

    /// One definition, and the revision it is of.
    ///
    /// # Errors
    /// There is none of that name.
    pub async fn definition(&self, id: &DefinitionId) -> Result<(Revision, DefinitionView), OperationError> {
        let (revision, views) = self.definitions(Some(id.kind)).await?;
        let found = views.into_iter().find(|view| view.name == id.name.as_str());
        found.map(|view| (revision, view)).ok_or_else(|| OperationError::NotFound(id.to_string()))
    }

    /// Writes one definition, as an `apply` of a document with one entry would.
    ///
    /// # Errors
    /// A refusal with every fault of the definition and of what would come of it.
    pub async fn put_definition(
        &self,
        id: DefinitionId,
        body: Value,
        mut intent: Intent,
    ) -> Result<(Revision, ApplyAction), OperationError> {
        let definition = document::check(id.clone(), body).map_err(|faults| {
            let subject = Subject::Definition(id.clone());
            let of =
                |fault: crosstie_model::Fault| StateFault::new(subject.clone(), fault.pointer, fault.detail);
            OperationError::Refused(Refusal::of_faults(faults.into_iter().map(of).collect()))
        })?;
        if intent.message.is_empty() {
            intent.message = format!("Write {id}");
        }
        let done = self.change(&intent, Effect::Make, Put { definition }).await?;
        Ok((done.revision, done.outcome))
    }

    /// Removes one definition.
    ///
    /// # Errors
    /// There is none of that name; it is declared in code; others refer to it.
    pub async fn delete_definition(
        &self,
        id: &DefinitionId,
        mut intent: Intent,
    ) -> Result<Revision, OperationError> {
        if intent.message.is_empty() {
            intent.message = format!("Delete {id}");
        }
        Ok(self.change(&intent, Effect::Make, Delete { id: id.clone() }).await?.revision)
    }
}

fn views(snapshot: &Snapshot) -> Result<Vec<DefinitionView>, OperationError> {
    let unreadable = |error: serde_json::Error| OperationError::Internal(error.to_string());
    let mut views = Vec::new();
    for (id, body) in &snapshot.definitions {
        let state = match body {
            DefinitionBody::Channel(channel) => Some(declared_state(channel.is_active())),
            DefinitionBody::Outgoing(outgoing) => Some(declared_state(outgoing.is_active())),
            _ => None,
        };
        let body = serde_json::to_value(body).map_err(unreadable)?;
        let (kind, name) = (id.kind, id.name.to_string());
        views.push(DefinitionView { kind, name, body, in_code: false, state, reasons: Vec::new() });
    }
    // A declaration that is no channel was refused before it got here; should one be, it is left out.
    for channel in snapshot.effective_channels().unwrap_or_default().into_iter().filter(|c| c.in_code) {
        let body = serde_json::to_value(&channel.definition).map_err(unreadable)?;
        let (kind, name) = (DefinitionKind::Channel, channel.name.to_string());
        let state = Some(declared_state(channel.definition.is_active()));
        views.push(DefinitionView { kind, name, body, in_code: true, state, reasons: Vec::new() });
    }
    views.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    Ok(views)
}

fn declared_state(is_active: bool) -> DefinitionState {
    if is_active { DefinitionState::Open } else { DefinitionState::Inactive }
}

struct Put {
    definition: Definition,
}

#[async_trait]
impl Step for Put {
    type Outcome = ApplyAction;

    async fn draft(
        &mut self,
        operations: &Operations,
        now: &Snapshot,
        draft: &mut Draft,
    ) -> Result<ApplyAction, OperationError> {
        let mut definition = self.definition.clone();
        let faults = operations.take_in_secrets(&mut definition, now, draft).await?;
        if !faults.is_empty() {
            let subject = Subject::Definition(definition.id);
            let of = |(pointer, detail)| StateFault::new(subject.clone(), pointer, detail);
            return Err(OperationError::Refused(Refusal::of_faults(faults.into_iter().map(of).collect())));
        }
        let known = now.definitions.contains_key(&definition.id);
        Ok(match (draft.put(definition), known) {
            (false, _) => ApplyAction::Unchanged,
            (true, true) => ApplyAction::Updated,
            (true, false) => ApplyAction::Created,
        })
    }
}

struct Delete {
    id: DefinitionId,
}

#[async_trait]
impl Step for Delete {
    type Outcome = ();

    async fn draft(
        &mut self,
        _: &Operations,
        now: &Snapshot,
        draft: &mut Draft,
    ) -> Result<(), OperationError> {
        if draft.delete(&self.id) {
            return Ok(());
        }
        let in_code = self.id.kind == DefinitionKind::Channel
            && now
                .effective_channels()
                .is_ok_and(|all| all.iter().any(|channel| channel.name == self.id.name));
        if in_code {
            let reason =
                format!("{} is declared in code; it goes when the code no longer declares it", self.id);
            return Err(OperationError::Refused(Refusal::new(reason)));
        }
        Err(OperationError::NotFound(self.id.to_string()))
    }
}
