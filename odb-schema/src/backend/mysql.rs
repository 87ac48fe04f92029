//! MariaDB (what is run) and MySQL (compatible by intent) over mysql_async and rustls.

use std::time::Duration;

use diesel::dsl::{DuplicatedKeys, sql};
use diesel::expression::SqlLiteral;
use diesel::migration::MigrationSource;
use diesel::mysql::Mysql;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::{AsyncMysqlConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use mysql_async::{ClientIdentity, OptsBuilder, SslOpts};

use crate::error::OdbError;
use crate::options::{CONNECT_TIMEOUT, NetworkTarget, Tls};
use crate::pool::Link;
use crate::schema::{self, SchemaStatus};
use crate::tables::{cluster_state, data_entry, lease};
use crate::tls::{self, Material};

#[path = "../queries/mod.rs"]
pub(crate) mod queries;

/// The migrations of this backend.
pub(crate) const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/mysql");

/// Counts the table that says which migrations were applied.
pub(crate) const COUNT_MIGRATION_TABLES: &str = "SELECT count(*) AS number FROM information_schema.tables \
     WHERE table_schema = database() AND table_name = '__diesel_schema_migrations'";

/// Connections idle for longer are asked whether they live before they serve again.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// A server and how to reach it.
pub(crate) struct Server {
    /// Where it is.
    pub(crate) target: NetworkTarget,
    options: OptsBuilder,
}

impl Server {
    /// Refuses certificates that cannot be used.
    pub(crate) fn new(target: NetworkTarget) -> Result<Self, OdbError> {
        let password = target.password.as_ref().map(|password| std::str::from_utf8(password.expose()));
        let password =
            password.transpose().map_err(|_| OdbError::Options("the password is not UTF-8".into()))?;
        let mut builder = OptsBuilder::default()
            .user(Some(target.user.as_str()))
            .pass(password)
            .db_name(Some(target.database.as_str()))
            .stmt_cache_size(0) // diesel keeps its own
            .client_found_rows(true) // as the other backends count
            .prefer_socket(false);
        builder = if target.is_socket() {
            builder.socket(Some(target.host.as_str()))
        } else {
            builder.ip_or_hostname(target.host.as_str()).tcp_port(target.port)
        };
        if let Tls::Verify { ca, identity } = &target.tls {
            tls::accept_mislabelled_keys();
            tls_options(Material::read(ca.as_deref(), identity.as_ref())?)?;
        }
        Ok(Self { target, options: builder })
    }

    /// How the next connection is opened. The certificates are read each time: a long-lived server outlives
    /// the ones it began with.
    async fn options(&self) -> Result<OptsBuilder, OdbError> {
        let Tls::Verify { ca, identity } = self.target.tls.clone() else { return Ok(self.options.clone()) };
        let reading = move || tls_options(Material::read(ca.as_deref(), identity.as_ref())?);
        let tls = tokio::task::spawn_blocking(reading).await.map_err(OdbError::unreachable)?;
        Ok(self.options.clone().ssl_opts(tls.map_err(OdbError::unreachable)?))
    }

    /// Opens a connection, whatever schema the database has.
    async fn dial(&self) -> Result<Handle, OdbError> {
        let opening = mysql_async::Conn::new(self.options().await?);
        let connection = tokio::time::timeout(CONNECT_TIMEOUT, opening)
            .await
            .map_err(|_| OdbError::unreachable(format!("no connection within {CONNECT_TIMEOUT:?}")))?
            .map_err(OdbError::unreachable)?;
        let mut handle = Handle::try_from(connection).await.map_err(OdbError::unreachable)?;
        let ms = self.target.statement_timeout_ms();
        // Before the statement's own deadline, so that waiting for others is told from a slow database; the
        // setting knows whole seconds only.
        let lock_seconds = (ms * 9).div_euclid(10_000).max(1);
        let setup = format!(
            "SET SESSION innodb_lock_wait_timeout = {lock_seconds}, SESSION lc_messages = 'en_US', \
             SESSION sql_mode = 'TRADITIONAL,NO_AUTO_VALUE_ON_ZERO'"
        );
        let isolation = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ";
        handle.batch_execute(isolation).await.map_err(OdbError::unreachable)?;
        handle.batch_execute(&setup).await.map_err(OdbError::unreachable)?;
        // MariaDB's setting (seconds) holds for every statement, MySQL's (milliseconds) for SELECT; each
        // refuses the other's.
        let mariadb =
            format!("SET SESSION max_statement_time = {}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000));
        if handle.batch_execute(&mariadb).await.is_err() {
            let mysql = format!("SET SESSION max_execution_time = {ms}");
            handle.batch_execute(&mysql).await.map_err(OdbError::unreachable)?;
        }
        Ok(handle)
    }
}

/// The driver's options for those certificates.
fn tls_options(material: Material) -> Result<SslOpts, OdbError> {
    let options = SslOpts::default()
        .with_root_certs(material.roots.into_iter().map(|root| root.to_vec().into()).collect())
        .with_disable_built_in_roots(true);
    let Some(shown) = material.identity else { return Ok(options) };
    if !tls::takes(&shown.key) {
        return Err(OdbError::Options("the client's key is of no kind that is known".into()));
    }
    let key = shown.key.secret_der().to_vec();
    Ok(options.with_client_identity(Some(ClientIdentity::new(shown.chain_pem.into(), key.into()))))
}

/// What queries run on.
pub(crate) type Handle = AsyncMysqlConnection;

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
    const BEGIN_READ: &'static str = "START TRANSACTION READ ONLY";
    const BEGIN_WRITE: &'static str = "START TRANSACTION READ WRITE";
    const ONE_WRITER: bool = false;

    async fn open(server: &Server) -> Result<Self, OdbError> {
        let mut handle = server.dial().await?;
        let known = schema::newest::<Mysql>(&MIGRATIONS)?;
        schema::require_current(queries::schema::applied(&mut handle).await?, &known)?;
        Ok(Self(handle))
    }

    async fn reuse(&mut self, _server: &Server, idle: Duration) -> Result<(), OdbError> {
        if idle < ASK_AFTER {
            return Ok(());
        }
        self.0.batch_execute("DO 1").await.map_err(OdbError::unreachable)
    }

    fn refine(error: OdbError) -> OdbError {
        let OdbError::Query(diesel::result::Error::DatabaseError(_, information)) = &error else {
            return error;
        };
        let message = information.message();
        // The driver's own errors start with their kind; the server's texts are English by lc_messages.
        let away = ["Input/output error", "Driver error", "Server shutdown", "max_statement_time exceeded"];
        if message.contains("Lock wait timeout exceeded") {
            OdbError::Busy
        } else if away.iter().any(|text| message.contains(text)) {
            OdbError::unreachable(message)
        } else {
            error
        }
    }
}

/// Applies what is pending of `migrations`: one process at a time, the others wait and find it done. Each
/// statement commits by itself on this backend.
pub(crate) async fn migrate(
    server: &Server,
    migrations: impl MigrationSource<Mysql> + Send + 'static,
) -> Result<(), OdbError> {
    let mut handle = server.dial().await?;
    let known = schema::newest::<Mysql>(&migrations)?;
    if !schema::is_behind(queries::schema::applied(&mut handle).await?, known)? {
        return Ok(());
    }
    let failed = |error: &dyn std::fmt::Display| OdbError::Migration { reason: error.to_string() };
    let wait = schema::MIGRATION_WAIT.as_secs();
    let lock = sql::<BigInt>(&format!("GET_LOCK(CONCAT(database(), '.crosstie_migration'), {wait})"));
    // A migration may take longer than a statement of a call. Only MariaDB has this setting, and only there
    // does it hold for anything but SELECT.
    let _ = handle.batch_execute("SET SESSION max_statement_time = 0").await;
    let locked: i64 = diesel::select(lock).get_result(&mut handle).await.map_err(|error| failed(&error))?;
    if locked != 1 {
        return Err(failed(&"another process is migrating"));
    }
    let mut wrapper = AsyncConnectionWrapper::<Handle>::from(handle);
    let run = move || wrapper.run_pending_migrations(migrations).map(drop).map_err(|error| failed(&error));
    tokio::task::spawn_blocking(run).await.map_err(OdbError::unreachable)?
}

/// Says which migrations the database has.
pub(crate) async fn schema_status(server: &Server) -> Result<SchemaStatus, OdbError> {
    let mut handle = server.dial().await?;
    let known = schema::newest::<Mysql>(&MIGRATIONS)?;
    Ok(SchemaStatus::of(queries::schema::applied(&mut handle).await?, known))
}

/// The database's clock in µs; it moves on within a transaction. The session's time zone is UTC.
pub(crate) fn now() -> SqlLiteral<BigInt> {
    sql("CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)")
}

/// What an upsert's conflict is about: any key, since this backend cannot name one.
pub(crate) fn conflict_target<Columns>(_columns: Columns) -> DuplicatedKeys {
    DuplicatedKeys
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
