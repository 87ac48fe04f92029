//! The server itself: status, metrics, revisions, who the caller is, this API's document.

use std::time::Duration;

use crosstie_model::Revision;
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::{Caller, Role};
use crate::http::call::{Call, Outcome, json, tagged, text};
use crate::http::table::{Answer, Body, Endpoint, Verb, schema_of};
use crate::operations::ServerStatus;
use crate::serving::ServingState;

pub(crate) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Verb::Get,
        path: "/openapi.json",
        operation: "getOpenApi",
        summary: "This document.",
        role: None,
        query: None,
        body: Body::None,
        answer: Answer::Text("application/json"),
        run: |call| Box::pin(document(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/status",
        operation: "getStatus",
        summary: "How the answering server is; works while the ODB is away.",
        role: Some(Role::Viewer),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<ServerStatus>),
        run: |call| Box::pin(status(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/metrics",
        operation: "getMetrics",
        summary: "All metrics of the answering server, and when components' certificates end, in Prometheus text form.",
        role: Some(Role::Viewer),
        query: None,
        body: Body::None,
        answer: Answer::Text("text/plain; version=0.0.4; charset=utf-8"),
        run: |call| Box::pin(metrics(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/me",
        operation: "getCaller",
        summary: "Who the caller is and what the caller may do.",
        role: Some(Role::Viewer),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<Caller>),
        run: |call| Box::pin(me(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/revision",
        operation: "getRevision",
        summary: "The current revision of the configuration.",
        role: Some(Role::Viewer),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<CurrentRevision>),
        run: |call| Box::pin(revision(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/revisions/{revision}/serving",
        operation: "waitForRevision",
        summary: "Waits until all workers of the answering server serve a revision, and says where it stands.",
        role: Some(Role::Viewer),
        query: Some(schema_of::<Patience>),
        body: Body::None,
        answer: Answer::Json(schema_of::<ServingState>),
        run: |call| Box::pin(serving(call)),
    },
];

/// The current revision.
#[derive(Serialize, JsonSchema)]
struct CurrentRevision {
    /// Its number.
    revision: Revision,
}

/// How long to wait.
#[derive(Deserialize, JsonSchema)]
struct Patience {
    /// How long to wait at most, in milliseconds; not at all by default.
    #[serde(default)]
    #[schemars(range(max = 60_000))]
    timeout_ms: u64,
}

async fn document(call: Call) -> Outcome {
    Ok(text(StatusCode::OK, "application/json", call.api.document.clone()))
}

async fn status(call: Call) -> Outcome {
    json(StatusCode::OK, &call.operations().status().await)
}

async fn metrics(call: Call) -> Outcome {
    let mut metrics = call.operations().host().metrics();
    metrics.push_str(&call.operations().certificate_metrics().await);
    Ok(text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics))
}

async fn me(call: Call) -> Outcome {
    json(StatusCode::OK, call.caller()?)
}

async fn revision(call: Call) -> Outcome {
    let revision = call.operations().revision().await?;
    json(StatusCode::OK, &CurrentRevision { revision }).map(|answer| tagged(answer, revision))
}

async fn serving(call: Call) -> Outcome {
    let revision = Revision(call.path("revision")?);
    let patience: Patience = call.query()?;
    let timeout = Duration::from_millis(patience.timeout_ms.min(60_000));
    json(StatusCode::OK, &call.operations().wait_until_served(revision, timeout).await)
}
