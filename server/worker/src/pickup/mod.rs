//! The pickup directory: a file dropped here is deployed.
//!
//! Runs in the singleton's control thread. The kernel tells of changes (inotify); a scan at start and every
//! half minute after finds what no event told: files that arrived while the server was down, events lost to
//! an overflow. What was handled is remembered in the ODB by path and digest, so a scan never undoes a
//! rollback or an undeploy. One unit is deployed at a time, several units side by side.

mod debounce;
mod layout;
mod memory;
mod read;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crosstie_model::settings::DeploySection;
use crosstie_model::unit::ArtifactKind;
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use self::debounce::{Debounce, Touch};
use self::layout::Candidate;
pub(crate) use self::memory::Memory;
use self::read::Reading;

/// How often the whole directory is compared with what was handled.
const RESCAN: Duration = Duration::from_secs(30);

/// How many units are checked and deployed at once: a check that hangs must not hold up the others.
const PARALLEL: usize = 4;

/// Why a candidate is looked at; decides whether an unchanged one is handled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Somebody wrote it just now.
    Event,
    /// A scan found it.
    Scan,
}

enum Notice {
    Touched(PathBuf, Touch),
    Lost,
}

/// Watches one pickup directory until it is dropped.
pub(crate) struct Pickup {
    directory: PathBuf,
    settings: DeploySection,
    memory: Memory,
}

impl Pickup {
    /// Watches `directory` and deploys what `memory` does not know.
    pub(crate) fn new(directory: PathBuf, settings: DeploySection, memory: Memory) -> Self {
        Self { directory, settings, memory }
    }

    /// Runs until cancelled. Never ends by itself: a watcher that cannot be set up is logged, and the
    /// periodic scan goes on alone.
    pub(crate) async fn run(self) {
        let (notices, mut incoming) = mpsc::unbounded_channel();
        let _watcher = self.watch(notices);
        let this = Arc::new(self);
        let mut debounce = Debounce::new(Duration::from_millis(this.settings.debounce_ms));
        let mut work = Work::new(Arc::clone(&this));
        let mut rescan = tokio::time::interval(RESCAN);
        rescan.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let next = debounce.next().map(tokio::time::Instant::from_std);
            tokio::select! {
                notice = incoming.recv() => match notice {
                    Some(Notice::Touched(path, touch)) => {
                        if let Some(candidate) = this.candidate(&path) {
                            debounce.touch(candidate, touch, Instant::now());
                        }
                    }
                    Some(Notice::Lost) => work.start_all(this.scan(), Cause::Scan),
                    None => return,
                },
                () = sleep_until(next) => work.start_all(debounce.take_due(Instant::now()), Cause::Event),
                _ = rescan.tick() => work.start_all(this.scan(), Cause::Scan),
                Some(unfinished) = work.finished() => {
                    if let Some(candidate) = unfinished {
                        debounce.touch(candidate, Touch::Ongoing, Instant::now());
                    }
                }
            }
        }
    }

    fn watch(&self, notices: mpsc::UnboundedSender<Notice>) -> Option<notify::RecommendedWatcher> {
        let report = move |event: notify::Result<notify::Event>| {
            for notice in translate(event) {
                // The receiver is gone only while the worker stops.
                let _ = notices.send(notice);
            }
        };
        let watcher = notify::recommended_watcher(report).and_then(|mut watcher| {
            watcher.watch(&self.directory, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        watcher
            .inspect_err(|error| {
                tracing::error!(directory = %self.directory.display(), %error,
                    "the pickup directory cannot be watched; it is scanned every 30 s instead");
            })
            .ok()
    }

    fn candidate(&self, path: &Path) -> Option<Candidate> {
        let relative = path.strip_prefix(&self.directory).ok()?;
        layout::candidate(relative, |top| self.directory.join(top).join("__init__.py").is_file())
    }

    fn scan(&self) -> Vec<Candidate> {
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(directory = %self.directory.display(), %error,
                    "the pickup directory cannot be read");
                return Vec::new();
            }
        };
        let found: HashSet<_> = entries.flatten().filter_map(|entry| self.candidate(&entry.path())).collect();
        let mut found: Vec<_> = found.into_iter().collect();
        // The library first: units found in the same scan are then checked with it.
        let is_library = |candidate: &Candidate| candidate.kind == ArtifactKind::PythonLibrary;
        found.sort_by(|a, b| is_library(b).cmp(&is_library(a)).then_with(|| a.path.cmp(&b.path)));
        found
    }

    /// Handles one candidate; gives it back when its writer has not finished.
    async fn handle(&self, candidate: Candidate, cause: Cause) -> Option<Candidate> {
        let (directory, max) = (self.directory.clone(), self.settings.max_artifact_bytes);
        let wanted = candidate.clone();
        let reading = tokio::task::spawn_blocking(move || read::read(&directory, &wanted, max)).await;
        let path = candidate.path.to_string_lossy().into_owned();
        match reading {
            Ok(Reading::Whole(artifact)) => {
                self.memory.deploy(&path, artifact, cause).await;
                None
            }
            Ok(Reading::Refused { digest, reason }) => {
                self.memory.refuse(&path, &candidate, digest, &reason).await;
                None
            }
            Ok(Reading::Unfinished) => Some(candidate),
            Ok(Reading::Gone) => None,
            Err(error) => {
                tracing::error!(path, %error, "reading a pickup file failed");
                None
            }
        }
    }
}

