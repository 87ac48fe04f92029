//! PostgreSQL over tokio-postgres and rustls.
//!
//! Every statement is prepared, which is what keeps values and text apart, and kept for the next time. A
//! session's time zone is UTC: what has no zone is taken, and given, as UTC has it.

mod decode;
mod encode;
mod error;
mod statements;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use crosstie_model::outgoing::{
    Access, Isolation, Named, Parameters, SqlError, SqlRow, SqlType, SqlValue, Trouble,
};
use futures_util::TryStreamExt as _;
use rustls::ClientConfig;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{CancelToken, Client, Config, NoTls, Row, Socket, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::encode::Parameter;
use self::statements::Statements;
use super::convert::convert;
use super::link::{Canceller, Connector, Done, Failed, Left, Link, Order, Setting};
use super::sink::{Next, Sink};
use super::template::StatementError;

/// How long a cancelled statement may take to end before it is cancelled again.
const CANCEL_AGAIN: Duration = Duration::from_millis(500);

/// How a PostgreSQL server is reached.
pub(super) struct PostgresServer {
    /// Address, user, password.
    pub(super) config: Config,
    /// How the connection is encrypted, and the name the server's certificate must be for; none for plain.
    pub(super) tls: Option<Tls>,
    /// How many prepared statements a connection keeps.
    pub(super) prepared_statements: usize,
}

/// TLS to the server.
#[derive(Clone)]
pub(super) struct Tls {
    /// What is trusted and shown.
    pub(super) config: Arc<ClientConfig>,
    /// Whose certificate the server must have, where that is not the host's.
    pub(super) server_name: Option<String>,
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        let mut connect = MakeRustlsConnect::new(ClientConfig::clone(&self.config));
        MakeTlsConnect::<Socket>::make_tls_connect(&mut connect, self.server_name.as_deref().unwrap_or(host))
    }
}

#[async_trait]
impl Connector for PostgresServer {
    async fn connect(&self) -> Result<Box<dyn Link>, SqlError> {
        let mut config = self.config.clone();
        let client = match &self.tls {
            Some(tls) => {
                let connecting = config.ssl_mode(SslMode::Require).connect(tls.clone());
                let (client, driver) = connecting.await.map_err(|error| error::connecting(&error))?;
                tokio::spawn(driver);
                client
            }
            None => {
                let connecting = config.ssl_mode(SslMode::Disable).connect(NoTls);
                let (client, driver) = connecting.await.map_err(|error| error::connecting(&error))?;
                tokio::spawn(driver);
                client
            }
        };
        // A statement whose client is gone ends, where the server knows how to look (PostgreSQL 14).
        let setup = "SET TimeZone = 'UTC'; SELECT set_config(name, '5s', false) FROM pg_settings \
                     WHERE name = 'client_connection_check_interval'";
        client.batch_execute(setup).await.map_err(|error| error::connecting(&error))?;
        Ok(Box::new(PostgresLink {
            canceller: Arc::new(PostgresCanceller { token: client.cancel_token(), tls: self.tls.clone() }),
            client,
            statements: Statements::new(self.prepared_statements),
            is_failed: false,
            is_broken: AtomicBool::new(false),
        }))
    }
}

/// A connection.
struct PostgresLink {
    client: Client,
    canceller: Arc<PostgresCanceller>,
    statements: Statements,
    /// A statement of the transaction under way failed: the server does nothing more in it, and would answer
    /// a commit as if nothing was.
    is_failed: bool,
    is_broken: AtomicBool,
}

/// Bytes of a value as they came.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A statement of the driver's and the values for it.
struct Bound<'v> {
    statement: Statement,
    is_kept: bool,
    values: Vec<&'v SqlValue>,
}

