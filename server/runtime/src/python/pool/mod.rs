//! Handler threads: they run `def handle(self)` and whatever else may block.
//!
//! Owned by the runtime, one per worker. Two rules make it cheap. A sleeping thread is woken last-in
//! first-out, so a quiet worker uses one thread with warm caches. And as the interpreter lets one thread run
//! Python at a time, no second thread is woken while the first is busy in it: that one takes the next call
//! when it is done, without giving the interpreter back in between. Only when the interpreter is free while
//! calls wait (a handler sleeps or waits for the network) is another thread woken: by whoever submits a call,
//! by a host call about to block, or by the watch, which looks every millisecond while calls wait. And as
//! waking costs as much as a short handler, a reactor that has more requests in hand submits up to
//! [`BATCH`] of them before it wakes a thread for all.
//!
//! The queue in front is bounded and refuses; it never makes a caller wait unseen.

mod slot;
mod thread;
mod watch;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crosstie_model::ports::Blame;
use crosstie_model::settings::PythonSettings;
use crosstie_model::{Failure, FailureKind, Origin, ServiceName};
use pyo3::prelude::*;

pub(crate) use slot::{Interrupter, Slot};
pub(crate) use thread::{Entered, block_on, current_deadline, is_handler, on_this_thread, with_blame};
pub(crate) use watch::Watched;

use super::interpreter;
use super::options::Activity;
use super::ticket::{Answer, Ticket};

/// How many calls may wait for the reactor to finish its round before a thread is woken for them.
const BATCH: usize = 8;

/// What a caller without a place in the queue is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Something a handler thread does.
pub(crate) trait Work: Send {
    /// What can be done before the interpreter is needed. `Err` is the answer, and nothing is run.
    ///
    /// # Errors
    /// The request is not valid.
    fn prepare(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Whether [`Work::prepare`] may take so long that others should have the interpreter meanwhile.
    fn is_heavy(&self) -> bool {
        false
    }

    /// Does it.
    fn run(self: Box<Self>, py: Python<'_>) -> Answer;
}

/// A piece of work in the queue.
pub(crate) struct Job {
    /// Who waits for it.
    pub(crate) ticket: Arc<Ticket>,
    /// Which service it is for.
    pub(crate) service: ServiceName,
    /// Whether another call waits for this one while it holds a thread or a place on the loop.
    pub(crate) is_nested: bool,
    /// What is to be done.
    pub(crate) work: Box<dyn Work>,
}

/// What remains to be done for a job in the queue.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Submitted {
    /// Nothing: a thread will take it.
    Taken,
    /// [`Pool::flush`] must be called, once whoever submits has nothing more to submit.
    FlushDue,
}

/// The pool. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    settings: PythonSettings,
    blame: Arc<dyn Blame>,
    on_exhausted: Box<dyn Fn() + Send + Sync>,
    interrupter: Interrupter,
    watch: OnceLock<std::thread::Thread>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    /// Sleeping threads; the last one went to sleep last.
    idle: Vec<Arc<Slot>>,
    /// All threads but the lost ones.
    threads: Vec<Arc<Slot>>,
    /// Threads that were given up and have not come back.
    lost: Vec<Arc<Slot>>,
    /// Threads at work.
    running: usize,
    /// How many jobs were ever taken: whether it grows tells whether the queue moves.
    taken: u64,
    /// Threads that were woken and have not looked at the queue yet.
    waking: usize,
    /// Other things with deadlines, such as the event loop.
    watched: Vec<Weak<dyn Watched>>,
    /// Somebody will call [`Pool::flush`].
    is_flush_due: bool,
    /// The watch looks often, as calls wait that nobody was woken for.
    is_armed: bool,
    /// When the watch will look again on its own.
    next_look: Option<Instant>,
    exhausted: bool,
}

