//! The connections of one worker to one database.
//!
//! A call borrows a connection as a [`Lease`]. Whatever becomes of the call, its lease ends in one of two ways:
//! the connection is clean and goes back, or it is closed. A lease that is dropped in the midst of a statement
//! first has it cancelled at the database, one that is dropped within a transaction has it rolled back; both
//! happen on the I/O runtime, and the place in the pool is free when they are over, so calls that are cut off
//! cannot pile up at the database.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crosstie_model::outgoing::{Access, Isolation, SqlError, Trouble};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::error::Elapsed;
use tokio::time::{Instant as At, timeout, timeout_at};

use super::link::{Connector, Done, Failed, Left, Link, Order};
use super::meter::Meter;
use super::sink::Sink;
use crate::circuit::{Circuit, Verdict};
use crosstie_telemetry::metrics::UnderWay;

/// Connections idle for longer are asked whether they live before they serve again.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// How long that answer, or the end of what a call left behind, may take.
const CLEANUP_LIMIT: Duration = Duration::from_secs(5);

/// How much a pool may hold, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Most connections.
    pub(super) size: usize,
    /// How long a call waits for one.
    pub(super) wait: Duration,
    /// How long making one may take.
    pub(super) connect: Duration,
    /// How long one is kept unused.
    pub(super) idle: Duration,
    /// How long one is used.
    pub(super) lifetime: Duration,
}

/// The pool. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    connector: Box<dyn Connector>,
    circuit: Arc<Circuit>,
    limits: Limits,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
    /// Grows when a connection breaks: those opened before are not trusted any more.
    generation: AtomicU64,
    runtime: Handle,
    meter: Meter,
}

/// A connection that waits for a call.
struct Idle {
    held: Held,
    since: Instant,
}

/// A connection and where it comes from.
struct Held {
    link: Box<dyn Link>,
    born: Instant,
    generation: u64,
    /// Counts it as open.
    _open: UnderWay,
}

impl Pool {
    /// A pool without connections; what calls leave behind is cleared away on `runtime`.
    pub(super) fn new(
        connector: Box<dyn Connector>,
        circuit: Arc<Circuit>,
        limits: Limits,
        runtime: Handle,
        meter: Meter,
    ) -> Self {
        let shared = Arc::new(Shared {
            connector,
            circuit,
            limits,
            permits: Arc::new(Semaphore::new(limits.size)),
            idle: Mutex::default(),
            generation: AtomicU64::new(0),
            runtime,
            meter,
        });
        shared.runtime.spawn(close_unused(Arc::downgrade(&shared), limits));
        Self(shared)
    }

    /// Borrows a connection: one that waits, or a new one.
    ///
    /// # Errors
    /// All are busy for too long, or none can be made.
    pub(super) async fn lease(&self, deadline: Instant) -> Result<Lease, SqlError> {
        self.lease_through(deadline, OpenCircuit::Refuses).await
    }

    /// As [`Pool::lease`], whatever became of others.
    ///
    /// # Errors
    /// As [`Pool::lease`].
    pub(super) async fn lease_anyway(&self, deadline: Instant) -> Result<Lease, SqlError> {
        self.lease_through(deadline, OpenCircuit::LetsThrough).await
    }

    async fn lease_through(&self, deadline: Instant, circuit: OpenCircuit) -> Result<Lease, SqlError> {
        let place = self.place(deadline).await?;
        let mut held = None;
        while let Some(idle) = self.0.take_idle() {
            held = self.0.still_good(idle).await;
            if held.is_some() {
                break;
            }
        }
        let held = match held {
            Some(held) => held,
            None => self.0.open(deadline, circuit).await?,
        };
        let pool = Arc::clone(&self.0);
        Ok(Lease { held: Some(held), place: Some(place), pool, state: State::Clean, is_spoilt: false })
    }

    /// A place among those that may have a connection.
    async fn place(&self, deadline: Instant) -> Result<Place, SqlError> {
        let shared = &self.0;
        let permits = Arc::clone(&shared.permits);
        if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
            return Ok(Place::new(permit, &shared.meter));
        }
        shared.meter.waited();
        let until = soonest(deadline, shared.limits.wait);
        match timeout_at(At::from_std(until), permits.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place::new(permit, &shared.meter)),
            Ok(Err(_)) | Err(_) => {
                let size = shared.limits.size;
                let text = format!("all {size} connections were busy until the call had to give up waiting");
                Err(SqlError::new(Trouble::Busy, text).retry_after(Duration::from_secs(1)))
            }
        }
    }
}

