//! Deletes kept messages that are too old, also when no new ones come that would make room for themselves.

use std::path::PathBuf;
use std::time::Duration;

use crosstie_telemetry::messages::{Limits, prune};

/// How often it is looked whether there are any.
const INTERVAL: Duration = Duration::from_secs(60);

/// Looks at the segments in `directory` now and then, until cancelled.
pub(super) async fn age(directory: PathBuf, limits: Limits) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        let directory = directory.clone();
        let pruned = tokio::task::spawn_blocking(move || prune(&directory, limits)).await;
        if let Ok(Err(error)) = pruned {
            tracing::warn!(%error, "old segments of the message log cannot be deleted");
        }
    }
}
