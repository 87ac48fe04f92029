//! Rate limits, exact over all workers: the generic cell rate algorithm (ITU-T I.371) with one theoretical
//! arrival time (TAT) per key in a set-associative table.
//!
//! A take on a known key is a scan of eight entries and one compare-and-swap; it never waits. An entry's
//! TAT only ever grows while its key lives in it, so a swap that succeeds proves that the entry still
//! belonged to the key read before it. A new key takes an entry whose TAT has passed: such an entry says
//! the same as none, so reclaiming it is exact. Insertions into one set exclude each other by a lock word
//! that names its holder, which the supervisor frees when that worker died. When all eight entries of a set
//! are live, the one that expires first gives way and `overflow` counts it: only then is a limit inexact,
//! in its caller's favour, and it takes more than 60,000 keys under limits at once.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crosstie_model::ports::RateDecision;

use super::layout::{RateSet, RateWay};
use crate::clock;

/// Marks an entry whose key is being replaced. No clock reaches it.
pub(super) const BUSY: u64 = u64::MAX;

/// How long an insertion waits for another one in the same set. Only a holder that was stopped for that
/// long, or killed while nobody reaps, makes it pass; the take is then allowed and not counted.
const LOCK_PATIENCE: Duration = Duration::from_millis(20);

/// The table, as one process sees it.
#[derive(Clone, Copy)]
pub(super) struct RateTable<'a> {
    pub(super) sets: &'a [RateSet],
    pub(super) locks: &'a [AtomicU32],
    pub(super) overflow: &'a AtomicU64,
    /// The lock word of this process: its worker slot + 1.
    pub(super) holder: u32,
}

/// A limit in the algorithm's terms, in nanoseconds.
#[derive(Clone, Copy)]
struct Cell {
    /// Between two units at the steady rate.
    interval: u64,
    /// How far the TAT may run ahead: the whole allowance.
    burst: u64,
}

impl Cell {
    fn new(limit: u32, period: Duration) -> Self {
        let interval = (clock::nanoseconds(period) / u64::from(limit.max(1))).max(1);
        Self { interval, burst: interval.saturating_mul(u64::from(limit)) }
    }

    /// The TAT after one more unit and what to tell the caller; `None` for the TAT when it is refused.
    fn take(self, arrival: u64, now: u64) -> (Option<u64>, RateDecision) {
        let next = arrival.max(now).saturating_add(self.interval);
        let ahead = next - now;
        if ahead > self.burst || next == BUSY {
            let reset = Duration::from_nanos(ahead.saturating_sub(self.burst));
            return (None, RateDecision { allowed: false, remaining: 0, reset });
        }
        let remaining = u32::try_from((self.burst - ahead) / self.interval).unwrap_or(u32::MAX);
        (Some(next), RateDecision { allowed: true, remaining, reset: Duration::from_nanos(ahead) })
    }
}

