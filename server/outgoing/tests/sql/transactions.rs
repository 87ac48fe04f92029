//! Statements that belong together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crosstie_model::outgoing::SqlValue::Int;
use crosstie_model::outgoing::{Access, Begin, Isolation, RefusedBecause, SqlCall, SqlTransaction, Trouble};
use serde_json::json;

use crate::support::{ALL, Client, Engine, PATIENCE, SERVERS, TestDatabase, begin, call, wait_until};

const COUNT: &str = "SELECT count(*) FROM t";

async fn with_table(engine: Engine) -> Client {
    let client = TestDatabase::new(engine).await.open().await;
    client.run("CREATE TABLE t (id integer PRIMARY KEY, v integer)", &[]).await.unwrap();
    client
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

async fn insert(transaction: &Arc<dyn SqlTransaction>, id: i64) {
    transaction.run(call("INSERT INTO t VALUES (:id, 0)", &[("id", Int(id))])).await.unwrap();
}

#[tokio::test]
async fn a_commit_keeps_and_a_rollback_undoes() {
    for engine in ALL {
        let client = with_table(engine).await;
        for (id, keep) in [(1, true), (2, false)] {
            let transaction = client.begin().await;
            insert(&transaction, id).await;
            let inside =
                transaction.run(call("SELECT id FROM t WHERE id = :id", &[("id", Int(id))])).await.unwrap();
            assert_eq!(inside.rows.len(), 1);
            if keep {
                transaction.commit(soon()).await.unwrap();
            } else {
                transaction.rollback(soon()).await.unwrap();
                transaction.rollback(soon()).await.unwrap();
            }
            let error = transaction.run(call(COUNT, &[])).await.unwrap_err();
            assert!(error.to_string().contains("has ended"), "{error}");
        }
        assert_eq!(client.value(COUNT).await, Int(1), "{engine:?}");
        assert_eq!(client.gauge("connections"), 1, "{engine:?}: the connection is used again");
    }
}

#[tokio::test]
async fn a_transaction_that_is_left_is_undone_and_its_connection_clean() {
    for engine in ALL {
        let database = TestDatabase::new(engine).await;
        let client = database.open_with(json!({"max_connections": 1})).await;
        client.run("CREATE TABLE t (id integer PRIMARY KEY, v integer)", &[]).await.unwrap();
        let dropped = client.begin().await;
        insert(&dropped, 1).await;
        drop(dropped);
        // The one connection is given to others when it is clean.
        assert_eq!(client.value(COUNT).await, Int(0), "{engine:?}");
        let abandoned = client.begin().await;
        insert(&abandoned, 1).await;
        abandoned.abandon();
        assert_eq!(client.value(COUNT).await, Int(0), "{engine:?}");
        assert!(abandoned.commit(soon()).await.is_err());
        wait_until("nothing is in use", || client.gauge("in_use") == 0).await;
        assert_eq!(client.gauge("connections"), 1, "{engine:?}");
    }
}

#[tokio::test]
async fn a_statement_that_takes_too_long_ends_its_transaction() {
    for engine in SERVERS {
        let client = with_table(engine).await;
        let transaction = client.begin().await;
        insert(&transaction, 1).await;
        let sleep = engine.of("SELECT pg_sleep(60)", "SELECT SLEEP(60)", "");
        let late = SqlCall { deadline: Instant::now() + Duration::from_millis(300), ..call(sleep, &[]) };
        assert_eq!(transaction.run(late).await.unwrap_err().trouble(), Trouble::Deadline, "{engine:?}");
        let error = transaction.commit(soon()).await.unwrap_err();
        assert!(error.to_string().contains("lost"), "{engine:?} {error}");
        assert_eq!(client.value(COUNT).await, Int(0), "{engine:?}");
    }
}

#[tokio::test]
async fn a_commit_after_a_failed_statement_does_not_pretend() {
    let client = with_table(Engine::Postgres).await;
    let transaction = client.begin().await;
    insert(&transaction, 1).await;
    transaction.run(call("SELECT * FROM nowhere", &[])).await.unwrap_err();
    let error = transaction.commit(soon()).await.unwrap_err();
    assert!(error.to_string().contains("rolled back"), "{error}");
    assert_eq!(client.value(COUNT).await, Int(0));
    // The other databases undo the statement alone.
    for engine in [Engine::MariaDb, Engine::Sqlite] {
        let client = with_table(engine).await;
        let transaction = client.begin().await;
        insert(&transaction, 1).await;
        transaction.run(call("SELECT * FROM nowhere", &[])).await.unwrap_err();
        transaction.commit(soon()).await.unwrap();
        assert_eq!(client.value(COUNT).await, Int(1), "{engine:?}");
    }
}

#[tokio::test]
async fn what_happened_since_a_savepoint_can_be_undone_alone() {
    for engine in ALL {
        let client = with_table(engine).await;
        let transaction = client.begin().await;
        insert(&transaction, 1).await;
        for statement in ["SAVEPOINT mark", "INSERT INTO t VALUES (2, 0)"] {
            transaction.run(call(statement, &[])).await.unwrap();
        }
        transaction.run(call("SELECT * FROM nowhere", &[])).await.unwrap_err();
        transaction.run(call("ROLLBACK TO SAVEPOINT mark", &[])).await.unwrap();
        transaction.commit(soon()).await.unwrap();
        assert_eq!(client.value("SELECT sum(id) FROM t").await.clone(), sum(engine, 1), "{engine:?}");
    }
}

/// What `sum` of one row gives.
fn sum(engine: Engine, number: i64) -> crosstie_model::outgoing::SqlValue {
    engine.of(Int(number), crate::support::decimal(&number.to_string()), Int(number))
}

#[tokio::test]
async fn the_loser_of_a_deadlock_does_not_go_on_outside_of_its_transaction() {
    let client = with_table(Engine::MariaDb).await;
    client.run("INSERT INTO t VALUES (1, 0), (2, 0)", &[]).await.unwrap();
    let (one, two) = (client.begin().await, client.begin().await);
    let update = |id: i64| call("UPDATE t SET v = v + 1 WHERE id = :id", &[("id", Int(id))]);
    one.run(update(1)).await.unwrap();
    two.run(update(2)).await.unwrap();
    let (first, second) = tokio::join!(one.run(update(2)), two.run(update(1)));
    let (loser, winner, error) = match (first, second) {
        (Err(error), Ok(_)) => (one, two, error),
        (Ok(_), Err(error)) => (two, one, error),
        other => panic!("{other:?}"),
    };
    assert_eq!(error.refusal.as_ref().unwrap().reason, RefusedBecause::Conflict);
    assert!(error.error.failure.retryable);
    let after = loser.run(call("INSERT INTO t VALUES (3, 0)", &[])).await.unwrap_err();
    assert!(after.to_string().contains("ended the transaction"), "{after}");
    winner.commit(soon()).await.unwrap();
    loser.rollback(soon()).await.unwrap();
    assert_eq!(client.value(COUNT).await, Int(2));
}

#[tokio::test]
async fn a_statement_that_commits_by_itself_is_told() {
    let client = with_table(Engine::MariaDb).await;
    let transaction = client.begin().await;
    insert(&transaction, 1).await;
    let error = transaction.run(call("CREATE TABLE u (id integer)", &[])).await.unwrap_err();
    assert_eq!(error.trouble(), Trouble::Misuse, "{error}");
    assert!(transaction.run(call("INSERT INTO t VALUES (2, 0)", &[])).await.is_err());
    assert!(transaction.commit(soon()).await.is_err());
}

#[tokio::test]
async fn transactions_begin_as_they_are_asked_to() {
    for engine in ALL {
        let client = with_table(engine).await;
        let read = Begin { access: Access::Read, isolation: Some(Isolation::RepeatableRead), ..begin() };
        let transaction = client.database.begin(read).await.unwrap();
        let error = transaction.run(call("INSERT INTO t VALUES (1, 0)", &[])).await.unwrap_err();
        assert_eq!(error.refusal.unwrap().reason, RefusedBecause::Permission, "{engine:?}");
        transaction.rollback(soon()).await.unwrap();
        client.run("INSERT INTO t VALUES (1, 0)", &[]).await.unwrap();
    }
    let client = with_table(Engine::Postgres).await;
    for (isolation, wanted) in [
        (Isolation::ReadCommitted, "read committed"),
        (Isolation::RepeatableRead, "repeatable read"),
        (Isolation::Serializable, "serializable"),
    ] {
        let begin = Begin { isolation: Some(isolation), ..begin() };
        let transaction = client.database.begin(begin).await.unwrap();
        let level = transaction.run(call("SHOW transaction_isolation", &[])).await.unwrap();
        assert_eq!(level.rows, [[crate::support::text(wanted)]]);
    }
}

#[tokio::test]
async fn one_call_at_a_time_uses_a_transaction() {
    let client = with_table(Engine::Postgres).await;
    let transaction = client.begin().await;
    let (one, other) = tokio::join!(
        transaction.run(call("SELECT pg_sleep(0.1)", &[])),
        transaction.run(call("SELECT 1", &[])),
    );
    one.unwrap();
    let error = other.unwrap_err();
    assert!(error.to_string().contains("another call"), "{error}");
    insert(&transaction, 1).await;
    transaction.commit(soon()).await.unwrap();
}

#[tokio::test]
async fn a_call_that_is_cut_off_undoes_its_transaction() {
    for engine in ALL {
        let database = TestDatabase::new(engine).await;
        let client = database.open_with(json!({"max_connections": 1})).await;
        client.run("CREATE TABLE t (id integer PRIMARY KEY, v integer)", &[]).await.unwrap();
        let transaction = client.begin().await;
        insert(&transaction, 1).await;
        let slow = engine.of(
            "SELECT pg_sleep(60)",
            "SELECT SLEEP(60)",
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        );
        let running = tokio::time::timeout(Duration::from_millis(200), transaction.run(call(slow, &[])));
        assert!(running.await.is_err());
        assert_eq!(client.value(COUNT).await, Int(0), "{engine:?}");
        assert!(transaction.commit(soon()).await.is_err());
    }
}
