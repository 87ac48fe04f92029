//! Follows the ODB's revision: reads each new snapshot, loads its code, builds its routes, and swaps together
//! with the other workers of the server.
//!
//! Runs on the control thread of every worker. Events say that there is something new; a comparison every two
//! seconds finds what no event told. What is built is staged beside what serves, and takes over at the same
//! instant in all workers once the last of them has it; who takes too long is not waited for. While the ODB is
//! away the worker serves what it has, or at start the last good snapshot from disk, and says that it is
//! degraded.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use crosstie_channels::amqp::AmqpChannels;
use crosstie_channels::ports::{Ports, RouteInputs};
use crosstie_channels::routes::Routes;
use crosstie_channels::staged::Staged;
use crosstie_model::event::{ApplyReport, ClosedChannel, ClosedOutgoing, FailedUnit};
use crosstie_model::limits::REVISION_POLL;
use crosstie_model::ports::LoadError;
use crosstie_model::settings::ServerSettings;
use crosstie_model::snapshot::{ActiveUnit, Snapshot};
use crosstie_model::unit::Artifact;
use crosstie_model::{Event, Revision, UnitName};
use crosstie_odb::Odb;
use crosstie_process::shm::{Agreement, Barrier, Segment, WorkerSlot};
use crosstie_security::{Authenticators, CredentialSource, Revoked};
use crosstie_telemetry::Metrics;
use crosstie_telemetry::metrics::{Counter, counters};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::closed::{closed_channels, summary};
use crate::keep::Keeper;
use crate::last_good::LastGood;
use crate::live::{ArtifactSource, CurrentLive, Live, Loader};
use crate::membership::Membership;
use crate::outbox::Outbox;
use crate::outgoings::Outgoings;

/// How long a snapshot that is ready here waits for workers that have not loaded it. Old and new are then
/// served side by side for as long as those take.
const SWAP_PATIENCE: Duration = Duration::from_secs(1);

/// How often it is looked whether they have. Requests do not wait for this: the snapshot takes over with the
/// write of whichever worker is last.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Where the worker stands, for whoever asks: readiness, status, the singleton.
#[derive(Default)]
pub(crate) struct Standing {
    revision: AtomicU64,
    started: AtomicBool,
    degraded: ArcSwapOption<String>,
    failed: ArcSwap<Vec<FailedUnit>>,
    closed: ArcSwap<Vec<ClosedChannel>>,
    closed_outgoings: ArcSwap<Vec<ClosedOutgoing>>,
    open_outgoings: ArcSwap<Vec<Arc<str>>>,
    /// The server's place in the cluster.
    pub(crate) membership: Membership,
    /// Certificates of components that are worth nothing any more.
    pub(crate) revoked: Revoked,
    wake: Notify,
    announce: AtomicBool,
    retry: AtomicBool,
}

impl Standing {
    /// The revision that is served.
    pub(crate) fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    /// Whether a snapshot is served at all.
    pub(crate) fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// Why the worker does not follow the ODB; `None` while it does.
    pub(crate) fn degraded(&self) -> Option<String> {
        self.degraded.load().as_deref().cloned()
    }

    /// Deployments of the served snapshot that could not be loaded here.
    pub(crate) fn failed_units(&self) -> Arc<Vec<FailedUnit>> {
        self.failed.load_full()
    }

    /// Channels of the served snapshot that nobody can use here.
    pub(crate) fn closed_channels(&self) -> Arc<Vec<ClosedChannel>> {
        self.closed.load_full()
    }

    /// Outgoings of the served snapshot that cannot be used here.
    pub(crate) fn closed_outgoings(&self) -> Arc<Vec<ClosedOutgoing>> {
        self.closed_outgoings.load_full()
    }

    /// The names of the outgoings that can.
    pub(crate) fn open_outgoings(&self) -> Arc<Vec<Arc<str>>> {
        self.open_outgoings.load_full()
    }