impl RateTable<'_> {
    /// Takes one unit from the allowance of `key` at `now` (nanoseconds of the monotonic clock).
    pub(super) fn take(&self, key: u128, limit: u32, period: Duration, now: u64) -> RateDecision {
        if limit == 0 {
            return RateDecision { allowed: false, remaining: 0, reset: period };
        }
        let cell = Cell::new(limit, period);
        let place = home(key, self.sets.len());
        let (Some(set), Some(lock)) = (self.sets.get(place), self.locks.get(place)) else {
            return cell.take(0, now).1;
        };
        if let Some(decision) = take_known(set, key, cell, now) {
            return decision;
        }
        let locked = acquire(lock, self.holder);
        // Another worker may have put the key in while this one waited.
        let decision = take_known(set, key, cell, now).unwrap_or_else(|| {
            if locked { self.insert(set, key, cell, now) } else { self.uncounted(cell, now) }
        });
        if locked {
            lock.store(0, Ordering::Release);
        }
        decision
    }

    fn uncounted(&self, cell: Cell, now: u64) -> RateDecision {
        self.overflow.fetch_add(1, Ordering::Relaxed);
        cell.take(0, now).1
    }

    /// Puts a new key into the entry that expires (or expired) first. The caller holds the set's lock.
    fn insert(&self, set: &RateSet, key: u128, cell: Cell, now: u64) -> RateDecision {
        let (Some(next), decision) = cell.take(0, now) else { return cell.take(0, now).1 };
        // Takes on the old key go on meanwhile; each makes this swap fail and the search start again.
        for _ in 0..64 {
            let oldest =
                set.ways.iter().map(|way| (way.arrival.load(Ordering::Acquire), way)).min_by_key(|w| w.0);
            let Some((arrival, way)) = oldest else { break };
            if way.arrival.compare_exchange(arrival, BUSY, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                if arrival > now {
                    self.overflow.fetch_add(1, Ordering::Relaxed);
                }
                let (high, low) = split(key);
                way.key_high.store(high, Ordering::Relaxed);
                way.key_low.store(low, Ordering::Relaxed);
                way.arrival.store(next, Ordering::Release);
                return decision;
            }
        }
        self.uncounted(cell, now)
    }

    /// Frees what a dead worker held: its locks, and entries it was just replacing. Called by the
    /// supervisor alone, after the process is gone.
    pub(super) fn release_holder(&self, holder: u32) {
        for (lock, set) in self.locks.iter().zip(self.sets) {
            if lock.load(Ordering::Acquire) == holder {
                for way in &set.ways {
                    let _ = way.arrival.compare_exchange(BUSY, 0, Ordering::AcqRel, Ordering::Relaxed);
                }
                lock.store(0, Ordering::Release);
            }
        }
    }
}

/// Takes on a key that has an entry; `None` when it has none.
fn take_known(set: &RateSet, key: u128, cell: Cell, now: u64) -> Option<RateDecision> {
    for way in &set.ways {
        loop {
            let arrival = way.arrival.load(Ordering::Acquire);
            if arrival == BUSY || !holds(way, key) {
                break;
            }
            let (next, decision) = cell.take(arrival, now);
            let Some(next) = next else { return Some(decision) };
            if way.arrival.compare_exchange(arrival, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some(decision);
            }
        }
    }
    None
}

fn holds(way: &RateWay, key: u128) -> bool {
    let (high, low) = split(key);
    // Acquire keeps the order "arrival, key, swap" that the module's argument rests on.
    way.key_high.load(Ordering::Acquire) == high && way.key_low.load(Ordering::Acquire) == low
}

fn split(key: u128) -> (u64, u64) {
    let [high, low] = [key >> 64, key & u128::from(u64::MAX)];
    (u64::try_from(high).unwrap_or_default(), u64::try_from(low).unwrap_or_default())
}

