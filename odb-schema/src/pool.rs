//! Connections of one process to one database: a bounded pool, and sessions that are one transaction each.
//!
//! A session that is dropped half way (its caller gave up, or its deadline passed) takes its connection out
//! of the pool and closes it, which rolls its transaction back: an abandoned transaction in a pooled
//! connection would hold the write lock until somebody reused it.

use std::sync::Arc;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Metrics, PoolError, RecycleError, RecycleResult, TimeoutType};
use diesel_async::SimpleAsyncConnection;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::error::OdbError;
use crate::options::CONNECT_TIMEOUT;

/// A connection to one kind of database.
pub(crate) trait Link: SimpleAsyncConnection + Sized + Send + 'static {
    /// What a connection is opened from.
    type Target: Send + Sync + 'static;

    /// Starts a transaction that sees one state and writes nothing.
    const BEGIN_READ: &'static str;

    /// Starts a transaction that writes.
    const BEGIN_WRITE: &'static str;

    /// Whether one process does better to let its writers wait for each other here, in the order they came,
    /// than at the database.
    const ONE_WRITER: bool;

    /// Opens a connection whose database has the schema this release needs.
    fn open(target: &Self::Target) -> impl Future<Output = Result<Self, OdbError>> + Send;

    /// Says whether a connection that was unused for `idle` may serve again.
    fn reuse(
        &mut self,
        target: &Self::Target,
        idle: Duration,
    ) -> impl Future<Output = Result<(), OdbError>> + Send;

    /// Sees in this database's words whether it is away or busy.
    fn refine(error: OdbError) -> OdbError;
}

/// Whether a session reads, writes, or is a single statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One statement, which is its own transaction.
    Single,
    /// Several statements that see one state.
    Read,
    /// Statements that are made all or none.
    Write,
}

/// Makes connections for the pool.
struct Opener<L: Link> {
    target: Arc<L::Target>,
}

impl<L: Link> managed::Manager for Opener<L> {
    type Type = L;
    type Error = OdbError;

    async fn create(&self) -> Result<L, OdbError> {
        L::open(&self.target).await
    }

    async fn recycle(&self, link: &mut L, metrics: &Metrics) -> RecycleResult<OdbError> {
        link.reuse(&self.target, metrics.last_used()).await.map_err(RecycleError::Backend)
    }
}

/// The pool. Cheap to clone.
pub(crate) struct Pool<L: Link> {
    links: managed::Pool<Opener<L>>,
    writer: Arc<Mutex<()>>,
    target: Arc<L::Target>,
    deadline: Duration,
}

impl<L: Link> Clone for Pool<L> {
    fn clone(&self) -> Self {
        Self {
            links: self.links.clone(),
            writer: Arc::clone(&self.writer),
            target: Arc::clone(&self.target),
            deadline: self.deadline,
        }
    }
}

impl<L: Link> Pool<L> {
    /// A pool of at most `connections`; opens none yet.
    pub(crate) fn new(
        target: L::Target,
        connections: u32,
        statement_timeout: Duration,
    ) -> Result<Self, OdbError> {
        let target = Arc::new(target);
        let size = usize::try_from(connections.max(1)).unwrap_or(1);
        let links = managed::Pool::builder(Opener { target: Arc::clone(&target) })
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(statement_timeout))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|error| OdbError::Options(error.to_string()))?;
        // A statement that waits, then the transaction around it.
        let deadline = statement_timeout.saturating_mul(2).saturating_add(CONNECT_TIMEOUT);
        Ok(Self { links, writer: Arc::new(Mutex::new(())), target, deadline })
    }

    /// What the connections are opened from.
    pub(crate) fn target(&self) -> &Arc<L::Target> {
        &self.target
    }

    /// Starts a session. A pooled connection whose database went away meanwhile shows that at its first
    /// statement; nothing was asked of it yet, so the next one is tried, in the end a fresh one.
    pub(crate) async fn begin(&self, mode: Mode) -> Result<Session<L>, OdbError> {
        let mut turn = match mode {
            Mode::Write if L::ONE_WRITER => Some(Arc::clone(&self.writer).lock_owned().await),
            _ => None,
        };
        let statement = match mode {
            Mode::Single => None,
            Mode::Read => Some(L::BEGIN_READ),
            Mode::Write => Some(L::BEGIN_WRITE),
        };
        loop {
            let link = self.links.get().await.map_err(|error| self.refused(error))?;
            let used = managed::Object::metrics(&link).recycle_count > 0;
            // From here on: who gives up while it begins must not leave half an answer with the pool.
            let mut session = Session { link: Some(link), mode, turn: turn.take() };
            let Some(statement) = statement else { return Ok(session) };
            match session.link()?.batch_execute(statement).await.map_err(refine_or_away::<L>) {
                Ok(()) => return Ok(session),
                Err(error) if !used || !error.is_unreachable() => return Err(error),
                Err(_) => turn = session.turn.take(),
            }
        }
    }

    /// Runs `session`, from its start to its end, within the pool's deadline.
    pub(crate) async fn within_deadline<T>(
        &self,
        session: impl Future<Output = Result<T, OdbError>>,
    ) -> Result<T, OdbError> {
        match tokio::time::timeout(self.deadline, session).await {
            Ok(outcome) => outcome,
            Err(_) => Err(OdbError::unreachable(format!("no answer within {:?}", self.deadline))),
        }
    }

    /// What a pool that gives no connection means. Connections that are idle now would fail likewise, so
    /// they are closed: a file that went away must not stay open.
    fn refused(&self, error: PoolError<OdbError>) -> OdbError {
        let error = match error {
            PoolError::Backend(error) => L::refine(error),
            PoolError::Timeout(TimeoutType::Wait) => return OdbError::Busy,
            PoolError::Timeout(_) => {
                OdbError::unreachable(format!("no connection within {CONNECT_TIMEOUT:?}"))
            }
            other => OdbError::unreachable(other),
        };
        self.links.retain(|_, _| false);
        match error {
            OdbError::Query(error) => OdbError::unreachable(error),
            known => known,
        }
    }
}

