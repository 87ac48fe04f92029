//! Statements that stand alone.

use crosstie_model::outgoing::SqlValue::{Array, Int, Null};
use crosstie_model::outgoing::{Parameters, RefusedBecause, SqlCall, SqlValue, Trouble};
use serde_json::json;

use crate::support::{ALL, Client, Engine, SERVERS, TestDatabase, call, named, text};

async fn with_customers(engine: Engine) -> Client {
    let client = TestDatabase::new(engine).await.open().await;
    client
        .run("CREATE TABLE customer (id integer PRIMARY KEY, name varchar(200) NOT NULL, email varchar(100) UNIQUE)", &[])
        .await
        .unwrap();
    for (id, name) in [(1, "Ada"), (2, "Bob"), (3, "Cyd")] {
        let values = [("id", Int(id)), ("name", text(name)), ("email", text(&format!("{name}@example.com")))];
        client.run("INSERT INTO customer VALUES (:id, :name, :email)", &values).await.unwrap();
    }
    client
}

#[tokio::test]
async fn a_statement_gives_its_rows_or_says_how_many_it_changed() {
    for engine in ALL {
        let client = with_customers(engine).await;
        let found = client
            .run(
                "SELECT id, name FROM customer WHERE id >= :least AND name <> :least_name ORDER BY id",
                &[("least", Int(2)), ("least_name", text("x"))],
            )
            .await
            .unwrap();
        assert_eq!(found.rows, [[Int(2), text("Bob")], [Int(3), text("Cyd")]], "{engine:?}");
        assert_eq!((&*found.columns[0], &*found.columns[1], found.affected), ("id", "name", 2));
        // Rows that were found count, whether they changed or not.
        let updated = client.run("UPDATE customer SET name = 'Bob' WHERE id > 1", &[]).await.unwrap();
        assert_eq!((updated.affected, updated.rows.len(), updated.columns.len()), (2, 0, 0), "{engine:?}");
        let none = client.run("SELECT id FROM customer WHERE id = 99", &[]).await.unwrap();
        assert_eq!((none.rows.len(), none.columns.len()), (0, 1), "{engine:?}");
        assert_eq!(client.run("DROP TABLE customer", &[]).await.unwrap().affected, 0, "{engine:?}");
    }
}

#[tokio::test]
async fn the_number_of_a_new_row_is_told_where_the_database_tells_it() {
    for (engine, column) in [(Engine::MariaDb, "integer AUTO_INCREMENT"), (Engine::Sqlite, "integer")] {
        let client = TestDatabase::new(engine).await.open().await;
        client.run(&format!("CREATE TABLE t (id {column} PRIMARY KEY, v text)"), &[]).await.unwrap();
        for number in 1..3 {
            let done = client.run("INSERT INTO t (v) VALUES ('a')", &[]).await.unwrap();
            assert_eq!(done.last_insert_id, Some(number), "{engine:?}");
        }
        assert_eq!(client.run("SELECT * FROM t", &[]).await.unwrap().last_insert_id, None, "{engine:?}");
    }
    for engine in ALL {
        let client = with_customers(engine).await;
        let insert = "INSERT INTO customer (id, name) VALUES (7, 'Eve') RETURNING id, name";
        let done = client.run(insert, &[]).await.unwrap();
        assert_eq!(done.rows, [[Int(7), text("Eve")]], "{engine:?}");
    }
}

#[tokio::test]
async fn nothing_in_a_value_becomes_part_of_a_statement() {
    let attacks = [
        "'; DROP TABLE customer; --",
        "\\'; DROP TABLE customer; -- ",
        "x' OR '1'='1",
        "\" OR \"\"=\"",
        ":id",
        "$1",
        "?",
        "%' --",
        "\u{bf}\u{27} OR 1=1 /*",
        "$$; DROP TABLE customer; $$",
        "{\"), ('x",
    ];
    for engine in ALL {
        let client = with_customers(engine).await;
        for attack in attacks {
            let values = [("name", text(attack)), ("id", Int(1))];
            let found = client.run("SELECT id FROM customer WHERE name = :name", &values).await.unwrap();
            assert_eq!(found.rows.len(), 0, "{engine:?} {attack}");
            client.run("UPDATE customer SET name = :name WHERE id = :id", &values).await.unwrap();
            let kept = client.run("SELECT name FROM customer WHERE id = :id", &values).await.unwrap();
            assert_eq!(kept.rows, [[text(attack)]], "{engine:?}");
            let several = [("names", Array(vec![text(attack), text("Bob")]))];
            let found = client.run("SELECT id FROM customer WHERE name IN (:names)", &several).await.unwrap();
            assert_eq!(found.rows.len(), 2, "{engine:?} {attack}");
        }
        assert_eq!(client.value("SELECT count(*) FROM customer").await, Int(3));
    }
}

