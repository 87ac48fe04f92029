//! The server's shared memory: one memfd, made by the supervisor, mapped by its workers for their whole
//! lives. What is counted here is exact per server and survives workers.
//!
//! Implements the ports `CounterCells`, `RateCells` and `Blame` of the model. Nothing in it waits on a
//! process that may be dead: tables are lock-free, and the one lock (insertion of a new rate key) is freed
//! by the supervisor when its holder dies. The supervisor trusts nothing it reads here: a worker with
//! damaged memory may have written anything, so every position and length is checked.

#![expect(unsafe_code, reason = "maps the memory that the processes of a server share")]

mod blame;
mod gauges;
mod keys;
mod layout;
mod quarantine;
mod rates;
mod swap;
mod workers;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crosstie_model::ports::{CounterCells, RateCells, RateDecision};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};

use layout::{LAYOUT_VERSION, Layout, MAGIC, SEGMENT_BYTES};

pub(crate) use blame::{FAULTED, LastWords};
pub use gauges::{Gauge, Permit};
pub(crate) use layout::SLOTS;
pub(crate) use quarantine::StrikeOutcome;
pub use quarantine::{StrikeCause, Subject, Verdict};
use rates::RateTable;
pub use swap::{Agreement, Barrier};
pub use workers::{WorkerSlot, WorkerState, WorkerView};

/// The name under which counts that found no cell are rendered.
const OVERFLOW_KEY: &str = "crosstie_counter_cells_overflow_total";

