//! PostgreSQL over tokio-postgres and rustls. Statement, lock and idle-in-transaction deadlines are the
//! server's own settings, made for each connection.

use std::time::Duration;

use diesel::dsl::sql;
use diesel::expression::SqlLiteral;
use diesel::migration::MigrationSource;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio_postgres::NoTls;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::OdbError;
use crate::options::{CONNECT_TIMEOUT, NetworkTarget, Tls};
use crate::pool::Link;
use crate::schema::{self, SchemaStatus};
use crate::tables::{cluster_state, data_entry, lease};
use crate::tls::Material;

#[path = "../queries/mod.rs"]
pub(crate) mod queries;

/// The migrations of this backend.
pub(crate) const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// Counts the table that says which migrations were applied.
pub(crate) const COUNT_MIGRATION_TABLES: &str = "SELECT count(*) AS number FROM information_schema.tables \
     WHERE table_schema = current_schema() AND table_name = '__diesel_schema_migrations'";

/// Connections idle for longer are asked whether they live before they serve again.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// The advisory lock under which one process migrates: the letters "odb".
const MIGRATION_LOCK: i64 = 0x006f_6462;

/// A server and how to reach it.
pub(crate) struct Server {
    /// Where it is.
    pub(crate) target: NetworkTarget,
    config: tokio_postgres::Config,
}

impl Server {
    /// Refuses certificates that cannot be used.
    pub(crate) fn new(target: NetworkTarget) -> Result<Self, OdbError> {
        let verified = match &target.tls {
            Tls::Off => false,
            Tls::Verify { ca, identity } => {
                Material::read(ca.as_deref(), identity.as_ref())?.client_config().map(|_| true)?
            }
        };
        let mut config = tokio_postgres::Config::new();
        config
            .host(&target.host)
            .port(target.port)
            .user(&target.user)
            .dbname(&target.database)
            .application_name("crosstie")
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(Duration::from_secs(30))
            .ssl_mode(if verified { SslMode::Require } else { SslMode::Disable });
        if let Some(password) = &target.password {
            config.password(password.expose());
        }
        Ok(Self { target, config })
    }

    /// Opens a connection, whatever schema the database has. The certificates are read each time: a long-lived
    /// server outlives the ones it began with.
    async fn dial(&self) -> Result<Handle, OdbError> {
        let config = &self.config;
        let tls = self.target.tls.clone();
        let reading = move || match tls {
            Tls::Off => Ok(None),
            Tls::Verify { ca, identity } => {
                Material::read(ca.as_deref(), identity.as_ref())?.client_config().map(Some)
            }
        };
        let tls = tokio::task::spawn_blocking(reading).await.map_err(OdbError::unreachable)?;
        let tls = tls.map_err(OdbError::unreachable)?;
        let mut handle = match tls {
            Some(tls) => {
                let connector = MakeRustlsConnect::new(tls);
                let (client, driver) = config.connect(connector).await.map_err(away)?;
                Handle::try_from_client_and_connection(client, driver).await
            }
            None => {
                let (client, driver) = config.connect(NoTls).await.map_err(away)?;
                Handle::try_from_client_and_connection(client, driver).await
            }
        }
        .map_err(OdbError::unreachable)?;
        let ms = self.target.statement_timeout_ms();
        let setup = format!(
            "SET statement_timeout = {ms}; SET lock_timeout = {}; \
             SET idle_in_transaction_session_timeout = {}; SET synchronous_commit = on",
            // Before the statement's own deadline, so that waiting for others is told from a slow database.
            (ms * 9).div_ceil(10),
            ms.saturating_mul(2)
        );
        handle.batch_execute(&setup).await.map_err(OdbError::unreachable)?;
        Ok(handle)
    }
}

/// Why a connection could not be opened, with the causes that say which certificate or address it was.
fn away(error: tokio_postgres::Error) -> OdbError {
    let mut reason = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        reason = format!("{reason}: {inner}");
        cause = inner.source();
    }
    OdbError::Unreachable { reason }
}

/// What queries run on.
pub(crate) type Handle = AsyncPgConnection;

/// A connection.
pub(crate) struct Connection(Handle);

impl Connection {
    /// What queries run on.
    pub(crate) fn handle(&mut self) -> &mut Handle {
        &mut self.0
    }
}

