//! Results that are read piece by piece.
//!
//! A task runs the statement and hands pieces through a channel of one place: a reader who is slow makes the
//! task wait, which makes the driver read no further, which makes the database wait. So a result of any length
//! takes the memory of three pieces.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use crosstie_model::outgoing::{Columns, SqlCall, SqlError, SqlRow, SqlStream, Trouble};
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant as At, timeout_at};

use super::database::{Inner, observed};
use super::link::{Order, Setting};
use super::pool::Lease;
use super::sink::{Piece, Sink};
use super::template::Verb;
use crate::observe::Observed;

/// The reading end of a result.
pub(super) struct Reader(Arc<Reading>);

struct Reading {
    inner: Arc<Inner>,
    columns: Columns,
    pieces: AsyncMutex<mpsc::Receiver<Piece>>,
    /// How the statement ended, until somebody asked.
    outcome: Mutex<Option<JoinHandle<Result<(), SqlError>>>>,
    abort: AbortHandle,
}

impl Reader {
    /// Runs the statement of `call` on `lease`, which goes to `end` when the result was read to its end, and
    /// waits for the result to begin.
    ///
    /// # Errors
    /// It does not begin.
    pub(super) async fn start(
        inner: Arc<Inner>,
        mut lease: Lease,
        call: SqlCall,
        setting: Setting,
        watched: Observed,
        end: impl FnOnce(Lease) + Send + 'static,
    ) -> Result<Self, SqlError> {
        let (sender, receiver) = mpsc::channel(1);
        let deadline = inner.until(call.deadline);
        let running = Arc::clone(&inner);
        let task = inner.runtime.spawn(async move {
            let sink = Sink::pieces(running.max_result_bytes, sender);
            let mut sink = sink.with(call.types.iter().map(|(name, _)| name));
            let ran = async {
                let template = running.template(&call, setting)?;
                let is_session = template.verb == Verb::Session;
                let order =
                    Order { template, parameters: &call.parameters, types: &call.types, setting, deadline };
                let done = lease.stream(&order, &mut sink).await;
                if is_session {
                    lease.spoil();
                }
                done.map(drop)
            };
            let ran = ran.await;
            // The lease goes first: who sees the end of the stream may use the connection.
            end(lease);
            drop(sink);
            observed(watched, ran)
        });
        let mut reading = Reading {
            inner,
            columns: Columns::default(),
            pieces: AsyncMutex::new(receiver),
            abort: task.abort_handle(),
            outcome: Mutex::new(Some(task)),
        };
        let first = timeout_at(At::from_std(deadline), reading.pieces.get_mut().recv()).await;
        match first {
            Ok(Some(Piece::Columns(columns))) => reading.columns = columns,
            // Columns come first.
            Ok(Some(Piece::Rows(_))) => {}
            Ok(None) => reading.ended().await?,
            Err(_) => return Err(late()),
        }
        Ok(Self(Arc::new(reading)))
    }
}

impl Reading {
    /// How the statement ended; nothing to tell when somebody was told before.
    async fn ended(&self) -> Result<(), SqlError> {
        let task = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        match task {
            None => Ok(()),
            Some(task) => task.await.unwrap_or_else(|_| Err(closed())),
        }
    }

    async fn next(&self, deadline: Instant) -> Result<Vec<SqlRow>, SqlError> {
        let until = At::from_std(self.inner.until(deadline));
        let next = timeout_at(until, async { self.pieces.lock().await.recv().await }).await;
        match next {
            Ok(Some(Piece::Rows(rows))) => Ok(rows),
            Ok(Some(Piece::Columns(_))) => Ok(Vec::new()),
            Ok(None) => self.ended().await.map(|()| Vec::new()),
            Err(_) => {
                self.abort.abort();
                Err(late())
            }
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

fn late() -> SqlError {
    SqlError::new(Trouble::Deadline, "the result did not go on in time and is cancelled")
}

fn closed() -> SqlError {
    SqlError::new(Trouble::Caller, "the stream was closed before its end")
}

#[async_trait]
impl SqlStream for Reader {
    fn columns(&self) -> &Columns {
        &self.0.columns
    }

    async fn next(&self, deadline: Instant) -> Result<Vec<SqlRow>, SqlError> {
        let reading = Arc::clone(&self.0);
        self.0.inner.on_runtime(async move { reading.next(deadline).await }).await
    }

    fn abandon(&self) {
        self.0.abort.abort();
    }
}