/// Why the segment could not be made or mapped.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The kernel refused the memory.
    #[error("no shared memory of {SEGMENT_BYTES} bytes")]
    Create(#[source] Errno),
    /// The memory could not be mapped.
    #[error("the shared memory cannot be mapped")]
    Map(#[source] Errno),
    /// What was inherited is not this version's segment.
    #[error("the inherited file is not a shared-memory segment of this version")]
    Foreign,
    /// The inherited file cannot be examined.
    #[error("the inherited shared memory cannot be examined")]
    Examine(#[source] io::Error),
}

/// How what this server can serve compares with what the other servers of its cluster serve. Matters only while
/// it could not load something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Nobody has looked since the server started.
    Unknown,
    /// Another server serves all of what this one could not load.
    Behind,
    /// No other server is known to do better.
    Level,
}

/// The server's shared memory, as one process sees it.
pub struct Segment {
    layout: &'static Layout,
    file: Arc<OwnedFd>,
    /// The slot of the worker this process is; `None` in the supervisor.
    own: Option<u16>,
    /// Gauges for which the table had no room.
    local_gauges: Arc<Mutex<HashMap<String, Arc<AtomicU32>>>>,
}

impl Segment {
    /// Makes a new, empty segment. It stays mapped as long as the process lives.
    ///
    /// # Errors
    /// The kernel has no memory or no memfd for it.
    pub fn create() -> Result<Arc<Self>, SegmentError> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"crosstie-segment", flags).map_err(SegmentError::Create)?;
        let size = i64::try_from(SEGMENT_BYTES).map_err(|_| SegmentError::Create(Errno::EFBIG))?;
        nix::unistd::ftruncate(&file, size).map_err(SegmentError::Create)?;
        // Sealed, its size holds whatever a worker does: no process can be made to fault on it.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map_err(SegmentError::Create)?;
        let segment = Self::map(file, None)?;
        segment.layout.header.version.store(LAYOUT_VERSION, Ordering::Release);
        segment.layout.header.magic.store(MAGIC, Ordering::Release);
        Ok(Arc::new(segment))
    }

    /// Maps an inherited segment in the worker that has slot `own`.
    ///
    /// # Errors
    /// It is not a segment of this version.
    pub fn attach(file: OwnedFd, own: u16) -> Result<Arc<Self>, SegmentError> {
        if usize::from(own) >= SLOTS {
            return Err(SegmentError::Foreign);
        }
        Self::map_known(file, Some(own))
    }

    /// Maps the segment of a predecessor in the supervisor that succeeds it.
    pub(crate) fn succeed(file: OwnedFd) -> Result<Arc<Self>, SegmentError> {
        Self::map_known(file, None)
    }

    /// Maps a segment that another process made, if it has this version's layout.
    fn map_known(file: OwnedFd, own: Option<u16>) -> Result<Arc<Self>, SegmentError> {
        let file = File::from(file);
        let size = file.metadata().map_err(SegmentError::Examine)?.len();
        if size != SEGMENT_BYTES as u64 {
            return Err(SegmentError::Foreign);
        }
        let segment = Self::map(file.into(), own)?;
        let header = &segment.layout.header;
        let known = header.magic.load(Ordering::Acquire) == MAGIC
            && header.version.load(Ordering::Acquire) == LAYOUT_VERSION;
        if known { Ok(Arc::new(segment)) } else { Err(SegmentError::Foreign) }
    }

    fn map(file: OwnedFd, own: Option<u16>) -> Result<Self, SegmentError> {
        let length = std::num::NonZeroUsize::new(SEGMENT_BYTES).ok_or(SegmentError::Foreign)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: no address is demanded, so the mapping overlaps nothing; the file is a memfd of exactly
        // this length, whose size is sealed.
        let start: NonNull<libc::c_void> =
            unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, &file, 0) }
                .map_err(SegmentError::Map)?;
        // SAFETY: the mapping is page-aligned, `SEGMENT_BYTES` long and never unmapped; `Layout` is
        // repr(C), made of atomics only, and valid for every bit pattern; all access goes through them.
        let layout: &'static Layout = unsafe { start.cast::<Layout>().as_ref() };
        Ok(Self { layout, file: Arc::new(file), own, local_gauges: Arc::default() })
    }

    /// Another handle of the same mapping.
    fn handle(&self) -> Self {
        Self {
            layout: self.layout,
            file: Arc::clone(&self.file),
            own: self.own,
            local_gauges: Arc::clone(&self.local_gauges),
        }
    }

    /// Address and length of the mapping, for the handler that hides it from forked children.
    pub(crate) fn extent(&self) -> (*mut libc::c_void, usize) {
        (std::ptr::from_ref(self.layout).cast_mut().cast(), SEGMENT_BYTES)
    }

    fn arena(&self) -> keys::Arena<'static> {
        keys::Arena { bytes: &self.layout.text, used: &self.layout.header.text_used }
    }

    /// The slot `index`; `None` beyond the last one.
    #[must_use]
    pub fn worker(&self, index: u16) -> Option<&'static WorkerSlot> {
        self.layout.workers.get(usize::from(index))
    }

    /// The slot of the worker this process is; `None` in the supervisor.
    #[must_use]
    pub fn own_worker(&self) -> Option<&'static WorkerSlot> {
        self.worker(self.own?)
    }

    /// Every worker process alive, in the order of their slots.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerView> {
        let views = (0u16..).zip(&self.layout.workers).map(|(index, slot)| slot.view(index));
        views.filter(|view| view.state != WorkerState::Vacant).collect()
    }

    /// How many workers the server runs when all are well.
    #[must_use]
    pub fn worker_count(&self) -> u16 {
        u16::try_from(self.layout.header.workers.load(Ordering::Relaxed)).unwrap_or(u16::MAX).max(1)
    }

    pub(crate) fn set_worker_count(&self, workers: u16) {
        self.layout.header.workers.store(u32::from(workers), Ordering::Relaxed);
    }

    /// How many workers serve, and how many connections these hold: what decides a worker's fair share.
    /// Allocates nothing; cheap enough for every accept.
    #[must_use]
    pub fn serving_load(&self) -> ServingLoad {
        let serving = self.layout.workers.iter().filter(|slot| slot.state() == WorkerState::Ready);
        serving.fold(ServingLoad::default(), |load, slot| ServingLoad {
            workers: load.workers + 1,
            connections: load.connections + u64::from(slot.connections.load(Ordering::Relaxed)),
        })
    }

    /// Open connections of all workers.
    #[must_use]
    pub fn total_connections(&self) -> u64 {
        self.layout.workers.iter().map(|slot| u64::from(slot.connections.load(Ordering::Relaxed))).sum()
    }

    /// Requests in flight in all workers.
    #[must_use]
    pub fn total_in_flight(&self) -> u64 {
        self.layout.workers.iter().map(|slot| u64::from(slot.in_flight.load(Ordering::Relaxed))).sum()
    }

    /// Requests finished by all workers, those since gone included.
    #[must_use]
    pub fn total_requests(&self) -> u64 {
        let living: u64 = self.layout.workers.iter().map(|slot| slot.requests.load(Ordering::Relaxed)).sum();
        living.saturating_add(self.layout.header.departed_requests.load(Ordering::Relaxed))
    }

    /// Whether the cluster wants this server drained: its workers serve what comes, and say that they are not
    /// ready for more.
    #[must_use]
    pub fn is_drain_wanted(&self) -> bool {
        self.layout.header.drain_wanted.load(Ordering::Acquire) != 0
    }

    /// Notes whether the cluster wants this server drained, for all its workers, those to come included.
    pub fn want_drain(&self, wanted: bool) {
        self.layout.header.drain_wanted.store(u32::from(wanted), Ordering::Release);
    }

    /// How this server compares with the others, as its singleton last saw it.
    #[must_use]
    pub fn comparison(&self) -> Comparison {
        match self.layout.header.comparison.load(Ordering::Acquire) {
            1 => Comparison::Behind,
            2 => Comparison::Level,
            _ => Comparison::Unknown,
        }
    }

    /// Notes how this server compares with the others, for all its workers.
    pub fn note_comparison(&self, comparison: Comparison) {
        let code = match comparison {
            Comparison::Unknown => 0,
            Comparison::Behind => 1,
            Comparison::Level => 2,
        };
        self.layout.header.comparison.store(code, Ordering::Release);
    }

    /// Whether the server's singleton has the broker; `None` when there is none to have.
    #[must_use]
    pub fn is_bus_connected(&self) -> Option<bool> {
        match self.layout.header.bus.load(Ordering::Acquire) {
            0 => None,
            code => Some(code == 2),
        }
    }

    /// Notes whether the server's singleton has the broker.
    pub fn note_bus(&self, connected: Option<bool>) {
        let code = connected.map_or(0, |connected| if connected { 2 } else { 1 });
        self.layout.header.bus.store(code, Ordering::Release);
    }

    /// Whether the workers of this segment leave because others, of a new binary, go on serving.
    #[must_use]
    pub fn is_succeeded(&self) -> bool {
        self.layout.header.succeeded.load(Ordering::Acquire) != 0
    }

    pub(crate) fn set_succeeded(&self, succeeded: bool) {
        self.layout.header.succeeded.store(u32::from(succeeded), Ordering::Release);
    }

    /// The concurrency gauge of `key`, counting for the worker in slot `worker`. Find it once and keep it.
    #[must_use]
    pub fn gauge(&self, worker: u16, key: &str) -> Gauge {
        let slot = usize::from(worker);
        let row = keys::find_or_insert(&self.layout.gauge_keys, self.arena(), key.as_bytes())
            .and_then(|position| self.layout.gauges.get(position));
        match row {
            Some(row) if slot < SLOTS => Gauge::shared(row, slot),
            _ => {
                let mut local = self.local_gauges.lock().unwrap_or_else(PoisonError::into_inner);
                Gauge::local(Arc::clone(local.entry(key.to_owned()).or_default()))
            }
        }
    }

    /// How often a key under a rate limit had to give way to another while it was live.
    #[must_use]
    pub fn rate_overflow(&self) -> u64 {
        self.layout.header.rate_overflow.load(Ordering::Relaxed)
    }

    /// Takes back everything the dead worker in slot `index` held: its numbers, its places in gauges, its
    /// locks and its blame slots. Its counters stay. The process must be gone.
    pub(crate) fn clear_worker(&self, index: u16) {
        let slot = usize::from(index);
        for (key, row) in self.layout.gauge_keys.iter().zip(&self.layout.gauges) {
            if key.load(Ordering::Acquire) != 0
                && let Some(held) = row.held.get(slot)
            {
                held.store(0, Ordering::SeqCst);
            }
        }
        self.rate_table().release_holder(u32::from(index) + 1);
        for word in self.layout.blame.get(slot).into_iter().flatten() {
            word.store(0, Ordering::Release);
        }
        if let Some(worker) = self.layout.workers.get(slot) {
            self.layout.header.departed_requests.fetch_add(worker.clear(), Ordering::Relaxed);
        }
    }

    fn rate_table(&self) -> RateTable<'static> {
        RateTable {
            sets: &self.layout.rates,
            locks: &self.layout.rate_locks,
            overflow: &self.layout.header.rate_overflow,
            holder: self.own.map_or(u32::MAX, |own| u32::from(own) + 1),
        }
    }
}

