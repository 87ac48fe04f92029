//! Statements that take too long are ended at the database.

use std::time::{Duration, Instant};

use crosstie_model::FailureKind;
use crosstie_model::outgoing::SqlValue::Int;
use crosstie_model::outgoing::{SqlCall, Trouble};
use serde_json::json;

use crate::support::{ALL, Engine, SERVERS, TestDatabase, call, wait_until};

/// How many statements of `mark` the server works on, besides the one that asks.
fn at_work(engine: Engine, mark: &str) -> String {
    match engine {
        Engine::MariaDb => format!(
            "SELECT count(*) FROM information_schema.processlist WHERE info LIKE '%{mark}%' AND id <> connection_id()"
        ),
        _ => format!(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{mark}%' AND state = 'active' \
             AND pid <> pg_backend_pid()"
        ),
    }
}

#[tokio::test]
async fn a_statement_past_its_deadline_is_cancelled_at_the_server() {
    for engine in SERVERS {
        let database = TestDatabase::new(engine).await;
        let client = database.open_with(json!({"deadline_ms": 300})).await;
        let other = database.open().await;
        let sleep = engine.of("SELECT pg_sleep(600) /* marked */", "SELECT SLEEP(600) /* marked */", "");
        let begun = Instant::now();
        let error = client.run(sleep, &[]).await.unwrap_err();
        assert_eq!(error.trouble(), Trouble::Deadline, "{engine:?} {error}");
        assert_eq!(error.error.failure.kind, FailureKind::Timeout);
        assert!(begun.elapsed() < Duration::from_secs(30));
        other.wait_for(&at_work(engine, "marked"), Int(0)).await;
        assert_eq!(client.value("SELECT 1").await, Int(1));
    }
}

#[tokio::test]
async fn a_statement_whose_caller_went_away_is_cancelled_at_the_server() {
    for engine in SERVERS {
        let database = TestDatabase::new(engine).await;
        let client = database.open_with(json!({"max_connections": 1})).await;
        let other = database.open().await;
        let sleep = engine.of("SELECT pg_sleep(600) /* left */", "SELECT SLEEP(600) /* left */", "");
        let calling = client.clone();
        let running = tokio::spawn(async move { calling.run(sleep, &[]).await });
        other.wait_for(&at_work(engine, "left"), Int(1)).await;
        running.abort();
        other.wait_for(&at_work(engine, "left"), Int(0)).await;
        // The one place is free again, and its connection is none that somebody cancelled.
        assert_eq!(client.value("SELECT 1").await, Int(1), "{engine:?}");
    }
}

#[tokio::test]
async fn a_statement_of_sqlite_is_interrupted() {
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let database = TestDatabase::new(Engine::Sqlite).await;
    let client = database.open_with(json!({"deadline_ms": 300, "max_connections": 1})).await;
    assert_eq!(client.run(endless, &[]).await.unwrap_err().trouble(), Trouble::Deadline);
    // The one place is free when the statement has ended.
    assert_eq!(client.value("SELECT 1").await, Int(1));
}

#[tokio::test]
async fn the_callers_deadline_counts_where_it_is_earlier() {
    for engine in SERVERS {
        let client = TestDatabase::new(engine).await.open().await;
        let sleep = engine.of("SELECT pg_sleep(600)", "SELECT SLEEP(600)", "");
        let error = client.run_within(sleep, Duration::from_millis(200)).await.unwrap_err();
        assert_eq!(error.trouble(), Trouble::Deadline, "{engine:?}");
    }
}

#[tokio::test]
async fn waiting_for_a_lock_ends_with_the_statement() {
    for engine in ALL {
        let database = TestDatabase::new(engine).await;
        let client = database.open_with(json!({"deadline_ms": 1_000})).await;
        client.run("CREATE TABLE t (id integer PRIMARY KEY, v integer)", &[]).await.unwrap();
        client.run("INSERT INTO t VALUES (1, 0)", &[]).await.unwrap();
        let holder = client.begin().await;
        holder.run(call("UPDATE t SET v = 1", &[])).await.unwrap();
        let error = client.run("UPDATE t SET v = 2", &[]).await.unwrap_err();
        let is_told = match engine {
            Engine::Sqlite => {
                error.refusal.as_ref().is_some_and(|refusal| refusal.reason.as_str() == "locked")
            }
            _ => error.trouble() == Trouble::Deadline,
        };
        assert!(is_told, "{engine:?} {error:?}");
        holder.rollback(Instant::now() + Duration::from_secs(30)).await.unwrap();
        assert_eq!(client.run("UPDATE t SET v = 2", &[]).await.unwrap().affected, 1, "{engine:?}");
    }
}

#[tokio::test]
async fn many_statements_that_are_cut_off_do_not_pile_up_at_the_server() {
    for engine in SERVERS {
        let database = TestDatabase::new(engine).await;
        let client = database.open_with(json!({"max_connections": 3, "deadline_ms": 100})).await;
        let other = database.open().await;
        let sleep = engine.of("SELECT pg_sleep(600) /* piled */", "SELECT SLEEP(600) /* piled */", "");
        let calls = (0..30).map(|_| client.run(sleep, &[]));
        for outcome in futures_util::future::join_all(calls).await {
            assert!(
                matches!(outcome.unwrap_err().trouble(), Trouble::Deadline | Trouble::Busy),
                "{engine:?}"
            );
        }
        other.wait_for(&at_work(engine, "piled"), Int(0)).await;
        wait_until("all places are free", || client.gauge("in_use") == 0).await;
    }
}

#[tokio::test]
async fn a_call_without_time_left_is_not_made() {
    let client = TestDatabase::new(Engine::Postgres).await.open().await;
    client.run("CREATE TABLE t (id integer)", &[]).await.unwrap();
    let late = SqlCall { deadline: Instant::now(), ..call("INSERT INTO t VALUES (1)", &[]) };
    assert_eq!(client.database.run(late).await.unwrap_err().trouble(), Trouble::Deadline);
    client.wait_for("SELECT count(*) FROM t", Int(0)).await;
}
