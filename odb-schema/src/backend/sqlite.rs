//! SQLite: the embedded default. One file that all workers of a server open at once, in WAL mode, where
//! readers never wait and writers take turns; what was acknowledged is on disk (`synchronous=FULL`).
//!
//! A file that was taken away must be noticed although open descriptors go on working: every checkout of a
//! connection looks at the path first (two system calls) and refuses when the file is missing, another one,
//! or not permitted. Opening never creates a file; [`create`] alone does.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use diesel::connection::{Connection as _, SimpleConnection};
use diesel::dsl::sql;
use diesel::expression::SqlLiteral;
use diesel::migration::MigrationSource;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel::sqlite::{Sqlite, SqliteConnection};
use diesel_async::sync_connection_wrapper::{SpawnBlocking, SyncConnectionWrapper};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use nix::unistd::{AccessFlags, eaccess};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use crate::error::OdbError;
use crate::pool::Link;
use crate::schema::{self, SchemaStatus};
use crate::tables::{cluster_state, data_entry, lease};

pub(crate) mod backup;
#[path = "../queries/mod.rs"]
pub(crate) mod queries;

/// The migrations of this backend.
pub(crate) const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// Counts the table that says which migrations were applied.
pub(crate) const COUNT_MIGRATION_TABLES: &str = "SELECT count(*) AS number FROM sqlite_master WHERE type = 'table' AND name = '__diesel_schema_migrations'";

/// What stays as it is in the path of a `file:` URI.
const PATH_CHARACTERS: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'_').remove(b'-').remove(b'~');

/// The file and how long a writer waits for another.
#[derive(Debug, Clone)]
pub(crate) struct FileTarget {
    /// The database file.
    pub(crate) path: PathBuf,
    /// How long to wait for other writers.
    pub(crate) busy_timeout: Duration,
}

/// Which file a path led to: device and inode.
type FileIdentity = (u64, u64);

/// A connection and the file it was opened on.
pub(crate) struct Connection {
    inner: Handle,
    file: FileIdentity,
}

/// What queries run on.
pub(crate) type Handle = SyncConnectionWrapper<SqliteConnection, BlockingThreads>;

/// Runs statements on tokio's blocking threads. Unlike diesel-async's own, a call that is abandoned does not
/// wait for its statement (which panics outside a multi-threaded runtime): the session takes the connection
/// out of the pool, and the statement's thread closes it when it is done.
pub(crate) struct BlockingThreads;

impl SpawnBlocking for BlockingThreads {
    fn spawn_blocking<'a, R: Send + 'static>(
        &mut self,
        task: impl FnOnce() -> R + Send + 'static,
    ) -> Pin<Box<dyn Future<Output = Result<R, Box<dyn Error + Send + Sync>>> + Send + 'a>> {
        let task = tokio::task::spawn_blocking(task);
        Box::pin(async move { task.await.map_err(Into::into) })
    }

    fn get_runtime() -> Self {
        Self
    }
}

impl Connection {
    /// What queries run on.
    pub(crate) fn handle(&mut self) -> &mut Handle {
        &mut self.inner
    }
}

impl SimpleAsyncConnection for Connection {
    async fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        self.inner.batch_execute(query).await
    }
}

impl Link for Connection {
    type Target = FileTarget;
    const BEGIN_READ: &'static str = "BEGIN";
    const BEGIN_WRITE: &'static str = "BEGIN IMMEDIATE";
    const ONE_WRITER: bool = true;

    async fn open(target: &FileTarget) -> Result<Self, OdbError> {
        let file = look_at(&target.path)?;
        let opening = target.clone();
        let sync = blocking(move || open_sync(&opening)).await?;
        let mut inner = Handle::new(sync);
        schema::require_current(queries::schema::applied(&mut inner).await?, &known()?)?;
        Ok(Self { inner, file })
    }

    async fn reuse(&mut self, target: &FileTarget, _idle: Duration) -> Result<(), OdbError> {
        match look_at(&target.path)? == self.file {
            true => Ok(()),
            false => Err(OdbError::unreachable("the database file was replaced")),
        }
    }

