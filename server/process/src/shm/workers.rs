//! Worker slots: what each worker process tells the others and the supervisor about itself.
//!
//! The supervisor gives a slot to a process before it starts it, writes its state, and clears it when the
//! process is dead. The worker itself writes only the traffic numbers. A slot's index is unique among the
//! processes alive; a successor runs in another slot than the worker it follows.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::clock;

/// What a worker process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Nobody has the slot.
    Vacant,
    /// Started, not serving yet.
    Starting,
    /// Serving.
    Ready,
    /// Finishing what is in flight.
    Draining,
}

impl WorkerState {
    /// The state's name in the API and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vacant => "vacant",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }

    fn code(self) -> u32 {
        match self {
            Self::Vacant => 0,
            Self::Starting => 1,
            Self::Ready => 2,
            Self::Draining => 3,
        }
    }

    fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Starting,
            2 => Self::Ready,
            3 => Self::Draining,
            _ => Self::Vacant,
        }
    }
}

/// One worker process's slot.
#[repr(C, align(128))]
pub struct WorkerSlot {
    pid: AtomicU32,
    state: AtomicU32,
    singleton: AtomicU32,
    generation: AtomicU32,
    seat: AtomicU32,
    restarts: AtomicU32,
    started: AtomicU64,
    /// Connections this worker holds open now.
    pub connections: AtomicU32,
    /// Requests this worker works on now.
    pub in_flight: AtomicU32,
    /// Requests this worker has finished.
    pub requests: AtomicU64,
    /// The version this worker is ready for, as [`super::Barrier::mark`] writes it; 0 while it takes no part.
    pub(super) ready: AtomicU64,
    /// The fault signal the worker is dying of, written by its own handler; 0 for none.
    pub(crate) fault: AtomicU32,
}

/// What a slot said at one moment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct WorkerView {
    /// The slot; unique among the living.
    pub index: u16,
    /// Which of the server's workers this is, counted from 0; a successor has its predecessor's seat.
    pub seat: u16,
    /// Counts the worker processes this server has started.
    pub generation: u32,
    /// Process id.
    pub pid: u32,
    /// What it is doing.
    pub state: WorkerState,
    /// Whether it holds the singleton lock.
    pub singleton: bool,
    /// Open connections.
    pub connections: u32,
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests finished by this process.
    pub requests: u64,
    /// Deaths on this seat that made a restart necessary.
    pub restarts: u32,
    /// Seconds since 1970 of the process's start.
    pub started: u64,
}

impl WorkerSlot {
    /// The worker's process id; 0 while the slot is vacant.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    /// What the worker is doing, as the supervisor knows it.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        WorkerState::from_code(self.state.load(Ordering::Acquire))
    }

    /// Whether the worker holds the singleton lock.
    #[must_use]
    pub fn is_singleton(&self) -> bool {
        self.singleton.load(Ordering::Relaxed) != 0
    }

    /// The fault signal the worker died of, if its handler saw it; 0 otherwise.
    pub(crate) fn fault(&self) -> u32 {
        self.fault.load(Ordering::SeqCst)
    }

    /// Notes that a connection was accepted.
    pub fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a connection is gone.
    pub fn connection_closed(&self) {
        decrement(&self.connections);
    }

    /// Notes that work on a request began.
    pub fn request_started(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a request was answered or given up.
    pub fn request_finished(&self) {
        decrement(&self.in_flight);
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the slot if nobody has it: during an upgrade two supervisors start workers.
    pub(crate) fn claim(&self) -> bool {
        let (vacant, starting) = (WorkerState::Vacant.code(), WorkerState::Starting.code());
        self.state.compare_exchange(vacant, starting, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Gives the slot to a process about to be started.
    pub(crate) fn assign(&self, seat: u16, generation: u32, restarts: u32) {
        self.seat.store(u32::from(seat), Ordering::Relaxed);
        self.generation.store(generation, Ordering::Relaxed);
        self.restarts.store(restarts, Ordering::Relaxed);
        self.started.store(clock::unix_seconds(), Ordering::Relaxed);
        self.set_state(WorkerState::Starting);
    }

    pub(crate) fn set_pid(&self, pid: u32) {
        self.pid.store(pid, Ordering::Relaxed);
    }

    pub(crate) fn set_state(&self, state: WorkerState) {
        self.state.store(state.code(), Ordering::Release);
    }

    pub(crate) fn set_singleton(&self, singleton: bool) {
        self.singleton.store(u32::from(singleton), Ordering::Relaxed);
    }

    /// Vacates the slot; gives how many requests its process had served.
    pub(super) fn clear(&self) -> u64 {
        for word in [
            &self.pid,
            &self.singleton,
            &self.generation,
            &self.seat,
            &self.restarts,
            &self.connections,
            &self.in_flight,
            &self.fault,
        ] {
            word.store(0, Ordering::Relaxed);
        }
        self.started.store(0, Ordering::Relaxed);
        self.ready.store(0, Ordering::SeqCst);
        let served = self.requests.swap(0, Ordering::Relaxed);
        self.set_state(WorkerState::Vacant);
        served
    }

    pub(super) fn view(&self, index: u16) -> WorkerView {
        WorkerView {
            index,
            seat: u16::try_from(self.seat.load(Ordering::Relaxed)).unwrap_or(u16::MAX),
            generation: self.generation.load(Ordering::Relaxed),
            pid: self.pid(),
            state: self.state(),
            singleton: self.is_singleton(),
            connections: self.connections.load(Ordering::Relaxed),
            in_flight: self.in_flight.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            restarts: self.restarts.load(Ordering::Relaxed),
            started: self.started.load(Ordering::Relaxed),
        }
    }
}

/// One less, never below zero: a count that was cleared must not wrap.
fn decrement(count: &AtomicU32) {
    let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
}