/// What an error of a statement that cannot be at fault means: a known one, or that the database is away.
fn refine_or_away<L: Link>(error: diesel::result::Error) -> OdbError {
    match L::refine(error.into()) {
        OdbError::Query(error) => OdbError::unreachable(error),
        known => known,
    }
}

/// One transaction, or one statement.
pub(crate) struct Session<L: Link> {
    link: Option<managed::Object<Opener<L>>>,
    mode: Mode,
    /// Held for as long as the session lasts.
    turn: Option<OwnedMutexGuard<()>>,
}

impl<L: Link> Session<L> {
    /// The connection, for queries.
    pub(crate) fn link(&mut self) -> Result<&mut L, OdbError> {
        self.link.as_deref_mut().ok_or_else(|| OdbError::unreachable("the session has ended"))
    }

    /// Ends the session with what its queries came to: commits, or rolls back and says why.
    pub(crate) async fn end<T>(mut self, outcome: Result<T, OdbError>) -> Result<T, OdbError> {
        let error = match outcome {
            Ok(value) => {
                if self.mode != Mode::Single {
                    let committed = self.link()?.batch_execute("COMMIT").await;
                    committed.map_err(refine_or_away::<L>)?;
                }
                drop(self.link.take());
                return Ok(value);
            }
            Err(error) => L::refine(error),
        };
        // A rollback that fails shows that the connection is gone, whatever the first error looked like. A
        // single statement is followed by one too: it changes nothing and asks the same question.
        match self.link()?.batch_execute("ROLLBACK").await {
            Err(gone) if self.mode != Mode::Single && matches!(error, OdbError::Query(_)) => {
                Err(OdbError::unreachable(gone))
            }
            Err(_) => Err(error),
            Ok(()) => {
                drop(self.link.take());
                Err(error)
            }
        }
    }
}

impl<L: Link> Drop for Session<L> {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            drop(managed::Object::take(link));
        }
    }
}

/// How often a transaction that lost a deadlock or a serialization race is run again.
const MOST_RETRIES: u32 = 10;

/// Counts the runs of one transaction.
#[derive(Default)]
pub(crate) struct Retries(u32);

impl Retries {
    /// Waits a moment and says yes when `error` was a lost race and the transaction may run again.
    pub(crate) async fn again(&mut self, error: &OdbError) -> bool {
        if self.0 >= MOST_RETRIES || !lost_race(error) {
            return false;
        }
        self.0 += 1;
        tokio::time::sleep(Duration::from_millis(5) * self.0).await;
        true
    }
}

/// Whether the database chose this transaction to give way to another.
fn lost_race(error: &OdbError) -> bool {
    use diesel::result::{DatabaseErrorKind, Error};
    match error {
        OdbError::Query(Error::DatabaseError(DatabaseErrorKind::SerializationFailure, _)) => true,
        OdbError::Query(Error::DatabaseError(_, info)) => {
            let message = info.message();
            message.contains("try restarting transaction") || message.contains("deadlock detected")
        }
        _ => false,
    }
}
