//! The history of the configuration: log, differences and rollback of the server's own files
//! (`config`, a git repository) and of the cluster's definitions and deployments (the ODB, written out to
//! `config/cluster`), and the audit.
//!
//! Each repository has one writer at a time: everybody in the singleton, the worker crate's own writers
//! included, goes through [`Operations::in_config_repository`] or [`Operations::in_cluster_repository`].

use std::path::Path;
use std::sync::Arc;

use crosstie_config::repository::{ClusterRepository, ConfigRepository, LogEntry, RepositoryError, Restored};
use crosstie_config::settings::{self, SETTINGS_FILE};
use crosstie_config::{LocatedFault, user};
use crosstie_model::{Event, Revision};
use crosstie_odb::AuditEntry;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::change::Intent;
use super::{OperationError, Operations, Refusal};
use crate::clock::timestamp;

/// Where the server's own repository lies in its directory.
const CONFIG_DIRECTORY: &str = "config";
/// Where the files of services' own settings lie.
const USER_DIRECTORY: &str = "config/user";
/// Where the cluster's lies.
const CLUSTER_DIRECTORY: &str = "config/cluster";
/// The settings within the server's repository.
const SETTINGS_IN_REPOSITORY: &str = "server.toml";
/// What the newest commit is called.
const HEAD: &str = "HEAD";
/// Most commits that are looked through for one of the cluster's repository.
const MAX_LOG: usize = 1_000_000;

/// Which history is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConfigRepositoryKind {
    /// `server.toml` and its siblings.
    #[default]
    Server,
    /// Definitions and deployments.
    Cluster,
}

/// One accepted change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ConfigCommit {
    /// The commit's hash.
    pub commit: String,
    /// Who.
    pub author: String,
    /// When (RFC 3339).
    pub time: String,
    /// What for.
    pub message: String,
    /// The revision it stands for, in the cluster's history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
}

/// What a rollback did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ConfigRollback {
    /// The new commit of the server's repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The new revision of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// A commit that keeps edits nobody had accepted yet, on a branch of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<String>,
    /// Settings that differ and are read at start only: they wait for a restart.
    pub needs_restart: Vec<String>,
}

/// One row of the audit.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct AuditView {
    /// The revision it made.
    pub revision: Revision,
    /// When (RFC 3339).
    pub time: String,
    /// Who.
    pub author: String,
    /// What for.
    pub message: String,
    /// What changed.
    pub changes: Vec<AuditChangeView>,
}

/// What one change made of one object.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct AuditChangeView {
    /// `KIND/NAME` of a definition, or `deployment/UNIT`.
    pub id: String,
    /// What it was; absent when it was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it became; absent when it was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

