//! Databases of earlier and later releases, on every backend.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crosstie_model::names::Revision;
use crosstie_odb::{Odb, OdbError, SchemaStatus};

use crate::database::{Database, of_file, on_empty_mysql, on_empty_postgres};

/// The migrations' versions and statements, the oldest first.
fn migrations(backend: &str) -> Vec<(String, String)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("migrations").join(backend);
    let mut directories: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    directories.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let version = name.split('_').next().unwrap().to_owned();
        (version, fs::read_to_string(path.join("up.sql")).unwrap())
    };
    directories.into_iter().map(read).collect()
}

/// Makes what a release that knew only these migrations left behind.
async fn make(database: &Database, migrations: &[(String, String)]) {
    let table = "CREATE TABLE __diesel_schema_migrations (version VARCHAR(50) PRIMARY KEY NOT NULL, \
         run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)";
    let mut outside = database.outside(&[table]).await;
    for (version, statements) in migrations {
        let note = format!("INSERT INTO __diesel_schema_migrations (version) VALUES ('{version}')");
        outside.run(&[statements, &note]).await;
    }
    outside.run(&["UPDATE cluster_state SET revision = 7"]).await;
}

/// Servers of this release that start at once on an older database upgrade it once, and lose nothing.
async fn an_older_schema_is_upgraded(database: Database, older: &[(String, String)], newest: &str) {
    make(&database, older).await;
    let version = &older.last().unwrap().0;
    let odb = database.open();
    let status = odb.schema_status().await.unwrap();
    assert!(matches!(&status, SchemaStatus::Older { found, known } if found == version && known == newest));
    let refused = odb.revision().await.unwrap_err();
    assert!(matches!(&refused, OdbError::SchemaOutdated { found: Some(found), .. } if found == version));
    let servers: Vec<Odb> = (0..4).map(|_| database.open()).collect();
    let starts = servers.into_iter().map(|odb| tokio::spawn(async move { odb.migrate().await }));
    for start in starts.collect::<Vec<_>>() {
        start.await.unwrap().unwrap();
    }
    assert_eq!(odb.schema_status().await.unwrap(), SchemaStatus::Current { found: newest.into() });
    assert_eq!(odb.revision().await.unwrap(), Revision(7));
}

/// The steps of an upgrade from every earlier release.
fn steps(backend: &str) -> Vec<(Vec<(String, String)>, String)> {
    let all = migrations(backend);
    let newest = all.last().unwrap().0.clone();
    (1..all.len()).map(|known| (all[..known].to_vec(), newest.clone())).collect()
}

async fn a_newer_schema_is_refused(database: Database) {
    let odb = database.open();
    odb.create().await.unwrap();
    let note = "INSERT INTO __diesel_schema_migrations (version) VALUES ('9999')";
    drop(database.outside(&[note]).await);
    for error in [database.open().revision().await.unwrap_err(), odb.migrate().await.unwrap_err()] {
        assert!(matches!(&error, OdbError::SchemaNewer { found, .. } if found == "9999"), "{error:?}");
        assert!(error.to_string().contains("upgrade crosstie"), "{error}");
    }
}

#[tokio::test]
async fn a_newer_postgres_schema_is_refused() {
    on_empty_postgres(a_newer_schema_is_refused).await;
}

#[tokio::test]
async fn a_newer_mysql_schema_is_refused() {
    on_empty_mysql(a_newer_schema_is_refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_sqlite_schema_is_upgraded() {
    for (older, newest) in steps("sqlite") {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("odb.sqlite");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        an_older_schema_is_upgraded(of_file(&path), &older, &newest).await;
        let backup = directory.path().join(format!("odb.sqlite.backup-{}", older.last().unwrap().0));
        assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
        let kept = of_file(&backup).open().schema_status().await.unwrap();
        assert!(matches!(kept, SchemaStatus::Older { .. }), "the copy is of before: {kept:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_postgres_schema_is_upgraded() {
    for (older, newest) in steps("postgres") {
        on_empty_postgres(async |database| an_older_schema_is_upgraded(database, &older, &newest).await)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_mysql_schema_is_upgraded() {
    for (older, newest) in steps("mysql") {
        on_empty_mysql(async |database| an_older_schema_is_upgraded(database, &older, &newest).await).await;
    }
}