    fn refine(error: OdbError) -> OdbError {
        let OdbError::Query(diesel::result::Error::DatabaseError(_, information)) = &error else {
            return error;
        };
        let message = information.message();
        // SQLite's texts for SQLITE_CANTOPEN, IOERR, NOTADB, CORRUPT, READONLY and FULL, which are fixed.
        let away = [
            "unable to open database file",
            "disk I/O error",
            "file is not a database",
            "database disk image is malformed",
            "attempt to write a readonly database",
            "database or disk is full",
            "no such table",
        ];
        if message.contains("is locked") {
            OdbError::Busy
        } else if away.iter().any(|text| message.contains(text)) {
            OdbError::unreachable(message)
        } else {
            error
        }
    }
}

/// Finds the file and sees whether this process may use it. Never opens it: closing a second descriptor
/// would drop SQLite's own locks (POSIX record locks belong to the process).
fn look_at(path: &Path) -> Result<FileIdentity, OdbError> {
    let away = |reason: String| OdbError::unreachable(format!("{}: {reason}", path.display()));
    let metadata = fs::metadata(path).map_err(|error| away(error.to_string()))?;
    if !metadata.is_file() {
        return Err(away("it is not a regular file".into()));
    }
    // The kernel lets root through whatever the mode says; an operator who closes the file means it for
    // every account.
    if metadata.mode() & 0o600 != 0o600 {
        return Err(away("its mode forbids reading or writing".into()));
    }
    eaccess(path, AccessFlags::R_OK | AccessFlags::W_OK).map_err(|error| away(error.to_string()))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Opens an existing file and sets the connection up.
fn open_sync(target: &FileTarget) -> Result<SqliteConnection, OdbError> {
    let path = percent_encode(target.path.as_os_str().as_bytes(), PATH_CHARACTERS);
    let absolute = if target.path.is_absolute() { "//" } else { "" };
    let mut connection = SqliteConnection::establish(&format!("file:{absolute}{path}?mode=rw"))
        .map_err(|error| OdbError::unreachable(format!("{}: {error}", target.path.display())))?;
    let setup = format!(
        "PRAGMA busy_timeout = {}; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; \
         PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
        target.busy_timeout.as_millis().max(1)
    );
    match connection.batch_execute(&setup) {
        Ok(()) => Ok(connection),
        Err(error) => Err(match Connection::refine(error.into()) {
            OdbError::Query(error) => OdbError::unreachable(error),
            known => known,
        }),
    }
}

/// Makes an empty file, readable by its owner alone (SQLite gives the files beside it the same mode), unless
/// there is one.
pub(crate) fn create(path: &Path) -> Result<(), OdbError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(OdbError::unreachable(format!("{}: {error}", path.display()))),
    }
}

/// Applies what is pending of `migrations`, in one transaction. An older schema is copied first, to
/// `FILE.backup-VERSION`.
pub(crate) async fn migrate(
    target: &FileTarget,
    migrations: impl MigrationSource<Sqlite> + Send + 'static,
) -> Result<(), OdbError> {
    let known = schema::newest(&migrations)?;
    look_at(&target.path)?;
    // Almost always there is nothing to do, which needs no lock.
    let opening = target.clone();
    let mut connection = Handle::new(blocking(move || open_sync(&opening)).await?);
    if !schema::is_behind(queries::schema::applied(&mut connection).await?, known)? {
        return Ok(());
    }
    drop(connection);
    let target = FileTarget { busy_timeout: schema::MIGRATION_WAIT, ..target.clone() };
    blocking(move || migrate_sync(&target, migrations)).await
}