impl Operations {
    /// The newest `limit` changes, newest first.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub async fn config_log(
        &self,
        which: ConfigRepositoryKind,
        limit: usize,
    ) -> Result<Vec<ConfigCommit>, OperationError> {
        let entries = match which {
            ConfigRepositoryKind::Server => self.in_config_repository(move |r| r.log(limit)).await?,
            ConfigRepositoryKind::Cluster => self.in_cluster_repository(move |r| r.log(limit)).await?,
        };
        Ok(entries.into_iter().map(commit_view).collect())
    }

    /// What the commit whose hash starts with `commit` changed, as a patch; `HEAD` is the newest.
    ///
    /// # Errors
    /// There is no such commit.
    pub async fn config_diff(
        &self,
        which: ConfigRepositoryKind,
        commit: String,
    ) -> Result<String, OperationError> {
        match which {
            ConfigRepositoryKind::Server => {
                self.in_config_repository(move |r| match (commit.as_str(), r.head()?) {
                    (HEAD, Some(newest)) => r.diff(newest),
                    (named, _) => r.diff(r.find(named)?),
                })
                .await
            }
            ConfigRepositoryKind::Cluster => {
                self.in_cluster_repository(move |r| match (commit.as_str(), r.head()?) {
                    (HEAD, Some(newest)) => r.diff(newest),
                    (named, _) => r.diff(r.find(named)?),
                })
                .await
            }
        }
    }

    /// Which of the two histories holds the commit whose hash starts with `commit`.
    ///
    /// # Errors
    /// Neither does, or both do.
    pub async fn repository_of(&self, commit: &str) -> Result<ConfigRepositoryKind, OperationError> {
        let wanted = commit.to_owned();
        let in_server = self.in_config_repository(move |r| Ok(r.find(&wanted).is_ok())).await?;
        let wanted = commit.to_owned();
        let in_cluster = self.in_cluster_repository(move |r| Ok(r.find(&wanted).is_ok())).await?;
        match (in_server, in_cluster) {
            (true, false) => Ok(ConfigRepositoryKind::Server),
            (false, true) => Ok(ConfigRepositoryKind::Cluster),
            (true, true) => {
                let text = format!("both histories have a commit {commit}: give more of its hash");
                Err(OperationError::Invalid(text))
            }
            (false, false) => Err(OperationError::NotFound(format!(
                "commit {commit}, neither of the server's files nor of the cluster's definitions"
            ))),
        }
    }

    /// Brings the server's own files back to what `commit` held, as a new commit on top, and tells the
    /// workers.
    ///
    /// # Errors
    /// There is no such commit; what it held is not valid today: every fault.
    pub async fn rollback_server_config(
        &self,
        commit: &str,
        author: &str,
    ) -> Result<ConfigRollback, OperationError> {
        let wanted = commit.to_owned();
        let text = self
            .in_config_repository(move |r| {
                r.find(&wanted).and_then(|id| r.file_at(id, SETTINGS_IN_REPOSITORY))
            })
            .await?
            .ok_or_else(|| refused(format!("the commit {commit} has no {SETTINGS_IN_REPOSITORY}")))?;
        let text = String::from_utf8(text)
            .map_err(|_| refused(format!("{SETTINGS_IN_REPOSITORY} of the commit {commit} is not text")))?;
        let new = settings::parse(&text, Path::new(SETTINGS_FILE)).map_err(OperationError::Faults)?;
        let (wanted, author) = (commit.to_owned(), author.to_owned());
        let user_files = self.directory().join(USER_DIRECTORY);
        let restored = self.in_config_repository(move |r| restore(r, &wanted, &author, &user_files)).await?;
        let restored = restored.map_err(|faults| OperationError::Faults(self.below_directory(faults)))?;
        let needs_restart = settings::changed_at_start_only(&self.host().settings(), &new);
        self.host().publish(Event::SettingsChanged);
        Ok(ConfigRollback {
            commit: Some(restored.commit.to_string()),
            revision: None,
            set_aside: restored.set_aside.map(|id| id.to_string()),
            needs_restart,
        })
    }

    /// The same faults with paths as people know them: relative to the server's directory.
    fn below_directory(&self, mut faults: Vec<LocatedFault>) -> Vec<LocatedFault> {
        for fault in &mut faults {
            if let Ok(below) = fault.file.strip_prefix(self.directory()) {
                fault.file = below.to_owned();
            }
        }
        faults
    }

    /// Brings definitions and active deployments back to what they were at the commit `commit` of the
    /// cluster's repository, as a new revision.
    ///
    /// # Errors
    /// As for [`Operations::rollback_to_revision`], or there is no such commit.
    pub async fn rollback_cluster_config(
        &self,
        commit: &str,
        intent: Intent,
    ) -> Result<ConfigRollback, OperationError> {
        let wanted = commit.to_owned();
        let entry = self
            .in_cluster_repository(move |r| {
                let id = r.find(&wanted)?;
                Ok(r.log(MAX_LOG)?.into_iter().find(|entry| entry.id == id))
            })
            .await?;
        let revision = entry.and_then(|entry| entry.revision);
        let revision = revision.ok_or_else(|| OperationError::NotFound(format!("revision of {commit}")))?;
        self.rollback_to_revision(revision, intent).await
    }

    /// The changes after `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The ODB is away.
    pub async fn audit(&self, after: Revision, limit: u32) -> Result<Vec<AuditView>, OperationError> {
        Ok(self.odb().audit(after, limit).await?.into_iter().map(audit_view).collect())
    }

    /// Runs `work` on the server's own repository, alone, on a blocking thread.
    ///
    /// # Errors
    /// What `work` says, or the repository cannot be opened.
    pub async fn in_config_repository<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ConfigRepository) -> Result<T, RepositoryError> + Send + 'static,
    ) -> Result<T, OperationError> {
        let directory = self.directory().join(CONFIG_DIRECTORY);
        self.alone(move || ConfigRepository::open(&directory).and_then(|repository| work(&repository))).await
    }

    /// Runs `work` on the cluster's repository, alone, on a blocking thread.
    ///
    /// # Errors
    /// As for [`Operations::in_config_repository`].
    pub async fn in_cluster_repository<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut ClusterRepository) -> Result<T, RepositoryError> + Send + 'static,
    ) -> Result<T, OperationError> {
        let directory = self.directory().join(CLUSTER_DIRECTORY);
        self.alone(move || {
            ClusterRepository::open(&directory).and_then(|mut repository| work(&mut repository))
        })
        .await
    }

    /// The lock goes along: work whose caller lost interest still ends before the next begins.
    async fn alone<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, RepositoryError> + Send + 'static,
    ) -> Result<T, OperationError> {
        let held = Arc::clone(&self.inner.repository).lock_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(held);
            done
        });
        let done = done.await.map_err(|error| OperationError::Internal(error.to_string()))?;
        done.map_err(|error| match error {
            RepositoryError::NoSuchCommit(_) => OperationError::Invalid(error.to_string()),
            other => OperationError::Repository(Box::new(other)),
        })
    }
}

/// Restores the files of `commit`, and what was there before when the user files among them are not valid:
/// those can only be read where they lie.
fn restore(
    repository: &ConfigRepository,
    commit: &str,
    author: &str,
    user_files: &Path,
) -> Result<Result<Restored, Vec<LocatedFault>>, RepositoryError> {
    let (id, before) = (repository.find(commit)?, repository.head()?);
    let restored = repository.restore(id, author, &format!("Roll back to {}", id.short()))?;
    let Err(faults) = user::load(user_files) else { return Ok(Ok(restored)) };
    if let Some(before) = before {
        let message = format!("Undo the rollback to {}, which is not valid", id.short());
        repository.restore(before, author, &message)?;
    }
    Ok(Err(faults))
}

fn refused(reason: String) -> OperationError {
    OperationError::Refused(Refusal::new(reason))
}

fn commit_view(entry: LogEntry) -> ConfigCommit {
    ConfigCommit {
        commit: entry.id.to_string(),
        author: entry.author,
        time: timestamp(entry.time.unix_timestamp().saturating_mul(1_000_000)),
        message: entry.message,
        revision: entry.revision,
    }
}

fn audit_view(entry: AuditEntry) -> AuditView {
    let changes = entry.changes.into_iter().map(|change| AuditChangeView {
        id: change.id,
        before: change.before,
        after: change.after,
    });
    AuditView {
        revision: entry.revision,
        time: timestamp(entry.time_us),
        author: entry.author,
        message: entry.message,
        changes: changes.collect(),
    }
}
