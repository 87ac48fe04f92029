//! What the channels need of shared memory: this worker's share of the connections, and concurrency limits.

use std::sync::{Arc, Mutex, PoisonError};

use crosstie_channels::ports::{ConcurrencyCells, ConcurrencyGauge, ConnectionShare};
use crosstie_model::ports::{GaugeCell, GaugeCells};
use crosstie_process::shm::{Gauge, Permit, Segment, WorkerSlot};

/// This worker's share of its server's connections.
///
/// The kernel wakes whoever it likes when several workers wait on one socket; left alone, one of them can end
/// up with everything. A worker therefore stops accepting while one more would exceed 1.125 × its share: with
/// two workers and 1.25 the worst case would be 62 % against 38 %, more than the 1.5 the figures allow.
pub(crate) struct Share {
    segment: Arc<Segment>,
    own: &'static WorkerSlot,
}

impl Share {
    /// The share of the worker in slot `own`.
    pub(crate) fn new(segment: Arc<Segment>, own: &'static WorkerSlot) -> Self {
        Self { segment, own }
    }
}

impl ConnectionShare for Share {
    fn opened(&self) {
        self.own.connection_opened();
    }

    fn closed(&self) {
        self.own.connection_closed();
    }

    fn request_started(&self) {
        self.own.request_started();
    }

    fn request_ended(&self) {
        self.own.request_finished();
    }

    fn may_accept(&self) -> bool {
        let load = self.segment.serving_load();
        let own = u64::from(self.own.connections.load(std::sync::atomic::Ordering::Relaxed));
        within_share(own, load.connections, load.workers)
    }
}

/// Whether a worker that holds `own` of `total` connections of `workers` workers may take one more: it then
/// has at most 1.125 × its share, rounded up.
fn within_share(own: u64, total: u64, workers: u64) -> bool {
    workers < 2 || own < (9 * (total + 1)).div_ceil(8 * workers)
}

/// Concurrency limits over all workers of the server.
pub(crate) struct SharedConcurrency {
    segment: Arc<Segment>,
    slot: u16,
}

impl SharedConcurrency {
    /// Limits that count for the worker in `slot`.
    pub(crate) fn new(segment: Arc<Segment>, slot: u16) -> Self {
        Self { segment, slot }
    }
}

impl ConcurrencyCells for SharedConcurrency {
    fn gauge(&self, key: &str) -> Option<Arc<dyn ConcurrencyGauge>> {
        Some(Arc::new(SharedGauge { gauge: self.segment.gauge(self.slot, key), held: Mutex::default() }))
    }
}

/// Figures that go up and down, over all workers of the server.
pub(crate) struct SharedGauges {
    segment: Arc<Segment>,
    slot: u16,
}

impl SharedGauges {
    /// Figures to which the worker in `slot` adds its own.
    pub(crate) fn new(segment: Arc<Segment>, slot: u16) -> Self {
        Self { segment, slot }
    }
}

impl GaugeCells for SharedGauges {
    fn gauge(&self, key: &str) -> Arc<dyn GaugeCell> {
        Arc::new(Figure(self.segment.gauge(self.slot, key)))
    }
}

struct Figure(Gauge);

impl GaugeCell for Figure {
    fn add(&self) {
        self.0.raise();
    }

    fn subtract(&self) {
        self.0.lower();
    }
}

/// One limit. The permits in use are kept here, as the channels give places back by count.
struct SharedGauge {
    gauge: Gauge,
    held: Mutex<Vec<Permit>>,
}

impl ConcurrencyGauge for SharedGauge {
    fn try_acquire(&self, limit: u32) -> bool {
        let Some(permit) = self.gauge.try_acquire(limit) else { return false };
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(permit);
        true
    }

    fn release(&self) {
        // Any permit will do: they all stand for one place of the same gauge.
        drop(self.held.lock().unwrap_or_else(PoisonError::into_inner).pop());
    }
}

#[cfg(test)]
mod tests {
    use super::within_share;

    /// The greediest order: of the workers that may accept, always the first does.
    fn spread(connections: u64, workers: u64) -> Vec<u64> {
        let mut held = vec![0u64; usize::try_from(workers).unwrap()];
        for total in 0..connections {
            let taker = held.iter().position(|own| within_share(*own, total, workers)).unwrap();
            held[taker] += 1;
        }
        held
    }

    #[test]
    fn no_worker_exceeds_its_share_by_more_than_an_eighth() {
        for workers in [2u64, 3, 4, 8] {
            let busiest = spread(64 * workers, workers).into_iter().max().unwrap();
            assert!(busiest <= 72, "{busiest} of an average of 64");
        }
    }

    #[test]
    fn somebody_may_always_accept() {
        for workers in 1..9u64 {
            for total in 0..200 {
                // The idlest worker holds at most the average.
                assert!(
                    within_share(total / workers, total, workers),
                    "{workers} workers, {total} connections"
                );
            }
        }
    }

    #[test]
    fn thirty_two_connections_on_two_workers_stay_within_one_and_a_half() {
        let held = spread(32, 2);
        assert!(held[0].max(held[1]) * 2 <= held[0].min(held[1]) * 3, "{held:?}");
    }
}
