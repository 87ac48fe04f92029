//! The queue between threads that have something to write and the one that writes it.
//!
//! Pushing costs one short mutex and, only when the queue was empty, one wake-up: under load the writer is
//! woken once per batch, not once per record. The queue is bounded; what does not fit is dropped and
//! counted, except items that must be kept: those have a reserve of their own and, when even that is full,
//! their thread waits.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::metrics::Counter;
use crate::tally::Tally;

/// Starts a writer thread in which every signal is blocked except those of faults: a supervisor that waits for
/// SIGTERM in its main thread must not find it delivered to another one.
pub(crate) fn spawn_writer(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let mut blocked = SigSet::all();
    for fault in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT] {
        blocked.remove(fault);
    }
    // A thread inherits its creator's mask, so there is no moment in which it has another one.
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    before.thread_set_mask()?;
    started
}

/// What becomes of an item the queue has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Importance {
    /// It is dropped and counted.
    Droppable,
    /// It is never dropped.
    Kept,
}

/// Whether the writer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// There are items.
    Some,
    /// The queue is closed and empty.
    Closed,
}

/// How many times the capacity items that must be kept may fill.
const RESERVE: usize = 8;

#[derive(Debug)]
pub(crate) struct Batch<T> {
    state: Mutex<State<T>>,
    /// The writer waits here for items.
    filled: Condvar,
    /// Producers of items that must be kept, and callers of `flush`, wait here for the writer.
    written: Condvar,
    dropped: Tally,
    capacity: usize,
    /// How long the writer lets items gather after the first.
    linger: Duration,
}

#[derive(Debug)]
struct State<T> {
    items: Vec<T>,
    /// Items ever queued, and ever written.
    queued: u64,
    done: u64,
    closed: bool,
    hurry: bool,
}

impl<T> Batch<T> {
    pub(crate) fn new(capacity: usize, linger: Duration) -> Self {
        Self {
            state: Mutex::new(State { items: Vec::new(), queued: 0, done: 0, closed: false, hurry: false }),
            filled: Condvar::new(),
            written: Condvar::new(),
            dropped: Tally::default(),
            capacity,
            linger,
        }
    }

    /// Queues `item`; says whether it was taken.
    pub(crate) fn push(&self, item: T, importance: Importance) -> bool {
        let mut state = self.lock();
        if importance == Importance::Kept {
            let full = |state: &mut State<T>| state.items.len() >= self.capacity * RESERVE && !state.closed;
            state = self.written.wait_while(state, full).unwrap_or_else(PoisonError::into_inner);
        }
        let full = importance == Importance::Droppable && state.items.len() >= self.capacity;
        if full || state.closed {
            self.dropped.add(1);
            return false;
        }
        state.items.push(item);
        state.queued += 1;
        // A writer that lingers wants to hear again only when waiting longer would cost records.
        let wake = state.items.len() == 1 || state.items.len() == self.capacity / 2;
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        true
    }

    /// Waits for items and moves all of them into `batch`, which must be empty.
    pub(crate) fn take(&self, batch: &mut Vec<T>) -> Taken {
        let nothing = |state: &mut State<T>| state.items.is_empty() && !state.closed;
        let mut state = self.filled.wait_while(self.lock(), nothing).unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + self.linger;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.closed || state.hurry || state.items.len() >= self.capacity / 2 {
                break;
            }
            state = self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::swap(&mut state.items, batch);
        state.hurry = false;
        if batch.is_empty() { Taken::Closed } else { Taken::Some }
    }

    /// The writer wrote `count` items.
    pub(crate) fn written(&self, count: usize) {
        let mut state = self.lock();
        state.done = state.done.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        drop(state);
        self.written.notify_all();
    }

    /// Waits until everything queued by now is written, at most `patience`; says whether it is.
    pub(crate) fn flush(&self, patience: Duration) -> bool {
        let mut state = self.lock();
        let goal = state.queued;
        state.hurry = state.done < goal;
        self.filled.notify_one();
        let behind = |state: &mut State<T>| state.done < goal;
        let (state, _) =
            self.written.wait_timeout_while(state, patience, behind).unwrap_or_else(PoisonError::into_inner);
        state.done >= goal
    }

    /// No more items are taken; the writer ends once it wrote what is there.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
        self.written.notify_all();
    }

    /// How many items found no room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Counts them in `cell` as well.
    pub(crate) fn count_drops_in(&self, cell: Counter) {
        self.dropped.share(cell);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_full_queue_drops_and_counts_but_keeps_what_must_be_kept() {
        let queue = Batch::new(4, Duration::ZERO);
        for number in 0..10 {
            queue.push(number, Importance::Droppable);
        }
        assert_eq!(queue.dropped(), 6);
        for number in 100..110 {
            assert!(queue.push(number, Importance::Kept));
        }
        let mut batch = Vec::new();
        assert_eq!(queue.take(&mut batch), Taken::Some);
        assert_eq!(batch.len(), 14);
        assert_eq!(queue.dropped(), 6);
    }

    #[test]
    fn a_producer_waits_when_even_the_reserve_is_full() {
        let queue = Arc::new(Batch::new(1, Duration::ZERO));
        for number in 0..RESERVE {
            queue.push(number, Importance::Kept);
        }
        let producer = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || queue.push(99, Importance::Kept))
        };
        let (mut batch, mut all) = (Vec::new(), Vec::new());
        while all.len() < RESERVE + 1 {
            queue.take(&mut batch);
            queue.written(batch.len());
            all.append(&mut batch);
        }
        assert!(producer.join().unwrap());
        assert_eq!((all.last(), queue.dropped()), (Some(&99), 0));
    }

    #[test]
    fn items_gather_while_the_writer_lingers_and_a_flush_hurries_it() {
        let queue = Arc::new(Batch::new(1000, Duration::from_secs(3600)));
        for number in 0..10 {
            queue.push(number, Importance::Droppable);
        }
        let writer = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || {
                let mut batch = Vec::new();
                queue.take(&mut batch);
                queue.written(batch.len());
                batch.len()
            })
        };
        assert!(queue.flush(Duration::from_secs(60)));
        assert_eq!(writer.join().unwrap(), 10);
    }

    #[test]
    fn a_closed_queue_gives_out_what_it_has_and_then_ends() {
        let queue = Batch::new(10, Duration::ZERO);
        queue.push(1, Importance::Kept);
        queue.close();
        assert!(!queue.push(2, Importance::Kept));
        let mut batch = Vec::new();
        assert_eq!(queue.take(&mut batch), Taken::Some);
        batch.clear();
        assert_eq!(queue.take(&mut batch), Taken::Closed);
    }
}
