//! A file of SQLite, bundled with the server.
//!
//! SQLite works on the thread that calls it, so each statement runs where threads may block and its
//! connection goes there and comes back with it. A call that is cut off leaves both there, and has the
//! statement interrupted.

mod error;
mod values;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use crosstie_model::outgoing::{Access, Isolation, Parameters, SqlError, SqlType, Trouble};
use rusqlite::types::Value;
use rusqlite::{Connection, InterruptHandle, OpenFlags, Statement};

use self::values::Column;
use super::link::{Canceller, Connector, Done, Failed, Left, Link, Order, Setting};
use super::sink::{Next, Sink};

/// How often a statement that must end is told so, until it does.
const INTERRUPT_PAUSE: Duration = Duration::from_millis(10);

/// A file.
pub(super) struct SqliteFile {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Whether it is made where there is none.
    pub(super) create: bool,
    /// How many prepared statements a connection keeps.
    pub(super) prepared_statements: usize,
}

#[async_trait]
impl Connector for SqliteFile {
    async fn connect(&self) -> Result<Box<dyn Link>, SqlError> {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if self.create {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let (path, statements) = (self.path.clone(), self.prepared_statements);
        let opening = tokio::task::spawn_blocking(move || {
            let connection = Connection::open_with_flags(&path, flags)?;
            connection.set_prepared_statement_cache_capacity(statements);
            // What the file declares is what holds; SQLite leaves it off for the sake of files from before.
            connection.pragma_update(None, "foreign_keys", true)?;
            Ok(connection)
        });
        let opened = opening.await.map_err(|error| SqlError::new(Trouble::Connect, error.to_string()))?;
        let connection = opened.map_err(|error: rusqlite::Error| error::connecting(&error))?;
        let canceller = Arc::new(SqliteCanceller {
            interrupt: connection.get_interrupt_handle(),
            is_abandoned: AtomicBool::new(false),
            is_running: AtomicBool::new(false),
        });
        Ok(Box::new(SqliteLink { connection: Some(connection), canceller }))
    }
}

/// A connection.
struct SqliteLink {
    /// Away while a statement runs.
    connection: Option<Connection>,
    canceller: Arc<SqliteCanceller>,
}

/// Interrupts what runs on a connection.
struct SqliteCanceller {
    interrupt: InterruptHandle,
    /// Nobody waits for the statement any more.
    is_abandoned: AtomicBool,
    /// A thread works on it.
    is_running: AtomicBool,
}

#[async_trait]
impl Canceller for SqliteCanceller {
    /// An interruption that comes before the statement begins is lost, so it is repeated.
    async fn cancel(&self, _link: &mut dyn Link) {
        self.is_abandoned.store(true, Ordering::SeqCst);
        while self.is_running.load(Ordering::SeqCst) {
            self.interrupt.interrupt();
            tokio::time::sleep(INTERRUPT_PAUSE).await;
        }
    }
}

/// Says that a thread works, until it is dropped there.
struct Running(Arc<SqliteCanceller>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_running.store(false, Ordering::SeqCst);
    }
}

impl SqliteLink {
    /// Lets `work` use the connection on a thread that may block.
    async fn on_thread<T: Send + 'static>(
        &mut self,
        deadline: Option<Instant>,
        work: impl FnOnce(&Connection) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, Failed> {
        let broken = |text: &str| Failed { error: SqlError::new(Trouble::Broken, text), left: Left::Broken };
        let connection = self.connection.take().ok_or_else(|| broken("the connection is closed"))?;
        self.canceller.is_running.store(true, Ordering::SeqCst);
        let running = Running(Arc::clone(&self.canceller));
        let ran = tokio::task::spawn_blocking(move || {
            if running.0.is_abandoned.load(Ordering::SeqCst) {
                return (connection, Err(broken("nobody waits any more")));
            }
            let outcome = wait_until(&connection, deadline).and_then(|()| work(&connection));
            // The connection is still here when others learn that nothing runs on it.
            drop(running);
            (connection, outcome)
        });
        let (connection, outcome) = ran.await.map_err(|_| broken("the thread of a statement failed"))?;
        self.connection = Some(connection);
        outcome
    }

    async fn command(&mut self, command: String, deadline: Option<Instant>) -> Result<(), Failed> {
        let work = move |connection: &Connection| {
            connection.execute_batch(&command).map_err(|error| error::running(&error))
        };
        self.on_thread(deadline, work).await
    }
}

/// Lets statements wait for others that hold the file, for most of the time there is: a file that is held is
/// told from a statement that takes too long.
fn wait_until(connection: &Connection, deadline: Option<Instant>) -> Result<(), Failed> {
    let Some(deadline) = deadline else { return Ok(()) };
    let left = deadline.saturating_duration_since(Instant::now());
    connection.busy_timeout(left * 9 / 10).map_err(|error| error::running(&error))
}

/// One execution of a statement.
struct Execution {
    text: String,
    values: Vec<Value>,
}

/// A statement with all its executions, for another thread.
struct Errand {
    executions: Vec<Execution>,
    types: Vec<(String, SqlType)>,
    setting: Setting,
}

impl Errand {
    fn of(order: &Order<'_>) -> Result<Self, Failed> {
        let misuse = |text: String| Failed::usable(SqlError::new(Trouble::Misuse, text));
        let execution_of = |named| {
            let rendered = order.template.render(named).map_err(|error| misuse(error.to_string()))?;
            let values =
                rendered.values.iter().map(|value| values::parameter(value)).collect::<Result<_, _>>();
            let values = values.map_err(|detail| misuse(format!("the value of a parameter {detail}")))?;
            Ok(Execution { text: rendered.text, values })
        };
        let executions = match order.parameters {
            Parameters::Once(named) => vec![execution_of(named)?],
            Parameters::Each(all) => all.iter().map(execution_of).collect::<Result<_, Failed>>()?,
        };
        Ok(Self { executions, types: order.types.to_vec(), setting: order.setting })
    }

