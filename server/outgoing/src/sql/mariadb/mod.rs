//! MariaDB and MySQL over mysql_async and rustls.
//!
//! Every statement is prepared, except those the server prepares not. A session's time zone is UTC: what has
//! no zone is taken, and given, as UTC has it. Values that do not fit their column are refused (strict mode),
//! never cut.

mod error;
mod keys;
mod values;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use crosstie_model::outgoing::{Access, Isolation, Named, Parameters, SqlError, Trouble};
use futures_util::TryStreamExt as _;
use mysql_async::consts::StatusFlags;
use mysql_async::prelude::{Protocol, Queryable as _};
use mysql_async::{ClientIdentity, Conn, Opts, OptsBuilder, Params, QueryResult, Row, SslOpts, Value};
use mysql_common::named_params::ParsedNamedParams;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use self::values::{Column, ValueError};
use super::link::{Canceller, Connector, Done, Failed, Left, Link, Order, Setting};
use super::sink::{Next, Sink};
use super::template::{Rendered, Verb};

/// How long saying goodbye to the server may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// What every session is told first. Only backslashes that escape are what the statements are read by.
const SETUP: &str = "SET SESSION time_zone = '+00:00', SESSION sql_mode = \
    CONCAT_WS(',', REPLACE(@@SESSION.sql_mode, 'NO_BACKSLASH_ESCAPES', ''), 'STRICT_ALL_TABLES')";

/// How a MariaDB or MySQL server is reached.
pub(super) struct MariaDbServer {
    options: Opts,
}

/// What such a server is reached with.
pub(super) struct Reach<'a> {
    /// Its name or address.
    pub(super) host: &'a str,
    /// Its port.
    pub(super) port: u16,
    /// The user there.
    pub(super) username: &'a str,
    /// Its password, if it has one.
    pub(super) password: Option<&'a str>,
    /// The database.
    pub(super) database: &'a str,
    /// TLS; none for plain.
    pub(super) tls: Option<TlsMaterial>,
    /// How many prepared statements a connection keeps.
    pub(super) prepared_statements: usize,
}

/// What TLS to the server is made of.
pub(super) struct TlsMaterial {
    /// The authorities that are trusted.
    pub(super) roots: Vec<CertificateDer<'static>>,
    /// What is shown: a chain as PEM, and its key.
    pub(super) identity: Option<(Vec<u8>, PrivateKeyDer<'static>)>,
    /// Whose certificate the server must have, where that is not the host's.
    pub(super) server_name: Option<String>,
}

impl MariaDbServer {
    /// The server that `reach` leads to.
    ///
    /// # Errors
    /// The client's key is of no kind that is known.
    pub(super) fn new(reach: Reach<'_>) -> Result<Self, &'static str> {
        let mut options = OptsBuilder::default()
            .ip_or_hostname(reach.host)
            .tcp_port(reach.port)
            .user(Some(reach.username))
            .pass(reach.password)
            .db_name(Some(reach.database))
            .prefer_socket(false)
            .tcp_keepalive(Some(30_000_u32))
            .stmt_cache_size(reach.prepared_statements)
            // Rows that a statement found, as the other databases count; not those it changed.
            .client_found_rows(true)
            .init(vec![SETUP]);
        if let Some(tls) = reach.tls {
            options = options.ssl_opts(ssl_options(tls)?);
        }
        Ok(Self { options: options.into() })
    }
}

fn ssl_options(tls: TlsMaterial) -> Result<SslOpts, &'static str> {
    let mut options = SslOpts::default()
        .with_root_certs(tls.roots.into_iter().map(|root| root.to_vec().into()).collect())
        .with_disable_built_in_roots(true)
        .with_danger_tls_hostname_override(tls.server_name);
    if let Some((chain, key)) = tls.identity {
        keys::accept_mislabelled();
        if !keys::takes(&key) {
            return Err("is of no kind that is known");
        }
        let key = key.secret_der().to_vec();
        options = options.with_client_identity(Some(ClientIdentity::new(chain.into(), key.into())));
    }
    Ok(options)
}

#[async_trait]
impl Connector for MariaDbServer {
    async fn connect(&self) -> Result<Box<dyn Link>, SqlError> {
        let conn = Conn::new(self.options.clone()).await.map_err(|error| error::connecting(&error))?;
        let canceller = Arc::new(MariaDbCanceller { options: self.options.clone(), id: conn.id() });
        Ok(Box::new(MariaDbLink { conn: Some(conn), canceller, is_broken: false }))
    }
}

/// A connection.
struct MariaDbLink {
    conn: Option<Conn>,
    canceller: Arc<MariaDbCanceller>,
    is_broken: bool,
}

impl Drop for MariaDbLink {
    /// The driver would first read what is left of a result, however long.
    fn drop(&mut self) {
        if let (Some(conn), Ok(runtime)) = (self.conn.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(CLOSE_LIMIT, conn.disconnect()));
        }
    }
}

