//! A Python JSON service over REST, as shipped, against the bare hyper handler: cost, throughput, p99, p99 at
//! half the rate, and how evenly two workers share 32 connections.

use std::collections::HashMap;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::environment::Environment;
use crate::load::{Connection, WrkResult, paced, percentile, post_once, wrk};
use crate::processes::tree_cpu_time;
use crate::report::{Row, median};
use crate::{Plan, yardstick};

const CONNECTIONS: usize = 32;
const BODY: &str = r#"{"name":"Ada"}"#;

const SERVICE: &str = r#"
from crosstie import Model, Service, rest

class Name(Model):
    name: str

class Greeting(Model):
    text: str
    visits: int = 0

class Greet(Service):
    name = "bench.greet"
    channels = [rest("POST", "/greet")]
    input = Name
    output = Greeting

    def handle(self):
        self.response.payload = Greeting(text=f"Hello {self.request.input.name}")
"#;

const WHO: &str = r#"
import os
from crosstie import Service, rest

class Who(Service):
    name = "bench.who"
    channels = [rest("POST", "/who")]

    def handle(self):
        self.response.payload = {"pid": os.getpid()}
"#;

struct Yardstick {
    process: Child,
    port: u16,
}

impl Yardstick {
    fn start(port: u16) -> Result<Self> {
        let process =
            Command::new(std::env::current_exe()?).args(["yardstick", &port.to_string()]).spawn()?;
        let yardstick = Self { process, port };
        let start = Instant::now();
        while post_once(port, "/greet", BODY).is_err() {
            ensure!(start.elapsed() < Duration::from_secs(30), "the yardstick does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(yardstick)
    }
}

impl Drop for Yardstick {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// CPU microseconds per request of the process tree below `pid` while `wrk` runs.
fn cost(pid: u32, port: u16, seconds: u64) -> Result<(f64, WrkResult)> {
    let before = tree_cpu_time(pid);
    let result = wrk(port, "/greet", BODY, CONNECTIONS, seconds)?;
    let spent = tree_cpu_time(pid).saturating_sub(before);
    ensure!(result.failures == 0, "{} requests failed", result.failures);
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    let per_request = spent.as_secs_f64() * 1e6 / result.requests as f64;
    Ok((per_request, result))
}

/// The rows of this file.
///
/// # Errors
/// A server does not start, or a request fails.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let environment = Environment::start(&plan.crosstie, 1)?;
    environment.drop_file("greet.py", SERVICE)?;
    environment.await_answer("/greet", BODY, |answer| answer == yardstick::ANSWER)?;
    let bare = Yardstick::start(environment.port + 1)?;
    let supervisor = environment.supervisor()?;

    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut rates, mut bare_rates, mut p99s) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let (bare_cost, bare_run) = cost(bare.process.id(), bare.port, plan.seconds)?;
        let (own_cost, own_run) = cost(supervisor, environment.port, plan.seconds)?;
        ratios.push(own_cost / bare_cost);
        ours.push(own_cost);
        theirs.push(bare_cost);
        rates.push(own_run.rate);
        bare_rates.push(bare_run.rate);
        p99s.push(own_run.p99_us);
    }
    let ratio = median(ratios);
    let rate = median(rates);
    let mut rows = vec![Row {
        what: "Python JSON service over REST, one worker, 32 connections: cost".into(),
        yardstick: "bare hyper handler".into(),
        measured: format!("{ratio:.2} ×"),
        limit: "3.5 ×".into(),
        holds: ratio <= 3.5,
        beside: format!(
            "{:.1} µs against {:.1} µs; {rate:.0}/s against {:.0}/s; p99 {:.2} ms",
            median(ours),
            median(theirs),
            median(bare_rates),
            median(p99s) / 1000.0
        ),
    }];
    rows.push(half_rate(plan, &environment, rate)?);
    drop(environment);
    rows.push(balance(plan)?);
    Ok(rows)
}

fn half_rate(plan: &Plan, environment: &Environment, rate: f64) -> Result<Row> {
    let mut p99s = Vec::new();
    for _ in 0..plan.rounds {
        let length = Duration::from_secs(plan.seconds);
        let latencies = paced(environment.port, "/greet", BODY, 32, rate / 2.0, length)?;
        p99s.push(percentile(&latencies, 99).as_secs_f64() * 1000.0);
    }
    let p99 = median(p99s);
    Ok(Row {
        what: "p99 at half the maximum rate, Python service".into(),
        yardstick: "—".into(),
        measured: format!("{p99:.2} ms"),
        limit: "5 ms".into(),
        holds: p99 <= 5.0,
        beside: format!("{:.0} requests/s, open loop, 32 connections", rate / 2.0),
    })
}

fn balance(plan: &Plan) -> Result<Row> {
    let environment = Environment::start(&plan.crosstie, 2)?;
    environment.drop_file("who.py", WHO)?;
    environment.await_answer("/who", "{}", |answer| answer.contains("pid"))?;
    let mut worst = 1.0_f64;
    for _ in 0..20 {
        environment.await_no_connections()?;
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(Connection::open(environment.port)?);
        }
        let mut counts: HashMap<String, u32> = HashMap::new();
        for connection in &mut connections {
            *counts.entry(connection.post("/who", "{}")?.1).or_default() += 1;
        }
        let busiest = counts.values().max().copied().unwrap_or(0);
        let idlest = if counts.len() < 2 { 0 } else { counts.values().min().copied().unwrap_or(0) };
        worst = worst.max(f64::from(busiest) / f64::from(idlest.max(1)));
    }
    Ok(Row {
        what: "two workers, 32 keep-alive connections: busiest / idlest".into(),
        yardstick: "—".into(),
        measured: format!("{worst:.2}, the worst of 20 runs"),
        limit: "1.5".into(),
        holds: worst <= 1.5,
        beside: "connections per worker".into(),
    })
}
