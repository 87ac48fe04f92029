//! What only a file can suffer: taken away, closed, overwritten, opened by several processes, its writer
//! killed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crosstie_model::names::Revision;
use crosstie_odb::{Odb, OdbError, SchemaStatus};
use diesel::{Connection, RunQueryDsl, SqliteConnection, sql_query};

use crate::database::{options, sqlite_url};
use crate::support::{artifact, change, deploy, dictionary, manifest, put};

fn open(path: &Path) -> Odb {
    Odb::connect(&options(&sqlite_url(path))).unwrap()
}

fn execute(path: &Path, statement: &str) {
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    sql_query(statement).execute(&mut connection).unwrap();
}

/// Every kind of call, promptly.
async fn assert_unreachable(odb: &Odb) {
    let started = Instant::now();
    for error in [
        odb.revision().await.unwrap_err(),
        odb.snapshot().await.unwrap_err(),
        odb.users().await.unwrap_err(),
        change(odb, vec![put(dictionary("lost", 1))]).await.unwrap_err(),
        odb.migrate().await.unwrap_err(),
    ] {
        assert!(error.is_unreachable(), "{error:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_file_that_disappears_is_unreachable_until_it_returns() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("odb.sqlite");
    let odb = open(&path);
    assert_unreachable(&odb).await;
    assert!(!path.exists(), "only create() makes a file");
    odb.create().await.unwrap();
    assert_eq!(change(&odb, vec![put(dictionary("a", 1))]).await.unwrap(), Revision(1));

    let away = directory.path().join("away");
    fs::rename(&path, &away).unwrap();
    assert_unreachable(&odb).await;
    fs::rename(&away, &path).unwrap();
    assert_eq!(odb.revision().await.unwrap(), Revision(1));
    assert_eq!(change(&odb, vec![put(dictionary("a", 2))]).await.unwrap(), Revision(2));

    fs::rename(&path, &away).unwrap();
    fs::create_dir(&path).unwrap();
    assert_unreachable(&odb).await;
    fs::remove_dir(&path).unwrap();
    fs::write(&path, "this is no database at all, only some text".repeat(100)).unwrap();
    assert_unreachable(&odb).await;
    fs::rename(&away, &path).unwrap();
    assert_eq!(open(&path).revision().await.unwrap(), Revision(2));
    assert_eq!(odb.snapshot().await.unwrap().definitions.len(), 1);
}

#[tokio::test]
async fn a_file_made_unreadable_is_unreachable_until_it_is_readable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("odb.sqlite");
    let odb = open(&path);
    odb.create().await.unwrap();
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    change(&odb, vec![put(dictionary("a", 1))]).await.unwrap();
    for closed in [0o000, 0o400, 0o200] {
        mode(closed);
        assert_unreachable(&odb).await;
        assert_unreachable(&open(&path)).await;
        mode(0o600);
        assert_eq!(odb.revision().await.unwrap(), Revision(1));
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("odb.sqlite");
    open(&path).create().await.unwrap();
    execute(&path, "INSERT INTO __diesel_schema_migrations (version) VALUES ('9999')");
    let odb = open(&path);
    for error in [odb.revision().await.unwrap_err(), odb.migrate().await.unwrap_err()] {
        assert!(matches!(&error, OdbError::SchemaNewer { found, .. } if found == "9999"), "{error:?}");
    }
    assert!(matches!(odb.schema_status().await.unwrap(), SchemaStatus::Newer { .. }));
}

#[tokio::test]
async fn a_file_without_a_schema_is_outdated() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("odb.sqlite");
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let odb = open(&path);
    let error = odb.revision().await.unwrap_err();
    assert!(matches!(error, OdbError::SchemaOutdated { found: None, .. }), "{error:?}");
    assert!(matches!(odb.schema_status().await.unwrap(), SchemaStatus::Missing { .. }));
    odb.migrate().await.unwrap();
    assert_eq!(odb.revision().await.unwrap(), Revision(0));
}

#[tokio::test]
async fn a_path_with_odd_characters_is_taken_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a b?mode=ro#%41&é.sqlite");
    let odb = open(&path);
    odb.create().await.unwrap();
    assert_eq!(odb.revision().await.unwrap(), Revision(0));
    assert!(path.exists());
}

/// How the writer that gets killed is told where the file is.
const WRITER: &str = "CROSSTIE_ODB_TEST_WRITER";

/// Not a test: what the processes run that the next test kills.
#[tokio::test]
#[ignore = "run as a child process by another test"]
async fn child_writer() {
    let Ok(path) = std::env::var(WRITER) else { return };
    let odb = open(Path::new(&path));
    for number in 0.. {
        let code = artifact("crm", &format!("{number}{}", "x".repeat(100_000)));
        let mut changes = deploy(&code, manifest("crm.a"));
        changes.extend((0..5).map(|each| put(dictionary(&format!("d{each}"), number))));
        let revision = change(&odb, changes).await.unwrap();
        // What was acknowledged, for the parent to compare with.
        println!("acknowledged {revision}");
    }
}

/// Runs `writers` processes against the file, kills them after a while and gives the newest revision that
/// was acknowledged.
fn kill_writers(path: &Path, writers: usize, after: Duration) -> u64 {
    let children: Vec<_> = (0..writers)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "sqlite_file::child_writer", "--ignored", "--nocapture"])
                .env(WRITER, path)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    std::thread::sleep(after);
    let mut newest = 0;
    for mut child in children {
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // A line the kill cut short does not count as acknowledged.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let acknowledged = whole.lines().filter_map(|line| line.split("acknowledged ").nth(1));
        newest = acknowledged.filter_map(|number| number.trim().parse().ok()).fold(newest, u64::max);
    }
    newest
}

#[tokio::test]
async fn writers_killed_at_any_moment_leave_a_consistent_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("odb.sqlite");
    open(&path).create().await.unwrap();
    let mut newest = 0;
    for round in 0..8 {
        let writers = path.clone();
        let pause = Duration::from_millis(300 + 37 * round);
        let acknowledged = tokio::task::spawn_blocking(move || kill_writers(&writers, 3, pause));
        newest = acknowledged.await.unwrap().max(newest);

        let odb = open(&path);
        let snapshot = odb.snapshot().await.unwrap();
        assert!(snapshot.revision.0 >= newest, "{} was acknowledged, {} is there", newest, snapshot.revision);
        let audit = odb.audit(Revision(0), 100_000).await.unwrap();
        let revisions: Vec<_> = audit.iter().map(|entry| entry.revision.0).collect();
        assert_eq!(revisions, (1..=snapshot.revision.0).collect::<Vec<_>>());
        for row in odb.deployments(None).await.unwrap() {
            assert!(odb.artifact(&row.unit, &row.digest).await.unwrap().is_some());
        }
        let mut values: Vec<_> = snapshot
            .definitions
            .values()
            .map(|body| serde_json::to_value(body).unwrap()["entries"]["value"].clone())
            .collect();
        values.dedup();
        assert!(values.len() <= 1, "half a change is there: {values:?}");
        change(&odb, vec![put(dictionary("check", round))]).await.unwrap();
        change(&odb, vec![crosstie_odb::Change::DeleteDefinition(dictionary("check", round).id)])
            .await
            .unwrap();
    }
    assert!(newest > 0, "no writer ever got to a change");
}