impl MariaDbLink {
    fn conn(&mut self) -> Result<&mut Conn, Failed> {
        self.conn.as_mut().ok_or_else(|| Failed {
            error: SqlError::new(Trouble::Broken, "the connection is closed"),
            left: Left::Broken,
        })
    }

    fn failed(&mut self, error: &mysql_async::Error) -> Failed {
        let failed = error::running(error);
        self.is_broken |= failed.left == Left::Broken;
        failed
    }

    async fn run_once(&mut self, order: &Order<'_>, named: &Named, sink: &mut Sink) -> Result<Done, Failed> {
        let misuse = |text: String| Failed::usable(SqlError::new(Trouble::Misuse, text));
        let Rendered { text, values } =
            order.template.render(named).map_err(|error| misuse(error.to_string()))?;
        check_for_driver(&text).map_err(|error| misuse(error.to_owned()))?;
        let values = values.into_iter().map(values::parameter).collect::<Result<Vec<_>, _>>();
        let values = values.map_err(|detail| misuse(format!("the value of a parameter {detail}")))?;
        let done = self.execute(order, &text, values, sink).await?;
        if order.template.verb == Verb::Call && order.setting == Setting::Alone {
            // A procedure may have left a transaction open.
            self.command("ROLLBACK").await?;
        }
        if order.setting == Setting::Transaction && !self.is_in_transaction() {
            let text = "the statement ended the transaction: this database commits before and after it changes \
                        tables and the like";
            return Err(Failed { error: SqlError::new(Trouble::Misuse, text), left: Left::Undone });
        }
        Ok(done)
    }

    /// Whether the last answer said that a transaction is under way.
    fn is_in_transaction(&self) -> bool {
        let answer = self.conn.as_ref().and_then(Conn::last_ok_packet);
        answer.is_none_or(|ok| ok.status_flags().contains(StatusFlags::SERVER_STATUS_IN_TRANS))
    }

    async fn execute(
        &mut self,
        order: &Order<'_>,
        text: &str,
        values: Vec<Value>,
        sink: &mut Sink,
    ) -> Result<Done, Failed> {
        let conn = self.conn()?;
        let ran = match conn.prep(text).await {
            Ok(statement) => {
                if usize::from(statement.num_params()) != values.len() {
                    let text = "the statement has placeholders other than its parameters";
                    return Err(Failed::usable(SqlError::new(Trouble::Misuse, text)));
                }
                // Before anything is run.
                let columns = columns_of(statement.columns(), order)?;
                sink.set_columns(columns.iter().map(|column| column.name.as_str()))
                    .map_err(Failed::usable)?;
                let parameters = if values.is_empty() { Params::Empty } else { Params::Positional(values) };
                match conn.exec_iter(statement, parameters).await {
                    Ok(result) => rows_of(result, order, sink).await,
                    Err(error) => Err(Ran::Driver(error)),
                }
            }
            Err(error) if error::is_unprepared(&error) && values.is_empty() => {
                match conn.query_iter(text).await {
                    Ok(result) => rows_of(result, order, sink).await,
                    Err(error) => Err(Ran::Driver(error)),
                }
            }
            Err(error) => Err(Ran::Driver(error)),
        };
        ran.map_err(|ran| match ran {
            Ran::Driver(error) => self.failed(&error),
            Ran::Stopped(failed) => failed,
        })
    }

    async fn command(&mut self, command: &str) -> Result<(), Failed> {
        let done = self.conn()?.query_drop(command).await;
        done.map_err(|error| self.failed(&error))
    }
}

/// Why a statement did not end.
enum Ran {
    Driver(mysql_async::Error),
    Stopped(Failed),
}

/// The driver looks for parameters of its own, by rules that take some strings for more than they are.
fn check_for_driver(text: &str) -> Result<(), &'static str> {
    let is_plain = |text: &str| {
        ParsedNamedParams::parse(text.as_bytes()).is_ok_and(|parsed| parsed.query() == text.as_bytes())
    };
    if !text.contains(':') || is_plain(text) {
        return Ok(());
    }
    Err("the statement has a text with a colon that cannot be sent as it is: give that text as a parameter")
}

