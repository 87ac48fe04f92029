//! One handler thread: takes calls, runs them, sleeps.

#![expect(unsafe_code, reason = "asks CPython who runs, and ends forked children")]

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use crosstie_model::ports::{Blame, BlameSlot};
use crosstie_model::{Failure, ServiceName};
use pyo3::prelude::*;

use super::{Job, Shared, Slot, State};
use crate::python::interpreter;
use crate::python::ticket::Answer;

/// Services that call each other inline need room; only what is touched is ever real memory.
const STACK_BYTES: usize = 16 << 20;

unsafe extern "C" {
    /// The thread that holds the interpreter, of all threads; null when it is free. CPython 3.11 keeps one
    /// for the whole process, and exports the question for debuggers.
    fn _PyThreadState_UncheckedGet() -> *mut pyo3::ffi::PyThreadState;
}

thread_local! {
    static SLOT: RefCell<Option<Arc<Slot>>> = const { RefCell::new(None) };
    static BLAME: RefCell<Option<Box<dyn BlameSlot>>> = const { RefCell::new(None) };
    static IS_HANDLER: Cell<bool> = const { Cell::new(false) };
}

/// Whether no thread runs Python now. A guess by the time it is used: a wrong one costs a wake-up or a
/// millisecond.
pub(super) fn interpreter_is_free() -> bool {
    // SAFETY: a relaxed atomic load of a pointer that is never followed.
    unsafe { _PyThreadState_UncheckedGet() }.is_null()
}

/// Whether the calling thread is a handler thread, where a service may be run inline.
pub(crate) fn is_handler() -> bool {
    IS_HANDLER.get()
}

/// When what the calling thread works on must be done, if it works on anything.
pub(crate) fn current_deadline() -> Option<Instant> {
    SLOT.with_borrow(|slot| slot.as_ref().and_then(|slot| slot.deadline()))
}

/// Makes `slot` the calling thread's, and gives it a blame slot.
pub(crate) fn on_this_thread(slot: &Arc<Slot>, blame: &Arc<dyn Blame>) {
    slot.occupy();
    SLOT.set(Some(Arc::clone(slot)));
    BLAME.set(Some(blame.register_thread()));
}

/// Runs `work` under the blame of the calling thread, if it has a slot for it.
pub(crate) fn with_blame<T>(enter: impl Fn(&dyn BlameSlot) -> u64, work: impl FnOnce() -> T) -> T {
    let previous = BLAME.with_borrow(|slot| slot.as_deref().map(enter));
    let result = work();
    if let Some(previous) = previous {
        BLAME.with_borrow(|slot| slot.as_deref().inspect(|slot| slot.leave(previous)).is_some());
    }
    result
}

/// User code of one service is running on this thread, until this is dropped. The interpreter must be held
/// at both ends.
pub(crate) struct Entered<'py> {
    py: Python<'py>,
    slot: Option<Arc<Slot>>,
    previous: Option<u64>,
}

impl<'py> Entered<'py> {
    /// Marks the thread as running `service` until `deadline`. Threads that services made themselves have no
    /// slot and are not marked.
    pub(crate) fn new(py: Python<'py>, service: &ServiceName, deadline: Instant) -> Self {
        let slot = SLOT.with_borrow(Clone::clone);
        if let Some(slot) = &slot {
            slot.enter(py, service, deadline);
        }
        let previous = BLAME.with_borrow(|blame| blame.as_deref().map(|blame| blame.enter(service)));
        Self { py, slot, previous }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if let Some(previous) = self.previous {
            BLAME.with_borrow(|blame| blame.as_deref().inspect(|blame| blame.leave(previous)).is_some());
        }
        if let Some(slot) = &self.slot {
            slot.leave(self.py);
        }
    }
}

/// Starts a thread that will look at the queue once it is woken.
pub(super) fn start(shared: &Arc<Shared>) -> std::io::Result<Arc<Slot>> {
    let slot = Arc::new(Slot::default());
    let (own, shared) = (Arc::clone(&slot), Arc::clone(shared));
    std::thread::Builder::new()
        .name("python-handler".into())
        .stack_size(STACK_BYTES)
        .spawn(move || serve(&shared, &own))?;
    Ok(slot)
}

