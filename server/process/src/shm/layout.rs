//! What lies where in the segment. Every field is atomic, all zeroes is the valid empty state, and nothing
//! holds a pointer, so any process may map it anywhere and be killed at any instant.
//!
//! About 20 MiB of address space; memory is taken page by page as entries are first used. Tables that are
//! scanned keep their keys apart from their rows, so that a scan touches no row that is not in use.

use std::mem::size_of;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

use super::workers::WorkerSlot;

/// Worker slots: 64 workers at most, and each may have a successor beside it.
pub(crate) const SLOTS: usize = 128;
/// Counter cells.
pub(super) const COUNTERS: usize = 65_536;
/// Concurrency gauges.
pub(super) const GAUGES: usize = 4_096;
/// Services and units that can be blamed.
pub(super) const SUBJECTS: usize = 8_192;
/// Sets of the rate table, a power of two.
pub(super) const RATE_SETS: usize = 8_192;
/// Entries of one set.
pub(super) const RATE_WAYS: usize = 8;
/// Threads of one worker that can be blamed.
pub(super) const THREADS: usize = 1_152;
/// Bytes for the text of keys.
pub(super) const TEXT_BYTES: usize = 8 * 1024 * 1024;

/// "crosstie" in ASCII.
pub(super) const MAGIC: u64 = u64::from_be_bytes(*b"crosstie");
/// Grows with every change of this file.
pub(super) const LAYOUT_VERSION: u32 = 4;

/// The whole segment.
#[repr(C)]
pub(super) struct Layout {
    pub(super) header: Header,
    pub(super) workers: [WorkerSlot; SLOTS],
    pub(super) counter_keys: [AtomicU64; COUNTERS],
    pub(super) counters: [AtomicU64; COUNTERS],
    pub(super) gauge_keys: [AtomicU64; GAUGES],
    pub(super) gauges: [GaugeRow; GAUGES],
    pub(super) subject_keys: [AtomicU64; SUBJECTS],
    pub(super) subjects: [SubjectRow; SUBJECTS],
    pub(super) rate_locks: [AtomicU32; RATE_SETS],
    pub(super) rates: [RateSet; RATE_SETS],
    pub(super) blame: [[AtomicU64; THREADS]; SLOTS],
    pub(super) text: [AtomicU8; TEXT_BYTES],
}

/// Size of the segment in bytes.
pub(super) const SEGMENT_BYTES: usize = size_of::<Layout>();

/// What is true of the whole server.
#[repr(C, align(64))]
pub(super) struct Header {
    /// [`MAGIC`], written last by the process that made the segment.
    pub(super) magic: AtomicU64,
    pub(super) version: AtomicU32,
    /// How many workers the server runs when all are well.
    pub(super) workers: AtomicU32,
    /// Bytes of `text` given out; may exceed its size when it is full.
    pub(super) text_used: AtomicU64,
    /// Counts on cells there was no room for.
    pub(super) counter_overflow: AtomicU64,
    /// Keys that took the place of live ones in the rate table.
    pub(super) rate_overflow: AtomicU64,
    /// Services and units in quarantine: 0 spares the hot path a look-up.
    pub(super) quarantined: AtomicU32,
    /// Grows with every change of strikes or quarantine.
    pub(super) verdicts: AtomicU32,
    /// Requests that workers since gone had served.
    pub(super) departed_requests: AtomicU64,
    /// The version that workers serve, as [`super::Barrier::mark`] writes it; 0 before the first.
    pub(super) in_force: AtomicU64,
    /// 1 while the server is to be drained of requests.
    pub(super) drain_wanted: AtomicU32,
    /// 1 once another supervisor, perhaps with a segment of its own, has taken the server over.
    pub(super) succeeded: AtomicU32,
    /// 0 without a broker, 1 while it is away, 2 while it is connected.
    pub(super) bus: AtomicU32,
    /// A [`super::Comparison`] code.
    pub(super) comparison: AtomicU32,
}

/// One gauge: what each worker slot holds of it.
#[repr(C, align(64))]
pub(super) struct GaugeRow {
    pub(super) held: [AtomicU32; SLOTS],
}

/// One service or unit.
#[repr(C)]
pub(super) struct SubjectRow {
    /// Seconds since 1970 of its quarantine; 0 when it is not quarantined.
    pub(super) since: AtomicU64,
    pub(super) strikes: AtomicU32,
    /// A [`super::quarantine::StrikeCause`] code of the last strike.
    pub(super) cause: AtomicU32,
}

/// One set of the rate table.
#[repr(C, align(64))]
pub(super) struct RateSet {
    pub(super) ways: [RateWay; RATE_WAYS],
}

/// One key's rate state.
#[repr(C)]
pub(super) struct RateWay {
    /// Theoretical arrival time, nanoseconds of the monotonic clock; [`super::rates::BUSY`] while the key
    /// is being replaced.
    pub(super) arrival: AtomicU64,
    pub(super) key_high: AtomicU64,
    pub(super) key_low: AtomicU64,
}