/// Candidates in hand: one task each, never two for one unit.
struct Work {
    pickup: Arc<Pickup>,
    permits: Arc<Semaphore>,
    running: JoinSet<(PathBuf, Option<Candidate>)>,
    busy: HashSet<PathBuf>,
    again: Vec<(Candidate, Cause)>,
}

impl Work {
    fn new(pickup: Arc<Pickup>) -> Self {
        let permits = Arc::new(Semaphore::new(PARALLEL));
        Self { pickup, permits, running: JoinSet::new(), busy: HashSet::new(), again: Vec::new() }
    }

    fn start_all(&mut self, candidates: Vec<Candidate>, cause: Cause) {
        for candidate in candidates {
            self.start(candidate, cause);
        }
    }

    fn start(&mut self, candidate: Candidate, cause: Cause) {
        if !self.busy.insert(candidate.path.clone()) {
            if cause == Cause::Event {
                self.again.retain(|(waiting, _)| *waiting != candidate);
                self.again.push((candidate, cause));
            }
            return;
        }
        let (pickup, permits) = (Arc::clone(&self.pickup), Arc::clone(&self.permits));
        self.running.spawn(async move {
            let path = candidate.path.clone();
            let _permit = permits.acquire_owned().await;
            (path, pickup.handle(candidate, cause).await)
        });
    }

    /// Waits for one task; `Some(Some(candidate))` asks to look at it again later. `None`, never, while
    /// nothing runs.
    async fn finished(&mut self) -> Option<Option<Candidate>> {
        let Some(done) = self.running.join_next().await else { return std::future::pending().await };
        let Ok((path, unfinished)) = done else { return Some(None) };
        self.busy.remove(&path);
        if let Some(index) = self.again.iter().position(|(waiting, _)| waiting.path == path) {
            let (candidate, cause) = self.again.swap_remove(index);
            self.start(candidate, cause);
        }
        Some(unfinished)
    }
}

/// What an inotify event means here. A rename into place is as good as a close.
fn translate(event: notify::Result<notify::Event>) -> Vec<Notice> {
    let Ok(event) = event else { return vec![Notice::Lost] };
    if event.need_rescan() {
        return vec![Notice::Lost];
    }
    let touch = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => Touch::Finished,
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => Touch::Ongoing,
        _ => return Vec::new(),
    };
    let is_both = matches!(event.kind, EventKind::Modify(ModifyKind::Name(RenameMode::Both)));
    event.paths.into_iter().skip(usize::from(is_both)).map(|path| Notice::Touched(path, touch)).collect()
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