impl Pool {
    /// Starts the pool; threads come as they are needed.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(
        settings: PythonSettings,
        blame: Arc<dyn Blame>,
        on_exhausted: Box<dyn Fn() + Send + Sync>,
    ) -> std::io::Result<Self> {
        let interrupter = Interrupter::start()?;
        let shared = Arc::new(Shared {
            settings,
            blame,
            on_exhausted,
            interrupter,
            watch: OnceLock::new(),
            state: Mutex::default(),
        });
        watch::start(&shared)?;
        Ok(Self { shared })
    }

    /// Puts `job` in the queue.
    ///
    /// # Errors
    /// The queue is full.
    pub(crate) fn submit(&self, job: Job) -> Result<Submitted, Failure> {
        if interpreter::is_forked() {
            return Err(Failure::new(FailureKind::Unavailable, Origin::Service)
                .with_text("a forked process has no server to call"));
        }
        let shared = &self.shared;
        let mut state = shared.state();
        let limit = usize::from(shared.settings.handler_threads);
        // Threads that sleep, are about to look, or do not exist yet: each may take one call.
        let free = state.idle.len() + state.waking + limit.saturating_sub(state.threads.len());
        let queue = usize::try_from(shared.settings.queue).unwrap_or(usize::MAX);
        if state.queue.len() >= queue.saturating_add(free) && !job.is_nested {
            return Err(Failure::overloaded("All handlers are busy", RETRY_AFTER));
        }
        let (deadline, is_nested) = (job.ticket.deadline, job.is_nested);
        state.queue.push_back(job);
        let (mut woken, mut submitted) = (None, Submitted::Taken);
        if state.needs_thread() {
            if is_nested || state.queue.len() >= BATCH {
                woken = shared.wake_one(&mut state, is_nested);
            } else if !state.is_flush_due {
                state.is_flush_due = true;
                submitted = Submitted::FlushDue;
            }
        }
        let look = if state.must_arm() { true } else { state.next_look.is_none_or(|next| deadline < next) };
        if look {
            state.next_look = Some(deadline);
        }
        drop(state);
        if let Some(slot) = woken {
            slot.wake();
        }
        if look {
            shared.wake_watch();
        }
        Ok(submitted)
    }

    /// Wakes a thread for what was submitted, if it still needs one.
    pub(crate) fn flush(&self) {
        let mut state = self.shared.state();
        state.is_flush_due = false;
        if state.queue.is_empty() || !state.needs_thread() {
            return;
        }
        let is_nested = state.queue.iter().any(|job| job.is_nested);
        let woken = self.shared.wake_one(&mut state, is_nested);
        let look = state.must_arm();
        drop(state);
        if let Some(slot) = woken {
            slot.wake();
        }
        if look {
            self.shared.wake_watch();
        }
    }

    /// Called by a handler thread that is about to wait for something outside the interpreter: a call in the
    /// queue gets another thread at once.
    pub(crate) fn about_to_block(&self) {
        let mut state = self.shared.state();
        if state.queue.is_empty() || state.waking > 0 {
            return;
        }
        let woken = self.shared.wake_one(&mut state, false);
        drop(state);
        if let Some(slot) = woken {
            slot.wake();
        }
    }

    /// Makes the watch look after the deadlines of `watched` as well.
    pub(crate) fn watch(&self, watched: Weak<dyn Watched>) {
        self.shared.state().watched.push(watched);
    }

    /// Makes sure the watch looks at `deadline`.
    pub(crate) fn look_at(&self, deadline: Instant) {
        let mut state = self.shared.state();
        if state.next_look.is_none_or(|next| deadline < next) {
            state.next_look = Some(deadline);
            drop(state);
            self.shared.wake_watch();
        }
    }

    /// Claims a blame slot for the calling thread.
    pub(crate) fn blame(&self) -> &Arc<dyn Blame> {
        &self.shared.blame
    }

    /// Interrupts frames on other threads.
    pub(crate) fn interrupter(&self) -> &Interrupter {
        &self.shared.interrupter
    }

    /// Gives up on a part of the runtime as a whole: the worker should be replaced.
    pub(crate) fn exhaust(&self) {
        self.shared.exhaust();
    }

    /// How busy the threads are.
    pub(crate) fn activity(&self) -> Activity {
        let state = self.shared.state();
        Activity {
            running: state.running,
            queued: state.queue.len(),
            async_calls: 0,
            threads: state.threads.len(),
            lost: state.lost.len(),
        }
    }
}

impl State {
    /// Whether the watch must be woken, as there are more calls than threads on their way to them: should the
    /// first of those block, the others would wait for it.
    fn must_arm(&mut self) -> bool {
        let seen_to = self.waking + usize::from(self.is_flush_due);
        self.queue.len() > seen_to && !std::mem::replace(&mut self.is_armed, true)
    }

    /// Whether nobody will look at the queue soon: no thread was woken for it, and none runs Python, after
    /// which it would.
    fn needs_thread(&self) -> bool {
        self.waking == 0 && (self.running == 0 || thread::interpreter_is_free())
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the thread that slept last, or makes a new one; it is woken once the state is unlocked. A call
    /// that others wait for may have one thread more for each of those that may all be waiting.
    fn wake_one(self: &Arc<Self>, state: &mut State, is_nested: bool) -> Option<Arc<Slot>> {
        if let Some(slot) = state.idle.pop() {
            state.waking += 1;
            return Some(slot);
        }
        let limit = usize::from(self.settings.handler_threads) * if is_nested { 2 } else { 1 };
        if state.threads.len() >= limit {
            return None;
        }
        match thread::start(self) {
            Ok(slot) => {
                state.threads.push(Arc::clone(&slot));
                state.waking += 1;
                Some(slot)
            }
            Err(error) => {
                tracing::error!(%error, "no handler thread could be started");
                None
            }
        }
    }

    fn wake_watch(&self) {
        if let Some(watch) = self.watch.get() {
            watch.unpark();
        }
    }

    fn exhaust(&self) {
        let first = !std::mem::replace(&mut self.state().exhausted, true);
        if first {
            (self.on_exhausted)();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("activity", &self.activity()).finish()
    }
}
