//! The event loop: one thread per worker that runs every `async def handle(self)`.
//!
//! Calls reach it through a queue and an eventfd, without the interpreter: the reactor never waits for it,
//! and a burst of calls rings once. Deadlines are held by the pool's watch: the caller gets 504, the task is
//! cancelled, and one that blocks the loop instead of awaiting is interrupted. A loop that stays blocked
//! stops all asynchronous services of its worker, so that worker asks to be replaced at once. The thread
//! starts with the first asynchronous service; a worker without any never imports asyncio.

mod awaitable;
mod step;

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crossbeam_queue::SegQueue;
use crosstie_model::settings::PythonSettings;
use crosstie_model::{Failure, FailureKind, Origin};
use pyo3::prelude::*;

use self::awaitable::Awaited;
use self::step::{Step, Stepper};
use super::context::{Call, run_user_code};
use super::interpreter;
use super::pool::{self, Pool, Slot, Watched};
use super::ticket::Ticket;
use super::unit::Unit;

/// What a caller without a place is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a coroutine of a call is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// The handler; its result is the reply.
    Handle,
    /// The next piece of the generator of a reply under way.
    Advance(Arc<Py<PyAny>>),
    /// The end of a generator whose receiver went away.
    Close(Arc<Py<PyAny>>),
}

/// A coroutine under way, or about to be.
pub(crate) struct Running {
    number: u64,
    pub(crate) call: Arc<Call>,
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) purpose: Purpose,
    /// Keeps the code loaded.
    pub(crate) unit: Arc<Unit>,
    task: Mutex<Option<Py<PyAny>>>,
    is_cancelled: AtomicBool,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.purpose, self.call)
    }
}

enum Command {
    Start(Arc<Running>),
    Cancel(Arc<Running>),
    Poll(Arc<Awaited>),
}

/// The loop. Cheap to clone.
#[derive(Clone)]
pub(crate) struct EventLoop {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    limit: usize,
    stuck_after: Duration,
    commands: SegQueue<Command>,
    /// The bell was rung and nobody has come yet.
    is_rung: AtomicBool,
    bell: File,
    running: Mutex<HashMap<u64, Arc<Running>>>,
    numbers: AtomicU64,
    slot: Arc<Slot>,
    thread: OnceLock<ThreadId>,
    object: OnceLock<Py<PyAny>>,
    is_started: Mutex<bool>,
}

impl EventLoop {
    /// A loop that is not running yet.
    ///
    /// # Errors
    /// The system gives no file descriptor.
    pub(crate) fn new(settings: &PythonSettings, pool: &Pool) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            pool: pool.clone(),
            limit: usize::try_from(settings.async_calls).unwrap_or(usize::MAX),
            stuck_after: Duration::from_millis(settings.stuck_after_ms),
            commands: SegQueue::new(),
            is_rung: AtomicBool::new(false),
            bell: bell()?,
            running: Mutex::default(),
            numbers: AtomicU64::new(1),
            slot: Arc::default(),
            thread: OnceLock::new(),
            object: OnceLock::new(),
            is_started: Mutex::new(false),
        });
        let weak = Arc::downgrade(&shared);
        pool.watch(weak);
        Ok(Self { shared })
    }

    /// Starts the loop's thread unless it runs.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn ensure_started(&self) -> std::io::Result<()> {
        let mut started = self.shared.is_started.lock().unwrap_or_else(PoisonError::into_inner);
        if !*started {
            let shared = Arc::clone(&self.shared);
            thread::Builder::new()
                .name("python-loop".into())
                .stack_size(16 << 20)
                .spawn(move || serve(&shared))?;
            *started = true;
        }
        Ok(())
    }

    /// Whether the calling thread is the loop's.
    pub(crate) fn is_this_thread(&self) -> bool {
        self.shared.thread.get() == Some(&thread::current().id())
    }

    /// Hands a coroutine's making to the loop.
    ///
    /// # Errors
    /// Too many calls are under way.
    pub(crate) fn submit(
        &self,
        call: Arc<Call>,
        unit: Arc<Unit>,
        purpose: Purpose,
        ticket: Arc<Ticket>,
    ) -> Result<(), Failure> {
        let shared = &self.shared;
        if interpreter::is_forked() {
            return Err(Failure::new(FailureKind::Unavailable, Origin::Service)
                .with_text("a forked process has no server to call"));
        }
        let deadline = ticket.deadline;
        let running = Arc::new(Running {
            number: shared.numbers.fetch_add(1, Ordering::Relaxed),
            call,
            ticket,
            purpose,
            unit,
            task: Mutex::default(),
            is_cancelled: AtomicBool::new(false),
        });
        {
            let mut all = shared.running();
            let is_new = matches!(running.purpose, Purpose::Handle);
            if is_new && all.len() >= shared.limit {
                return Err(Failure::overloaded("Too many asynchronous calls are under way", RETRY_AFTER));
            }
            all.insert(running.number, Arc::clone(&running));
        }
        shared.push(Command::Start(running));
        shared.pool.look_at(deadline);
        Ok(())
    }

    /// An asyncio future of `future`, which is polled on the loop's thread.
    ///
    /// # Errors
    /// The loop is gone.
    pub(crate) fn awaitable<'py, F, S>(
        &self,
        py: Python<'py>,
        future: F,
        shown: S,
    ) -> PyResult<Bound<'py, PyAny>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
        S: for<'a> FnOnce(Python<'a>, F::Output) -> PyResult<Bound<'a, PyAny>> + Send + 'static,
    {
        awaitable::start(py, &self.shared, future, shown)
    }

    /// How many calls are under way.
    pub(crate) fn calls(&self) -> usize {
        self.shared.running().len()
    }
}

