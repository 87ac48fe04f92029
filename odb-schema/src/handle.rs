//! The handle to the ODB: which backend it is, and how every call becomes one transaction there.
//!
//! Opens nothing until it is used, so a server can start while its database is away: each call says
//! [`OdbError::Unreachable`] until the database is back, and needs no new handle then.

use std::path::PathBuf;

use crate::backend::{mysql, postgres, sqlite};
use crate::error::OdbError;
use crate::options::{OdbOptions, Target};
use crate::pool::Pool;
use crate::schema::{self, SchemaStatus};

/// The operational database. Cheap to clone; one per process. Every call is one transaction, ends within
/// about twice the statement timeout, and needs a tokio runtime: always the same one, since connections
/// are driven by the runtime that opened them.
#[derive(Clone)]
pub struct Odb {
    pub(crate) backend: Backend,
}

/// The pool of whichever database the address names.
#[derive(Clone)]
pub(crate) enum Backend {
    /// A file.
    Sqlite(Pool<sqlite::Connection>),
    /// A PostgreSQL server.
    Postgres(Pool<postgres::Connection>),
    /// A MariaDB or MySQL server.
    Mysql(Pool<mysql::Connection>),
}

impl Odb {
    /// A handle to the database that `options` names. Does not connect.
    ///
    /// # Errors
    /// [`OdbError::Options`] when the address or its CA cannot be used.
    pub fn connect(options: &OdbOptions) -> Result<Self, OdbError> {
        let (connections, timeout) = (options.connections, options.statement_timeout);
        let backend = match options.target()? {
            Target::Sqlite(path) => {
                let target = sqlite::FileTarget { path, busy_timeout: timeout };
                Backend::Sqlite(Pool::new(target, connections, timeout)?)
            }
            Target::Postgres(target) => {
                Backend::Postgres(Pool::new(postgres::Server::new(target)?, connections, timeout)?)
            }
            Target::Mysql(target) => {
                Backend::Mysql(Pool::new(mysql::Server::new(target)?, connections, timeout)?)
            }
        };
        Ok(Self { backend })
    }

    /// Makes the database's file if it is SQLite and there is none, then migrates. For whoever sets an
    /// environment up; a server that starts calls [`Odb::migrate`], which never makes a new file where one
    /// went missing.
    ///
    /// # Errors
    /// As [`Odb::migrate`].
    pub async fn create(&self) -> Result<(), OdbError> {
        if let Backend::Sqlite(pool) = &self.backend {
            sqlite::create(&pool.target().path)?;
        }
        self.migrate().await
    }

    /// Applies the migrations the database lacks. Of several processes that call it at once one does the work
    /// and the others wait for it, 5 min at most. SQLite: an older database is first copied to
    /// `FILE.backup-VERSION`, VERSION being the one it has; the copies of the last three upgrades are kept.
    /// The other backends are backed up with their own tools.
    ///
    /// # Errors
    /// [`OdbError::SchemaNewer`] when a newer release was here, [`OdbError::Migration`] when one fails.
    pub async fn migrate(&self) -> Result<(), OdbError> {
        match &self.backend {
            Backend::Sqlite(pool) => sqlite::migrate(pool.target(), sqlite::MIGRATIONS).await,
            Backend::Postgres(pool) => postgres::migrate(pool.target(), postgres::MIGRATIONS).await,
            Backend::Mysql(pool) => mysql::migrate(pool.target(), mysql::MIGRATIONS).await,
        }
    }

    /// Compares the database's schema with this release's.
    ///
    /// # Errors
    /// The database is away.
    pub async fn schema_status(&self) -> Result<SchemaStatus, OdbError> {
        match &self.backend {
            Backend::Sqlite(pool) => sqlite::schema_status(pool.target()).await,
            Backend::Postgres(pool) => postgres::schema_status(pool.target()).await,
            Backend::Mysql(pool) => mysql::schema_status(pool.target()).await,
        }
    }

    /// The newest schema this release knows.
    ///
    /// # Errors
    /// [`OdbError::Migration`] when this release was built without migrations.
    pub fn known_schema(&self) -> Result<String, OdbError> {
        match &self.backend {
            Backend::Sqlite(_) => schema::newest::<diesel::sqlite::Sqlite>(&sqlite::MIGRATIONS),
            Backend::Postgres(_) => schema::newest::<diesel::pg::Pg>(&postgres::MIGRATIONS),
            Backend::Mysql(_) => schema::newest::<diesel::mysql::Mysql>(&mysql::MIGRATIONS),
        }
    }

    /// Where [`Odb::migrate`] puts the copy of a database of `version`; none for a database server.
    #[must_use]
    pub fn backup(&self, version: &str) -> Option<PathBuf> {
        match &self.backend {
            Backend::Sqlite(pool) => Some(sqlite::backup::path(&pool.target().path, version)),
            Backend::Postgres(_) | Backend::Mysql(_) => None,
        }
    }

    /// Where the database is, for people: the file, or `HOST:PORT/DATABASE`.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.backend {
            Backend::Sqlite(pool) => pool.target().path.display().to_string(),
            Backend::Postgres(pool) => pool.target().target.to_string(),
            Backend::Mysql(pool) => pool.target().target.to_string(),
        }
    }

    /// Which kind of database this is: `sqlite`, `postgres` or `mysql`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.backend {
            Backend::Sqlite(_) => "sqlite",
            Backend::Postgres(_) => "postgres",
            Backend::Mysql(_) => "mysql",
        }
    }
}

impl std::fmt::Debug for Odb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Odb({})", self.kind())
    }
}

/// Runs one query function of `queries/` as one transaction on whichever backend `$odb` has, again when it
/// lost a race. Arguments are evaluated for each run.
macro_rules! run {
    ($odb:expr, $mode:ident, $topic:ident::$function:ident($($argument:expr),* $(,)?)) => {
        match &$odb.backend {
            $crate::handle::Backend::Sqlite(pool) => $crate::handle::run_on!(
                pool, $mode, $crate::backend::sqlite::queries::$topic::$function, ($($argument),*)
            ),
            $crate::handle::Backend::Postgres(pool) => $crate::handle::run_on!(
                pool, $mode, $crate::backend::postgres::queries::$topic::$function, ($($argument),*)
            ),
            $crate::handle::Backend::Mysql(pool) => $crate::handle::run_on!(
                pool, $mode, $crate::backend::mysql::queries::$topic::$function, ($($argument),*)
            ),
        }
    };
}

/// One arm of [`run!`].
macro_rules! run_on {
    ($pool:expr, $mode:ident, $query:path, ($($argument:expr),*)) => {{
        let mut retries = $crate::pool::Retries::default();
        loop {
            let attempt = async {
                let mut session = $pool.begin($crate::pool::Mode::$mode).await?;
                let outcome = $query(session.link()?.handle(), $($argument),*).await;
                session.end(outcome).await
            };
            match $pool.within_deadline(attempt).await {
                Err(error) if retries.again(&error).await => {}
                done => break done,
            }
        }
    }};
}

pub(crate) use {run, run_on};
