//! Databases that die, hang and come back.

use std::time::{Duration, Instant};

use crosstie_model::outgoing::SqlValue::Int;
use crosstie_model::outgoing::Trouble;
use crosstie_test_support::parts::TestPart;
use crosstie_test_support::proxy::Wire;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::support::{Client, Engine, PATIENCE, TestDatabase, start_mariadb, start_postgres};

/// Ends the part as the kernel would that needs memory.
fn kill_part(part: &TestPart) {
    let pid = i32::try_from(part.part.pid().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let until = Instant::now() + PATIENCE;
    while part.part.pid().is_some() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Calls until one succeeds; the others fail in time and say why.
async fn recovers(client: &Client) {
    let until = Instant::now() + PATIENCE;
    loop {
        match client.run("SELECT 1", &[]).await {
            Ok(result) => return assert_eq!(result.rows, [[Int(1)]]),
            Err(error) => assert!(
                matches!(
                    error.trouble(),
                    Trouble::Connect | Trouble::Broken | Trouble::Deadline | Trouble::Busy
                ),
                "{error:?}"
            ),
        }
        assert!(Instant::now() < until, "it does not recover");
    }
}

async fn survives_a_kill(engine: Engine, start: fn() -> TestPart) {
    let part = start();
    let database = TestDatabase::of_part(engine, &part);
    let client = database.open_with(json!({"deadline_ms": 2_000, "connect_deadline_ms": 2_000})).await;
    let sleep = engine.of("SELECT pg_sleep(60)", "SELECT SLEEP(60)", "");
    for _ in 0..2 {
        recovers(&client).await;
        let transaction = client.begin().await;
        transaction.run(crate::support::call("SELECT 1", &[])).await.unwrap();
        let calling = client.clone();
        let running = tokio::spawn(async move { calling.run(sleep, &[]).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        kill_part(&part);
        let begun = Instant::now();
        let error = running.await.unwrap().unwrap_err();
        assert!(
            matches!(error.trouble(), Trouble::Broken | Trouble::Deadline | Trouble::Connect),
            "{error:?}"
        );
        for _ in 0..20 {
            let error = client.run("SELECT 1", &[]).await.unwrap_err();
            assert!(matches!(error.trouble(), Trouble::Connect | Trouble::Broken), "{error:?}");
        }
        assert!(transaction.commit(Instant::now() + Duration::from_secs(2)).await.is_err());
        assert!(begun.elapsed() < Duration::from_secs(60));
        part.part.start().unwrap();
        recovers(&client).await;
    }
}

#[tokio::test]
async fn a_killed_postgresql_fails_calls_in_time_and_serves_them_when_it_is_back() {
    survives_a_kill(Engine::Postgres, start_postgres).await;
}

#[tokio::test]
async fn a_killed_mariadb_fails_calls_in_time_and_serves_them_when_it_is_back() {
    survives_a_kill(Engine::MariaDb, start_mariadb).await;
}

#[tokio::test]
async fn a_cut_wire_costs_a_call_its_deadline_and_no_more() {
    for engine in crate::support::SERVERS {
        let database = TestDatabase::new(engine).await;
        let port = u16::try_from(database.settings["port"].as_u64().unwrap()).unwrap();
        let wire = Wire::to(([127, 0, 0, 1], port).into()).unwrap();
        let limits = json!({
            "port": wire.address().port(), "deadline_ms": 500, "connect_deadline_ms": 500, "wait_deadline_ms": 500,
            "max_connections": 2,
        });
        let client = database.open_with(limits).await;
        client.value("SELECT 1").await;
        wire.cut();
        for _ in 0..4 {
            let begun = Instant::now();
            let error = client.run("SELECT 1", &[]).await.unwrap_err();
            let is_told = matches!(error.trouble(), Trouble::Deadline | Trouble::Connect | Trouble::Busy);
            assert!(is_told, "{engine:?} {error:?}");
            assert!(begun.elapsed() < Duration::from_secs(15), "{engine:?}");
        }
        wire.heal();
        recovers(&client).await;
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_left_alone_for_a_while() {
    for engine in crate::support::SERVERS {
        // Takes connections, and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let database = TestDatabase::new(engine).await;
        let limits = json!({
            "port": silent.local_addr().unwrap().port(), "connect_deadline_ms": 200,
            "circuit": {"failures": 2, "pause_ms": 60_000},
        });
        let client = database.open_with(limits).await;
        for _ in 0..2 {
            let begun = Instant::now();
            let error = client.run("SELECT 1", &[]).await.unwrap_err();
            assert_eq!(error.trouble(), Trouble::Connect, "{engine:?} {error}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{engine:?}");
        }
        let error = client.run("SELECT 1", &[]).await.unwrap_err();
        assert_eq!(error.trouble(), Trouble::Circuit, "{engine:?} {error}");
        assert!(error.error.failure.retry_after.is_some());
        assert_eq!(client.gauge("circuits"), 1);
        let trace = crosstie_model::TraceContext::new_root();
        let ping = crosstie_model::outgoing::Ping { trace, deadline: Instant::now() + PATIENCE };
        let error = client.database.ping(ping).await.unwrap_err();
        assert_eq!(error.trouble, Trouble::Connect, "a ping asks the server itself");
    }
}

#[tokio::test]
async fn a_circuit_closes_when_the_server_answers_again() {
    let database = TestDatabase::new(Engine::Postgres).await;
    let port = u16::try_from(database.settings["port"].as_u64().unwrap()).unwrap();
    let wire = Wire::to(([127, 0, 0, 1], port).into()).unwrap();
    let limits = json!({
        "port": wire.address().port(), "connect_deadline_ms": 200, "circuit": {"failures": 1, "pause_ms": 1_000},
    });
    let client = database.open_with(limits).await;
    wire.cut();
    assert_eq!(client.run("SELECT 1", &[]).await.unwrap_err().trouble(), Trouble::Connect);
    assert_eq!(client.run("SELECT 1", &[]).await.unwrap_err().trouble(), Trouble::Circuit);
    wire.heal();
    let until = Instant::now() + PATIENCE;
    while client.run("SELECT 1", &[]).await.is_err() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(client.gauge("circuits"), 0);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_told_and_found_when_it_is() {
    let database = TestDatabase::new(Engine::Sqlite).await;
    let client = database.open_with(json!({"create": false})).await;
    assert_eq!(client.run("SELECT 1", &[]).await.unwrap_err().trouble(), Trouble::Connect);
    database.open().await.run("CREATE TABLE t (id integer)", &[]).await.unwrap();
    assert_eq!(client.value("SELECT count(*) FROM t").await, Int(0));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_told() {
    let database = TestDatabase::new(Engine::Sqlite).await;
    std::fs::write(
        database.directory().join("data.sqlite"),
        "not a database, but long enough to be looked at".repeat(50),
    )
    .unwrap();
    let error = database.open().await.run("SELECT * FROM sqlite_schema", &[]).await.unwrap_err();
    assert!(matches!(error.trouble(), Trouble::Connect | Trouble::Broken), "{error:?}");
}
