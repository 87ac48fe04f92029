//! What one thread that runs user code is doing now, as the watch sees it.
//!
//! A slot holds a stack of frames: the call the thread took, then each service called inline from it. The
//! watch reads deadlines from it, the interrupter raises an exception in it. Both must never hit the wrong
//! call: a frame has a number, and it is entered, left and interrupted only by threads that hold the
//! interpreter, so an interruption that was not delivered yet is taken back when its frame is left.

#![expect(unsafe_code, reason = "asynchronous exceptions are C API")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crosstie_model::ServiceName;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::python::failure;
use crate::python::ticket::Ticket;

/// How long a handler that ignores an interruption is left alone until the next.
pub(crate) const REPEAT: Duration = Duration::from_millis(250);

/// A service under way on a thread.
#[derive(Debug)]
struct Frame {
    number: u64,
    service: ServiceName,
    deadline: Instant,
    /// When the interrupter was last sent.
    interrupted: Option<Instant>,
    /// An exception was raised in the thread and may not have arrived.
    is_raised: bool,
}

/// What the watch learns about a thread.
#[derive(Debug, Clone)]
pub(crate) struct Overdue {
    /// The frame that is late.
    pub(crate) number: u64,
    /// Its service.
    pub(crate) service: ServiceName,
    /// When it should have ended.
    pub(crate) deadline: Instant,
    /// Whether it is time to interrupt it (again).
    pub(crate) interrupt: bool,
}

/// One thread's state.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    thread: OnceLock<Thread>,
    /// CPython's number of the thread.
    ident: AtomicU64,
    /// Who waits for what the thread does.
    ticket: Mutex<Option<Arc<Ticket>>>,
    frames: Mutex<Vec<Frame>>,
    /// The thread was given up; it ends when it comes back.
    lost: AtomicBool,
    woken: AtomicBool,
}

static FRAMES: AtomicU64 = AtomicU64::new(1);

impl Slot {
    /// The calling thread takes the slot.
    pub(crate) fn occupy(&self) {
        let _ = self.thread.set(thread::current());
        // SAFETY: always safe to call; names the calling thread.
        self.ident.store(unsafe { ffi::PyThread_get_thread_ident() }, Ordering::Release);
    }

    /// Lets the thread out of [`Slot::sleep`]. A thread that has not started yet will not sleep at all.
    pub(crate) fn wake(&self) {
        // An exchange, not a store: it must be over before the thread's handle is looked for.
        self.woken.swap(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Sleeps until [`Slot::wake`].
    pub(crate) fn sleep(&self) {
        while !self.woken.swap(false, Ordering::SeqCst) {
            thread::park();
        }
    }

    /// The thread works on what `ticket` waits for, or on nothing.
    pub(crate) fn serve(&self, ticket: Option<Arc<Ticket>>) {
        *self.ticket.lock().unwrap_or_else(PoisonError::into_inner) = ticket;
    }

    /// The ticket of what the thread does, if its caller still waits and should not.
    pub(crate) fn expired(&self, now: Instant) -> Option<Arc<Ticket>> {
        let ticket = self.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        ticket.as_ref().filter(|ticket| ticket.deadline <= now && ticket.is_open()).cloned()
    }

    /// The thread starts on `service`; gives the frame's number.
    pub(crate) fn enter(&self, _py: Python<'_>, service: &ServiceName, deadline: Instant) -> u64 {
        let number = FRAMES.fetch_add(1, Ordering::Relaxed);
        let service = service.clone();
        self.frames().push(Frame { number, service, deadline, interrupted: None, is_raised: false });
        number
    }

    /// The thread is done with its innermost frame. An interruption still on its way is taken back, so that
    /// it cannot hit what the thread does next.
    pub(crate) fn leave(&self, _py: Python<'_>) {
        let frame = self.frames().pop();
        if frame.is_some_and(|frame| frame.is_raised) {
            // SAFETY: the interpreter is held; a null exception takes back a pending one.
            unsafe { ffi::PyThreadState_SetAsyncExc(self.ident(), std::ptr::null_mut()) };
        }
    }

    /// The innermost frame's deadline, if the thread is at work.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.frames().last().map(|frame| frame.deadline)
    }

    /// The innermost frame, if its deadline passed. Counts as the order to interrupt it when that is due.
    pub(crate) fn overdue(&self, now: Instant) -> Option<Overdue> {
        let mut frames = self.frames();
        let frame = frames.last_mut().filter(|frame| frame.deadline <= now)?;
        let interrupt = frame.interrupted.is_none_or(|last| now.duration_since(last) >= REPEAT);
        if interrupt {
            frame.interrupted = Some(now);
        }
        let service = frame.service.clone();
        Some(Overdue { number: frame.number, service, deadline: frame.deadline, interrupt })
    }

    /// Raises `DeadlineExceeded` in the thread if it is still at that frame.
    pub(crate) fn interrupt(&self, py: Python<'_>, number: u64) {
        let exception = failure::deadline_exceeded(py);
        let mut frames = self.frames();
        let Some(frame) = frames.last_mut().filter(|frame| frame.number == number) else { return };
        frame.is_raised = true;
        // SAFETY: the interpreter is held and `exception` is a live class.
        unsafe { ffi::PyThreadState_SetAsyncExc(self.ident(), exception.as_ptr()) };
    }

    /// Gives the thread up.
    pub(crate) fn mark_lost(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Whether the thread was given up.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    fn ident(&self) -> libc::c_long {
        libc::c_long::from_ne_bytes(self.ident.load(Ordering::Acquire).to_ne_bytes())
    }

    fn frames(&self) -> MutexGuard<'_, Vec<Frame>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Interrupts frames: the one thread that may wait for the interpreter on behalf of the watch, which must
/// not, as a service may hold it for ever.
#[derive(Debug, Clone)]
pub(crate) struct Interrupter(std::sync::mpsc::Sender<(Arc<Slot>, u64)>);

impl Interrupter {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (sender, receiver) = std::sync::mpsc::channel::<(Arc<Slot>, u64)>();
        thread::Builder::new().name("python-stop".into()).spawn(move || {
            while let Ok((slot, number)) = receiver.recv() {
                Python::attach(|py| slot.interrupt(py, number));
            }
        })?;
        Ok(Self(sender))
    }

    /// Interrupts frame `number` of `slot` as soon as the interpreter can be had.
    pub(crate) fn send(&self, slot: &Arc<Slot>, number: u64) {
        let _ = self.0.send((Arc::clone(slot), number));
    }
}