/// The set of `key`. Mixes it first: callers' keys need not be hashes.
fn home(key: u128, sets: usize) -> usize {
    let (high, low) = split(key);
    let mixed = (high ^ low.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from((mixed >> 32) % sets.max(1) as u64).unwrap_or(0)
}

fn acquire(lock: &AtomicU32, holder: u32) -> bool {
    let mut since = None;
    loop {
        if lock.compare_exchange(0, holder, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return true;
        }
        if since.get_or_insert_with(Instant::now).elapsed() > LOCK_PATIENCE {
            return false;
        }
        // The holder needs the processor to go on; on a busy machine it may be ours.
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Fixture {
        sets: Vec<RateSet>,
        locks: Vec<AtomicU32>,
        overflow: AtomicU64,
    }

    impl Fixture {
        fn new(sets: usize) -> Self {
            let way = || RateWay {
                arrival: AtomicU64::new(0),
                key_high: AtomicU64::new(0),
                key_low: AtomicU64::new(0),
            };
            Self {
                sets: (0..sets).map(|_| RateSet { ways: std::array::from_fn(|_| way()) }).collect(),
                locks: (0..sets).map(|_| AtomicU32::new(0)).collect(),
                overflow: AtomicU64::new(0),
            }
        }
        fn table(&self) -> RateTable<'_> {
            RateTable { sets: &self.sets, locks: &self.locks, overflow: &self.overflow, holder: 1 }
        }
    }

    #[test]
    fn an_allowance_is_spent_at_once_and_flows_back_evenly() {
        let fixture = Fixture::new(1);
        let take = |now| fixture.table().take(7, 4, SECOND, now);
        let start = 5_000_000_000;
        assert_eq!((0..4).map(|_| take(start).remaining).collect::<Vec<_>>(), [3, 2, 1, 0]);
        let refused = take(start);
        assert_eq!((refused.allowed, refused.reset), (false, Duration::from_millis(250)));
        assert!(!take(start + 249_999_999).allowed);
        assert!(take(start + 250_000_000).allowed);
        assert!(!take(start + 250_000_000).allowed);
        let rested = take(start + 60_000_000_000);
        assert_eq!((rested.remaining, rested.reset), (3, Duration::from_millis(250)));
    }

    #[test]
    fn a_limit_of_nothing_refuses_all() {
        let fixture = Fixture::new(1);
        assert!(!fixture.table().take(1, 0, SECOND, 1).allowed);
    }

    #[test]
    fn threads_together_get_exactly_the_limit() {
        let fixture = Fixture::new(64);
        let (keys, limit) = (16u128, 500);
        let allowed: u32 = std::thread::scope(|scope| {
            let racers: Vec<_> = (1..=4)
                .map(|holder| {
                    let table = RateTable { holder, ..fixture.table() };
                    scope.spawn(move || {
                        let takes = (0..limit).flat_map(|_| 0..keys);
                        takes.map(|key| u32::from(table.take(key, limit, SECOND, 9).allowed)).sum::<u32>()
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!(allowed, 16 * limit);
        assert_eq!(fixture.overflow.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_set_full_of_live_keys_counts_what_it_pushes_out() {
        let fixture = Fixture::new(1);
        for key in 0..9 {
            assert!(fixture.table().take(key, 1, SECOND, 100 + u64::try_from(key).unwrap()).allowed);
        }
        assert_eq!(fixture.overflow.load(Ordering::Relaxed), 1);
        assert!(!fixture.table().take(8, 1, SECOND, 120).allowed, "the newcomer is counted");
        assert!(!fixture.table().take(5, 1, SECOND, 120).allowed, "the others still are");
    }

    #[test]
    fn what_a_dead_worker_held_is_freed() {
        let fixture = Fixture::new(1);
        let dead = RateTable { holder: 9, ..fixture.table() };
        assert!(acquire(&fixture.locks[0], 9));
        fixture.sets[0].ways[3].arrival.store(BUSY, Ordering::Relaxed);
        dead.release_holder(9);
        assert_eq!(fixture.locks[0].load(Ordering::Relaxed), 0);
        for key in 1..=8 {
            assert!(fixture.table().take(key, 1, SECOND, 100).allowed);
        }
        assert_eq!(fixture.overflow.load(Ordering::Relaxed), 0, "all eight entries are usable again");
    }

    #[test]
    fn a_lock_nobody_frees_is_passed_in_the_end() {
        let fixture = Fixture::new(1);
        fixture.locks[0].store(77, Ordering::Relaxed);
        assert!(fixture.table().take(1, 1, SECOND, 100).allowed);
        assert_eq!(fixture.overflow.load(Ordering::Relaxed), 1);
    }

    proptest! {
        /// As long as no set overflows, the table decides like one unbounded bucket per key.
        #[test]
        fn the_table_decides_like_one_bucket_per_key(
            steps in prop::collection::vec((0u128..12, 0u64..400_000_000), 1..300),
        ) {
            let fixture = Fixture::new(4);
            let mut model: HashMap<u128, u64> = HashMap::new();
            let mut now = 1;
            let cell = Cell::new(3, SECOND);
            for (key, pause) in steps {
                now += pause;
                let arrival = model.entry(key).or_default();
                let (next, expected) = cell.take(*arrival, now);
                *arrival = next.unwrap_or(*arrival);
                let decision = fixture.table().take(key, 3, SECOND, now);
                if fixture.overflow.load(Ordering::Relaxed) > 0 {
                    break;
                }
                prop_assert_eq!(decision, expected);
            }
        }
    }
}