impl Shared {
    fn running(&self) -> MutexGuard<'_, HashMap<u64, Arc<Running>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, command: Command) {
        self.commands.push(command);
        if !self.is_rung.swap(true, Ordering::AcqRel) {
            // An eventfd's counter cannot overflow by ones; nothing else can fail here.
            let _ = (&self.bell).write_all(&1u64.to_ne_bytes());
        }
    }

    /// Does what waits in the queue. On the loop's thread.
    fn drain(self: &Arc<Self>, py: Python<'_>) {
        let mut rings = [0u8; 8];
        let _ = (&self.bell).read_exact(&mut rings);
        // An exchange: what was pushed before it is seen below, what is pushed after it rings again.
        self.is_rung.swap(false, Ordering::AcqRel);
        while let Some(command) = self.commands.pop() {
            match command {
                Command::Start(running) => self.start(py, &running),
                Command::Cancel(running) => cancel(py, &running),
                Command::Poll(awaited) => awaited.poll(py),
            }
        }
    }

    fn start(self: &Arc<Self>, py: Python<'_>, running: &Arc<Running>) {
        if !running.ticket.is_open() && !matches!(running.purpose, Purpose::Close(_)) {
            self.running().remove(&running.number);
            return;
        }
        let begun = run_user_code(py, &running.call, running.ticket.deadline, || {
            Step::begin(py, Arc::clone(self), Arc::clone(running))
        });
        let task = begun.and_then(|step| self.object(py)?.call_method1("create_task", (step,)));
        match task {
            Ok(task) => *running.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.unbind()),
            Err(error) => self.fail(py, running, &error),
        }
    }

    /// The coroutine could not be made, or failed.
    fn fail(&self, py: Python<'_>, running: &Running, error: &PyErr) {
        self.running().remove(&running.number);
        running.ticket.answer(Err(step::failure_of(py, running, error)));
    }

    fn object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let object = self.object.get().map(|object| object.bind(py).clone());
        object.ok_or_else(|| pyo3::exceptions::PyRuntimeError::new_err("the event loop is not running"))
    }
}

impl Watched for Shared {
    fn look(&self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut late = Vec::new();
        for running in self.running().values() {
            if running.ticket.deadline > now {
                next = Some(next.map_or(running.ticket.deadline, |known| known.min(running.ticket.deadline)));
            } else if !running.is_cancelled.swap(true, Ordering::Relaxed) {
                late.push(Arc::clone(running));
            }
        }
        for running in late {
            running.ticket.answer(Err(Failure::timeout()));
            self.push(Command::Cancel(running));
        }
        if let Some(overdue) = self.slot.overdue(now) {
            if overdue.interrupt {
                self.pool.interrupter().send(&self.slot, overdue.number);
            }
            if !self.slot.is_lost() && now >= overdue.deadline + self.stuck_after {
                self.slot.mark_lost();
                tracing::error!(service = %overdue.service, "the event loop is blocked for good");
                self.pool.blame().thread_lost(&overdue.service);
                self.pool.exhaust();
            }
            let again = now + Duration::from_millis(100);
            next = Some(next.map_or(again, |known| known.min(again)));
        } else if let Some(deadline) = self.slot.deadline() {
            next = Some(next.map_or(deadline, |known| known.min(deadline)));
        }
        next
    }
}

fn cancel(py: Python<'_>, running: &Running) {
    let task =
        running.task.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|task| task.clone_ref(py));
    if let Some(task) = task
        && let Err(error) = task.bind(py).call_method0("cancel")
    {
        tracing::warn!(%error, "a late task could not be cancelled");
    }
}

/// The loop's thread.
fn serve(shared: &Arc<Shared>) {
    let _ = shared.thread.set(thread::current().id());
    pool::on_this_thread(&shared.slot, shared.pool.blame());
    let outcome = Python::attach(|py| {
        let drain = Bound::new(py, Drain { shared: Arc::clone(shared) })?;
        let stepper = Bound::new(py, Stepper::new(Arc::clone(shared)))?;
        let register = Bound::new(py, Register { shared: Arc::clone(shared) })?;
        use std::os::fd::AsRawFd as _;
        py.import("_crosstie_runtime.calls")?
            .call_method1("serve", (shared.bell.as_raw_fd(), drain, stepper, register))
            .map(drop)
    });
    if let Err(error) = outcome {
        tracing::error!(%error, "the event loop ended");
        shared.pool.exhaust();
    }
}

/// What the loop calls when the bell rang.
#[pyclass(frozen, module = "_crosstie")]
struct Drain {
    shared: Arc<Shared>,
}

#[pymethods]
impl Drain {
    fn __call__(&self, py: Python<'_>) {
        self.shared.drain(py);
    }
}

/// Learns which loop it is.
#[pyclass(frozen, module = "_crosstie")]
struct Register {
    shared: Arc<Shared>,
}

#[pymethods]
impl Register {
    fn __call__(&self, object: Py<PyAny>) {
        let _ = self.shared.object.set(object);
    }
}

/// A file descriptor that counts rings.
fn bell() -> std::io::Result<File> {
    bell::new()
}

mod bell {
    #![expect(unsafe_code, reason = "eventfd has no safe wrapper among our dependencies")]

    use std::fs::File;
    use std::io;
    use std::os::fd::FromRawFd as _;

    pub(super) fn new() -> io::Result<File> {
        // SAFETY: the call takes no pointers; a descriptor it returns is fresh and ours alone.
        unsafe {
            match libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) {
                -1 => Err(io::Error::last_os_error()),
                descriptor => Ok(File::from_raw_fd(descriptor)),
            }
        }
    }
}