#[tokio::test]
async fn a_list_takes_the_place_of_a_value_in_a_list() {
    for engine in ALL {
        let client = with_customers(engine).await;
        let of = |ids: &[i64]| [("ids", Array(ids.iter().map(|id| Int(*id)).collect()))];
        let among = "SELECT id FROM customer WHERE id IN (:ids) ORDER BY id";
        let others = "SELECT id FROM customer WHERE id NOT IN (:ids) ORDER BY id";
        let count =
            async |statement: &str, ids: &[i64]| client.run(statement, &of(ids)).await.unwrap().rows.len();
        assert_eq!(count(among, &[1, 3, 9]).await, 2, "{engine:?}");
        assert_eq!(count(others, &[1, 3, 9]).await, 1, "{engine:?}");
        assert_eq!(count(among, &[]).await, 0, "{engine:?}");
        assert_eq!(count(others, &[]).await, 3, "{engine:?}");
    }
}

#[tokio::test]
async fn several_executions_are_one_transaction() {
    for engine in ALL {
        let client = with_customers(engine).await;
        let of = |ids: &[i64]| {
            let each = ids.iter().map(|id| named(&[("id", Int(*id)), ("name", text("new"))]));
            SqlCall {
                parameters: Parameters::Each(each.collect()),
                ..call("INSERT INTO customer (id, name) VALUES (:id, :name)", &[])
            }
        };
        let done = client.database.run(of(&[10, 11, 12])).await.unwrap();
        assert_eq!(done.affected, 3, "{engine:?}");
        let error = client.database.run(of(&[20, 21, 1])).await.unwrap_err();
        assert_eq!(error.refusal.unwrap().reason, RefusedBecause::Unique, "{engine:?}");
        assert_eq!(client.value("SELECT count(*) FROM customer").await, Int(6), "{engine:?}");
        assert_eq!(client.database.run(of(&[])).await.unwrap().affected, 0, "{engine:?}");
    }
}

#[tokio::test]
async fn errors_of_the_database_say_what_they_are_about() {
    for engine in ALL {
        let client = with_customers(engine).await;
        let tables = [
            "CREATE TABLE parent (id integer PRIMARY KEY)",
            "CREATE TABLE child (id integer, parent integer NOT NULL, amount integer, \
             CONSTRAINT belongs FOREIGN KEY (parent) REFERENCES parent (id), CONSTRAINT positive CHECK (amount > 0))",
            "INSERT INTO parent VALUES (1)",
        ];
        for table in tables {
            client.run(table, &[]).await.unwrap();
        }
        let cases = [
            ("INSERT INTO customer VALUES (1, 'x', 'y')", RefusedBecause::Unique),
            ("INSERT INTO customer VALUES (9, 'x', 'Ada@example.com')", RefusedBecause::Unique),
            ("INSERT INTO child VALUES (1, 99, 1)", RefusedBecause::ForeignKey),
            ("INSERT INTO child VALUES (1, NULL, 1)", RefusedBecause::NotNull),
            ("INSERT INTO child VALUES (1, 1, -1)", RefusedBecause::Check),
            ("SELEC 1", RefusedBecause::Statement),
            ("SELECT * FROM nowhere", RefusedBecause::Statement),
            ("SELECT nothing FROM customer", RefusedBecause::Statement),
        ];
        for (statement, wanted) in cases {
            let error = client.run(statement, &[]).await.unwrap_err();
            assert_eq!(error.trouble(), Trouble::Refused, "{engine:?} {statement}");
            let refusal = error.refusal.unwrap();
            assert_eq!(refusal.reason, wanted, "{engine:?} {statement} {refusal:?}");
            assert!(!refusal.message.is_empty());
            assert!(error.error.failure.text == "An external system failed", "{}", error.error.failure.text);
            if wanted == RefusedBecause::Check {
                assert_eq!(refusal.constraint.as_deref(), Some("positive"), "{engine:?}");
            }
            if wanted == RefusedBecause::Unique {
                assert!(refusal.constraint.is_some(), "{engine:?} {refusal:?}");
            }
        }
        assert_eq!(client.gauge("connections"), 1, "{engine:?} keeps the connection");
    }
}

