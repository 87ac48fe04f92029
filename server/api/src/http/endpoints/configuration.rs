//! The history of the configuration.

use crosstie_model::Revision;
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::Role;
use crate::http::call::{Call, Outcome, Wait, json};
use crate::http::problem::Problem;
use crate::http::table::{Answer, Body, Endpoint, Verb, schema_of};
use crate::operations::{AuditView, ConfigCommit, ConfigRepositoryKind, ConfigRollback};

/// How many entries are listed when the caller does not say.
const DEFAULT_LIMIT: u32 = 100;

pub(crate) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Verb::Get,
        path: "/config/log",
        operation: "listConfigCommits",
        summary: "Accepted changes of the server's files or of the cluster's definitions, newest first.",
        role: Some(Role::Viewer),
        query: Some(schema_of::<LogQuery>),
        body: Body::None,
        answer: Answer::Json(schema_of::<Vec<ConfigCommit>>),
        run: |call| Box::pin(log(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/config/diff/{commit}",
        operation: "getConfigDiff",
        summary: "What one commit changed, as a patch; HEAD is the newest.",
        role: Some(Role::Viewer),
        query: Some(schema_of::<WhichRepository>),
        body: Body::None,
        answer: Answer::Json(schema_of::<Patch>),
        run: |call| Box::pin(diff(call)),
    },
    Endpoint {
        method: Verb::Post,
        path: "/config/rollback",
        operation: "rollbackConfig",
        summary: "Brings the server's files, or the cluster's definitions and deployments, back to a commit.",
        role: Some(Role::Admin),
        query: Some(schema_of::<Wait>),
        body: Body::Json(schema_of::<RollbackTo>),
        answer: Answer::Change(schema_of::<ConfigRollback>),
        run: |call| Box::pin(rollback(call)),
    },
    Endpoint {
        method: Verb::Get,
        path: "/audit",
        operation: "listAudit",
        summary: "Who changed what when, oldest first.",
        role: Some(Role::Viewer),
        query: Some(schema_of::<AuditQuery>),
        body: Body::None,
        answer: Answer::Json(schema_of::<Vec<AuditView>>),
        run: |call| Box::pin(audit(call)),
    },
];

/// Which log, and how much of it.
#[derive(Deserialize, JsonSchema)]
struct LogQuery {
    /// Which history; the server's own by default.
    #[serde(default)]
    repository: ConfigRepositoryKind,
    /// How many at most; 100 by default.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10_000))]
    limit: Option<u32>,
}

/// Which history.
#[derive(Deserialize, JsonSchema)]
struct WhichRepository {
    /// Which history; the server's own by default.
    #[serde(default)]
    repository: ConfigRepositoryKind,
}

/// A patch.
#[derive(Serialize, JsonSchema)]
struct Patch {
    /// The commit, as it was asked for.
    commit: String,
    /// What it changed, in unified form.
    diff: String,
}

/// What to roll back, and to where.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RollbackTo {
    /// Which history; for a commit that of the two which holds it, by default.
    #[serde(default)]
    repository: Option<ConfigRepositoryKind>,
    /// The commit.
    #[serde(default)]
    to: Option<String>,
    /// Or the revision, in the cluster's history.
    #[serde(default)]
    revision: Option<Revision>,
}

/// Which part of the audit.
#[derive(Deserialize, JsonSchema)]
struct AuditQuery {
    /// Only changes after this revision.
    #[serde(default)]
    after: u64,
    /// How many at most; 100 by default.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10_000))]
    limit: Option<u32>,
}

async fn log(call: Call) -> Outcome {
    let query: LogQuery = call.query()?;
    let limit = usize::try_from(query.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, 10_000)).unwrap_or(usize::MAX);
    json(StatusCode::OK, &call.operations().config_log(query.repository, limit).await?)
}

async fn diff(call: Call) -> Outcome {
    let WhichRepository { repository } = call.query()?;
    let commit: String = call.path("commit")?;
    let diff = call.operations().config_diff(repository, commit.clone()).await?;
    json(StatusCode::OK, &Patch { commit, diff })
}

async fn rollback(call: Call) -> Outcome {
    let target: RollbackTo = call.json()?;
    let intent = call.intent()?;
    let operations = call.operations();
    let repository = match (target.repository, &target.to) {
        (Some(named), _) => named,
        (None, Some(commit)) if target.revision.is_none() => operations.repository_of(commit).await?,
        (None, _) => ConfigRepositoryKind::Cluster,
    };
    let done = match (repository, target.to, target.revision) {
        (ConfigRepositoryKind::Server, Some(commit), None) => {
            let done = operations.rollback_server_config(&commit, &intent.author).await?;
            return json(StatusCode::OK, &done);
        }
        (ConfigRepositoryKind::Cluster, Some(commit), None) => {
            operations.rollback_cluster_config(&commit, intent).await?
        }
        (ConfigRepositoryKind::Cluster, None, Some(revision)) => {
            operations.rollback_to_revision(revision, intent).await?
        }
        _ => {
            let detail = "name a commit in \"to\", or for the cluster's history a \"revision\" instead";
            return Err(Problem::bad_request(detail));
        }
    };
    call.served(StatusCode::OK, done.revision.unwrap_or_default(), &[], &done).await
}

async fn audit(call: Call) -> Outcome {
    let query: AuditQuery = call.query()?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, 10_000);
    json(StatusCode::OK, &call.operations().audit(Revision(query.after), limit).await?)
}