/// One write transaction around all of it: of several processes that start at once, one copies and migrates;
/// the others wait for it and find nothing left to do.
fn migrate_sync(target: &FileTarget, migrations: impl MigrationSource<Sqlite>) -> Result<(), OdbError> {
    let known = schema::newest(&migrations)?;
    let mut connection = open_sync(target)?;
    let outcome = connection.immediate_transaction(|connection| {
        let applied = connection.applied_migrations().map_err(Stopped::migration)?;
        let applied = applied.iter().map(ToString::to_string).max();
        if !schema::is_behind(applied.clone(), known)? {
            return Ok(());
        }
        if let Some(version) = applied {
            backup::write(target, &version).map_err(Stopped::migration)?;
        }
        connection.run_pending_migrations(migrations).map(drop).map_err(Stopped::migration)
    });
    outcome.map_err(|stopped| match stopped {
        Stopped::Query(error) => Connection::refine(error.into()),
        Stopped::Refused(error) => error,
    })
}

/// Lets the transaction around the migrations carry either kind of error.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error(transparent)]
    Query(#[from] diesel::result::Error),
    #[error(transparent)]
    Refused(#[from] OdbError),
}

impl Stopped {
    fn migration(error: impl std::fmt::Display) -> Self {
        Self::Refused(OdbError::Migration { reason: error.to_string() })
    }
}

/// The newest migration this release knows.
pub(crate) fn known() -> Result<String, OdbError> {
    schema::newest::<Sqlite>(&MIGRATIONS)
}

/// Says which migrations the file has.
pub(crate) async fn schema_status(target: &FileTarget) -> Result<SchemaStatus, OdbError> {
    look_at(&target.path)?;
    let target = target.clone();
    let mut connection = Handle::new(blocking(move || open_sync(&target)).await?);
    Ok(SchemaStatus::of(queries::schema::applied(&mut connection).await?, known()?))
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OdbError> + Send + 'static,
) -> Result<T, OdbError> {
    tokio::task::spawn_blocking(work).await.map_err(OdbError::unreachable)?
}

/// The database's clock in µs; SQLite's has milliseconds.
pub(crate) fn now() -> SqlLiteral<BigInt> {
    sql("CAST(ROUND(unixepoch('now', 'subsec') * 1000) AS INTEGER) * 1000")
}

/// What an upsert's conflict is about.
pub(crate) fn conflict_target<Columns>(columns: Columns) -> Columns {
    columns
}

/// The current revision; the write transaction has locked the file already.
pub(crate) async fn lock_revision(connection: &mut Handle) -> QueryResult<i64> {
    cluster_state::table.select(cluster_state::revision).first(connection).await
}

/// The lease's holder, fencing number and end; the write transaction has locked the file already.
pub(crate) async fn lock_lease(connection: &mut Handle, name: &str) -> QueryResult<(String, i64, i64)> {
    let columns = (lease::holder, lease::fencing, lease::expires_us);
    lease::table.find(name).select(columns).first(connection).await
}

/// The data entry's version and end; the write transaction has locked the file already.
pub(crate) async fn lock_data(connection: &mut Handle, key: &str) -> QueryResult<(i64, Option<i64>)> {
    let columns = (data_entry::version, data_entry::expires_us);
    data_entry::table.find(key).select(columns).first(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;
    #[tokio::test]
    async fn every_connection_syncs_what_it_commits_and_checks_references() {
        let directory = tempfile::tempdir().unwrap();
        let target =
            FileTarget { path: directory.path().join("odb.sqlite"), busy_timeout: Duration::from_secs(5) };
        create(&target.path).unwrap();
        migrate(&target, MIGRATIONS).await.unwrap();
        let mut connection = Connection::open(&target).await.unwrap();
        for (pragma, value) in [("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 5000)] {
            let column = if pragma == "busy_timeout" { "timeout" } else { pragma };
            let query = sql::<BigInt>(&format!("(SELECT {column} FROM pragma_{pragma})"));
            let found: i64 = diesel::select(query).get_result(connection.handle()).await.unwrap();
            assert_eq!(found, value, "{pragma}");
        }
        let wal = sql::<BigInt>("(SELECT journal_mode = 'wal' FROM pragma_journal_mode)");
        let found: i64 = diesel::select(wal).get_result(connection.handle()).await.unwrap();
        assert_eq!(found, 1);
    }
}
