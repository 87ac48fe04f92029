//! What this server made of the active deployments, kept in the ODB for the other servers' lists. Written
//! only when it changes, never on the way of a request or a deployment.

use std::collections::BTreeMap;
use std::time::Duration;

use crosstie_model::{Digest, UnitName};
use crosstie_odb::ReportState;
use tokio::sync::watch;

use super::{OperationError, Operations};
use crate::host::WorkerPhase;

/// How long reports are gathered before they are written: workers report within milliseconds of each other.
const SETTLE: Duration = Duration::from_millis(200);
/// How long to wait before trying again when the ODB is away.
const RETRY: Duration = Duration::from_secs(2);

type Reports = BTreeMap<UnitName, (Digest, ReportState, String)>;

impl Operations {
    /// A receiver that wakes whenever a worker of this server says what it serves.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<u64> {
        self.serving().watch()
    }

    /// Keeps this server's reports in the ODB up to date; never ends. The singleton runs it beside the
    /// management API and drops it with the role.
    pub async fn keep_reports(&self) {
        let mut changed = self.serving().watch();
        let mut stored: Option<Reports> = None;
        while changed.changed().await.is_ok() {
            tokio::time::sleep(SETTLE).await;
            changed.mark_unchanged();
            while let Err(error) = self.store_reports(&mut stored).await {
                tracing::debug!(%error, "deployment reports wait for the ODB");
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    async fn store_reports(&self, stored: &mut Option<Reports>) -> Result<(), OperationError> {
        let known = match stored {
            Some(known) => known,
            None => stored.insert(self.reports_of_this_server().await?),
        };
        let Some(current) = self.current_reports().await? else { return Ok(()) };
        for (unit, report) in &current {
            if known.get(unit) == Some(report) {
                continue;
            }
            let (digest, state, message) = report;
            self.odb().record_report(self.server().as_str(), unit, digest, *state, message).await?;
            known.insert(unit.clone(), report.clone());
        }
        known.retain(|unit, _| current.contains_key(unit));
        Ok(())
    }

    async fn reports_of_this_server(&self) -> Result<Reports, OperationError> {
        let rows = self.odb().reports().await?;
        let own = rows.into_iter().filter(|row| row.server == self.server().as_str());
        Ok(own.map(|row| (row.unit, (row.digest, row.state, row.message))).collect())
    }

    /// What the workers make of the current revision; `None` while one has not reported it yet: its report
    /// will come and wake the loop again.
    async fn current_reports(&self) -> Result<Option<Reports>, OperationError> {
        let snapshot = self.odb().snapshot().await?;
        let workers = self.serving().workers();
        let ready = self.host().processes().workers.into_iter().filter(|w| w.state == WorkerPhase::Ready);
        let serves: Vec<_> = ready.map(|worker| workers.get(&worker.index).cloned()).collect();
        if serves.is_empty()
            || !serves.iter().all(|s| s.as_ref().is_some_and(|s| s.revision >= snapshot.revision))
        {
            return Ok(None);
        }
        let failed = |unit: &UnitName, digest: Digest| {
            let mut all = serves.iter().flatten().flat_map(|serves| &serves.failed_units);
            all.find(|failed| failed.unit == *unit && failed.digest == digest).map(|f| f.message.clone())
        };
        let reports = snapshot.units.into_iter().map(|(unit, active)| {
            let report = match failed(&unit, active.digest) {
                Some(message) => (active.digest, ReportState::Failed, message),
                None => (active.digest, ReportState::Serving, String::new()),
            };
            (unit, report)
        });
        Ok(Some(reports.collect()))
    }
}