impl PostgresLink {
    /// Prepares the statement of `order` for the values of `named`.
    async fn bind<'v>(&mut self, order: &Order<'_>, named: &'v Named) -> Result<Bound<'v>, Failed> {
        let rendered = order.template.render(named).map_err(|error| misuse(&error))?;
        let types: Vec<Type> = rendered.values.iter().map(|value| encode::suggested(value)).collect();
        let kept = self.statements.find(&rendered.text, &types);
        let is_kept = kept.is_some();
        let statement = match kept {
            Some(statement) => statement,
            None => {
                let preparing = self.client.prepare_typed(&rendered.text, &types);
                let statement = preparing.await.map_err(|error| self.failed(&error, order))?;
                self.statements.keep(rendered.text, types, statement.clone());
                statement
            }
        };
        for (value, ty) in rendered.values.iter().zip(statement.params()) {
            encode::check(value, ty).map_err(|detail| {
                Failed::usable(SqlError::new(Trouble::Misuse, format!("the value of a parameter {detail}")))
            })?;
        }
        for column in statement.columns() {
            decode::check(column.type_()).map_err(|error| {
                let text = format!("the column {:?} {error}", column.name());
                Failed::usable(SqlError::new(Trouble::Misuse, text))
            })?;
        }
        Ok(Bound { statement, is_kept, values: rendered.values })
    }

    fn failed(&mut self, error: &tokio_postgres::Error, order: &Order<'_>) -> Failed {
        let failed = error::running(error);
        if order.setting == Setting::Transaction && failed.left == Left::Usable {
            self.is_failed = true;
        }
        self.note(failed)
    }

    fn note(&self, failed: Failed) -> Failed {
        if failed.left == Left::Broken {
            self.is_broken.store(true, Ordering::Relaxed);
        }
        failed
    }

    /// Runs the statement once.
    async fn run_once(&mut self, order: &Order<'_>, named: &Named, sink: &mut Sink) -> Result<Done, Failed> {
        let bound = self.bind(order, named).await?;
        match self.execute(order, &bound, sink).await {
            // A table changed since the statement was prepared: it is prepared anew. Nothing was run yet.
            Err(Ran::Stale(_)) if bound.is_kept && order.setting == Setting::Alone => {
                self.statements.clear();
                let bound = self.bind(order, named).await?;
                self.execute(order, &bound, sink).await.map_err(|ran| self.ended(ran, order))
            }
            outcome => outcome.map_err(|ran| {
                self.statements.clear_if(matches!(ran, Ran::Stale(_)));
                self.ended(ran, order)
            }),
        }
    }

    fn ended(&mut self, ran: Ran, order: &Order<'_>) -> Failed {
        match ran {
            Ran::Stale(error) | Ran::Failed(error) => self.failed(&error, order),
            Ran::Stopped(failed) => failed,
        }
    }

    async fn execute(&self, order: &Order<'_>, bound: &Bound<'_>, sink: &mut Sink) -> Result<Done, Ran> {
        let statement = &bound.statement;
        let columns: Vec<Column> = statement
            .columns()
            .iter()
            .map(|column| Column {
                name: column.name().to_owned(),
                ty: column.type_().clone(),
                wanted: order.type_of(column.name()),
            })
            .collect();
        let stopped = |error| Ran::Stopped(Failed::running(error));
        sink.set_columns(columns.iter().map(|column| column.name.as_str()))
            .map_err(|error| Ran::Stopped(Failed::usable(error)))?;
        let parameters = bound.values.iter().map(|value| Parameter(value));
        let mut rows = pin!(self.client.query_raw(statement, parameters).await.map_err(Ran::of)?);
        sink.announce().await.map_err(stopped)?;
        while let Some(row) = rows.try_next().await.map_err(Ran::of)? {
            if sink.push(values_of(&row, &columns).map_err(stopped)?).map_err(stopped)? == Next::Flush {
                sink.flush().await.map_err(stopped)?;
            }
        }
        sink.flush().await.map_err(stopped)?;
        Ok(Done { affected: rows.rows_affected().unwrap_or_default(), last_insert_id: None })
    }

    async fn command(&mut self, command: &str) -> Result<(), Failed> {
        self.client.batch_execute(command).await.map_err(|error| self.note(error::running(&error)))
    }
}

/// A column of a result.
struct Column {
    name: String,
    ty: Type,
    wanted: Option<SqlType>,
}

/// Why a statement did not end.
enum Ran {
    /// The server knows the prepared statement no more, or no more so.
    Stale(tokio_postgres::Error),
    /// The server or the driver failed.
    Failed(tokio_postgres::Error),
    /// What came could not be passed on.
    Stopped(Failed),
}

