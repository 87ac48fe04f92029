//! Results that are read piece by piece.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crosstie_model::outgoing::SqlValue::Int;
use crosstie_model::outgoing::{SqlCall, SqlError, SqlRow, SqlStream, Trouble};
use serde_json::json;

use crate::support::{ALL, Client, Engine, PATIENCE, SERVERS, TestDatabase, call, wait_until};

/// Rows: a million when all is to be tested.
fn many() -> i64 {
    if std::env::var_os("CROSSTIE_SOAK").is_some() { 1_000_000 } else { 50_000 }
}

/// A statement that gives the numbers from 1 to `count`, each with some text.
fn numbers(engine: Engine, count: i64) -> String {
    match engine {
        Engine::Postgres => {
            format!("SELECT n::integer AS n, repeat('x', 100) AS v FROM generate_series(1, {count}) n")
        }
        Engine::MariaDb => format!("SELECT seq AS n, repeat('x', 100) AS v FROM seq_1_to_{count}"),
        Engine::Sqlite => format!(
            "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count}) \
             SELECT n, printf('%.100c', 'x') AS v FROM s"
        ),
    }
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

async fn stream(client: &Client, statement: &str) -> Arc<dyn SqlStream> {
    client.database.stream(call(statement, &[])).await.unwrap()
}

async fn rest(stream: &Arc<dyn SqlStream>) -> Result<Vec<SqlRow>, SqlError> {
    let mut all = Vec::new();
    loop {
        let piece = stream.next(soon()).await?;
        if piece.is_empty() {
            return Ok(all);
        }
        all.extend(piece);
    }
}

#[tokio::test]
async fn every_row_comes_once_and_in_order() {
    for engine in ALL {
        let client = TestDatabase::new(engine).await.open_with(json!({"max_connections": 1})).await;
        let stream = stream(&client, &numbers(engine, many())).await;
        assert_eq!(stream.columns().iter().map(|name| &**name).collect::<Vec<_>>(), ["n", "v"]);
        let mut expected = 0;
        loop {
            let piece = stream.next(soon()).await.unwrap();
            if piece.is_empty() {
                break;
            }
            assert!(piece.len() <= 256, "{}", piece.len());
            for row in piece {
                expected += 1;
                assert_eq!(row[0], Int(expected), "{engine:?}");
            }
        }
        assert_eq!(expected, many(), "{engine:?}");
        assert!(stream.next(soon()).await.unwrap().is_empty(), "an end stays one");
        // Its one connection is free, and the same.
        assert_eq!(client.value("SELECT 1").await, Int(1));
        assert_eq!(client.gauge("connections"), 1, "{engine:?}");
    }
}

#[tokio::test]
async fn the_reader_sets_the_pace() {
    // More than any buffer on the way, so that the database has to wait.
    let statement = |engine: Engine| numbers(engine, 1_000_000).replace("100", "1000");
    for engine in SERVERS {
        let database = TestDatabase::new(engine).await;
        let (client, other) =
            (database.open_with(json!({"deadline_ms": 5_000})).await, database.open().await);
        let stream = stream(&client, &statement(engine)).await;
        assert!(!stream.next(soon()).await.unwrap().is_empty());
        let busy = match engine {
            Engine::MariaDb => {
                "SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT seq AS n%' \
                 AND state LIKE 'Writing to net%'"
            }
            _ => {
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT n::integer%' \
                 AND wait_event = 'ClientWrite'"
            }
        };
        other.wait_for(busy, Int(1)).await;
        // Longer than a statement may take: the reader's time is not the statement's.
        tokio::time::sleep(Duration::from_millis(6_000)).await;
        assert!(!stream.next(soon()).await.unwrap().is_empty(), "{engine:?}");
        assert!(!stream.next(soon()).await.unwrap().is_empty(), "{engine:?}");
        drop(stream);
        other.wait_for(busy, Int(0)).await;
        wait_until("its place is free", || client.gauge("in_use") == 0).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_left_frees_its_connection() {
    for engine in ALL {
        let client = TestDatabase::new(engine).await.open_with(json!({"max_connections": 1})).await;
        for is_dropped in [true, false] {
            let stream = stream(&client, &numbers(engine, 10_000_000)).await;
            assert!(!stream.next(soon()).await.unwrap().is_empty());
            if is_dropped {
                drop(stream);
            } else {
                stream.abandon();
                assert_eq!(rest(&stream).await.unwrap_err().trouble(), Trouble::Caller, "{engine:?}");
            }
            assert_eq!(client.value("SELECT 1").await, Int(1), "{engine:?}");
        }
    }
}

#[tokio::test]
async fn an_error_half_way_is_told_after_the_rows_before_it() {
    let client = TestDatabase::new(Engine::Postgres).await.open().await;
    let statement = "SELECT 10 / (40000 - n) AS v FROM generate_series(1, 50000) n";
    let stream = stream(&client, statement).await;
    let mut rows = 0;
    let error = loop {
        match stream.next(soon()).await {
            Ok(piece) => {
                assert!(!piece.is_empty());
                rows += piece.len();
            }
            Err(error) => break error,
        }
    };
    assert!(rows > 30_000 && rows < 40_000, "{rows}");
    assert_eq!(error.refusal.unwrap().sqlstate.as_deref(), Some("22012"));
    assert_eq!(client.value("SELECT 1").await, Int(1));
    let wrong = client.database.stream(call("SELECT * FROM nowhere", &[])).await;
    assert_eq!(wrong.err().unwrap().trouble(), Trouble::Refused);
}

#[tokio::test]
async fn a_row_that_does_not_come_in_time_ends_the_stream() {
    for engine in SERVERS {
        let database = TestDatabase::new(engine).await;
        let client = database.open_with(json!({"deadline_ms": 500, "max_connections": 1})).await;
        let statement = engine.of(
            "SELECT n, CASE WHEN n > 20000 THEN pg_sleep(60) END AS v FROM generate_series(1, 20010) n",
            "SELECT seq AS n, IF(seq > 20000, SLEEP(60), 0) AS v FROM seq_1_to_20010",
            "",
        );
        let stream = stream(&client, statement).await;
        assert_eq!(rest(&stream).await.unwrap_err().trouble(), Trouble::Deadline, "{engine:?}");
        assert_eq!(client.value("SELECT 1").await, Int(1), "{engine:?}");
    }
}

#[tokio::test]
async fn rows_that_trickle_do_not_wait_for_each_other() {
    let client = TestDatabase::new(Engine::Postgres).await.open().await;
    // Rows that are longer than what the server gathers before it sends.
    let statement = "SELECT repeat('x', 9000) AS a, pg_sleep(0.15) AS b FROM generate_series(1, 4) n";
    let stream = stream(&client, statement).await;
    let mut pieces = 0;
    while !stream.next(soon()).await.unwrap().is_empty() {
        pieces += 1;
    }
    assert!(pieces > 1, "{pieces}");
}

#[tokio::test]
async fn a_transaction_waits_until_its_stream_was_read() {
    for engine in ALL {
        let client = TestDatabase::new(engine).await.open().await;
        client.run("CREATE TABLE t (id integer)", &[]).await.unwrap();
        let transaction = client.begin().await;
        transaction.run(call("INSERT INTO t VALUES (1)", &[])).await.unwrap();
        let stream = transaction.stream(call(&numbers(engine, 2_000), &[])).await.unwrap();
        let error = transaction.run(call("SELECT 1", &[])).await.unwrap_err();
        assert!(error.to_string().contains("stream"), "{error}");
        assert_eq!(rest(&stream).await.unwrap().len(), 2_000, "{engine:?}");
        transaction.run(call("INSERT INTO t VALUES (2)", &[])).await.unwrap();
        transaction.commit(soon()).await.unwrap();
        assert_eq!(client.value("SELECT count(*) FROM t").await, Int(2), "{engine:?}");
        // One whose stream is left is undone.
        let transaction = client.begin().await;
        transaction.run(call("INSERT INTO t VALUES (3)", &[])).await.unwrap();
        let stream = transaction.stream(call(&numbers(engine, 2_000_000), &[])).await.unwrap();
        drop(stream);
        assert!(transaction.commit(soon()).await.is_err(), "{engine:?}");
        drop(transaction);
        assert_eq!(client.value("SELECT count(*) FROM t").await, Int(2), "{engine:?}");
    }
}

#[tokio::test]
async fn a_row_that_is_too_large_ends_the_stream() {
    for engine in ALL {
        let database = TestDatabase::new(engine).await;
        let client = database.open_with(json!({"max_result_bytes": 10_000})).await;
        let long = engine.of("repeat('x', 20000)", "repeat('x', 20000)", "printf('%.20000c', 'x')");
        let stream = client.database.stream(call(&format!("SELECT {long} AS v"), &[])).await;
        let error = match stream {
            Ok(stream) => rest(&stream).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.trouble(), Trouble::TooLarge, "{engine:?} {error}");
        // Many rows of less are no matter.
        let stream = self::stream(&client, &numbers(engine, 1_000)).await;
        assert_eq!(rest(&stream).await.unwrap().len(), 1_000, "{engine:?}");
    }
}

#[tokio::test]
async fn a_stream_begins_within_the_deadline_of_its_caller() {
    let client = TestDatabase::new(Engine::Postgres).await.open_with(json!({"max_connections": 1})).await;
    let late =
        SqlCall { deadline: Instant::now() + Duration::from_millis(200), ..call("SELECT pg_sleep(60)", &[]) };
    let stream = client.database.stream(late).await;
    let error = match stream {
        Ok(stream) => stream.next(Instant::now() + Duration::from_millis(200)).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.trouble(), Trouble::Deadline);
    assert_eq!(client.value("SELECT 1").await, Int(1));
}