/// The sooner of `deadline` and `limit` from now.
fn soonest(deadline: Instant, limit: Duration) -> Instant {
    Instant::now().checked_add(limit).map_or(deadline, |until| until.min(deadline))
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last.
    fn take_idle(&self) -> Option<Idle> {
        self.idle().pop()
    }

    fn is_due(&self, held: &Held) -> bool {
        held.born.elapsed() >= self.limits.lifetime
            || held.generation != self.generation.load(Ordering::Acquire)
            || held.link.is_closed()
    }

    /// The connection of `idle` if it can serve again.
    async fn still_good(&self, idle: Idle) -> Option<Held> {
        let Idle { mut held, since } = idle;
        if self.is_due(&held) || since.elapsed() >= self.limits.idle {
            return None;
        }
        if since.elapsed() < ASK_AFTER {
            return Some(held);
        }
        let limit = CLEANUP_LIMIT.min(self.limits.connect);
        let answer = timeout(limit, held.link.ping()).await;
        matches!(answer, Ok(Ok(()))).then_some(held)
    }

    async fn open(&self, deadline: Instant, circuit: OpenCircuit) -> Result<Held, SqlError> {
        let admitted = match (self.circuit.admit(Instant::now()), circuit) {
            (Ok(admitted), _) => Some(admitted),
            (Err(_), OpenCircuit::LetsThrough) => None,
            (Err(after), OpenCircuit::Refuses) => {
                let text = "the circuit is open: connections before were not made in time";
                return Err(SqlError::new(Trouble::Circuit, text).retry_after(after));
            }
        };
        let generation = self.generation.load(Ordering::Acquire);
        let until = soonest(deadline, self.limits.connect);
        let opened = timeout_at(At::from_std(until), self.connector.connect()).await;
        let verdict = match &opened {
            Ok(_) => Verdict::Works,
            // The caller had less time than a connection may take.
            Err(_) if until == deadline => Verdict::Nothing,
            Err(_) => Verdict::Fails,
        };
        if let Some(admitted) = admitted {
            admitted.judge(verdict, Instant::now());
        }
        let opened = opened.unwrap_or_else(|_| {
            Err(if until == deadline {
                SqlError::new(Trouble::Deadline, "the deadline passed before a connection was made")
            } else {
                let text = format!("no connection was made within {:?}", self.limits.connect);
                SqlError::new(Trouble::Connect, text)
            })
        });
        let link = opened.inspect_err(|_| self.meter.failed())?;
        Ok(Held { link, born: Instant::now(), generation, _open: self.meter.opened() })
    }

    fn give_back(&self, held: Held) {
        if !self.is_due(&held) && !self.limits.idle.is_zero() {
            self.idle().push(Idle { held, since: Instant::now() });
        }
    }

    /// Closes what waits: a connection broke, so the others probably did.
    fn distrust(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        let old = std::mem::take(&mut *self.idle());
        drop(old);
    }
}

/// Closes connections that nobody used for long, until the pool is gone.
async fn close_unused(pool: Weak<Shared>, limits: Limits) {
    let pause = limits.idle.min(limits.lifetime) / 2;
    let pause = pause.clamp(Duration::from_millis(50), Duration::from_secs(30));
    loop {
        tokio::time::sleep(pause).await;
        let Some(shared) = pool.upgrade() else { return };
        let old: Vec<Idle> = {
            let mut idle = shared.idle();
            let is_old =
                |idle: &mut Idle| idle.since.elapsed() >= shared.limits.idle || shared.is_due(&idle.held);
            idle.extract_if(.., is_old).collect()
        };
        drop(old);
    }
}

/// A place in the pool, counted while it is taken.
struct Place {
    _permit: OwnedSemaphorePermit,
    _in_use: UnderWay,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, meter: &Meter) -> Self {
        Self { _permit: permit, _in_use: meter.taken() }
    }
}

/// What an open circuit does to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenCircuit {
    Refuses,
    LetsThrough,
}

/// In which state a connection is that a call borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// As it came.
    Clean,
    /// In a transaction.
    Open,
    /// The database undid the transaction; the service has not ended it yet.
    Undone,
    /// In the midst of something.
    Busy,
    /// Of no use to anybody else: closed when it is given back.
    Spoilt,
}

/// A borrowed connection.
pub(super) struct Lease {
    held: Option<Held>,
    place: Option<Place>,
    pool: Arc<Shared>,
    state: State,
    /// It is closed when it would go back.
    is_spoilt: bool,
}

impl Lease {
    /// Runs a statement until `order.deadline`.
    ///
    /// # Errors
    /// What the database says, or that it took too long; then the connection is lost to the call.
    pub(super) async fn run(&mut self, order: &Order<'_>, sink: &mut Sink) -> Result<Done, SqlError> {
        let before = self.enter_until(order.deadline)?;
        let running = self.link()?.run(order, sink);
        let ran = timeout_at(At::from_std(order.deadline), running).await;
        self.leave(before, ran)
    }

    /// Runs a statement whose reader sets the pace, and so how long it takes.
    ///
    /// # Errors
    /// What the database says.
    pub(super) async fn stream(&mut self, order: &Order<'_>, sink: &mut Sink) -> Result<Done, SqlError> {
        let before = self.enter()?;
        let ran = self.link()?.run(order, sink).await;
        self.leave(before, Ok(ran))
    }

