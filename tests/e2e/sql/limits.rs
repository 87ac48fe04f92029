//! Deadlines, pools, transactions that nobody ends, databases that die.

use std::thread;
use std::time::{Duration, Instant};

use crosstie_test_support::parts::TestPart;
use crosstie_test_support::{Environment, processes, wait_for, wait_until};
use nix::sys::signal::Signal;
use serde_json::json;

use super::{apply, definition, mariadb, postgres};

const SLOW: &str = r#"
import time
from crosstie import Service, rest

class Slow(Service):
    name = "slow"
    channels = [rest("GET", "/slow/{db}")]
    deadline_ms = 1_000
    def handle(self):
        db = self.out.sql[self.request.http.params["db"]]
        return db.one(self.request.http.query["statement"])

class Fast(Service):
    name = "fast"
    channels = [rest("GET", "/fast/{db}")]
    def handle(self):
        return self.out.sql[self.request.http.params["db"]].one(self.request.http.query.get("statement", "SELECT 1 AS n"))

class Held(Service):
    name = "held"
    channels = [rest("GET", "/held/{db}/{how}")]
    deadline_ms = 1_000
    def handle(self):
        db = self.out.sql[self.request.http.params["db"]]
        how = self.request.http.params["how"]
        transaction = db.transaction().begin()
        transaction.execute("UPDATE counter SET n = n + 1")
        if how == "raises":
            raise KeyError("no")
        if how == "returns":
            return "left open"
        # One call into the C library: the interpreter cannot end it.
        time.sleep(600)

class HeldAsync(Service):
    name = "held.async"
    channels = [rest("GET", "/heldasync/{db}")]
    deadline_ms = 1_000
    async def handle(self):
        import asyncio
        async with self.out.sql[self.request.http.params["db"]].transaction() as tx:
            await tx.execute("UPDATE counter SET n = n + 1")
            await asyncio.sleep(600)
"#;

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// The first value that `statement` gives.
fn value(environment: &Environment, name: &str, statement: &str) -> serde_json::Value {
    let reply = environment.http().get(&format!("/fast/{name}?statement={}", encoded(statement))).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json().as_object().unwrap().values().next().unwrap().clone()
}

fn with_services(outgoings: &str) -> Environment {
    let environment = Environment::start().unwrap();
    apply(&environment, outgoings);
    environment.drop_file("slow.py", SLOW).unwrap();
    environment.wait_for_status("/fast/none", 500);
    environment
}

#[test]
fn a_service_past_its_deadline_leaves_nothing_running_at_the_database() {
    let (pg, maria) = (postgres(), mariadb());
    let environment = with_services(&(definition("pg", &pg, "") + &definition("maria", &maria, "")));
    for (name, sleep, running) in [
        (
            "pg",
            "SELECT pg_sleep(600) AS n",
            "SELECT count(*) AS n FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'",
        ),
        (
            "maria",
            "SELECT SLEEP(600) AS n",
            "SELECT count(*) AS n FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'",
        ),
    ] {
        let begun = Instant::now();
        let reply = environment.http().get(&format!("/slow/{name}?statement={}", encoded(sleep))).unwrap();
        assert_eq!(reply.status, 504, "{}", reply.text());
        assert!(begun.elapsed() < Duration::from_secs(20));
        wait_until("the statement has ended", || value(&environment, name, running) == json!(0));
    }
}

#[test]
fn a_transaction_that_nobody_ends_is_undone_when_its_call_is_over() {
    let (pg, maria) = (postgres(), mariadb());
    let environment = with_services(&(definition("pg", &pg, "") + &definition("maria", &maria, "")));
    environment.drop_file("prepare.py", PREPARE).unwrap();
    environment.wait_for_status("/prepare/pg", 200);
    assert_eq!(environment.http().get("/prepare/maria").unwrap().status, 200);
    for name in ["pg", "maria"] {
        for (path, status) in [
            (format!("/held/{name}/raises"), 500),
            (format!("/held/{name}/returns"), 200),
            (format!("/heldasync/{name}"), 504),
            (format!("/held/{name}/hangs"), 504),
        ] {
            let reply = environment.http().get(&path).unwrap();
            assert_eq!(reply.status, status, "{path}: {}", reply.text());
            // Its lock is gone: another can have it. Its change is not there.
            let update = if name == "pg" {
                "UPDATE counter SET n = n RETURNING n"
            } else {
                "SELECT n FROM counter FOR UPDATE"
            };
            assert_eq!(value(&environment, name, update), json!(0), "{path}");
        }
    }
}

