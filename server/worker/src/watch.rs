//! Tells when files of a directory changed, some quiet time after the last of a burst.
//!
//! For directories that change rarely and are read whole each time: certificates, `server.toml`. The pickup
//! directory has a watcher of its own, as it must know which file changed and whether its writer finished.

use std::path::Path;
use std::time::Duration;

use notify::event::EventKind;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// A burst of events is over when so much time passed without another one.
const QUIET: Duration = Duration::from_millis(150);

/// Without any event the files are looked at this often: an event may be lost, and some file systems send
/// none.
const FALLBACK: Duration = Duration::from_secs(30);

/// A watch on one directory (not what lies below its subdirectories).
pub(crate) struct DirectoryWatch {
    // Stops watching when dropped.
    _watcher: Option<RecommendedWatcher>,
    incoming: mpsc::Receiver<()>,
}

impl DirectoryWatch {
    /// Watches `directory`. A watch that cannot be set up is logged and only the fallback interval is left.
    pub(crate) fn new(directory: &Path) -> Self {
        let (sender, incoming) = mpsc::channel(1);
        let report = move |event: notify::Result<notify::Event>| {
            let reads_only = event.as_ref().is_ok_and(|event| match event.kind {
                EventKind::Access(access) => {
                    !matches!(access, notify::event::AccessKind::Close(notify::event::AccessMode::Write))
                }
                _ => false,
            });
            if !reads_only {
                // A full channel already says that something changed.
                let _ = sender.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(report).and_then(|mut watcher| {
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let watcher = watcher
            .inspect_err(|error| {
                tracing::warn!(directory = %directory.display(), %error,
                    "the directory cannot be watched; it is looked at every 30 s instead");
            })
            .ok();
        Self { _watcher: watcher, incoming }
    }

    /// Waits for a change, or the fallback interval. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        let fallback = Instant::now() + FALLBACK;
        match timeout_at(fallback, self.incoming.recv()).await {
            Err(_) => return,
            // Without a watcher the channel is closed: wait the interval out.
            Ok(None) => return tokio::time::sleep_until(fallback).await,
            Ok(Some(())) => {}
        }
        while let Ok(Some(())) = timeout_at(Instant::now() + QUIET, self.incoming.recv()).await {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_renamed_file_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = DirectoryWatch::new(directory.path());
        std::fs::write(directory.path().join("a.new"), "x").unwrap();
        std::fs::rename(directory.path().join("a.new"), directory.path().join("a")).unwrap();
        tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.unwrap();
    }
}
