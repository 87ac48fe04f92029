//! Writes every revision of the cluster's configuration into the git repository `config/cluster`.
//!
//! A commit is a pure function of its audit row, so all servers hold equal hashes; revisions that were missed
//! are replayed. The repository is for people and for `git`: nothing is read back from it, so its failure
//! is logged and changes nothing else.

use std::sync::Arc;
use std::time::Duration;

use crosstie_api::operations::{OperationError, Operations};
use crosstie_config::document::render_entry;
use crosstie_config::repository::{ClusterCommit, file_path};
use crosstie_model::Revision;
use crosstie_odb::{AuditChange, AuditEntry, Odb};
use tokio::sync::Notify;

/// After how long a failure is tried again although nothing changed.
const RETRY: Duration = Duration::from_secs(5);

/// How many audit rows are replayed at once.
const BATCH: u32 = 200;

/// Follows the audit until cancelled; `wake` says that there may be more.
pub(super) async fn write(operations: Operations, odb: Odb, wake: Arc<Notify>) {
    let mut checked = false;
    loop {
        match catch_up(&operations, &odb, &mut checked).await {
            Ok(0) => wake.notified().await,
            Ok(_) => {}
            Err(error) => {
                tracing::error!(%error, "the cluster's configuration history could not be written");
                // Whether there was news meanwhile, or only time went by.
                let _ = tokio::time::timeout(RETRY, wake.notified()).await;
            }
        }
    }
}

/// Appends the next revisions; gives how many there were. The first call also sees whether the ODB still has
/// the history the repository holds: one restored from a backup may not.
async fn catch_up(operations: &Operations, odb: &Odb, checked: &mut bool) -> Result<usize, OperationError> {
    let head = operations.in_cluster_repository(|repository| repository.head_revision()).await?;
    if !*checked && head > Revision(0) {
        let row = odb.audit(Revision(head.0 - 1), 1).await?.into_iter().next().map(commit);
        operations
            .in_cluster_repository(move |repository| match row {
                Some(row) if row.revision == head && repository.continues(&row)? => Ok(()),
                // The row itself is no longer kept; the next one is, and nothing says that it does not fit.
                Some(row) if row.revision.0 == head.0.saturating_add(1) => Ok(()),
                _ => repository.begin_anew(),
            })
            .await?;
    }
    *checked = true;
    let head = operations.in_cluster_repository(|repository| repository.head_revision()).await?;
    let entries = odb.audit(head, BATCH).await?;
    let count = entries.len();
    if head == Revision(0)
        && let Some(first) = entries.first().filter(|first| first.revision > Revision(1))
    {
        let base = base(odb, first.clone()).await?;
        operations.in_cluster_repository(move |repository| repository.begin_at(&base)).await?;
    }
    if count > 0 {
        let commits = entries.into_iter().map(commit).collect::<Vec<_>>();
        operations
            .in_cluster_repository(move |repository| {
                repository.append(&commits)?;
                repository.pack()
            })
            .await?;
    }
    Ok(count)
}

/// The first commit of a history whose beginning is no longer kept: everything there was at `first`.
async fn base(odb: &Odb, first: AuditEntry) -> Result<ClusterCommit, OperationError> {
    let documents = odb.state_at(first.revision).await?.documents()?;
    let changes =
        documents.into_iter().map(|(id, after)| AuditChange { id, before: None, after: Some(after) });
    Ok(commit(AuditEntry { changes: changes.collect(), ..first }))
}

fn commit(entry: AuditEntry) -> ClusterCommit {
    ClusterCommit {
        revision: entry.revision,
        author: entry.author,
        time_us: entry.time_us,
        message: entry.message,
        files: entry.changes.into_iter().filter(|change| !is_certificate(change)).map(file).collect(),
    }
}

/// A revoked certificate is history and no document: `crosstie apply` has no use for it.
fn is_certificate(change: &AuditChange) -> bool {
    change.id.starts_with("certificate/")
}

/// One file per object: `KIND/NAME.yaml`, with the same document `crosstie apply` takes.
fn file(change: AuditChange) -> (String, Option<String>) {
    let (kind, name) = change.id.split_once('/').unwrap_or(("other", &change.id));
    let content = change.after.as_ref().map(|body| render_entry(kind, name, body));
    (file_path(kind, name), content)
}