#[tokio::test]
async fn statements_that_cannot_be_meant_are_refused_before_they_are_sent() {
    for engine in ALL {
        let client = with_customers(engine).await;
        let begins = ["BEGIN", "COMMIT", "rollback", "START TRANSACTION", "SAVEPOINT a", "ROLLBACK TO a"];
        let others = ["SELECT :missing", "SELECT 1 AS a, 2 AS a", "SELECT 1; SELECT 2"];
        let own = engine.of("SELECT $1", "SELECT ?", "SELECT ?1");
        for statement in begins.iter().chain(&others).chain([&own]) {
            let error = client.run(statement, &[("p", Int(1))]).await.unwrap_err();
            let is_refused = error.trouble() == Trouble::Misuse || *statement == "SELECT 1; SELECT 2";
            assert!(is_refused, "{engine:?} {statement} {error:?}");
        }
        assert_eq!(client.value("SELECT count(*) FROM customer").await, Int(3), "{engine:?}");
    }
}

#[tokio::test]
async fn what_a_statement_changes_about_its_session_stays_with_nobody_else() {
    let cases = [
        (Engine::Postgres, "SET search_path = nowhere", "SELECT count(*) FROM customer"),
        (
            Engine::MariaDb,
            "SET sql_mode = 'ANSI_QUOTES'",
            "SELECT count(*) FROM customer WHERE name <> \"x\"",
        ),
        (Engine::Sqlite, "PRAGMA query_only = ON", "DELETE FROM customer WHERE id = 99"),
    ];
    for (engine, change, after) in cases {
        let client = with_customers(engine).await;
        client.run(change, &[]).await.unwrap();
        client.run(after, &[]).await.expect(change);
        let transaction = client.begin().await;
        transaction.run(call(change, &[])).await.unwrap();
        transaction.rollback(crate::support::begin().deadline).await.unwrap();
        client.run(after, &[]).await.expect(change);
    }
}

#[tokio::test]
async fn a_prepared_statement_follows_its_tables() {
    for engine in ALL {
        let client = with_customers(engine).await;
        for _ in 0..2 {
            assert_eq!(
                client.run("SELECT * FROM customer WHERE id = 1", &[]).await.unwrap().columns.len(),
                3
            );
        }
        client.run("ALTER TABLE customer ADD COLUMN age integer", &[]).await.unwrap();
        let found = client.run("SELECT * FROM customer WHERE id = 1", &[]).await.unwrap();
        assert_eq!(found.columns.len(), 4, "{engine:?}");
        assert_eq!(found.rows[0].len(), 4, "{engine:?}");
        assert_eq!(found.rows[0][3], Null);
    }
}

#[tokio::test]
async fn prepared_statements_are_kept_up_to_their_limit() {
    for limit in [0, 3] {
        let database = TestDatabase::new(Engine::Postgres).await;
        let client = database.open_with(json!({"prepared_statements": limit, "max_connections": 1})).await;
        for number in 0..10 {
            client.run(&format!("SELECT {number} AS n"), &[]).await.unwrap();
        }
        // Those that were let go are closed when the driver next writes.
        let counting = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%AS n'";
        client.value(counting).await;
        let Int(kept) = client.value(counting).await else { panic!() };
        // The counting statement is one of those that are kept.
        assert_eq!(kept, (limit - 1).max(0), "{limit}");
    }
}

#[tokio::test]
async fn a_result_that_is_too_large_is_refused_and_its_statement_ended() {
    for engine in ALL {
        let database = TestDatabase::new(engine).await;
        let client = database.open_with(json!({"max_result_bytes": 100_000, "max_connections": 1})).await;
        let rows = engine.of(
            "SELECT repeat('x', 1000) AS v FROM generate_series(1, 1000000)",
            "SELECT repeat('x', 1000) AS v FROM seq_1_to_1000000",
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) \
             SELECT printf('%.1000c', 'x') AS v FROM n",
        );
        let error = client.run(rows, &[]).await.unwrap_err();
        assert_eq!(error.trouble(), Trouble::TooLarge, "{engine:?} {error}");
        assert!(error.to_string().contains("stream()"), "{error}");
        assert_eq!(client.value("SELECT 1").await, Int(1), "{engine:?}");
    }
}

#[tokio::test]
async fn a_text_that_the_driver_would_take_for_a_parameter_is_refused_and_not_changed() {
    let client = TestDatabase::new(Engine::MariaDb).await.open().await;
    let error = client.run(r"SELECT 'a\\', ':x'", &[]).await.unwrap_err();
    assert_eq!(error.trouble(), Trouble::Misuse, "{error}");
    assert_eq!(client.value("SELECT ':x'").await, text(":x"));
    assert_eq!(client.value("SELECT '12:30' -- :x").await, text("12:30"));
}

