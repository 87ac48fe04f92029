//! One database as services call it: statements that stand alone, streams, transactions, each held to its
//! deadlines, observed, and run on the reactor that the connections belong to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use crosstie_model::outgoing::{
    Begin, Connection, OutgoingError, Parameters, Ping, Pong, SqlCall, SqlError, SqlOutgoing, SqlResult,
    SqlStream, SqlTransaction, Trouble,
};
use crosstie_telemetry::metrics::CallOutcome;
use crosstie_telemetry::traces::{AttributeValue, SpanKind};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::link::{Order, Setting};
use super::pool::{Lease, Pool};
use super::sink::Sink;
use super::stream::Reader;
use super::template::{Template, Verb};
use super::transaction::Transaction;
use super::words::Dialect;
use crate::observe::{Observed, Observer};

/// A database. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Database(pub(super) Arc<Inner>);

/// What all calls of one database share.
pub(super) struct Inner {
    pub(super) name: Arc<str>,
    /// The word for its engine.
    pub(super) engine: &'static str,
    pub(super) dialect: Dialect,
    pub(super) pool: Pool,
    /// How long one statement may take.
    pub(super) deadline: Duration,
    /// How large one result may be.
    pub(super) max_result_bytes: u64,
    pub(super) observer: Arc<Observer>,
    pub(super) runtime: Handle,
}

impl Inner {
    /// The sooner of the caller's deadline and the statement's own, from now.
    pub(super) fn until(&self, deadline: Instant) -> Instant {
        Instant::now().checked_add(self.deadline).map_or(deadline, |until| until.min(deadline))
    }

    /// Begins to observe a call that runs `statement`.
    pub(super) fn observe(&self, call: &crosstie_model::TraceContext, statement: &str) -> Observed {
        let mut observed = self.observer.begin(call, SpanKind::Client);
        observed.attribute("db.system.name", || AttributeValue::Text(self.engine.to_owned()));
        if let Some(kept) = observed.kept() {
            kept.runs(statement);
        }
        observed
    }

    /// Begins to observe a call that runs a statement, once there is room for what is kept of it.
    ///
    /// # Errors
    /// There is none in time.
    pub(super) async fn observe_statement(&self, call: &SqlCall) -> Result<Observed, SqlError> {
        self.observer.wait_for_room(call.deadline).await?;
        Ok(self.observe(&call.trace, &call.statement))
    }

    /// Runs `work` where the connections live. It is dropped when the caller goes away.
    pub(super) async fn on_runtime<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, SqlError>> + Send + 'static,
    ) -> Result<T, SqlError> {
        struct AbortOnDrop<T>(JoinHandle<T>);
        impl<T> Drop for AbortOnDrop<T> {
            fn drop(&mut self) {
                self.0.abort();
            }
        }
        let mut task = AbortOnDrop(self.runtime.spawn(work));
        (&mut task.0).await.unwrap_or_else(|_| Err(SqlError::new(Trouble::Broken, "the server is stopping")))
    }

    /// Takes the statement of `call` apart, for `setting`.
    ///
    /// # Errors
    /// It is none that can be run there.
    pub(super) fn template<'a>(&self, call: &'a SqlCall, setting: Setting) -> Result<Template<'a>, SqlError> {
        let misuse = |text: String| SqlError::new(Trouble::Misuse, text);
        let template =
            Template::parse(&call.statement, self.dialect).map_err(|error| misuse(error.to_string()))?;
        match (setting, template.verb) {
            (_, Verb::Transaction) => {
                Err(misuse("transactions are begun by transaction() and end with its block".to_owned()))
            }
            (Setting::Alone, Verb::Savepoint | Verb::RollbackTo) => {
                Err(misuse("a savepoint is part of a transaction".to_owned()))
            }
            _ => Ok(template),
        }
    }

    /// Runs one statement on `lease`.
    pub(super) async fn run_on(
        &self,
        lease: &mut Lease,
        call: &SqlCall,
        setting: Setting,
    ) -> Result<SqlResult, SqlError> {
        let template = self.template(call, setting)?;
        let is_session = template.verb == Verb::Session;
        let order = Order {
            template,
            parameters: &call.parameters,
            types: &call.types,
            setting,
            deadline: self.until(call.deadline),
        };
        let mut sink = Sink::whole(self.max_result_bytes).with(call.types.iter().map(|(name, _)| name));
        let ran = lease.run(&order, &mut sink).await;
        if is_session {
            lease.spoil();
        }
        let done = ran?;
        let (columns, rows) = sink.into_parts();
        Ok(SqlResult { columns, rows, affected: done.affected, last_insert_id: done.last_insert_id })
    }

    /// Runs one statement for itself; several times as one transaction.
    async fn run_alone(&self, call: &SqlCall) -> Result<SqlResult, SqlError> {
        // Before a connection is waited for.
        self.template(call, Setting::Alone)?;
        let mut lease = self.pool.lease(call.deadline).await?;
        if matches!(call.parameters, Parameters::Once(_)) {
            return self.run_on(&mut lease, call, Setting::Alone).await;
        }
        let deadline = self.until(call.deadline);
        lease.begin(None, crosstie_model::outgoing::Access::Write, deadline).await?;
        let result = self.run_on(&mut lease, call, Setting::Transaction).await?;
        lease.commit(self.until(call.deadline)).await?;
        Ok(result)
    }
}