const PREPARE: &str = r#"
from crosstie import Service, rest

class Prepare(Service):
    name = "prepare"
    channels = [rest("GET", "/prepare/{db}")]
    def handle(self):
        db = self.out.sql[self.request.http.params["db"]]
        db.execute("CREATE TABLE IF NOT EXISTS counter (n integer)")
        db.execute("DELETE FROM counter")
        return db.execute("INSERT INTO counter VALUES (0)").rowcount
"#;

#[test]
fn who_finds_all_connections_busy_is_told_to_come_again() {
    let pg = postgres();
    let limits = ", max_connections: 1, wait_deadline_ms: 200";
    let environment = Environment::builder()
        .setting("server.workers", "1")
        .setting("telemetry.metrics_path", "\"/metrics\"")
        .start()
        .unwrap();
    apply(&environment, &definition("pg", &pg, limits));
    environment.drop_file("slow.py", SLOW).unwrap();
    environment.wait_for_status("/fast/pg", 200);
    let sleep = format!("/fast/pg?statement={}", encoded("SELECT pg_sleep(3) AS n"));
    let http = environment.http();
    let busy = thread::spawn(move || http.get(&sleep).unwrap().status);
    let reply = wait_for("the connection is busy", || {
        let reply = environment.http().get("/fast/pg").unwrap();
        (reply.status != 200).then_some(reply)
    });
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert_eq!(reply.header("retry-after"), "1");
    let metrics = environment.http().get("/metrics").unwrap().text();
    for line in [
        r#"crosstie_outgoing_connections_in_use{outgoing="pg"} 1"#,
        r#"crosstie_outgoing_calls_total{outgoing="pg",type="sql",outcome="busy"}"#,
        r#"crosstie_outgoing_connection_waits_total{outgoing="pg",type="sql"}"#,
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    assert_eq!(busy.join().unwrap(), 200);
    assert_eq!(environment.http().get("/fast/pg").unwrap().status, 200);
}

fn survives(part: &TestPart, name: &str, sleep: &str) {
    let environment =
        with_services(&definition(name, part, ", connect_deadline_ms: 1000, deadline_ms: 2000"));
    let path = format!("/fast/{name}");
    let sleeping = format!("{path}?statement={}", encoded(sleep));
    for _ in 0..2 {
        environment.wait_for_status(&path, 200);
        let http = environment.http();
        let path_of_sleep = sleeping.clone();
        let running = thread::spawn(move || http.get(&path_of_sleep).unwrap().status);
        let pid = i32::try_from(part.part.pid().unwrap()).unwrap();
        processes::send(pid, Signal::SIGKILL).unwrap();
        let status = running.join().unwrap();
        assert!(matches!(status, 502..=504), "{status}");
        for _ in 0..10 {
            let begun = Instant::now();
            let reply = environment.http().get(&path).unwrap();
            assert!(matches!(reply.status, 502..=504), "{}", reply.text());
            assert!(begun.elapsed() < Duration::from_secs(20));
        }
        part.part.start().unwrap();
    }
    environment.wait_for_status(&path, 200);
}

#[test]
fn a_killed_postgresql_costs_calls_their_deadline_and_is_used_again_when_it_is_back() {
    survives(&postgres(), "pg", "SELECT pg_sleep(60) AS n");
}

#[test]
fn a_killed_mariadb_costs_calls_their_deadline_and_is_used_again_when_it_is_back() {
    survives(&mariadb(), "maria", "SELECT SLEEP(60) AS n");
}