#[tokio::test]
async fn procedures_leave_nothing_open_behind() {
    let client = TestDatabase::new(Engine::MariaDb).await.open_with(json!({"max_connections": 1})).await;
    client.run("CREATE TABLE t (id integer)", &[]).await.unwrap();
    let procedure = "CREATE PROCEDURE half(IN n integer) BEGIN START TRANSACTION; INSERT INTO t VALUES (n); \
                     SELECT n AS first; SELECT n + 1 AS second; END";
    client.run(procedure, &[]).await.unwrap();
    let done = client.run("CALL half(:n)", &[("n", Int(4))]).await.unwrap();
    assert_eq!(done.rows, [[Int(4)]]);
    assert_eq!(client.value("SELECT count(*) FROM t").await, Int(0));
}

#[tokio::test]
async fn calls_are_counted_by_what_became_of_them() {
    for engine in SERVERS {
        let client = with_customers(engine).await;
        let _ = client.run("SELECT * FROM nowhere", &[]).await.unwrap_err();
        let _ = client.run("SELECT :missing", &[]).await.unwrap_err();
        let counted = client.counted();
        let of = |outcome: &str| {
            let key =
                format!(r#"crosstie_outgoing_calls_total{{outgoing="crm",type="sql",outcome="{outcome}"}} "#);
            let line =
                counted.lines().find(|line| line.starts_with(&key)).map(|line| line[key.len()..].to_owned());
            line.unwrap_or_default()
        };
        assert_eq!(
            (of("ok").as_str(), of("refused").as_str(), of("misuse").as_str()),
            ("4", "1", "1"),
            "{counted}"
        );
        assert_eq!(client.gauge("in_use"), 0);
        assert_eq!(client.gauge("calls"), 0);
    }
}

#[tokio::test]
async fn an_answer_to_a_ping_tells_that_it_lives() {
    use crosstie_model::outgoing::Ping;
    for engine in ALL {
        let client = TestDatabase::new(engine).await.open().await;
        let ping = Ping {
            trace: crosstie_model::TraceContext::new_root(),
            deadline: crate::support::begin().deadline,
        };
        let pong = client.database.ping(ping).await.unwrap();
        assert!(pong.detail.contains(engine.of("postgresql", "mariadb", "sqlite")), "{pong:?}");
    }
}

#[tokio::test]
async fn a_parameter_may_stand_in_many_places() {
    for engine in ALL {
        let client = with_customers(engine).await;
        let statement =
            "SELECT id FROM customer WHERE (id = :id OR :id < 0) AND name = :name AND name <> ':id' -- :no";
        let found = client.run(statement, &[("id", Int(1)), ("name", text("Ada"))]).await.unwrap();
        assert_eq!(found.rows, [[Int(1)]], "{engine:?}");
        let value: SqlValue = client.value(engine.of("SELECT 'a'::text", "SELECT 'a'", "SELECT 'a'")).await;
        assert_eq!(value, text("a"));
    }
}

#[tokio::test]
async fn statements_are_kept_without_the_values_of_their_parameters() {
    let database = TestDatabase::new(Engine::Sqlite).await;
    let client = database.open_with(json!({"message_log": {"bodies": "request"}})).await;
    let statement = "select  :a + 1 AS b";
    client.run(statement, &[("a", Int(7_654_321))]).await.unwrap();
    client.run("SELECT nothing FROM nowhere", &[]).await.unwrap_err();
    let transaction = client.begin().await;
    transaction.run(call("SELECT 2", &[])).await.unwrap();
    transaction.commit(std::time::Instant::now() + crate::support::PATIENCE).await.unwrap();
    let kept = client.kept();
    let paths: Vec<_> = kept.iter().map(|message| (message.path.as_str(), message.is_failed())).collect();
    let begun = [("BEGIN", false), ("SELECT", false), ("COMMIT", false)];
    assert_eq!(paths, [[("SELECT", false), ("SELECT", true)].as_slice(), begun.as_slice()].concat());
    let body = kept[0].request.clone().unwrap().body.unwrap();
    assert_eq!(body.bytes, statement.as_bytes());
    let quiet = database.open_with(json!({})).await;
    quiet.run("SELECT 1", &[]).await.unwrap();
    assert_eq!(quiet.kept().len(), kept.len(), "an outgoing that keeps nothing adds nothing");
}
