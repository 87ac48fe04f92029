//! A million rows, in a twentieth of them by default: through a service that reads them, and through one that
//! answers with them.

use std::fs;

use crosstie_test_support::{Environment, processes};
use serde_json::json;

use super::{apply, definition, file, mariadb, postgres};

const STREAMS: &str = r#"
from crosstie import Service, rest

ROWS = {
    "pg": "SELECT n::integer AS id, repeat('x', 100) AS v, now() AS at, n * 1.5 AS d FROM generate_series(1, :count) n",
    "maria": "SELECT seq AS id, repeat('x', 100) AS v, now(6) AS at, seq * 1.5 AS d FROM seq_1_to_1000000 WHERE seq <= :count",
    "lite": "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < :count) "
            "SELECT n AS id, printf('%.100c', 'x') AS v, datetime() AS at, n * 1.5 AS d FROM s",
}

class Read(Service):
    name = "read"
    channels = [rest("GET", "/read/{db}")]
    deadline_ms = 600_000
    def handle(self):
        name, count = self.request.http.params["db"], int(self.request.http.query["count"])
        seen = total = 0
        for row in self.out.sql[name].stream(ROWS[name], {"count": count}):
            seen += 1
            total += row.id
        return {"seen": seen, "total": total}

class ReadAsync(Service):
    name = "read.async"
    channels = [rest("GET", "/readasync/{db}")]
    deadline_ms = 600_000
    async def handle(self):
        name, count = self.request.http.params["db"], int(self.request.http.query["count"])
        seen = total = 0
        async for row in self.out.sql[name].stream(ROWS[name], {"count": count}):
            seen += 1
            total += row.id
        return {"seen": seen, "total": total}

class Answer(Service):
    name = "answer"
    channels = [rest("GET", "/answer/{db}")]
    deadline_ms = 600_000
    def handle(self):
        name, count = self.request.http.params["db"], int(self.request.http.query["count"])
        yield from self.out.sql[name].stream(ROWS[name], {"count": count})

class All(Service):
    name = "all"
    channels = [rest("GET", "/all/{db}")]
    def handle(self):
        name, count = self.request.http.params["db"], int(self.request.http.query["count"])
        return len(self.out.sql[name].all(ROWS[name], {"count": count}))
"#;

/// Most that a worker may grow by, in KiB.
const GROWTH: u64 = 64 * 1024;

/// A figure of `/proc/PID/status` in KiB.
fn figure(pid: i32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_million_rows_take_no_more_memory_than_a_few() {
    let count: u64 = if std::env::var_os("CROSSTIE_SOAK").is_some() { 1_000_000 } else { 50_000 };
    let (pg, maria) = (postgres(), mariadb());
    let environment = Environment::builder().setting("server.workers", "1").start().unwrap();
    let outgoings =
        definition("pg", &pg, "") + &definition("maria", &maria, "") + &file("lite", &environment);
    apply(&environment, &outgoings);
    environment.drop_file("streams.py", STREAMS).unwrap();
    environment.wait_for_status("/read/none?count=1", 500);
    let status = environment.json(&["status"]).unwrap();
    let workers = status["components"][0]["workers"].as_array().unwrap();
    let pid = i32::try_from(workers[0]["pid"].as_i64().unwrap()).unwrap();
    assert!(processes::is_alive(pid) && workers.len() == 1, "{status}");
    for name in ["pg", "maria", "lite"] {
        for path in ["read", "readasync", "answer"] {
            // What the first rows need once: threads, buffers, statements.
            assert_eq!(environment.http().get(&format!("/{path}/{name}?count=1000")).unwrap().status, 200);
            fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
            let before = figure(pid, "VmHWM");
            let reply = environment.http().get(&format!("/{path}/{name}?count={count}")).unwrap();
            assert_eq!(reply.status, 200, "{path} {name}: {}", environment.log_tail("server.log"));
            let growth = figure(pid, "VmHWM").saturating_sub(before);
            println!("{count} rows of {name} by {path}: {growth} KiB more");
            assert!(growth < GROWTH, "{path} {name}: {growth} KiB");
            if path == "answer" {
                assert_eq!(reply.header("content-type"), "application/x-ndjson");
                let lines = reply.text().lines().count();
                assert_eq!(u64::try_from(lines).unwrap(), count, "{name}");
            } else {
                assert_eq!(
                    reply.json(),
                    json!({"seen": count, "total": count * (count + 1) / 2}),
                    "{path} {name}"
                );
            }
        }
    }
    // The same without streaming is refused before it takes more than its limit.
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    let before = figure(pid, "VmHWM");
    let reply = environment.http().get("/all/pg?count=1000000").unwrap();
    assert_eq!(reply.status, 502, "{}", reply.text());
    assert!(figure(pid, "VmHWM").saturating_sub(before) < 4 * GROWTH);
}
