//! Deployments: uploading, looking, rolling back, taking away.

use crosstie_model::UnitName;
use crosstie_model::unit::ArtifactKind;
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::Role;
use crate::http::call::{Call, Outcome, Wait, json, text};
use crate::http::problem::Problem;
use crate::http::table::{Answer, Body, Endpoint, Verb, schema_of};
use crate::http::upload;
use crate::operations::{
    AttemptView, DeployOutcome, DeployRequest, DeploySource, DeploymentView, VersionView,
};

/// How many attempts are listed when the caller does not say.
const DEFAULT_ATTEMPTS: u32 = 100;

pub(crate) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Verb::Get,
        path: "/deployments",
        operation: "listDeployments",
        summary: "Every unit: its active deployment, where that is live, and why a newer one was refused.",
        role: Some(Role::Viewer),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<Vec<DeploymentView>>),
        run: |call| Box::pin(list(call)),
    },
    Endpoint {
        method: Verb::Post,
        path: "/deployments",
        operation: "deploy",
        summary: "Checks an artifact in a scratch process and makes it its unit's active deployment.",
        role: Some(Role::Operator),
        query: Some(schema_of::<Upload>),
        body: Body::Artifact,
        answer: Answer::Created(schema_of::<DeployOutcome>),
        run: |call| Box::pin(deploy(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/deployments/{unit}",
        operation: "getDeployment",
        summary: "One unit.",
        role: Some(Role::Viewer),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<DeploymentView>),
        run: |call| Box::pin(show(call)),
    },
    Endpoint {
        method: Verb::Delete,
        path: "/deployments/{unit}",
        operation: "undeploy",
        summary: "Takes a unit out of service; its deployments are kept for a rollback.",
        role: Some(Role::Operator),
        query: Some(schema_of::<Wait>),
        body: Body::None,
        answer: Answer::Change(schema_of::<Undeployed>),
        run: |call| Box::pin(undeploy(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/deployments/{unit}/history",
        operation: "listVersions",
        summary: "The kept versions of a unit, the one stored or activated last first.",
        role: Some(Role::Viewer),
        query: None,
        body: Body::None,
        answer: Answer::Json(schema_of::<Vec<VersionView>>),
        run: |call| Box::pin(history(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/deployments/{unit}/versions/{digest}/artifact",
        operation: "getArtifact",
        summary: "The bytes of one version; the first digits of its digest suffice.",
        role: Some(Role::Viewer),
        query: None,
        body: Body::None,
        answer: Answer::Text("application/octet-stream"),
        run: |call| Box::pin(artifact(call)),
    },
    Endpoint {
        method: Verb::Post,
        path: "/deployments/{unit}/rollback",
        operation: "rollbackDeployment",
        summary: "Re-activates an earlier version: the one that was active before, or the one named.",
        role: Some(Role::Operator),
        query: Some(schema_of::<Wait>),
        body: Body::Json(schema_of::<RollbackTo>),
        answer: Answer::Change(schema_of::<DeployOutcome>),
        run: |call| Box::pin(rollback(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/attempts",
        operation: "listAttempts",
        summary: "The newest attempts to deploy anything, refused ones with the reason.",
        role: Some(Role::Viewer),
        query: Some(schema_of::<Limit>),
        body: Body::None,
        answer: Answer::Json(schema_of::<Vec<AttemptView>>),
        run: |call| Box::pin(attempts(call)),
    },
];

/// What is uploaded. Also takes `wait_ms`.
#[derive(Deserialize, JsonSchema)]
struct Upload {
    /// The unit; by default the uploaded file's name without its extension.
    #[serde(default)]
    unit: Option<UnitName>,
    /// What the artifact is; by default what its content looks like.
    #[serde(default)]
    kind: Option<ArtifactKind>,
    /// Whether the artifact is only checked; answered with 200 and what was found.
    #[serde(default)]
    check: bool,
    /// How long to wait until all workers of the server serve the deployment, in milliseconds; 10,000 by
    /// default, 60,000 at most.
    #[serde(default)]
    #[expect(dead_code, reason = "declared here for the document; read as part of every change")]
    #[schemars(range(max = 60_000))]
    wait_ms: Option<u64>,
}

/// What to roll back to.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RollbackTo {
    /// The first digits of a version's digest; the version that was active before when absent.
    #[serde(default)]
    to: Option<String>,
}

/// A unit that was taken out of service.
#[derive(Serialize, JsonSchema)]
struct Undeployed {
    /// The unit.
    unit: UnitName,
    /// The revision without it.
    revision: crosstie_model::Revision,
}

/// How many are listed.
#[derive(Deserialize, JsonSchema)]
struct Limit {
    /// How many at most; 100 by default.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

async fn list(call: Call) -> Outcome {
    json(StatusCode::OK, &call.operations().deployments().await?)
}

async fn show(call: Call) -> Outcome {
    json(StatusCode::OK, &call.operations().deployment(&call.path("unit")?).await?)
}

async fn history(call: Call) -> Outcome {
    json(StatusCode::OK, &call.operations().history(&call.path("unit")?).await?)
}

async fn attempts(call: Call) -> Outcome {
    let query: Limit = call.query()?;
    let limit = query.limit.unwrap_or(DEFAULT_ATTEMPTS).clamp(1, 1000);
    json(StatusCode::OK, &call.operations().attempts(limit).await?)
}

async fn artifact(call: Call) -> Outcome {
    let digest: String = call.path("digest")?;
    let (artifact, _) = call.operations().artifact(&call.path("unit")?, &digest).await?;
    Ok(text(StatusCode::OK, "application/octet-stream", artifact.content))
}

async fn deploy(call: Call) -> Outcome {
    let query: Upload = call.query()?;
    let uploaded = upload::read(&call.headers, call.body.clone()).await?;
    let artifact = uploaded.into_artifact(query.unit, query.kind)?;
    if query.check {
        return json(StatusCode::OK, &call.operations().check_artifact(artifact).await?);
    }
    let intent = call.intent()?;
    let source = DeploySource::Api { author: intent.author };
    let request = DeployRequest { artifact, source, expected: intent.expected };
    let outcome = call.operations().deploy(request).await?;
    let done = if outcome.changed { StatusCode::CREATED } else { StatusCode::OK };
    served(&call, done, &outcome).await
}

async fn rollback(call: Call) -> Outcome {
    let RollbackTo { to } = call.json()?;
    let unit = call.path("unit")?;
    let outcome = call.operations().rollback(&unit, to.as_deref(), call.intent()?).await?;
    served(&call, StatusCode::OK, &outcome).await
}

async fn served(call: &Call, done: StatusCode, outcome: &DeployOutcome) -> Outcome {
    let units: Vec<_> = outcome.redeployed.iter().chain([&outcome.unit]).collect();
    call.served(done, outcome.revision, &units, outcome).await
}

async fn undeploy(call: Call) -> Outcome {
    let unit: UnitName = call.path("unit")?;
    let revision = call.operations().undeploy(&unit, call.intent()?).await.map_err(Problem::from)?;
    call.served(StatusCode::OK, revision, &[], &Undeployed { unit, revision }).await
}