    /// Tries again to load what failed: a quarantine was lifted.
    pub(crate) fn retry(&self) {
        self.retry.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Tries again with the next comparison to load what failed: the ODB went away while it was read.
    fn retry_later(&self) {
        self.retry.store(true, Ordering::Release);
    }

    /// Looks at the ODB now. With `announce` the worker also reports when there is nothing new.
    pub(crate) fn look(&self, announce: bool) {
        if announce {
            self.announce.store(true, Ordering::Release);
        }
        self.wake.notify_one();
    }
}

/// What a follower is made of.
pub(crate) struct Follower {
    /// Slot and seat of this worker.
    pub(crate) own: &'static WorkerSlot,
    /// The slot's index.
    pub(crate) slot: u16,
    /// The truth.
    pub(crate) odb: Odb,
    /// The truth as last seen.
    pub(crate) last_good: LastGood,
    /// Loads code.
    pub(crate) loader: Loader,
    /// Connections to other systems.
    pub(crate) outgoings: Outgoings,
    /// What services see.
    pub(crate) current: Arc<CurrentLive>,
    /// What requests see.
    pub(crate) routes: Arc<Staged<Routes>>,
    /// Where workers meet before they swap.
    pub(crate) barrier: Barrier,
    /// Since when others are waited for, over all snapshots that were ready since the last swap.
    pub(crate) waiting: Option<Instant>,
    /// Checks credentials.
    pub(crate) credentials: CredentialSource,
    /// What routes are wired to.
    pub(crate) ports: Ports,
    /// The settings in force.
    pub(crate) settings: Arc<ServerSettings>,
    /// Where reports go.
    pub(crate) outbox: Outbox,
    /// Where the worker stands.
    pub(crate) standing: Arc<Standing>,
    /// What became of snapshots.
    pub(crate) counts: SnapshotCounts,
    /// A revision that could not be served; not tried again until there is another.
    pub(crate) refused: Option<Refused>,
    /// The faults of channels and security definitions that what serves was built without.
    pub(crate) left_out: BTreeSet<String>,
    /// Keeps what is served on disk.
    pub(crate) keeper: Keeper,
    /// Consumes for the channels of brokers.
    pub(crate) amqp: Arc<AmqpChannels>,
    /// Says whether the server is to be drained.
    pub(crate) segment: Arc<Segment>,
    /// The revision last given to the keeper.
    pub(crate) kept: Option<Revision>,
}

/// A snapshot that is not served here.
pub(crate) struct Refused {
    revision: Revision,
    reason: String,
    closed: Vec<ClosedChannel>,
}

/// Routes, with what they leave out.
struct Built {
    routes: Routes,
    left_out: BTreeSet<String>,
    closed: Vec<ClosedChannel>,
}

/// Counts snapshots by what became of them.
pub(crate) struct SnapshotCounts {
    applied: Counter,
    failed: Counter,
}

impl SnapshotCounts {
    /// The server's counters in `metrics`.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let counter = |outcome| metrics.counter(&counters::SNAPSHOTS, &[("outcome", outcome)]);
        Self { applied: counter("applied"), failed: counter("failed") }
    }
}

/// Whether a snapshot with faults is served without the faulty parts or not at all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Faults {
    /// At start there is nothing older that could go on serving.
    LeaveOut,
    /// The previous snapshot goes on serving.
    Refuse,
}

