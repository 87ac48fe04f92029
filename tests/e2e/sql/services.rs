//! What services do with databases: each method, synchronous and asynchronous, with what goes wrong.

use std::fs;
use std::path::Path;

use crosstie_test_support::{Environment, wait_until};
use serde_json::{Value, json};

use super::{PASSWORD, apply, definition, file, mariadb, postgres};

const CALLS: &str = r#"
from contextlib import closing
from crosstie import *

class Text:
    """As SQLAlchemy's text()."""
    def __init__(self, text): self.text = text

class Calls(Service):
    name = "calls"
    channels = [rest("GET", "/calls/{db}")]
    def handle(self):
        db = self.out.sql[self.request.http.params["db"]].conn
        db.execute("CREATE TABLE customer (id integer PRIMARY KEY, name varchar(50) NOT NULL UNIQUE)")
        done = db.execute("INSERT INTO customer VALUES (:id, :name)", [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"}])
        said = {"inserted": [done.rowcount, list(done)]}
        row = db.one("SELECT id, name FROM customer WHERE id = :id", {"id": 1, "unused": 2})
        said["one"] = [row, row.name, row["name"], row[1], list(row), dict(row) == row._asdict()]
        said["all"] = db.all("SELECT name FROM customer WHERE id IN (:ids) ORDER BY id", {"ids": [1, 2, 9]})
        said["none"] = db.one_or_none("SELECT id FROM customer WHERE id = :id", {"id": 9})
        said["stream"] = [row.id for row in db.stream("SELECT id FROM customer ORDER BY id")]
        found = db.execute("SELECT id, name FROM customer ORDER BY id")
        said["result"] = [found.rowcount, found.columns, found.first(), found.scalar(), found.scalars(), len(found.fetchall())]
        with db.transaction() as tx:
            tx.execute("UPDATE customer SET name = :name WHERE id = 1", {"name": "Eve"})
            said["inside"] = tx.one("SELECT name FROM customer WHERE id = 1").name
            said["streamed"] = len(list(tx.stream("SELECT id FROM customer")))
        try:
            with db.transaction() as tx:
                tx.execute("DELETE FROM customer")
                raise KeyError("changed my mind")
        except KeyError:
            said["kept"] = db.one("SELECT count(*) AS n FROM customer").n
        with closing(db.session()) as session:
            session.execute(Text("INSERT INTO customer VALUES (:id, :name)"), {"id": 3, "name": "Cyd"})
            session.commit()
            session.execute("INSERT INTO customer VALUES (4, 'Dan')")
        with self.out.sql.get(db.name).session() as session:
            said["session"] = [session.scalar("SELECT count(*) FROM customer"), session.execute("SELECT name FROM customer WHERE id = 3").fetchone().name]
        said["ping"] = bool(db.ping(self.cid))
        said["names"] = [db.name, db.name in self.out.sql, "nothing" in self.out.sql, self.out.sql.get("nothing")]
        said["errors"] = [self.told(call) for call in (
            lambda: db.one("SELECT id FROM customer WHERE id = 99"),
            lambda: db.one("SELECT id FROM customer"),
            lambda: db.execute("INSERT INTO customer VALUES (1, 'x')"),
            lambda: db.execute("INSERT INTO customer VALUES (7, NULL)"),
            lambda: db.execute("SELECT * FROM nowhere"),
            lambda: db.execute("SELECT :missing"),
            lambda: db.execute("SELECT :v", {"v": object()}),
            lambda: db.execute("COMMIT"),
            lambda: db.execute("SELECT 1", types={"a": "colour"}),
            lambda: db.execute("SELECT 1", timeout=0),
            lambda: db.execute(7),
            lambda: db.transaction(isolation="none"),
            lambda: tx.execute("SELECT 1"),
            lambda: db.transaction().execute("SELECT 1"),
        )]
        return said

    def told(self, call):
        try:
            return ["nothing", call()]
        except Exception as error:
            return [type(error).__name__, getattr(error, "reason", None)]

class CallsAsync(Service):
    name = "calls.async"
    channels = [rest("GET", "/async/{db}")]
    async def handle(self):
        import asyncio
        db = self.out.sql[self.request.http.params["db"]]
        said = {"one": (await db.one("SELECT name FROM customer WHERE id = :id", {"id": 1})).name}
        rows = await asyncio.gather(*[db.all("SELECT :n + 0 AS n FROM customer WHERE id = 1", {"n": n}) for n in range(20)])
        said["gathered"] = [int(row[0].n) for row in rows]
        said["stream"] = [row.id async for row in db.stream("SELECT id FROM customer ORDER BY id")]
        async with db.stream("SELECT id FROM customer ORDER BY id") as rows:
            async for row in rows:
                said["first"] = row.id
                break
        async with db.transaction(isolation="serializable") as tx:
            await tx.execute("INSERT INTO customer VALUES (50, 'Fay')")
            said["inside"] = len(await tx.all("SELECT id FROM customer WHERE id = 50"))
        try:
            async with db.transaction() as tx:
                await tx.execute("DELETE FROM customer")
                raise KeyError("no")
        except KeyError:
            said["kept"] = (await db.one("SELECT count(*) AS n FROM customer")).n
        said["ping"] = bool(await db.ping())
        try:
            await db.one("SELECT * FROM nowhere")
        except SqlError as error:
            said["error"] = [error.reason, error.origin, error.status, "nowhere" in error.detail]
        try:
            with db.transaction():
                pass
        except RuntimeError as error:
            said["wrong"] = str(error)
        return said
"#;

#[test]
fn services_do_all_that_databases_can() {
    let (pg, maria) = (postgres(), mariadb());
    let environment = Environment::start().unwrap();
    let outgoings =
        definition("pg", &pg, "") + &definition("maria", &maria, "") + &file("lite", &environment);
    apply(&environment, &outgoings);
    environment.drop_file("calls.py", CALLS).unwrap();
    environment.wait_for_status("/async/none", 500);
    for name in ["pg", "maria", "lite"] {
        let reply = environment.http().get(&format!("/calls/{name}")).unwrap();
        assert_eq!(reply.status, 200, "{name}: {}\n{}", reply.text(), environment.log_tail("server.log"));
        let said = reply.json();
        let ada = json!({"id": 1, "name": "Ada"});
        assert_eq!(said["inserted"], json!([2, []]), "{name}");
        assert_eq!(said["one"], json!([ada, "Ada", "Ada", "Ada", ["id", "name"], true]), "{name}");
        assert_eq!(said["all"], json!([{"name": "Ada"}, {"name": "Bob"}]), "{name}");
        assert_eq!((&said["none"], &said["stream"]), (&Value::Null, &json!([1, 2])), "{name}");
        assert_eq!(said["result"], json!([2, ["id", "name"], ada, 1, [1, 2], 2]), "{name}");
        assert_eq!(
            (&said["inside"], &said["streamed"], &said["kept"]),
            (&json!("Eve"), &json!(2), &json!(2))
        );
        assert_eq!(said["session"], json!([3, "Cyd"]), "{name}");
        assert_eq!((&said["ping"], &said["names"]), (&json!(true), &json!([name, true, false, null])));
        let errors = json!([
            ["NoRow", null],
            ["ManyRows", null],
            ["SqlIntegrityError", "unique"],
            ["SqlIntegrityError", "not_null"],
            ["SqlError", "statement"],
            ["ValueError", null],
            ["TypeError", null],
            ["ValueError", null],
            ["ValueError", null],
            ["ValueError", null],
            ["TypeError", null],
            ["ValueError", null],
            ["RuntimeError", null],
            ["RuntimeError", null],
        ]);
        assert_eq!(said["errors"], errors, "{name}");

        let reply = environment.http().get(&format!("/async/{name}")).unwrap();
        assert_eq!(reply.status, 200, "{name}: {}\n{}", reply.text(), environment.log_tail("server.log"));
        let said = reply.json();
        let gathered: Vec<_> = (0..20).collect();
        assert_eq!((&said["one"], &said["gathered"]), (&json!("Eve"), &json!(gathered)), "{name}");
        assert_eq!((&said["stream"], &said["first"]), (&json!([1, 2, 3]), &json!(1)), "{name}");
        assert_eq!((&said["inside"], &said["kept"], &said["ping"]), (&json!(1), &json!(4), &json!(true)));
        assert_eq!(said["error"], json!(["statement", "upstream", 502, true]), "{name}");
        assert!(said["wrong"].as_str().unwrap().contains("async with"), "{name}");
    }
}

const ATTACKED: &str = r#"
from crosstie import Service, rest

class Find(Service):
    name = "find"
    channels = [rest("GET", "/find/{db}")]
    def handle(self):
        db = self.out.sql[self.request.http.params["db"]]
        db.execute("CREATE TABLE IF NOT EXISTS person (name varchar(200))")
        name = self.request.http.query["name"]
        db.execute("INSERT INTO person VALUES (:name)", {"name": name})
        rows = db.all("SELECT name FROM person WHERE name = :name", {"name": name})
        db.execute("DELETE FROM person WHERE name = :name", {"name": name})
        return rows
"#;

#[test]
fn what_a_caller_sends_never_becomes_part_of_a_statement() {
    let (pg, maria) = (postgres(), mariadb());
    let environment = Environment::start().unwrap();
    let outgoings =
        definition("pg", &pg, "") + &definition("maria", &maria, "") + &file("lite", &environment);
    apply(&environment, &outgoings);
    environment.drop_file("find.py", ATTACKED).unwrap();
    environment.wait_for_status("/find/none?name=x", 500);
    for name in ["pg", "maria", "lite"] {
        for attack in [
            "'; DROP TABLE person; --",
            "x' OR '1'='1",
            "\\' OR 1=1 -- ",
            "%27 OR 1=1",
            "$1 :name ?",
            "\"` OR 1",
        ] {
            let encoded: String = attack.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let reply = environment.http().get(&format!("/find/{name}?name={encoded}")).unwrap();
            assert_eq!(reply.json(), json!([{"name": attack}]), "{name}");
        }
    }
}

/// Every file below `path`, as one text.
fn everything_below(path: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            text.push_str(&everything_below(&path));
        } else if let Ok(content) = fs::read(&path) {
            text.push_str(&String::from_utf8_lossy(&content));
        }
    }
    text
}