/// What the workers that serve hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServingLoad {
    /// How many there are.
    pub workers: u64,
    /// Their open connections.
    pub connections: u64,
}

impl AsFd for Segment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("own", &self.own).finish_non_exhaustive()
    }
}

impl CounterCells for Segment {
    fn cell(&self, key: &str) -> Option<&'static AtomicU64> {
        let cell = keys::find_or_insert(&self.layout.counter_keys, self.arena(), key.as_bytes())
            .and_then(|position| self.layout.counters.get(position));
        if cell.is_none() {
            self.layout.header.counter_overflow.fetch_add(1, Ordering::Relaxed);
        }
        cell
    }

    fn read_all(&self) -> Vec<(String, u64)> {
        let mut all = Vec::new();
        for (reference, cell) in self.layout.counter_keys.iter().zip(&self.layout.counters) {
            let reference = reference.load(Ordering::Acquire);
            let text = if reference == 0 { None } else { self.arena().text(reference) };
            if let Some(key) = text.and_then(|text| String::from_utf8(text).ok()) {
                all.push((key, cell.load(Ordering::Relaxed)));
            }
        }
        let overflow = self.layout.header.counter_overflow.load(Ordering::Relaxed);
        if overflow > 0 {
            all.push((OVERFLOW_KEY.to_owned(), overflow));
        }
        all
    }
}

