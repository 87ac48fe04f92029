//! The operational database through the real binary: older and newer schemas, and database servers instead of
//! the file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command as Process;
use std::thread;

use crosstie_parts::{MariaDb, Postgres};
use crosstie_test_support::parts::TestPart;
use crosstie_test_support::{Command, Environment, processes, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Makes the database what the first release would have left: its schema, and the rows that it knew too.
const DOWNGRADE: &str = r#"
import os, sqlite3, sys
path, migration = sys.argv[1:]
new, old = sqlite3.connect(path), sqlite3.connect(path + ".old")
new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
old.executescript(open(migration).read())
old.execute("CREATE TABLE __diesel_schema_migrations (version VARCHAR(50) PRIMARY KEY NOT NULL, "
            "run_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)")
old.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('0001')")
tables = [row[0] for row in old.execute("SELECT name FROM sqlite_master WHERE type = 'table' "
                                        "AND name NOT LIKE '\\_\\_%' ESCAPE '\\'")]
for table in tables:
    columns = [row[1] for row in old.execute(f"PRAGMA table_info({table})")]
    rows = new.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
    old.execute(f"DELETE FROM {table}")
    old.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", rows)
old.commit()
kept = os.stat(path)
os.chown(path + ".old", kept.st_uid, kept.st_gid)
os.chmod(path + ".old", 0o600)
new.close(), old.close()
os.replace(path + ".old", path)
"#;

const NEWER: &str = r#"
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('9999')")
database.commit()
"#;

const ECHO: &str = r#"
from crosstie import Service, rest

class Echo(Service):
    """Says VERSION."""
    name = "demo.version"
    channels = [rest("GET", "/version")]

    def handle(self):
        self.response.payload = {"version": VERSION}
"#;

fn python(script: &str, arguments: &[PathBuf]) {
    let outcome = Process::new("python3").args(["-c", script]).args(arguments).output().unwrap();
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
}

fn file(environment: &Environment) -> PathBuf {
    environment.root().join("odb.sqlite")
}

/// An environment that is not started, with the database of the first release.
fn of_the_first_release() -> Environment {
    let environment = Environment::builder().create().unwrap();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let migration = root.join("odb-schema/migrations/sqlite/0001_foundation/up.sql");
    python(DOWNGRADE, &[file(&environment), migration]);
    environment
}

fn status(environment: &Environment) -> Value {
    environment.json(&["odb", "status"]).unwrap()
}

fn backup(environment: &Environment) -> PathBuf {
    environment.root().join("odb.sqlite.backup-0001")
}

#[test]
fn an_older_database_is_upgraded_at_start_and_a_copy_of_it_kept() {
    let environment = of_the_first_release();
    let before = status(&environment);
    assert_eq!(
        (&before["backend"], &before["state"], &before["schema"], &before["reachable"]),
        (&json!("sqlite"), &json!("older"), &json!("0001"), &json!(true))
    );
    environment.start_again().unwrap();
    let after = status(&environment);
    assert_eq!((&after["state"], &after["schema"]), (&json!("current"), &before["known"]));
    let mode = fs::metadata(backup(&environment)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The administrator and the authority were in it.
    assert_eq!(environment.json(&["user", "list"]).unwrap()[0]["name"], "admin");
    let again = environment.json(&["odb", "migrate"]).unwrap();
    assert_eq!((&again["migrated"], &again["from"]), (&json!(false), &before["known"]));
}

#[test]
fn of_commands_that_upgrade_at_once_one_does_and_the_others_wait() {
    let environment = of_the_first_release();
    let known = status(&environment)["known"].clone();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let answer = environment.json(&["odb", "migrate"]).unwrap();
                assert_eq!(answer["to"], known);
                let upgraded = answer["from"] == "0001";
                assert!(!upgraded || answer["backup"].as_str().is_some_and(|path| path.ends_with("-0001")));
            });
        }
    });
    assert_eq!(status(&environment)["schema"], known);
    // Whoever came second would have copied the new schema.
    let kept = tempfile::tempdir().unwrap();
    let copy = kept.path().join("odb.sqlite");
    fs::copy(backup(&environment), &copy).unwrap();
    let url = format!("\"sqlite:{}\"", copy.display());
    environment.set("odb.url", &url).unwrap();
    fs::set_permissions(kept.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(status(&environment)["schema"], "0001");
}