impl Follower {
    /// Serves a first snapshot, says so through `serving`, and follows until cancelled.
    pub(crate) async fn run(mut self, serving: oneshot::Sender<()>) {
        self.start().await;
        // The receiver is gone only while the worker stops.
        let _ = serving.send(());
        let standing = Arc::clone(&self.standing);
        let mut compare = tokio::time::interval(REVISION_POLL);
        compare.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = standing.wake.notified() => {}
                _ = compare.tick() => {}
            }
            self.follow().await;
            self.amqp.pause(self.segment.is_drain_wanted());
        }
    }

    /// A worker that joins others must not be behind them when it begins to accept connections.
    async fn start(&mut self) {
        while !self.standing.is_started() {
            let snapshot = match self.odb.snapshot().await {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    self.degrade(&error.to_string());
                    self.last_good().await
                }
            };
            self.serve(snapshot, Faults::LeaveOut).await;
        }
    }

    async fn last_good(&self) -> Snapshot {
        let last_good = self.last_good.clone();
        match tokio::task::spawn_blocking(move || last_good.load()).await {
            Ok(Ok(found)) => found.unwrap_or_default(),
            Ok(Err(error)) => {
                tracing::error!(%error, "the last good snapshot cannot be used");
                Snapshot::default()
            }
            Err(error) => {
                tracing::error!(%error, "reading the last good snapshot failed");
                Snapshot::default()
            }
        }
    }

    async fn follow(&mut self) {
        let announce = self.standing.announce.swap(false, Ordering::AcqRel);
        let newest = match self.odb.revision().await {
            Ok(revision) => revision,
            Err(error) => return self.degrade(&error.to_string()),
        };
        let served = self.standing.revision();
        let retry =
            self.standing.retry.swap(false, Ordering::AcqRel) && !self.standing.failed_units().is_empty();
        if retry
            || (newest != served && self.refused.as_ref().is_none_or(|refused| refused.revision != newest))
        {
            match self.odb.snapshot().await {
                Ok(snapshot) => self.serve(snapshot, Faults::Refuse).await,
                Err(error) => return self.degrade(&error.to_string()),
            }
        } else if announce {
            self.report_served();
            self.report_refused();
        }
        if self.standing.degraded.swap(None).is_some() {
            tracing::info!("the ODB is back");
        }
        self.keep();
    }

    fn degrade(&self, reason: &str) {
        if self.standing.degraded.swap(Some(Arc::new(reason.to_owned()))).is_none() {
            tracing::warn!(reason, "the ODB is away; the last good snapshot goes on serving");
        }
    }

    /// Loads and builds `snapshot` and swaps, unless another worker has a newer one by then.
    async fn serve(&mut self, snapshot: Snapshot, faults: Faults) {
        let revision = snapshot.revision;
        // Whether the rest can be built or not.
        self.standing.revoked.replace(&snapshot.revoked);
        let (mut live, failed) = {
            let source = Store::new(&self.odb, &self.last_good);
            let loaded = self.loader.load(snapshot, &source).await;
            if source.was_away() {
                self.standing.retry_later();
            }
            loaded
        };
        live.outgoings = self.outgoings.follow(&live.snapshot);
        let (closed_outgoings, open_outgoings) =
            (live.outgoings.closed.clone(), live.outgoings.names.clone());
        match self.build_routes(&live, faults) {
            Ok(Built { routes, left_out, closed }) => {
                let consumed = routes.amqp().to_vec();
                self.current.stage(Arc::new(live), Barrier::mark(revision));
                self.routes.stage(Arc::new(routes), Barrier::mark(revision));
                self.barrier.ready(revision);
                if self.is_overtaken(revision).await {
                    tracing::debug!(revision = revision.0, "another worker has a newer snapshot");
                    return self.standing.look(false);
                }
                self.current.settle();
                self.routes.settle();
                self.amqp.follow(consumed);
                self.waiting = None;
                self.left_out = left_out;
                self.refused = None;
                self.standing.membership.note_refusal(None);
                self.standing.failed.store(Arc::new(failed));
                self.standing.closed.store(Arc::new(closed));
                self.standing.closed_outgoings.store(Arc::new(closed_outgoings));
                self.standing.open_outgoings.store(Arc::new(open_outgoings));
                self.standing.revision.store(revision.0, Ordering::Release);
                self.standing.started.store(true, Ordering::Release);
                self.counts.applied.add(1);
                tracing::info!(revision = revision.0, "serving");
                self.report_served();
            }
            Err((reason, closed)) => {
                tracing::error!(
                    revision = revision.0,
                    reason,
                    "the snapshot was not built; the previous one goes on"
                );
                self.counts.failed.add(1);
                self.standing.membership.note_refusal(Some(format!("revision {revision}: {reason}")));
                self.refused = Some(Refused { revision, reason, closed });
                self.waiting = None;
                // The others need not wait for this one.
                self.barrier.ready(revision);
                self.report_refused();
            }
        }
    }

    /// Waits until the other workers have `revision` ready, and at most until patience ends. Says whether they
    /// are past it instead, so that a newer one must be built before anything is swapped.
    async fn is_overtaken(&mut self, revision: Revision) -> bool {
        let until = *self.waiting.get_or_insert_with(Instant::now) + SWAP_PATIENCE;
        loop {
            match self.barrier.agree(revision) {
                Agreement::InForce => return false,
                Agreement::Overtaken if self.is_outdated(revision).await => return true,
                Agreement::Overtaken | Agreement::Waiting => {}
            }
            if Instant::now() >= until {
                tracing::warn!(revision = revision.0, "swapping without a worker that is not ready");
                self.barrier.go_ahead(revision);
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether the ODB has a newer revision. It has none when it was restored from a copy and others still
    /// serve what came later in the lost one, or when it is away.
    async fn is_outdated(&self, revision: Revision) -> bool {
        self.odb.revision().await.is_ok_and(|newest| newest != revision)
    }

    /// Builds routes, and says what they leave out. What was left out of the routes that serve already does
    /// not stop a change: otherwise one fault, of a setting or of a secret, would forbid every other change.
    ///
    /// # Errors
    /// There are faults that the routes in service do not have: the first of them in one line, and all channels
    /// that they would close.
    fn build_routes(&self, live: &Live, faults: Faults) -> Result<Built, (String, Vec<ClosedChannel>)> {
        let (authenticators, credentials) =
            Authenticators::build_available(&live.snapshot, &self.credentials);
        let inputs = route_inputs(live, &authenticators, &self.settings, self.ports.clone());
        let (routes, channels) = Routes::build_without_faulty(&inputs);
        let found: BTreeSet<String> = credentials
            .iter()
            .map(ToString::to_string)
            .chain(channels.iter().map(ToString::to_string))
            .collect();
        let closed = closed_channels(&live.snapshot, &credentials, &channels);
        let new: Vec<&String> = found.difference(&self.left_out).collect();
        for fault in &new {
            tracing::error!(fault, "a channel does not open");
        }
        if faults == Faults::Refuse && !new.is_empty() {
            return Err((summary(&new), closed));
        }
        Ok(Built { routes, left_out: found, closed })
    }

    fn report_served(&self) {
        let closed = self.standing.closed_channels().as_ref().clone();
        self.report(self.standing.revision(), None, closed);
    }

    fn report_refused(&self) {
        if let Some(Refused { revision, reason, closed }) = &self.refused {
            self.report(*revision, Some(reason.clone()), closed.clone());
        }
    }

    fn report(&self, revision: Revision, error: Option<String>, closed_channels: Vec<ClosedChannel>) {
        self.outbox.event(Event::Applied(ApplyReport {
            worker: self.slot,
            revision,
            serving: error.is_none(),
            error,
            failed_units: self.standing.failed_units().as_ref().clone(),
            closed_channels,
            closed_outgoings: self.standing.closed_outgoings().as_ref().clone(),
        }));
    }

    /// The singleton has what it serves kept on disk, once per revision.
    fn keep(&mut self) {
        let snapshot = &self.current.load().snapshot;
        if self.own.is_singleton() && self.kept != Some(snapshot.revision) {
            self.kept = Some(snapshot.revision);
            self.keeper.keep(Arc::clone(snapshot));
        }
    }
}

/// Code from the disk's copy when it is there and undamaged, else from the ODB.
pub(crate) struct Store<'a> {
    odb: &'a Odb,
    last_good: &'a LastGood,
    away: AtomicBool,
}

impl<'a> Store<'a> {
    /// A store of which nothing was read yet.
    pub(crate) fn new(odb: &'a Odb, last_good: &'a LastGood) -> Self {
        Self { odb, last_good, away: AtomicBool::new(false) }
    }

    /// Whether something could not be read because the ODB was away, and may be there later.
    fn was_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl ArtifactSource for Store<'_> {
    async fn fetch(&self, unit: &UnitName, active: &ActiveUnit) -> Result<Artifact, LoadError> {
        if let Some(artifact) = self.last_good.artifact(unit, active) {
            return Ok(artifact);
        }
        let refuse = |message: String| LoadError { message, detail: String::new() };
        match self.odb.artifact(unit, &active.digest).await {
            Ok(Some(artifact)) => Ok(artifact),
            Ok(None) => Err(refuse(format!("the ODB has no code for {} of {unit}", active.digest.short()))),
            Err(error) => {
                self.away.store(true, Ordering::Relaxed);
                Err(refuse(error.to_string()))
            }
        }
    }
}

/// What routes of `live` are built of.
fn route_inputs<'a>(
    live: &'a Live,
    authenticators: &'a Authenticators,
    settings: &'a ServerSettings,
    ports: Ports,
) -> RouteInputs<'a> {
    RouteInputs {
        snapshot: Arc::clone(&live.snapshot),
        services: live,
        authenticators,
        http: &settings.http,
        metrics_path: &settings.telemetry.metrics_path,
        require_security: settings.security.require_security,
        ports,
    }
}

/// Routes to the server's own pages alone: what is served before the first snapshot.
pub(crate) fn no_routes(settings: &ServerSettings, ports: Ports) -> Routes {
    let live = Live::default();
    let none = Authenticators::default();
    Routes::build_without_faulty(&route_inputs(&live, &none, settings, ports)).0
}