    /// Begins a transaction; dropped before its end, the lease undoes it.
    ///
    /// # Errors
    /// As [`Lease::run`].
    pub(super) async fn begin(
        &mut self,
        isolation: Option<Isolation>,
        access: Access,
        deadline: Instant,
    ) -> Result<(), SqlError> {
        let before = self.enter_until(deadline)?;
        let beginning = self.link()?.begin(isolation, access, deadline);
        let begun = timeout_at(At::from_std(deadline), beginning).await;
        self.leave(before, begun)?;
        self.state = State::Open;
        Ok(())
    }

    /// Commits.
    ///
    /// # Errors
    /// As [`Lease::run`]; that the database undid the transaction.
    pub(super) async fn commit(&mut self, deadline: Instant) -> Result<(), SqlError> {
        let before = self.enter_until(deadline)?;
        let ended = timeout_at(At::from_std(deadline), self.link()?.commit()).await;
        self.leave(before, ended)?;
        self.state = State::Clean;
        Ok(())
    }

    /// Undoes the transaction.
    ///
    /// # Errors
    /// As [`Lease::run`].
    pub(super) async fn rollback(&mut self, deadline: Instant) -> Result<(), SqlError> {
        if self.state == State::Undone {
            // What the database did not undo itself, such as a lock that it left.
            self.state = State::Open;
        }
        let before = self.enter()?;
        let ended = timeout_at(At::from_std(deadline), self.link()?.rollback()).await;
        self.leave(before, ended)?;
        self.state = State::Clean;
        Ok(())
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn ping(&mut self, deadline: Instant) -> Result<(), SqlError> {
        let before = self.enter()?;
        let answered = timeout_at(At::from_std(deadline), self.link()?.ping()).await;
        self.leave(before, answered)
    }

    fn link(&mut self) -> Result<&mut (dyn Link + 'static), SqlError> {
        self.held.as_mut().map(|held| held.link.as_mut()).ok_or_else(lost)
    }

    /// As [`Lease::enter`], unless it is too late to begin anything.
    fn enter_until(&mut self, deadline: Instant) -> Result<State, SqlError> {
        if Instant::now() >= deadline {
            return Err(SqlError::new(
                Trouble::Deadline,
                "the deadline passed before the statement was sent",
            ));
        }
        self.enter()
    }

    /// From here on the connection is in the midst of something, until [`Lease::leave`].
    fn enter(&mut self) -> Result<State, SqlError> {
        match self.state {
            State::Busy | State::Spoilt => Err(lost()),
            State::Undone => Err(undone()),
            State::Clean | State::Open => Ok(std::mem::replace(&mut self.state, State::Busy)),
        }
    }

    fn leave<T>(
        &mut self,
        before: State,
        outcome: Result<Result<T, Failed>, Elapsed>,
    ) -> Result<T, SqlError> {
        let Ok(outcome) = outcome else {
            return Err(SqlError::new(
                Trouble::Deadline,
                "the statement did not end in time and is cancelled",
            ));
        };
        let Failed { error, left } = match outcome {
            Ok(value) => {
                self.state = before;
                return Ok(value);
            }
            Err(failed) => failed,
        };
        self.state = match left {
            Left::Undone if before == State::Open => State::Undone,
            Left::Usable | Left::Undone => before,
            Left::Running => State::Busy,
            Left::Broken => {
                self.pool.distrust();
                State::Spoilt
            }
        };
        Err(error)
    }

    /// The connection is closed when it would go back: a statement changed something that stays with it.
    pub(super) fn spoil(&mut self) {
        self.is_spoilt = true;
    }

    /// Whether the connection is lost to the call.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.state, State::Busy | State::Spoilt)
    }
}

fn lost() -> SqlError {
    SqlError::new(
        Trouble::Broken,
        "the connection was lost to an earlier statement, and what was done with it undone",
    )
}

fn undone() -> SqlError {
    SqlError::new(Trouble::Refused, "the database ended the transaction at an earlier statement")
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (Some(mut held), Some(place)) = (self.held.take(), self.place.take()) else { return };
        let pool = Arc::clone(&self.pool);
        match self.state {
            State::Clean if !self.is_spoilt => pool.give_back(held),
            State::Clean | State::Spoilt => drop(held),
            State::Busy => {
                let canceller = held.link.canceller();
                self.pool.runtime.spawn(async move {
                    let _ = timeout(CLEANUP_LIMIT, canceller.cancel(held.link.as_mut())).await;
                    drop((held, place));
                });
            }
            State::Open | State::Undone => {
                let is_spoilt = self.is_spoilt;
                self.pool.runtime.spawn(async move {
                    let rolled_back = timeout(CLEANUP_LIMIT, held.link.rollback()).await;
                    if matches!(rolled_back, Ok(Ok(()))) && !is_spoilt {
                        pool.give_back(held);
                    }
                    drop(place);
                });
            }
        }
    }
}
