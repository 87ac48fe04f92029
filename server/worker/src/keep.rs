//! Keeps on disk what the singleton serves, beside following the ODB: a slow disk must not hold up the next
//! snapshot, which all workers of the server would wait for.

use std::sync::Arc;

use crosstie_model::limits::REVISION_POLL;
use crosstie_model::snapshot::Snapshot;
use crosstie_odb::Odb;
use tokio::sync::watch;

use crate::follow::Store;
use crate::last_good::LastGood;
use crate::live::ArtifactSource as _;

/// Hands snapshots to the task that keeps them. The task ends when this is dropped.
pub(crate) struct Keeper(watch::Sender<Option<Arc<Snapshot>>>);

impl Keeper {
    /// Starts the task on the current runtime's `handle`.
    pub(crate) fn start(odb: Odb, last_good: LastGood, handle: &tokio::runtime::Handle) -> Self {
        let (sender, snapshots) = watch::channel(None);
        handle.spawn(keep_newest(odb, last_good, snapshots));
        Self(sender)
    }

    /// Keeps `snapshot` soon. Of several in quick succession only the last may be kept.
    pub(crate) fn keep(&self, snapshot: Arc<Snapshot>) {
        self.0.send_replace(Some(snapshot));
    }
}

async fn keep_newest(odb: Odb, last_good: LastGood, mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>) {
    while snapshots.changed().await.is_ok() {
        let Some(snapshot) = snapshots.borrow_and_update().clone() else { continue };
        if !is_kept(&odb, &last_good, snapshot).await {
            // Again, with what is newest by then.
            tokio::time::sleep(REVISION_POLL).await;
            snapshots.mark_changed();
        }
    }
}

async fn is_kept(odb: &Odb, last_good: &LastGood, snapshot: Arc<Snapshot>) -> bool {
    let source = Store::new(odb, last_good);
    let mut artifacts = Vec::new();
    for (name, active) in &snapshot.units {
        if last_good.has_artifact(&active.digest) {
            continue;
        }
        match source.fetch(name, active).await {
            Ok(artifact) => artifacts.push(artifact),
            Err(error) => {
                tracing::error!(unit = %name, reason = error.message,
                    "the last good snapshot was not kept: a deployment's code is missing");
                return false;
            }
        }
    }
    let last_good = last_good.clone();
    let saved = tokio::task::spawn_blocking(move || last_good.save(&snapshot, &artifacts)).await;
    match saved {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => tracing::error!(%error, "the last good snapshot could not be kept"),
        Err(error) => tracing::error!(%error, "keeping the last good snapshot failed"),
    }
    false
}
