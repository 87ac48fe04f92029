//! A Python JSON service over REST, as shipped, against the bare hyper handler: cost, throughput, p99, p99 at
//! half the rate, and how evenly two workers share 32 connections.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crosstie_test_support::wrk::Report;
use crosstie_test_support::{Environment, PortBase};

use crate::connection::{Connection, Entrance};
use crate::environment::{await_answer, await_no_connections, one_server};
use crate::load::{Clients, Posting, failures, milliseconds};
use crate::processes::cpu_time_of_trees;
use crate::report::{Row, median};
use crate::{Plan, yardstick};

/// Connections of every load.
pub(crate) const CONNECTIONS: u32 = 32;
/// What is posted to [`SERVICE`], at `/greet`.
pub(crate) const BODY: &str = r#"{"name":"Ada"}"#;

/// A service with typed input and output.
pub(crate) const SERVICE: &str = r#"
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

/// A service that tells which worker answers.
const WHO: &str = r#"
import os
from crosstie import Service, rest

class Who(Service):
    name = "bench.who"
    channels = [rest("POST", "/who")]

    def handle(self):
        self.response.payload = {"pid": os.getpid()}
"#;

/// The bare handler in a process of its own.
struct Yardstick {
    process: Child,
    port: PortBase,
}

impl Yardstick {
    fn start() -> Result<Self> {
        let port = PortBase::reserve()?;
        let process =
            Command::new(std::env::current_exe()?).args(["yardstick", &port.number().to_string()]).spawn()?;
        let yardstick = Self { process, port };
        await_answer(&Entrance::plain(yardstick.address()), "/greet", BODY, |_| true)?;
        Ok(yardstick)
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }
}

impl Drop for Yardstick {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// CPU microseconds per request of the process tree below `pid` while `wrk` runs.
fn cost(pid: i32, address: SocketAddr, seconds: u64) -> Result<(f64, Report)> {
    let before = cpu_time_of_trees(&[pid]);
    let length = Duration::from_secs(seconds);
    let report = Posting::start(address, "/greet", BODY, CONNECTIONS, length)?.finish()?;
    let spent = cpu_time_of_trees(&[pid]).saturating_sub(before);
    ensure!(failures(&report) == 0, "{} requests failed", failures(&report));
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    let per_request = spent.as_secs_f64() * 1e6 / report.requests as f64;
    Ok((per_request, report))
}

/// The rows of this file.
///
/// # Errors
/// A server does not start, or a request fails.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let environment = one_server(1)?;
    environment.drop_file("greet.py", SERVICE)?;
    let entrance = Entrance::plain(environment.address());
    await_answer(&entrance, "/greet", BODY, |answer| answer == yardstick::ANSWER)?;
    let bare = Yardstick::start()?;
    let bare_pid = i32::try_from(bare.process.id())?;
    let supervisor = environment.supervisor().context("the server does not run")?;

    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut rates, mut bare_rates, mut p99s) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let (bare_cost, bare_run) = cost(bare_pid, bare.address(), plan.seconds)?;
        let (own_cost, own_run) = cost(supervisor, environment.address(), plan.seconds)?;
        ratios.push(own_cost / bare_cost);
        ours.push(own_cost);
        theirs.push(bare_cost);
        rates.push(own_run.per_second);
        bare_rates.push(bare_run.per_second);
        p99s.push(milliseconds(own_run.p99()));
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
            median(p99s)
        ),
    }];
    rows.push(half_rate(plan, &environment, rate)?);
    drop(environment);
    rows.push(balance()?);
    Ok(rows)
}

fn half_rate(plan: &Plan, environment: &Environment, rate: f64) -> Result<Row> {
    let entrance = [Entrance::plain(environment.address())];
    let mut p99s = Vec::new();
    for _ in 0..plan.rounds {
        let mut clients = Clients::open(&entrance, CONNECTIONS as usize, "/greet", BODY)?;
        let run = clients.open_loop(rate / 2.0, Duration::from_secs(plan.seconds))?;
        p99s.push(milliseconds(run.p99));
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

fn balance() -> Result<Row> {
    let environment = one_server(2)?;
    environment.drop_file("who.py", WHO)?;
    let entrance = Entrance::plain(environment.address());
    await_answer(&entrance, "/who", "{}", |answer| answer.contains("pid"))?;
    let mut worst = 1.0_f64;
    for _ in 0..20 {
        await_no_connections(&environment)?;
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(Connection::open(&entrance)?);
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
