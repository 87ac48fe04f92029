//! Metrics: counters and histograms in the server's shared memory, rendered as Prometheus text.
//!
//! The cells belong to the server, not to a worker, so the figures are exact over workers living and dead and
//! any worker can render all of them. A channel's handle finds each of its cells once; from then on a request
//! costs five atomic additions. The number of series is bounded: status codes outside the usual ones share a
//! label per class, and when the table of cells is full, channels that find no room are counted together
//! under the name `_other`.

mod channel;
mod families;
mod outgoing;
mod process;
mod render;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crosstie_model::ports::{CounterCells, GaugeCells};

use crate::access::AccessLog;
use crate::logging::LogGuard;
pub use channel::ChannelMetrics;
pub use families::{CONTENT_TYPE, Family, MetricKind, counters};
pub use outgoing::{CallOutcome, OUTGOING_GAUGES, OutgoingMetrics, UnderWay, outgoing_gauge};
pub use process::ObservedProcess;
pub use render::{Gauge, Sample};

/// Makes handles and renders.
#[derive(Clone)]
pub struct Metrics {
    cells: Arc<dyn CounterCells>,
    other: ChannelMetrics,
}

/// One counter, found once and then only added to. Adding to one that found no cell counts nothing.
#[derive(Debug, Clone, Copy)]
pub struct Counter(Option<&'static AtomicU64>);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        if let Some(cell) = self.0 {
            cell.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl Metrics {
    /// Metrics kept in `cells`.
    #[must_use]
    pub fn new(cells: Arc<dyn CounterCells>) -> Self {
        let other = ChannelMetrics::other(Arc::clone(&cells));
        Self { cells, other }
    }

    /// The handle of a channel that leads to `service`. Make it when a snapshot is built and keep it with the
    /// route.
    #[must_use]
    pub fn channel(&self, channel: &str, service: &str) -> ChannelMetrics {
        ChannelMetrics::new(Arc::clone(&self.cells), channel, service)
    }

    /// The handle of an outgoing; what goes up and down is kept in `gauges`. Make it when the outgoing is
    /// opened and keep it.
    #[must_use]
    pub fn outgoing(
        &self,
        gauges: &Arc<dyn GaugeCells>,
        outgoing: &str,
        type_name: &'static str,
    ) -> OutgoingMetrics {
        OutgoingMetrics::new(Arc::clone(&self.cells), gauges, outgoing, type_name)
    }

    /// The handle for requests that match no channel.
    #[must_use]
    pub fn unmatched(&self) -> ChannelMetrics {
        self.channel("_none", "_none")
    }

    /// The handle that counts for channels the table of cells has no room for.
    #[must_use]
    pub fn other(&self) -> &ChannelMetrics {
        &self.other
    }

    /// A counter of `family` with `labels`, whose values must come from a small, fixed set.
    #[must_use]
    pub fn counter(&self, family: &Family, labels: &[(&str, &str)]) -> Counter {
        Counter(self.cells.cell(&families::key(family.name, labels)))
    }

    /// Counts here what this process's logs had to drop.
    pub fn count_log_drops(&self, log: &LogGuard, access: &AccessLog) {
        log.count_drops_in(self.counter(&counters::LOG_DROPPED, &[("log", "server")]));
        access.count_drops_in(self.counter(&counters::LOG_DROPPED, &[("log", "access")]));
    }

    /// Everything as Prometheus text, version 0.0.4 (send it as [`CONTENT_TYPE`]): the cells, `gauges` that
    /// the caller reads when asked, and figures about `processes` from `/proc`. Costs about a microsecond per
    /// series and some system calls per process; not for a reactor that is short of time.
    #[must_use]
    pub fn render(&self, gauges: &[Gauge], processes: &[ObservedProcess]) -> String {
        render::render(self.cells.read_all(), gauges, processes)
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
pub(crate) mod test_cells;
#[cfg(test)]
mod tests;
