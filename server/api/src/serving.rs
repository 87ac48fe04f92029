//! Which worker of this server serves which revision, from the workers' own reports.
//!
//! Fed by the singleton with every [`ApplyReport`]; asked by operations that wait until a change is live
//! everywhere, and by the list of deployments. Kept in memory only: a new singleton starts empty and
//! publishes the current revision, whereupon every worker reports again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crosstie_model::definition::DefinitionName;
use crosstie_model::event::{ApplyReport, ClosedChannel, ClosedOutgoing, FailedUnit};
use crosstie_model::{Revision, UnitName};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::host::{Host, WorkerPhase};

/// How often the workers' phases are looked at while nothing is reported: a worker that died meanwhile is
/// no longer waited for.
const LOOK: Duration = Duration::from_millis(100);

/// What one worker serves, as far as it said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerServes {
    /// The newest revision it serves.
    pub revision: Revision,
    /// The revision it could not apply and why, when that is newer.
    pub refused: Option<(Revision, String)>,
    /// Deployments of its revision that it could not load.
    pub failed_units: Vec<FailedUnit>,
    /// Channels of its revision that it keeps closed.
    pub closed_channels: Vec<ClosedChannel>,
    /// Channels that the revision it could not apply would close.
    pub refused_channels: Vec<ClosedChannel>,
    /// Outgoings of its revision that it cannot open.
    pub closed_outgoings: Vec<ClosedOutgoing>,
}

/// The reports of this server's workers.
#[derive(Debug)]
pub struct Serving {
    workers: Mutex<BTreeMap<u16, WorkerServes>>,
    changed: watch::Sender<u64>,
}

/// Whether all workers of this server serve a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ServingState {
    /// The revision asked for.
    pub revision: u64,
    /// Whether every ready worker serves it or a newer one (units it could not load are among `failures`).
    pub complete: bool,
    /// Workers that serve it (or a newer one).
    pub serving: Vec<u16>,
    /// Workers that do not serve it yet.
    pub pending: Vec<u16>,
    /// What went wrong where.
    pub failures: Vec<ServingFailure>,
}

/// What one worker could not do with a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ServingFailure {
    /// The worker's index.
    pub worker: u16,
    /// The unit it could not load; absent when the whole revision could not be applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitName>,
    /// Why, in one line.
    pub message: String,
    /// The channels that it would close; empty when it is not about channels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub closed_channels: Vec<ClosedChannel>,
}

impl Default for Serving {
    fn default() -> Self {
        Self { workers: Mutex::new(BTreeMap::new()), changed: watch::Sender::new(0) }
    }
}

impl Serving {
    /// Takes note of one report.
    pub fn record(&self, report: ApplyReport) {
        {
            let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = workers.entry(report.worker).or_default();
            if report.serving {
                // Not the larger of the two: a replaced worker may start from an older snapshot.
                *entry = WorkerServes {
                    revision: report.revision,
                    refused: None,
                    failed_units: report.failed_units,
                    closed_channels: report.closed_channels,
                    refused_channels: Vec::new(),
                    closed_outgoings: report.closed_outgoings,
                };
            } else {
                let why = report.error.unwrap_or_else(|| "it gave no reason".to_owned());
                entry.refused = Some((report.revision, why));
                entry.refused_channels = report.closed_channels;
            }
        }
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// What the workers serve now, by index.
    #[must_use]
    pub fn workers(&self) -> BTreeMap<u16, WorkerServes> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The channels that ready workers keep closed, or that would be closed with a revision they could not
    /// apply, with all reasons any of them gave.
    #[must_use]
    pub fn closed_channels(&self, host: &dyn Host) -> Vec<ClosedChannel> {
        let all = self
            .of_ready(host)
            .into_iter()
            .flat_map(|(_, serves)| serves.closed_channels.into_iter().chain(serves.refused_channels));
        together(all.map(|closed| (closed.channel, closed.reasons)))
            .map(|(channel, reasons)| ClosedChannel { channel, reasons })
            .collect()
    }

    /// The outgoings that ready workers cannot open, with all reasons any of them gave.
    #[must_use]
    pub fn closed_outgoings(&self, host: &dyn Host) -> Vec<ClosedOutgoing> {
        let all = self.of_ready(host).into_iter().flat_map(|(_, serves)| serves.closed_outgoings);
        together(all.map(|closed| (closed.outgoing, closed.reasons)))
            .map(|(outgoing, reasons)| ClosedOutgoing { outgoing, reasons })
            .collect()
    }

    /// What each worker serves that is ready now.
    fn of_ready(&self, host: &dyn Host) -> Vec<(u16, WorkerServes)> {
        let mut known = self.workers();
        let ready = host.processes().workers.into_iter().filter(|worker| worker.state == WorkerPhase::Ready);
        ready.map(|worker| (worker.index, known.remove(&worker.index).unwrap_or_default())).collect()
    }

    /// A receiver that wakes with every report.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Where `revision` stands with the workers that are ready now.
    #[must_use]
    pub fn state(&self, revision: Revision, host: &dyn Host) -> ServingState {
        let mut state = ServingState {
            revision: revision.0,
            complete: false,
            serving: Vec::new(),
            pending: Vec::new(),
            failures: Vec::new(),
        };
        for (worker, serves) in self.of_ready(host) {
            if serves.revision >= revision {
                state.serving.push(worker);
                state.failures.extend(serves.failed_units.into_iter().map(|failed| ServingFailure {
                    worker,
                    unit: Some(failed.unit),
                    message: failed.message,
                    closed_channels: Vec::new(),
                }));
                continue;
            }
            state.pending.push(worker);
            if let Some((refused, message)) = serves.refused
                && refused >= revision
            {
                let closed_channels = serves.refused_channels;
                state.failures.push(ServingFailure { worker, unit: None, message, closed_channels });
            }
        }
        state.complete = state.pending.is_empty() && !state.serving.is_empty();
        state
    }

    /// Waits until every ready worker has served or refused `revision`, at most until `deadline`; gives
    /// where it stands then.
    pub async fn wait(&self, revision: Revision, host: &dyn Host, deadline: Instant) -> ServingState {
        let mut changed = self.watch();
        loop {
            changed.mark_unchanged();
            let state = self.state(revision, host);
            let refused = state.failures.iter().filter(|failure| failure.unit.is_none()).count();
            let undecided = state.pending.len() > refused || state.serving.is_empty() && refused == 0;
            let now = Instant::now();
            if !undecided || now >= deadline {
                return state;
            }
            // Elapsed only means that it is time to look again.
            let _ = tokio::time::timeout_at(deadline.min(now + LOOK), changed.changed()).await;
        }
    }
}

/// Reasons by name, each once.
fn together(
    closed: impl Iterator<Item = (DefinitionName, Vec<String>)>,
) -> impl Iterator<Item = (DefinitionName, Vec<String>)> {
    let mut found: BTreeMap<DefinitionName, Vec<String>> = BTreeMap::new();
    for (name, reasons) in closed {
        let known = found.entry(name).or_default();
        for reason in reasons {
            if !known.contains(&reason) {
                known.push(reason);
            }
        }
    }
    found.into_iter()
}