fn columns_of(columns: &[mysql_async::Column], order: &Order<'_>) -> Result<Vec<Column>, Failed> {
    let column_of = |column: &mysql_async::Column| Column::of(column, order.type_of(&column.name_str()));
    columns.iter().map(column_of).collect::<Result<_, _>>().map_err(|error| Failed::usable(misread(&error)))
}

fn misread(error: &ValueError) -> SqlError {
    SqlError::new(Trouble::Misuse, error.to_string())
}

/// Passes the rows of a result on: those of its first set, as a procedure gives several.
async fn rows_of<P: Protocol + Unpin + 'static>(
    mut result: QueryResult<'_, '_, P>,
    order: &Order<'_>,
    sink: &mut Sink,
) -> Result<Done, Ran> {
    let stopped = |error| Ran::Stopped(Failed::running(error));
    let columns = result.columns();
    let columns = columns_of(columns.as_deref().unwrap_or_default(), order).map_err(Ran::Stopped)?;
    sink.set_columns(columns.iter().map(|column| column.name.as_str())).map_err(stopped)?;
    sink.announce().await.map_err(stopped)?;
    let mut count: u64 = 0;
    if let Some(mut rows) = result.stream::<Row>().await.map_err(Ran::Driver)? {
        while let Some(row) = rows.try_next().await.map_err(Ran::Driver)? {
            let values = columns.iter().zip(row.unwrap()).map(|(column, value)| column.value(value));
            let values = values.collect::<Result<_, _>>().map_err(|error| stopped(misread(&error)))?;
            count += 1;
            if sink.push(values).map_err(stopped)? == Next::Flush {
                sink.flush().await.map_err(stopped)?;
            }
        }
    }
    sink.flush().await.map_err(stopped)?;
    let (affected, last_insert_id) = (result.affected_rows(), result.last_insert_id());
    result.drop_result().await.map_err(Ran::Driver)?;
    Ok(Done { affected: if columns.is_empty() { affected } else { count }, last_insert_id })
}

#[async_trait]
impl Link for MariaDbLink {
    async fn run(&mut self, order: &Order<'_>, sink: &mut Sink) -> Result<Done, Failed> {
        match order.parameters {
            Parameters::Once(named) => self.run_once(order, named, sink).await,
            Parameters::Each(all) => {
                let mut total = Done::default();
                for named in all {
                    sink.clear();
                    let done = self.run_once(order, named, sink).await?;
                    total.affected = total.affected.saturating_add(done.affected);
                    total.last_insert_id = done.last_insert_id;
                }
                Ok(total)
            }
        }
    }

    async fn begin(
        &mut self,
        isolation: Option<Isolation>,
        access: Access,
        _deadline: Instant,
    ) -> Result<(), Failed> {
        // Holds for the next transaction alone.
        match isolation {
            None => {}
            Some(Isolation::ReadCommitted) => {
                self.command("SET TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
            }
            Some(Isolation::RepeatableRead) => {
                self.command("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
            }
            Some(Isolation::Serializable) => {
                self.command("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").await?;
            }
        }
        self.command(match access {
            Access::Write => "START TRANSACTION READ WRITE",
            Access::Read => "START TRANSACTION READ ONLY",
        })
        .await
    }

    async fn commit(&mut self) -> Result<(), Failed> {
        self.command("COMMIT").await
    }

    async fn rollback(&mut self) -> Result<(), Failed> {
        self.command("ROLLBACK").await
    }

    async fn ping(&mut self) -> Result<(), Failed> {
        let answer = self.conn()?.ping().await;
        answer.map_err(|error| self.failed(&error))
    }

    fn is_closed(&self) -> bool {
        self.is_broken || self.conn.is_none()
    }

    fn canceller(&self) -> Arc<dyn Canceller> {
        Arc::clone(&self.canceller) as _
    }
}

/// Ends a connection and what it does, over another one.
struct MariaDbCanceller {
    options: Opts,
    id: u32,
}

#[async_trait]
impl Canceller for MariaDbCanceller {
    /// The connection is closed afterwards anyway. Ending it with its statement leaves no moment in which the
    /// order could come too early.
    async fn cancel(&self, _link: &mut dyn Link) {
        if let Ok(mut other) = Conn::new(self.options.clone()).await {
            // Refused when it ended by itself meanwhile.
            let _ = other.query_drop(format!("KILL {}", self.id)).await;
            let _ = other.disconnect().await;
        }
    }
}