fn serve(shared: &Arc<Shared>, slot: &Arc<Slot>) {
    on_this_thread(slot, &shared.blame);
    IS_HANDLER.set(true);
    Python::attach(|py| {
        let mut next = py.detach(|| shared.wait_for_job(slot));
        while let Some((job, prepared)) = next {
            run(py, job, prepared);
            slot.serve(None);
            next = match shared.take_next(slot) {
                Next::Job(job) => Some(prepare(py, job)),
                Next::Sleep => py.detach(|| shared.wait_for_job(slot)),
                Next::End => None,
            };
        }
    });
    BLAME.set(None);
}

/// What a thread does after a job.
enum Next {
    Job(Job),
    Sleep,
    End,
}

impl Shared {
    /// After a job, with the interpreter still held: the next one, if one waits.
    fn take_next(&self, slot: &Arc<Slot>) -> Next {
        let mut state = self.state();
        if slot.is_lost() {
            state.lost.retain(|lost| !Arc::ptr_eq(lost, slot));
            return Next::End;
        }
        if let Some(job) = pop(&mut state, slot) {
            return Next::Job(job);
        }
        state.running = state.running.saturating_sub(1);
        if state.threads.len() > usize::from(self.settings.handler_threads) {
            state.threads.retain(|known| !Arc::ptr_eq(known, slot));
            return Next::End;
        }
        state.idle.push(Arc::clone(slot));
        Next::Sleep
    }

    /// Sleeps until a job is there, and prepares it. `None` never comes while the runtime lives.
    fn wait_for_job(&self, slot: &Arc<Slot>) -> Option<(Job, Result<(), Failure>)> {
        loop {
            slot.sleep();
            let mut state = self.state();
            state.waking = state.waking.saturating_sub(1);
            if let Some(mut job) = pop(&mut state, slot) {
                state.running += 1;
                drop(state);
                let prepared = job.work.prepare();
                return Some((job, prepared));
            }
            state.idle.push(Arc::clone(slot));
        }
    }
}

/// The next job somebody still waits for, which `slot` now works on.
fn pop(state: &mut State, slot: &Slot) -> Option<Job> {
    while let Some(job) = state.queue.pop_front() {
        if job.ticket.is_open() {
            state.taken += 1;
            slot.serve(Some(Arc::clone(&job.ticket)));
            return Some(job);
        }
    }
    None
}

fn prepare(py: Python<'_>, mut job: Job) -> (Job, Result<(), Failure>) {
    let prepared = if job.work.is_heavy() { py.detach(|| job.work.prepare()) } else { job.work.prepare() };
    (job, prepared)
}

fn run(py: Python<'_>, job: Job, prepared: Result<(), Failure>) {
    let Job { ticket, service, work, .. } = job;
    let answer: Answer = prepared.and_then(|()| {
        catch_unwind(AssertUnwindSafe(|| work.run(py))).unwrap_or_else(|_| {
            tracing::error!(%service, "the runtime failed while it ran this service");
            Err(Failure::service())
        })
    });
    if interpreter::is_forked() {
        // The service forked and the child came back from the handler. It shares the parent's connections
        // and must not answer anybody: it ends here, without any of the parent's exit handlers.
        // SAFETY: always safe to call.
        unsafe { libc::_exit(0) };
    }
    ticket.answer(answer);
}

/// Runs `future` on the calling thread, until `deadline` at most. It is polled once with the interpreter held,
/// so that a service that can run inline does; if that was not enough, others have the interpreter while
/// this waits.
pub(crate) fn block_on<F: Future + Send>(
    py: Python<'_>,
    future: F,
    deadline: Instant,
    before_blocking: impl FnOnce(),
) -> Option<F::Output>
where
    F::Output: Send,
{
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
        return Some(output);
    }
    before_blocking();
    py.detach(|| {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            // A park that ends early only costs a poll.
            std::thread::park_timeout(left);
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Some(output);
            }
        }
    })
}