impl SimpleAsyncConnection for Connection {
    async fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        self.0.batch_execute(query).await
    }
}

impl Link for Connection {
    type Target = Server;
    const BEGIN_READ: &'static str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    const BEGIN_WRITE: &'static str = "BEGIN ISOLATION LEVEL READ COMMITTED";
    const ONE_WRITER: bool = false;

    async fn open(server: &Server) -> Result<Self, OdbError> {
        let mut handle = server.dial().await?;
        let known = schema::newest::<Pg>(&MIGRATIONS)?;
        schema::require_current(queries::schema::applied(&mut handle).await?, &known)?;
        Ok(Self(handle))
    }

    async fn reuse(&mut self, _server: &Server, idle: Duration) -> Result<(), OdbError> {
        if idle < ASK_AFTER {
            return Ok(());
        }
        self.0.batch_execute("SELECT 1").await.map_err(OdbError::unreachable)
    }

    fn refine(error: OdbError) -> OdbError {
        use diesel::result::{DatabaseErrorKind, Error};
        match &error {
            OdbError::Query(Error::DatabaseError(
                DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection,
                information,
            )) => OdbError::unreachable(information.message()),
            OdbError::Query(Error::DatabaseError(_, information)) => {
                let message = information.message();
                if message.contains("due to lock timeout") {
                    OdbError::Busy
                } else if message.contains("due to statement timeout")
                    || message.starts_with("terminating connection")
                {
                    OdbError::unreachable(message)
                } else {
                    error
                }
            }
            _ => error,
        }
    }
}

/// Applies what is pending of `migrations`: one process at a time, the others wait and find it done.
pub(crate) async fn migrate(
    server: &Server,
    migrations: impl MigrationSource<Pg> + Send + 'static,
) -> Result<(), OdbError> {
    let mut handle = server.dial().await?;
    let known = schema::newest::<Pg>(&migrations)?;
    if !schema::is_behind(queries::schema::applied(&mut handle).await?, known)? {
        return Ok(());
    }
    let failed = |error: &dyn std::fmt::Display| OdbError::Migration { reason: error.to_string() };
    // A migration, and waiting for another process's, may take longer than a statement of a call; the lock
    // goes with the connection.
    let wait = schema::MIGRATION_WAIT.as_millis();
    let lock = format!(
        "SET statement_timeout = 0; SET lock_timeout = {wait}; SELECT pg_advisory_lock({MIGRATION_LOCK})"
    );
    handle.batch_execute(&lock).await.map_err(|error| failed(&error))?;
    let mut wrapper = AsyncConnectionWrapper::<Handle>::from(handle);
    let run = move || wrapper.run_pending_migrations(migrations).map(drop).map_err(|error| failed(&error));
    tokio::task::spawn_blocking(run).await.map_err(OdbError::unreachable)?
}

/// Says which migrations the database has.
pub(crate) async fn schema_status(server: &Server) -> Result<SchemaStatus, OdbError> {
    let mut handle = server.dial().await?;
    let known = schema::newest::<Pg>(&MIGRATIONS)?;
    Ok(SchemaStatus::of(queries::schema::applied(&mut handle).await?, known))
}

/// The database's clock in µs; it moves on within a transaction.
pub(crate) fn now() -> SqlLiteral<BigInt> {
    sql("CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)")
}

/// What an upsert's conflict is about.
pub(crate) fn conflict_target<Columns>(columns: Columns) -> Columns {
    columns
}

/// Locks the cluster's state until the transaction ends and gives the current revision: writers take turns.
pub(crate) async fn lock_revision(connection: &mut Handle) -> QueryResult<i64> {
    cluster_state::table.select(cluster_state::revision).for_update().get_result(connection).await
}

/// The lease's holder, fencing number and end; locked until the transaction ends.
pub(crate) async fn lock_lease(connection: &mut Handle, name: &str) -> QueryResult<(String, i64, i64)> {
    let columns = (lease::holder, lease::fencing, lease::expires_us);
    lease::table.find(name).select(columns).for_update().get_result(connection).await
}

/// The data entry's version and end; locked until the transaction ends.
pub(crate) async fn lock_data(connection: &mut Handle, key: &str) -> QueryResult<(i64, Option<i64>)> {
    let columns = (data_entry::version, data_entry::expires_us);
    data_entry::table.find(key).select(columns).for_update().get_result(connection).await
}
