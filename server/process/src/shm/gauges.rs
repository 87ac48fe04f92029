//! Concurrency gauges: how many of something are in use on this server, exact over its workers.
//!
//! A gauge has one count per worker slot. To acquire, a worker raises its own count and then sums them all:
//! if the sum exceeds the limit it steps back. So the limit is never exceeded, no lock exists that a killed
//! worker could keep, and its share vanishes when the supervisor zeroes its counts. Two workers that reach
//! for the last place at the same instant both step back and try again, later the higher their slot. Costs
//! one atomic write and a read of a few cache lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::layout::GaugeRow;

/// How often an acquisition tries again after meeting another one at the limit.
const RETRIES: u32 = 64;

/// A limit's counter. Cheap to clone; find it once and keep it.
#[derive(Clone)]
pub struct Gauge {
    cell: Cell,
}

#[derive(Clone)]
enum Cell {
    /// In shared memory: the row, and the position of this worker's count.
    Shared { row: &'static GaugeRow, slot: usize },
    /// The table was full: the limit then holds for each worker by itself.
    Local(Arc<AtomicU32>),
}

/// One place in use. Given back when dropped.
#[must_use = "dropping a permit gives its place back"]
pub struct Permit {
    gauge: Gauge,
}

impl Gauge {
    pub(super) fn shared(row: &'static GaugeRow, slot: usize) -> Self {
        Self { cell: Cell::Shared { row, slot } }
    }

    pub(super) fn local(count: Arc<AtomicU32>) -> Self {
        Self { cell: Cell::Local(count) }
    }

    /// Takes one place if fewer than `limit` are in use on this server. Refuses, never waits.
    #[must_use]
    pub fn try_acquire(&self, limit: u32) -> Option<Permit> {
        let acquired = match &self.cell {
            Cell::Shared { row, slot } => acquire_shared(row, *slot, limit),
            Cell::Local(count) => count
                .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| (n < limit).then(|| n + 1))
                .is_ok(),
        };
        acquired.then(|| Permit { gauge: self.clone() })
    }

    /// One more in use, whatever their number: for figures that limit nothing.
    pub fn raise(&self) {
        match &self.cell {
            Cell::Shared { row, slot } => {
                if let Some(own) = row.held.get(*slot) {
                    own.fetch_add(1, Ordering::Relaxed);
                }
            }
            Cell::Local(count) => {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// One less in use, after [`Gauge::raise`].
    pub fn lower(&self) {
        match &self.cell {
            Cell::Shared { row, slot } => {
                if let Some(own) = row.held.get(*slot) {
                    give_back(own);
                }
            }
            Cell::Local(count) => give_back(count),
        }
    }

    /// How many places are in use on this server now.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        match &self.cell {
            Cell::Shared { row, .. } => sum(row),
            Cell::Local(count) => count.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gauge.lower();
    }
}

fn acquire_shared(row: &GaugeRow, slot: usize, limit: u32) -> bool {
    let Some(own) = row.held.get(slot) else { return false };
    for attempt in 0..RETRIES {
        if sum(row) >= limit {
            return false;
        }
        // Sequentially consistent on both sides: of two workers that raise their counts at once, at least
        // one sees the other's.
        own.fetch_add(1, Ordering::SeqCst);
        if sum(row) <= limit {
            return true;
        }
        give_back(own);
        for _ in 0..(slot + 1) << attempt.min(6) {
            std::hint::spin_loop();
        }
    }
    false
}

fn sum(row: &GaugeRow) -> u32 {
    row.held.iter().fold(0u32, |total, held| total.saturating_add(held.load(Ordering::SeqCst)))
}

/// One less, never below zero: the count may have been cleared meanwhile.
fn give_back(count: &AtomicU32) {
    let _ = count.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |n| n.checked_sub(1));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::shm::Segment;

    #[test]
    fn workers_together_never_exceed_the_limit_and_reach_it() {
        let segment = Segment::create().unwrap();
        let limit = 3;
        let exceeded = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let gauge = segment.gauge(worker, "channel:crm");
                let (exceeded, held) = (&exceeded, segment.cell_for_test("held"));
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        if let Some(permit) = gauge.try_acquire(limit) {
                            if held.fetch_add(1, Ordering::SeqCst) >= u64::from(limit) {
                                exceeded.store(true, Ordering::Relaxed);
                            }
                            held.fetch_sub(1, Ordering::SeqCst);
                            drop(permit);
                        }
                    }
                });
            }
        });
        assert!(!exceeded.load(Ordering::Relaxed));
        let permits: Vec<_> =
            (0..5).filter_map(|worker| segment.gauge(worker, "channel:crm").try_acquire(limit)).collect();
        assert_eq!(permits.len(), 3);
        assert_eq!(segment.gauge(9, "channel:crm").in_use(), 3);
        drop(permits);
        assert_eq!(segment.gauge(9, "channel:crm").in_use(), 0);
    }

    #[test]
    fn a_dead_workers_places_are_free_again_and_its_late_permits_change_nothing() {
        let segment = Segment::create().unwrap();
        let late = segment.gauge(1, "g").try_acquire(1).unwrap();
        assert!(segment.gauge(2, "g").try_acquire(1).is_none());
        segment.clear_worker(1);
        let next = segment.gauge(2, "g").try_acquire(1).unwrap();
        drop(late);
        assert!(segment.gauge(1, "g").try_acquire(1).is_none());
        drop(next);
    }

    #[test]
    fn a_figure_that_limits_nothing_goes_up_and_down_over_all_workers() {
        let segment = Segment::create().unwrap();
        let (one, two) = (segment.gauge(1, "calls"), segment.gauge(2, "calls"));
        one.raise();
        two.raise();
        two.raise();
        assert_eq!(one.in_use(), 3);
        two.lower();
        segment.clear_worker(1);
        assert_eq!(two.in_use(), 1);
        one.lower();
        assert_eq!(two.in_use(), 1, "a count that was cleared is not lowered below zero");
    }

    #[test]
    fn a_gauge_without_a_place_in_the_table_still_limits_its_worker() {
        let segment = Segment::create().unwrap();
        let key = "k".repeat(4000);
        let held = segment.gauge(0, &key).try_acquire(1);
        assert!(held.is_some() && segment.gauge(0, &key).try_acquire(1).is_none());
    }
}
