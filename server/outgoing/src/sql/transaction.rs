//! Transactions: a connection that several calls use in turn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use crosstie_model::TraceContext;
use crosstie_model::outgoing::{SqlCall, SqlError, SqlResult, SqlStream, SqlTransaction, Trouble};

use super::database::{Inner, observed};
use super::link::Setting;
use super::pool::Lease;
use super::stream::Reader;

/// A transaction. Dropped before its end, its lease undoes it.
pub(super) struct Transaction {
    inner: Arc<Inner>,
    state: Arc<Mutex<State>>,
    trace: TraceContext,
}

/// Where the connection is.
enum State {
    /// Here.
    Idle(Lease),
    /// With a call.
    Busy,
    /// With a stream.
    Streaming,
    /// Lost to a statement that was cut off, or with its connection.
    Lost,
    /// Given back.
    Ended,
}

impl Transaction {
    /// The transaction that `lease` is in.
    pub(super) fn new(inner: Arc<Inner>, lease: Lease, trace: TraceContext) -> Self {
        Self { inner, state: Arc::new(Mutex::new(State::Idle(lease))), trace }
    }

    /// Takes the connection for a call, or for a stream.
    fn take(&self, meanwhile: State) -> Result<Taken, SqlError> {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut *state, meanwhile) {
            State::Idle(lease) => Ok(Taken { lease: Some(lease), state: Arc::clone(&self.state) }),
            other => {
                let text = match &other {
                    State::Streaming => "a stream of the transaction was not read to its end",
                    State::Ended => "the transaction has ended",
                    State::Lost => "the transaction was lost to an earlier statement and is undone",
                    _ => "the transaction is in use by another call",
                };
                *state = other;
                Err(SqlError::new(Trouble::Misuse, text))
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connection of a transaction, away from it. A call that is cut off loses it, and with it the transaction.
struct Taken {
    lease: Option<Lease>,
    state: Arc<Mutex<State>>,
}

impl Taken {
    fn lease(&mut self) -> Result<&mut Lease, SqlError> {
        self.lease.as_mut().ok_or_else(|| SqlError::new(Trouble::Misuse, "the transaction has ended"))
    }

    /// Gives it back, unless the transaction was abandoned meanwhile.
    fn give_back(mut self) {
        give_back(&self.state, self.lease.take());
    }
}

/// A lease that is of no use any more is dropped, which ends at the database what was left there.
fn give_back(state: &Mutex<State>, lease: Option<Lease>) {
    let mut state = lock(state);
    if let (Some(lease), State::Busy | State::Streaming) = (lease, &*state) {
        *state = if lease.is_lost() { State::Lost } else { State::Idle(lease) };
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.lease.is_some() {
            *lock(&self.state) = State::Ended;
        }
    }
}

#[async_trait]
impl SqlTransaction for Transaction {
    async fn run(&self, call: SqlCall) -> Result<SqlResult, SqlError> {
        let (inner, mut taken) = (Arc::clone(&self.inner), self.take(State::Busy)?);
        let running = async move {
            let watched = inner.observe_statement(&call).await?;
            let ran = inner.run_on(taken.lease()?, &call, Setting::Transaction).await;
            taken.give_back();
            observed(watched, ran)
        };
        self.inner.on_runtime(running).await
    }

    async fn stream(&self, call: SqlCall) -> Result<Arc<dyn SqlStream>, SqlError> {
        let (inner, mut taken) = (Arc::clone(&self.inner), self.take(State::Streaming)?);
        let state = Arc::clone(&self.state);
        let starting = async move {
            let watched = inner.observe_statement(&call).await?;
            if let Err(error) = inner.template(&call, Setting::Transaction) {
                taken.give_back();
                return observed(watched, Err(error));
            }
            let Some(lease) = taken.lease.take() else {
                return Err(SqlError::new(Trouble::Misuse, "the transaction has ended"));
            };
            let end = move |lease| give_back(&state, Some(lease));
            let reader = Reader::start(inner, lease, call, Setting::Transaction, watched, end).await?;
            Ok(Arc::new(reader) as Arc<dyn SqlStream>)
        };
        self.inner.on_runtime(starting).await
    }

    async fn commit(&self, deadline: Instant) -> Result<(), SqlError> {
        let (inner, mut taken) = (Arc::clone(&self.inner), self.take(State::Busy)?);
        let trace = self.trace;
        let ending = async move {
            let watched = inner.observe(&trace, "COMMIT");
            let committed = taken.lease()?.commit(inner.until(deadline)).await;
            observed(watched, committed)
        };
        self.inner.on_runtime(ending).await
    }

    async fn rollback(&self, deadline: Instant) -> Result<(), SqlError> {
        let lease = match std::mem::replace(&mut *lock(&self.state), State::Ended) {
            State::Idle(lease) => lease,
            // Whoever has the connection gives it back to nobody, which undoes what was done with it.
            State::Busy | State::Streaming | State::Lost | State::Ended => return Ok(()),
        };
        let inner = Arc::clone(&self.inner);
        let ending = async move {
            let mut lease = lease;
            lease.rollback(inner.until(deadline)).await
        };
        self.inner.on_runtime(ending).await
    }

    fn abandon(&self) {
        let old = std::mem::replace(&mut *lock(&self.state), State::Ended);
        drop(old);
    }
}