/// Tells `observed` how a call ended.
pub(super) fn observed<T>(mut call: Observed, outcome: Result<T, SqlError>) -> Result<T, SqlError> {
    match &outcome {
        Ok(_) => call.ended(CallOutcome::Ok),
        Err(error) => call.failed(&error.error),
    }
    outcome
}

#[async_trait]
impl Connection for Database {
    fn name(&self) -> &str {
        &self.0.name
    }

    async fn ping(&self, ping: Ping) -> Result<Pong, OutgoingError> {
        let inner = Arc::clone(&self.0);
        let asking = async move {
            let call = inner.observe(&ping.trace, "PING");
            let started = Instant::now();
            let asked = async {
                let mut lease = inner.pool.lease_anyway(ping.deadline).await?;
                lease.ping(inner.until(ping.deadline)).await
            };
            observed(call, asked.await)?;
            Ok(Pong { detail: format!("{} answered", inner.engine), elapsed: started.elapsed() })
        };
        Ok(self.0.on_runtime(asking).await?)
    }
}

#[async_trait]
impl SqlOutgoing for Database {
    async fn run(&self, call: SqlCall) -> Result<SqlResult, SqlError> {
        let inner = Arc::clone(&self.0);
        let running = async move {
            let watched = inner.observe_statement(&call).await?;
            observed(watched, inner.run_alone(&call).await)
        };
        self.0.on_runtime(running).await
    }

    async fn stream(&self, call: SqlCall) -> Result<Arc<dyn SqlStream>, SqlError> {
        let inner = Arc::clone(&self.0);
        let starting = async move {
            let watched = inner.observe_statement(&call).await?;
            let leased = match inner.template(&call, Setting::Alone) {
                Ok(_) => inner.pool.lease(call.deadline).await,
                Err(error) => Err(error),
            };
            let lease = match leased {
                Ok(lease) => lease,
                Err(error) => return observed(watched, Err(error)),
            };
            let reader =
                Reader::start(Arc::clone(&inner), lease, call, Setting::Alone, watched, drop).await?;
            Ok(Arc::new(reader) as Arc<dyn SqlStream>)
        };
        self.0.on_runtime(starting).await
    }

    async fn begin(&self, begin: Begin) -> Result<Arc<dyn SqlTransaction>, SqlError> {
        let inner = Arc::clone(&self.0);
        let beginning = async move {
            let watched = inner.observe(&begin.trace, "BEGIN");
            let begun = async {
                let mut lease = inner.pool.lease(begin.deadline).await?;
                lease.begin(begin.isolation, begin.access, inner.until(begin.deadline)).await?;
                Ok(lease)
            };
            let lease = observed(watched, begun.await)?;
            Ok(Arc::new(Transaction::new(Arc::clone(&inner), lease, begin.trace)) as Arc<dyn SqlTransaction>)
        };
        self.0.on_runtime(beginning).await
    }
}
