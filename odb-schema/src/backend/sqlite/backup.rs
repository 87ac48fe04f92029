//! The copy of an older database that is made before it is upgraded: `FILE.backup-VERSION`, readable by the
//! owner of the database alone. The last three are kept; each is as large as the database.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use diesel::RunQueryDsl;
use diesel::sql_types::Text;

use super::{FileTarget, open_sync};
use crate::error::OdbError;

/// How many are kept.
const KEPT: usize = 3;

/// What stands between the database's name and the version.
const INFIX: &str = ".backup-";

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackupError {
    #[error("the database was not copied to {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the database was not copied: {0}")]
    Copy(#[from] diesel::result::Error),
    #[error("the database was not copied: {0}")]
    Open(#[from] OdbError),
    #[error("the database was not copied: its path is not UTF-8")]
    Path,
}

/// The name of the copy of the file `database` of `version`.
pub(crate) fn path(database: &Path, version: &str) -> PathBuf {
    beside(database, &format!("{INFIX}{version}"))
}

/// Copies the database as it was committed last, on a connection of its own: the caller's holds the lock that
/// keeps writers away. An interrupted copy never has the name of a whole one.
pub(super) fn write(target: &FileTarget, version: &str) -> Result<(), BackupError> {
    let backup = path(&target.path, version);
    let partial = beside(&target.path, ".backup.part");
    let failed = |source| BackupError::File { path: backup.clone(), source };
    claim(&target.path, &partial).map_err(failed)?;
    let text = partial.to_str().ok_or(BackupError::Path)?;
    let mut reader = open_sync(target)?;
    diesel::sql_query("VACUUM INTO ?").bind::<Text, _>(text).execute(&mut reader)?;
    // SQLite leaves the copy to the system's cache; the name must not promise more than is on disk.
    let written = File::open(&partial).and_then(|file| file.sync_all());
    written.and_then(|()| fs::rename(&partial, &backup)).map_err(failed)?;
    prune(&target.path).map_err(failed)
}

/// Makes an empty file for the copy, which belongs to whom the database belongs to: root may upgrade the
/// database of a service user.
fn claim(database: &Path, partial: &Path) -> io::Result<()> {
    match fs::remove_file(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(partial)?;
    let (own, wanted) = (file.metadata()?, fs::metadata(database)?);
    if (own.uid(), own.gid()) != (wanted.uid(), wanted.gid()) {
        fchown(&file, Some(wanted.uid()), Some(wanted.gid()))?;
    }
    Ok(())
}

/// Removes all but the newest. Versions are fixed-width numbers, so names sort by age.
fn prune(database: &Path) -> io::Result<()> {
    let mut found = backups(database)?;
    found.sort();
    let surplus = found.len().saturating_sub(KEPT);
    found.into_iter().take(surplus).try_for_each(fs::remove_file)
}

fn backups(database: &Path) -> io::Result<Vec<PathBuf>> {
    let name = database.file_name().unwrap_or_default().to_string_lossy().into_owned() + INFIX;
    let directory = database.parent().filter(|parent| !parent.as_os_str().is_empty());
    let entries = fs::read_dir(directory.unwrap_or(Path::new(".")))?;
    let is_version = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    Ok(entries
        .flatten()
        .filter(|entry| {
            entry.file_name().to_str().and_then(|text| text.strip_prefix(&name)).is_some_and(is_version)
        })
        .map(|entry| entry.path())
        .collect())
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use diesel::dsl::sql;
    use diesel::sql_types::BigInt;
    use diesel::{Connection, SqliteConnection};
    use diesel_migrations::FileBasedMigrations;

    use super::super::{MIGRATIONS, create, migrate, schema_status};
    use super::*;
    use crate::schema::SchemaStatus;

    struct World {
        directory: tempfile::TempDir,
        target: FileTarget,
    }

    impl World {
        /// A database of this release.
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("odb.sqlite");
            let world = Self { target: FileTarget { path, busy_timeout: Duration::from_secs(5) }, directory };
            create(&world.target.path).unwrap();
            migrate(&world.target, MIGRATIONS).await.unwrap();
            for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite")).unwrap() {
                let entry = entry.unwrap();
                let statements = fs::read_to_string(entry.path().join("up.sql")).unwrap();
                world.add(entry.file_name().to_str().unwrap(), &statements);
            }
            world
        }

        /// Adds a migration of a release to come.
        fn add(&self, name: &str, statements: &str) {
            let directory = self.directory.path().join("migrations").join(name);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("up.sql"), statements).unwrap();
        }

        fn source(&self) -> FileBasedMigrations {
            FileBasedMigrations::from_path(self.directory.path().join("migrations")).unwrap()
        }

        fn tables(&self, file: &str) -> i64 {
            let path = self.directory.path().join(file);
            let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
            let query = "(SELECT count(*) FROM sqlite_master WHERE name IN ('more', 'definition'))";
            diesel::select(sql::<BigInt>(query)).get_result(&mut connection).unwrap()
        }

        fn backups(&self) -> Vec<String> {
            let found = backups(&self.target.path).unwrap();
            let mut names: Vec<_> =
                found.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
            names.sort();
            names
        }

        async fn version(&self) -> String {
            match schema_status(&self.target).await.unwrap() {
                SchemaStatus::Current { found } | SchemaStatus::Newer { found, .. } => found,
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn an_older_file_is_copied_before_it_is_migrated() {
        let world = World::new().await;
        assert!(world.backups().is_empty(), "a new database has nothing to keep");
        let version = world.version().await;
        world.add("9990_more", "CREATE TABLE more (id INTEGER) STRICT;");
        migrate(&world.target, world.source()).await.unwrap();
        let backup = format!("odb.sqlite.backup-{version}");
        assert_eq!((world.tables("odb.sqlite"), world.tables(&backup)), (2, 1));
        let mode = fs::metadata(world.directory.path().join(&backup)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        migrate(&world.target, world.source()).await.unwrap();
        assert_eq!(world.backups(), [backup]);
    }

    #[tokio::test]
    async fn a_migration_that_fails_takes_the_others_of_its_run_back() {
        let world = World::new().await;
        let version = world.version().await;
        world.add("9990_more", "CREATE TABLE more (id INTEGER) STRICT;");
        world.add("9991_broken", "CREATE TABLE last (id INTEGER) STRICT; CREATE TABLE more (id INTEGER);");
        let failed = migrate(&world.target, world.source()).await.unwrap_err();
        assert!(matches!(failed, OdbError::Migration { .. }), "{failed:?}");
        assert_eq!((world.version().await, world.tables("odb.sqlite")), (version, 1));
    }

    #[tokio::test]
    async fn of_processes_that_start_at_once_one_migrates_and_the_others_wait() {
        let world = World::new().await;
        // Slow enough that all of them meet it.
        let slow = "CREATE TABLE more (id INTEGER) STRICT; CREATE TABLE busy AS \
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000) SELECT i FROM n;";
        world.add("9990_more", slow);
        let target = FileTarget { busy_timeout: Duration::from_millis(1), ..world.target.clone() };
        let all = (0..4).map(|_| {
            let (target, source) = (target.clone(), world.source());
            tokio::spawn(async move { migrate(&target, source).await })
        });
        for outcome in all.collect::<Vec<_>>() {
            outcome.await.unwrap().unwrap();
        }
        assert_eq!(world.tables("odb.sqlite"), 2);
        let [backup] = &world.backups()[..] else { panic!("{:?}", world.backups()) };
        assert_eq!(world.tables(backup), 1, "the copy was made before, by the one that migrated");
    }

    #[tokio::test]
    async fn the_copies_of_the_last_three_upgrades_are_kept() {
        let world = World::new().await;
        for upgrade in 9990..9995 {
            world.add(&format!("{upgrade}_more"), &format!("CREATE TABLE t{upgrade} (id INTEGER) STRICT;"));
            migrate(&world.target, world.source()).await.unwrap();
        }
        let expected = [9991, 9992, 9993].map(|version| format!("odb.sqlite.backup-{version}"));
        assert_eq!(world.backups(), expected);
    }
}
