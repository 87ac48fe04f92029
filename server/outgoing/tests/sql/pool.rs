//! How many connections there are, and for how long.

use std::time::{Duration, Instant};

use crosstie_model::FailureKind;
use crosstie_model::outgoing::SqlValue::{self, Int};
use crosstie_model::outgoing::Trouble;
use serde_json::json;

use crate::support::{ALL, Engine, SERVERS, TestDatabase, begin, wait_until};

#[tokio::test]
async fn a_call_that_finds_all_connections_busy_waits_its_turn_and_no_longer() {
    for engine in ALL {
        let database = TestDatabase::new(engine).await;
        let client = database.open_with(json!({"max_connections": 2, "wait_deadline_ms": 200})).await;
        // Of SQLite's only one may write.
        let read =
            || crosstie_model::outgoing::Begin { access: crosstie_model::outgoing::Access::Read, ..begin() };
        client.run("CREATE TABLE t (id integer)", &[]).await.unwrap();
        let held =
            [client.database.begin(read()).await.unwrap(), client.database.begin(read()).await.unwrap()];
        assert_eq!(client.gauge("in_use"), 2);
        let begun = Instant::now();
        let error = client.run("SELECT 1", &[]).await.unwrap_err();
        assert_eq!(error.trouble(), Trouble::Busy, "{engine:?}");
        assert_eq!(error.error.failure.kind, FailureKind::Unavailable);
        assert!(error.error.failure.retry_after.is_some());
        assert!(begun.elapsed() < Duration::from_secs(5), "the wait has a deadline of its own");
        let waiting = client.clone();
        let patient = database.open_with(json!({"max_connections": 1})).await;
        let [one, two] = held;
        one.rollback(begin().deadline).await.unwrap();
        assert_eq!(waiting.value("SELECT 1").await, Int(1), "{engine:?}");
        drop(two);
        wait_until("nothing is in use", || client.gauge("in_use") == 0).await;
        assert_eq!(client.gauge("connections"), 2, "{engine:?}: never more than the limit");
        assert!(client.counted().contains("crosstie_outgoing_connection_waits_total"), "{engine:?}");
        drop(patient);
    }
}

#[tokio::test]
async fn calls_in_turn_share_one_connection_and_calls_at_once_do_not() {
    for engine in SERVERS {
        let client = TestDatabase::new(engine).await.open_with(json!({"max_connections": 4})).await;
        for _ in 0..5 {
            client.value("SELECT 1").await;
        }
        assert_eq!(client.gauge("connections"), 1, "{engine:?}");
        let sleep = engine.of("SELECT pg_sleep(0.2)", "SELECT SLEEP(0.2)", "");
        let calls = (0..8).map(|_| client.run(sleep, &[]));
        assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
        assert_eq!(client.gauge("connections"), 4, "{engine:?}");
    }
}

#[tokio::test]
async fn connections_that_nobody_uses_are_closed() {
    for engine in ALL {
        let client = TestDatabase::new(engine).await.open_with(json!({"idle_ms": 100})).await;
        client.value("SELECT 1").await;
        assert_eq!(client.gauge("connections"), 1, "{engine:?}");
        wait_until("it is closed", || client.gauge("connections") == 0).await;
        client.value("SELECT 1").await;
        let kept_not = TestDatabase::new(engine).await.open_with(json!({"idle_ms": 0})).await;
        kept_not.value("SELECT 1").await;
        wait_until("it is not kept", || kept_not.gauge("connections") == 0).await;
    }
}

fn session(engine: Engine) -> &'static str {
    engine.of("SELECT pg_backend_pid()", "SELECT connection_id()", "")
}

#[tokio::test]
async fn a_connection_gives_way_to_a_new_one_after_its_lifetime() {
    for engine in SERVERS {
        let database = TestDatabase::new(engine).await;
        let client = database.open_with(json!({"lifetime_ms": 100, "max_connections": 1})).await;
        let first: SqlValue = client.value(session(engine)).await;
        let until = Instant::now() + crate::support::PATIENCE;
        while client.value(session(engine)).await == first {
            assert!(Instant::now() < until, "{engine:?}");
        }
        let lasting = database.open_with(json!({"max_connections": 1})).await;
        let first = lasting.value(session(engine)).await;
        assert_eq!(lasting.value(session(engine)).await, first, "{engine:?}");
    }
}

#[tokio::test]
async fn a_database_that_is_closed_closes_its_connections() {
    for engine in SERVERS {
        let database = TestDatabase::new(engine).await;
        let (client, other) = (database.open().await, database.open().await);
        let name = database.settings["database"].as_str().unwrap();
        client.value("SELECT 1").await;
        let count = match engine {
            Engine::MariaDb => {
                format!("SELECT count(*) FROM information_schema.processlist WHERE db = '{name}'")
            }
            _ => format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"),
        };
        other.wait_for(&count, Int(2)).await;
        drop(client);
        other.wait_for(&count, Int(1)).await;
    }
}