const FAILING: &str = r#"
from crosstie import *

class Failing(Service):
    name = "failing"
    channels = [rest("GET", "/failing/{db}/{what}")]
    def handle(self):
        db, what = self.out.sql[self.request.http.params["db"]], self.request.http.params["what"]
        if what == "value":
            db.execute("SELECT CAST(:secret AS integer) AS n", {"secret": "tok-51d0e2"})
        elif what == "unique":
            db.execute("CREATE TABLE IF NOT EXISTS t (token varchar(20) UNIQUE)")
            db.execute("INSERT INTO t VALUES (:secret)", [{"secret": "tok-51d0e2"}] * 2)
        elif what == "caught":
            try:
                db.execute("CREATE TABLE IF NOT EXISTS t (token varchar(20) UNIQUE)")
                db.execute("INSERT INTO t VALUES (:secret)", [{"secret": "x"}] * 2)
            except SqlIntegrityError as error:
                raise Conflict("it is there already") from error
        elif what == "one":
            db.one("SELECT 1 AS n WHERE 1 = 0")
        return db.one("SELECT 1 AS n").n
"#;

#[test]
fn no_password_key_or_value_gets_into_a_log_an_export_a_commit_or_an_answer() {
    let (pg, maria) = (postgres(), mariadb());
    let environment =
        Environment::builder().setting("telemetry.metrics_path", "\"/metrics\"").start().unwrap();
    let wrong = |name: &str, part| definition(name, part, "").replace(PASSWORD, "pw-7f3a9c");
    let outgoings = definition("pg", &pg, "")
        + &definition("maria", &maria, "")
        + &wrong("pg.wrong", &pg)
        + &wrong("maria.wrong", &maria)
        + &definition("missing", &pg, "").replace(PASSWORD, "file:nowhere");
    apply(&environment, &outgoings);
    environment.drop_file("failing.py", FAILING).unwrap();
    environment.wait_for_status("/failing/pg/nothing", 200);
    let mut told = String::new();
    for (path, status) in [
        ("pg/value", 502),
        ("maria/nothing", 200),
        ("pg/unique", 502),
        ("maria/unique", 502),
        ("pg/caught", 409),
        ("pg/one", 500),
        ("pg.wrong/nothing", 502),
        ("maria.wrong/nothing", 502),
        ("missing/nothing", 503),
    ] {
        let reply = environment.http().get(&format!("/failing/{path}")).unwrap();
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
        for detail in ["127.0.0.1", "constraint", "Traceback", "crosstie_", "SELECT", "password"] {
            assert!(!reply.text().contains(detail), "{path}: {}", reply.text());
        }
        told += &reply.text();
    }
    for name in ["pg", "pg.wrong", "maria", "maria.wrong", "missing"] {
        let outcome = environment.run(&["ping", name]).unwrap();
        assert_eq!(outcome.code == 0, matches!(name, "pg" | "maria"), "{name}");
        told += &outcome.stdout;
        told += &outcome.stderr;
    }
    wait_until("the log tells of it", || {
        let log = environment.log_tail("server.log");
        log.contains("refused the statement: unique") && log.contains("maria.wrong")
    });
    told += &environment.run(&["export"]).unwrap().success().unwrap().stdout;
    told += &environment.run(&["get", "outgoing", "-o", "json"]).unwrap().success().unwrap().stdout;
    told += &environment.run(&["status", "-o", "json"]).unwrap().success().unwrap().stdout;
    told += &environment.run(&["config", "log", "-o", "json"]).unwrap().success().unwrap().stdout;
    told += &environment.http().get("/metrics").unwrap().text();
    told += &everything_below(&environment.server().join("logs"));
    for repository in ["config", "config/cluster"] {
        let log = std::process::Command::new("git")
            .args(["-c", "safe.directory=*", "log", "-p", "--all"])
            .current_dir(environment.server().join(repository))
            .output()
            .unwrap();
        told += &String::from_utf8_lossy(&log.stdout);
    }
    assert!(told.contains("crosstie_outgoing_calls_total"), "the metrics are among what is searched");
    assert!(told.contains("postgresql"), "the commits and the export are among what is searched");
    let key = fs::read_to_string(&pg.client.key).unwrap();
    let key = key.lines().nth(1).unwrap();
    for secret in [PASSWORD, "it''s a secret", "pw-7f3a9c", "tok-51d0e2", key] {
        assert!(!told.contains(secret), "{secret} got out");
    }
    let closed = environment.json(&["get", "outgoing"]).unwrap().to_string();
    assert!(closed.contains("nowhere"), "{closed}");
}