impl RateCells for Segment {
    fn take(&self, key: u128, limit: u32, period: Duration) -> RateDecision {
        self.rate_table().take(key, limit, period, crate::clock::monotonic_ns())
    }
}

#[cfg(test)]
impl Segment {
    /// The same memory as the worker in slot `own` maps it.
    pub(crate) fn for_worker(&self, own: u16) -> Arc<Self> {
        Segment::attach(self.file.try_clone().unwrap(), own).unwrap()
    }

    pub(crate) fn cell_for_test(&self, key: &str) -> &'static AtomicU64 {
        self.cell(key).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_maps_what_the_supervisor_made() {
        let made = Segment::create().unwrap();
        let mapped = made.for_worker(1);
        mapped.cell_for_test("requests_total{channel=\"a\"}").fetch_add(3, Ordering::Relaxed);
        assert_eq!(made.read_all(), [("requests_total{channel=\"a\"}".to_owned(), 3)]);
        let slot = mapped.own_worker().unwrap();
        made.worker(1).unwrap().assign(0, 5, 2);
        slot.connection_opened();
        slot.request_started();
        assert_eq!(made.serving_load(), ServingLoad::default(), "a worker that starts does not serve");
        made.worker(1).unwrap().set_state(WorkerState::Ready);
        assert_eq!(made.serving_load(), ServingLoad { workers: 1, connections: 1 });
        assert_eq!((made.total_connections(), made.total_in_flight()), (1, 1));
        slot.request_finished();
        made.clear_worker(1);
        assert_eq!((made.total_connections(), made.total_requests()), (0, 1));
        assert!(made.workers().is_empty());
        assert_eq!(made.read_all().len(), 1, "counters survive the worker");
    }

    #[test]
    fn a_count_never_falls_below_zero() {
        let segment = Segment::create().unwrap();
        let slot = segment.worker(0).unwrap();
        slot.connection_closed();
        slot.request_finished();
        assert_eq!((segment.total_connections(), segment.total_in_flight()), (0, 0));
    }

    #[test]
    fn a_file_that_is_no_segment_is_refused() {
        let short = memfd_create(c"short", MFdFlags::MFD_CLOEXEC).unwrap();
        assert!(matches!(Segment::attach(short, 0), Err(SegmentError::Foreign)));
        let blank = memfd_create(c"blank", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&blank, i64::try_from(SEGMENT_BYTES).unwrap()).unwrap();
        assert!(matches!(Segment::attach(blank, 0), Err(SegmentError::Foreign)));
    }

    #[test]
    fn a_successor_goes_on_counting_unless_the_layout_is_another_release_s() {
        let segment = Segment::create().unwrap();
        segment.cell_for_test("requests_total").fetch_add(3, Ordering::Relaxed);
        let succeed = || Segment::succeed(segment.file.try_clone().unwrap());
        assert_eq!(succeed().unwrap().read_all(), [("requests_total".to_owned(), 3)]);
        segment.layout.header.version.store(LAYOUT_VERSION + 1, Ordering::Release);
        assert!(matches!(succeed(), Err(SegmentError::Foreign)));
    }

    #[test]
    fn the_segment_cannot_be_shrunk_under_its_users() {
        let segment = Segment::create().unwrap();
        assert!(nix::unistd::ftruncate(&segment, 0).is_err());
    }

    #[test]
    fn a_full_counter_table_counts_what_it_refuses() {
        let segment = Segment::create().unwrap();
        assert!(segment.cell(&"k".repeat(5000)).is_none());
        assert_eq!(segment.read_all(), [(OVERFLOW_KEY.to_owned(), 1)]);
    }

    #[test]
    fn rates_use_the_monotonic_clock() {
        let segment = Segment::create().unwrap().for_worker(0);
        let hour = Duration::from_secs(3600);
        assert!(segment.take(1, 2, hour).allowed && segment.take(1, 2, hour).allowed);
        let refused = segment.take(1, 2, hour);
        assert!(!refused.allowed && refused.reset > Duration::from_secs(1790));
    }
}