#[test]
fn a_newer_database_is_left_alone_and_named() {
    let environment = Environment::builder().create().unwrap();
    python(NEWER, &[file(&environment)]);
    let found = status(&environment);
    assert_eq!((&found["state"], &found["schema"]), (&json!("newer"), &json!("9999")));
    for arguments in [&["odb", "migrate"][..], &["start"]] {
        let refused = environment.run(arguments).unwrap();
        assert_eq!(refused.code, 1, "{arguments:?}");
        assert!(refused.stderr.contains("upgrade crosstie"), "{}", refused.stderr);
    }
    // A service manager need not try that again: EX_CONFIG.
    let server = environment.server();
    let run = Command::new().unwrap().args(["server", "run", server.to_str().unwrap()]).run().unwrap();
    assert_eq!(run.code, 78, "{}", run.stderr);
    assert!(run.stderr.contains("9999"), "{}", run.stderr);
}

#[test]
fn a_database_that_is_away_is_said_to_be() {
    let environment = Environment::builder().create().unwrap();
    fs::rename(file(&environment), environment.root().join("away")).unwrap();
    let found = status(&environment);
    assert_eq!((&found["reachable"], &found["state"]), (&json!(false), &json!("unreachable")));
    assert!(found["reason"].as_str().is_some_and(|reason| reason.contains("odb.sqlite")), "{found}");
    let refused = environment.run(&["odb", "migrate"]).unwrap();
    assert_eq!(refused.code, 1);
}

fn deploy(environment: &Environment, version: u32) {
    let path = environment.root().join("version.py");
    fs::write(&path, ECHO.replace("VERSION", &version.to_string())).unwrap();
    environment.run(&["deploy", path.to_str().unwrap()]).unwrap().success().unwrap();
    environment.wait_for_json("/version", &json!({"version": version}));
}

/// A server whose database is `part`, which dies under it and comes back.
fn a_server_outlives_its_database(part: &TestPart, scheme: &str) {
    let tls = &part.client;
    let url = format!(
        "{scheme}://{}@{}/{}?ca={}&cert={}&key={}",
        part.credentials.user,
        part.address,
        part.credentials.database,
        tls.ca.display(),
        tls.certificate.display(),
        tls.key.display()
    );
    let environment = Environment::builder()
        .setting("odb.url", &format!("{url:?}"))
        .setting("odb.password", "\"file:tls/odb.password\"")
        .create()
        .unwrap();
    let password = environment.server().join("tls/odb.password");
    fs::write(&password, part.credentials.password.expose()).unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    let created = environment.json(&["odb", "migrate"]).unwrap();
    assert_eq!((&created["from"], &created["migrated"]), (&Value::Null, &json!(true)));
    assert_eq!(status(&environment)["backend"], scheme);
    environment.start_again().unwrap();
    deploy(&environment, 1);

    let killed = i32::try_from(part.part.pid().unwrap()).unwrap();
    processes::send(killed, Signal::SIGKILL).unwrap();
    wait_until("the status says degraded", || {
        environment.component().is_ok_and(|component| component.to_string().contains("degraded"))
    });
    environment.wait_for_json("/version", &json!({"version": 1}));
    part.part.start().unwrap();
    wait_until("the status says nothing of it any more", || {
        environment.component().is_ok_and(|component| !component.to_string().contains("degraded"))
    });
    deploy(&environment, 2);
}

#[test]
fn a_server_outlives_its_postgresql() {
    a_server_outlives_its_database(&TestPart::start("postgres", Postgres::new).unwrap(), "postgres");
}

#[test]
fn a_server_outlives_its_mariadb() {
    a_server_outlives_its_database(&TestPart::start("mysql", MariaDb::new).unwrap(), "mysql");
}