impl Ran {
    fn of(error: tokio_postgres::Error) -> Self {
        let is_stale = error.as_db_error().is_some_and(|said| {
            *said.code() == SqlState::INVALID_SQL_STATEMENT_NAME
                || (*said.code() == SqlState::FEATURE_NOT_SUPPORTED && said.message().contains("cached plan"))
        });
        if is_stale { Self::Stale(error) } else { Self::Failed(error) }
    }
}

fn misuse(error: &StatementError) -> Failed {
    Failed::usable(SqlError::new(Trouble::Misuse, error.to_string()))
}

fn values_of(row: &Row, columns: &[Column]) -> Result<SqlRow, SqlError> {
    let wrong = |column: &Column, detail: String| {
        SqlError::new(Trouble::Misuse, format!("the column {:?} {detail}", column.name))
    };
    let value_of = |(index, column): (usize, &Column)| {
        let raw: Option<Raw<'_>> =
            row.try_get(index).map_err(|error| wrong(column, format!("cannot be read: {error}")))?;
        let Some(Raw(bytes)) = raw else { return Ok(SqlValue::Null) };
        let value = decode::decode(&column.ty, bytes).map_err(|error| wrong(column, error.to_string()))?;
        match column.wanted {
            Some(wanted) => convert(&column.name, value, wanted)
                .map_err(|mismatch| SqlError::new(Trouble::Misuse, mismatch.to_string())),
            None => Ok(value),
        }
    };
    columns.iter().enumerate().map(value_of).collect()
}

#[async_trait]
impl Link for PostgresLink {
    async fn run(&mut self, order: &Order<'_>, sink: &mut Sink) -> Result<Done, Failed> {
        let done = match order.parameters {
            Parameters::Once(named) => self.run_once(order, named, sink).await,
            Parameters::Each(all) => {
                let mut total = Done::default();
                for named in all {
                    sink.clear();
                    let done = self.run_once(order, named, sink).await?;
                    total.affected = total.affected.saturating_add(done.affected);
                }
                Ok(total)
            }
        }?;
        if order.template.verb == super::template::Verb::RollbackTo {
            self.is_failed = false;
        }
        Ok(done)
    }

    async fn begin(
        &mut self,
        isolation: Option<Isolation>,
        access: Access,
        _deadline: Instant,
    ) -> Result<(), Failed> {
        let level = match isolation {
            None => "",
            Some(Isolation::ReadCommitted) => " ISOLATION LEVEL READ COMMITTED",
            Some(Isolation::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
            Some(Isolation::Serializable) => " ISOLATION LEVEL SERIALIZABLE",
        };
        let access = match access {
            Access::Write => " READ WRITE",
            Access::Read => " READ ONLY",
        };
        self.is_failed = false;
        self.command(&format!("BEGIN{level}{access}")).await
    }

    async fn commit(&mut self) -> Result<(), Failed> {
        if self.is_failed {
            self.rollback().await?;
            let text = "the transaction was rolled back: a statement of it failed";
            return Err(Failed { error: SqlError::new(Trouble::Refused, text), left: Left::Undone });
        }
        self.command("COMMIT").await
    }

    async fn rollback(&mut self) -> Result<(), Failed> {
        self.is_failed = false;
        self.command("ROLLBACK").await
    }

    async fn ping(&mut self) -> Result<(), Failed> {
        self.client.check_connection().await.map_err(|error| self.note(error::running(&error)))
    }

    fn is_closed(&self) -> bool {
        self.client.is_closed() || self.is_broken.load(Ordering::Relaxed)
    }

    fn canceller(&self) -> Arc<dyn Canceller> {
        Arc::clone(&self.canceller) as _
    }
}

/// Cancels what a connection does, over another one.
struct PostgresCanceller {
    token: CancelToken,
    tls: Option<Tls>,
}

#[async_trait]
impl Canceller for PostgresCanceller {
    async fn cancel(&self, link: &mut dyn Link) {
        // A request that comes before the statement has begun there is lost, so it is repeated until the
        // connection answers something else.
        while !link.is_closed() {
            let asked = match &self.tls {
                Some(tls) => self.token.cancel_query(tls.clone()).await,
                None => self.token.cancel_query(NoTls).await,
            };
            let answered = tokio::time::timeout(CANCEL_AGAIN, link.ping()).await;
            if asked.is_err() || answered.is_ok() {
                return;
            }
        }
    }
}
