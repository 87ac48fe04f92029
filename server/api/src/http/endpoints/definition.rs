//! Definitions: one by one, as documents, as an export.

use crosstie_model::Revision;
use crosstie_model::definition::{DefinitionId, DefinitionKind};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::Role;
use crate::http::call::{Call, Outcome, ShowsStates, Wait, json, tagged, text};
use crate::http::problem::Problem;
use crate::http::table::{Answer, Body, Endpoint, Verb, schema_of};
use crate::operations::{ApplyAction, ApplyOutcome, ApplyRequest, DefinitionView, Document, PingView};

pub(crate) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Verb::Get,
        path: "/definitions",
        operation: "listDefinitions",
        summary: "All definitions, with the channels that code declares.",
        role: Some(Role::Viewer),
        query: Some(schema_of::<OfKind>),
        body: Body::None,
        answer: Answer::Json(schema_of::<Vec<DefinitionView>>),
        run: |call| Box::pin(list(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/definitions/{kind}/{name}",
        operation: "getDefinition",
        summary: "One definition.",
        role: Some(Role::Viewer),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<DefinitionView>),
        run: |call| Box::pin(show(call)),
    },
    Endpoint {
        method: Verb::Put,
        path: "/definitions/{kind}/{name}",
        operation: "putDefinition",
        summary: "Writes one definition; secrets that are left out stay as they are.",
        role: Some(Role::Operator),
        query: Some(schema_of::<Wait>),
        body: Body::Definition,
        answer: Answer::Change(schema_of::<Written>),
        run: |call| Box::pin(put(call)),
    },
    Endpoint {
        method: Verb::Delete,
        path: "/definitions/{kind}/{name}",
        operation: "deleteDefinition",
        summary: "Removes one definition.",
        role: Some(Role::Operator),
        query: Some(schema_of::<Wait>),
        body: Body::None,
        answer: Answer::Change(schema_of::<Deleted>),
        run: |call| Box::pin(delete(call)),
    },
    Endpoint {
        method: Verb::Post,
        path: "/definitions/outgoing/{name}/ping",
        operation: "pingOutgoing",
        summary: "Asks the other end of an outgoing for a sign of life, from the answering server.",
        role: Some(Role::Operator),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<PingView>),
        run: |call| Box::pin(ping(call)),
    },
    Endpoint {
        method: Verb::Post,
        path: "/apply",
        operation: "apply",
        summary: "Applies YAML documents: all definitions in them or none.",
        role: Some(Role::Operator),
        query: Some(schema_of::<Wait>),
        body: Body::Documents(schema_of::<Documents>),
        answer: Answer::Change(schema_of::<ApplyOutcome>),
        run: |call| Box::pin(apply(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/export",
        operation: "export",
        summary: "All explicit definitions as one YAML document that apply takes back.",
        role: Some(Role::Viewer),
        query: Some(schema_of::<OfKind>),
        body: Body::None,
        answer: Answer::Text("application/yaml"),
        run: |call| Box::pin(export(call)),
    },
];

/// Which definitions.
#[derive(Deserialize, JsonSchema)]
struct OfKind {
    /// One kind alone; all when absent.
    #[serde(default)]
    kind: Option<DefinitionKind>,
}

/// What to apply.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Documents {
    /// The documents.
    #[schemars(length(min = 1, max = 10_000))]
    files: Vec<Document>,
    /// Whether everything is only checked.
    #[serde(default)]
    dry_run: bool,
    /// What for, in one line; kept in the audit.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    message: Option<String>,
}

/// A definition that was written.
#[derive(Serialize, JsonSchema)]
struct Written {
    /// Its kind.
    kind: DefinitionKind,
    /// Its name.
    name: String,
    /// What was done.
    action: ApplyAction,
    /// The revision that holds it.
    revision: Revision,
}

/// A definition that was removed.
#[derive(Serialize, JsonSchema)]
struct Deleted {
    /// Its kind.
    kind: DefinitionKind,
    /// Its name.
    name: String,
    /// The revision without it.
    revision: Revision,
}

fn id_of(call: &Call) -> Result<DefinitionId, Problem> {
    Ok(DefinitionId { kind: call.path("kind")?, name: call.path("name")? })
}

async fn list(call: Call) -> Outcome {
    let OfKind { kind } = call.query()?;
    let (revision, views) = call.operations().definitions(kind).await?;
    answer(&views, views.iter().any(|view| view.state.is_some()), revision)
}

async fn show(call: Call) -> Outcome {
    let (revision, view) = call.operations().definition(&id_of(&call)?).await?;
    answer(&view, view.state.is_some(), revision)
}

fn answer<T: Serialize>(value: &T, shows_states: bool, revision: Revision) -> Outcome {
    let mut answer = tagged(json(StatusCode::OK, value)?, revision);
    if shows_states {
        answer.extensions_mut().insert(ShowsStates);
    }
    Ok(answer)
}

async fn put(call: Call) -> Outcome {
    let id = id_of(&call)?;
    let body = call.json()?;
    let (revision, action) = call.operations().put_definition(id.clone(), body, call.intent()?).await?;
    let done = if action == ApplyAction::Created { StatusCode::CREATED } else { StatusCode::OK };
    let written = Written { kind: id.kind, name: id.name.to_string(), action, revision };
    call.served(done, revision, &[], &written).await
}

async fn delete(call: Call) -> Outcome {
    let id = id_of(&call)?;
    let revision = call.operations().delete_definition(&id, call.intent()?).await?;
    let deleted = Deleted { kind: id.kind, name: id.name.to_string(), revision };
    call.served(StatusCode::OK, revision, &[], &deleted).await
}

async fn ping(call: Call) -> Outcome {
    json(StatusCode::OK, &call.operations().ping(&call.path("name")?, call.trace).await?)
}

async fn apply(call: Call) -> Outcome {
    let Documents { files, dry_run, message } = call.json()?;
    let mut intent = call.intent()?;
    intent.message = message.unwrap_or_default();
    let outcome = call.operations().apply(ApplyRequest { documents: files, intent, dry_run }).await?;
    if dry_run {
        return json(StatusCode::OK, &outcome);
    }
    call.served(StatusCode::OK, outcome.revision, &[], &outcome).await
}

async fn export(call: Call) -> Outcome {
    let OfKind { kind } = call.query()?;
    let (revision, document) = call.operations().export(kind).await?;
    Ok(tagged(text(StatusCode::OK, "application/yaml", document), revision))
}