    fn run(&self, connection: &Connection, sink: &mut Sink) -> Result<Done, Failed> {
        let mut total = Done::default();
        for execution in &self.executions {
            sink.clear();
            let done = self.execute(execution, connection, sink);
            if self.setting == Setting::Transaction && connection.is_autocommit() {
                // Some errors undo everything, and statements may end the transaction.
                let error = done.err().map(|failed| failed.error);
                let text = "the statement ended the transaction";
                let error = error.unwrap_or_else(|| SqlError::new(Trouble::Misuse, text));
                return Err(Failed { error, left: Left::Undone });
            }
            let done = done?;
            total.affected = total.affected.saturating_add(done.affected);
            total.last_insert_id = done.last_insert_id;
        }
        Ok(total)
    }

    fn execute(
        &self,
        execution: &Execution,
        connection: &Connection,
        sink: &mut Sink,
    ) -> Result<Done, Failed> {
        let failed = |error: rusqlite::Error| error::running(&error);
        let mut statement = connection.prepare_cached(&execution.text).map_err(failed)?;
        if statement.parameter_count() != execution.values.len() {
            let text = "the statement has placeholders other than its parameters";
            return Err(Failed::usable(SqlError::new(Trouble::Misuse, text)));
        }
        let wanted =
            |name: &str| self.types.iter().find_map(|(known, wanted)| (known == name).then_some(*wanted));
        let columns_of = |statement: &Statement<'_>| -> Vec<Column> {
            let columns = statement.columns();
            let made = columns
                .iter()
                .map(|column| Column::new(column.name(), column.decl_type(), wanted(column.name())));
            made.collect()
        };
        let mut columns = columns_of(&statement);
        // Before anything is run.
        sink.set_columns(columns.iter().map(|column| column.name.as_str())).map_err(Failed::usable)?;
        for (index, value) in execution.values.iter().enumerate() {
            statement.raw_bind_parameter(index + 1, value).map_err(failed)?;
        }
        let before = connection.total_changes();
        let mut rows = statement.raw_query();
        let mut count: u64 = 0;
        while let Some(row) = rows.next().map_err(failed)? {
            if count == 0 {
                // A kept statement whose tables changed learns of its columns when it is run.
                columns = columns_of(row.as_ref());
                sink.set_columns(columns.iter().map(|column| column.name.as_str()))
                    .map_err(Failed::usable)?;
                sink.announce_blocking().map_err(Failed::usable)?;
            }
            let value_of = |(index, column): (usize, &Column)| {
                let value = row.get_ref(index).map_err(failed)?;
                column
                    .value(value)
                    .map_err(|mismatch| Failed::usable(SqlError::new(Trouble::Misuse, mismatch.to_string())))
            };
            let values = columns.iter().enumerate().map(value_of).collect::<Result<_, Failed>>()?;
            count += 1;
            if sink.push(values).map_err(Failed::usable)? == Next::Flush {
                sink.flush_blocking().map_err(Failed::usable)?;
            }
        }
        drop(rows);
        if count == 0 {
            sink.announce_blocking().map_err(Failed::usable)?;
        }
        sink.flush_blocking().map_err(Failed::usable)?;
        // The count of the last statement that changed rows stays there.
        let changed = if connection.total_changes() == before { 0 } else { connection.changes() };
        let id = u64::try_from(connection.last_insert_rowid()).ok().filter(|id| changed > 0 && *id > 0);
        Ok(Done { affected: if columns.is_empty() { changed } else { count }, last_insert_id: id })
    }
}

#[async_trait]
impl Link for SqliteLink {
    async fn run(&mut self, order: &Order<'_>, sink: &mut Sink) -> Result<Done, Failed> {
        let errand = Errand::of(order)?;
        let mut taken = sink.take();
        let work = move |connection: &Connection| {
            let outcome = errand.run(connection, &mut taken);
            Ok((taken, outcome))
        };
        let (given_back, outcome) = self.on_thread(Some(order.deadline), work).await?;
        *sink = given_back;
        outcome
    }

    /// A transaction that writes takes the file at once: one that begins by reading could find later that
    /// another was faster, and could then only begin anew.
    async fn begin(
        &mut self,
        _isolation: Option<Isolation>,
        access: Access,
        deadline: Instant,
    ) -> Result<(), Failed> {
        let command = match access {
            Access::Write => "PRAGMA query_only = OFF; BEGIN IMMEDIATE",
            Access::Read => "PRAGMA query_only = ON; BEGIN",
        };
        self.command(command.to_owned(), Some(deadline)).await
    }

    async fn commit(&mut self) -> Result<(), Failed> {
        self.command("COMMIT; PRAGMA query_only = OFF".to_owned(), None).await
    }

    async fn rollback(&mut self) -> Result<(), Failed> {
        let work = |connection: &Connection| {
            let command = if connection.is_autocommit() { "" } else { "ROLLBACK; " };
            let command = format!("{command}PRAGMA query_only = OFF");
            connection.execute_batch(&command).map_err(|error| error::running(&error))
        };
        self.on_thread(None, work).await
    }

    async fn ping(&mut self) -> Result<(), Failed> {
        // Reads the file.
        self.command("SELECT count(*) FROM sqlite_schema".to_owned(), None).await
    }

    fn is_closed(&self) -> bool {
        self.connection.is_none()
    }

    fn canceller(&self) -> Arc<dyn Canceller> {
        Arc::clone(&self.canceller) as _
    }
}
