//! A Python JSON service over REST, as shipped, against the bare hyper handler: cost, throughput, p99, p99 at
//! half the rate, and how evenly two workers share 32 connections.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use crosstie_test_support::Environment;

use crate::beside::Beside;
use crate::connection::{Connection, Entrance};
use crate::environment::{await_answer, await_no_connections, one_server};
use crate::load::{Clients, Posting, milliseconds};
use crate::paired::{Pairs, Run};
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

/// The rows of this file.
///
/// # Errors
/// A server does not start, or a request fails.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let environment = one_server(1)?;
    environment.drop_file("greet.py", SERVICE)?;
    let entrance = Entrance::plain(environment.address());
    await_answer(&entrance, "/greet", BODY, |answer| answer == yardstick::ANSWER)?;
    let bare = Beside::own("yardstick")?;
    await_answer(&Entrance::plain(bare.address()), "/greet", BODY, |_| true)?;
    let bare_pid = bare.pid()?;
    let supervisor = environment.supervisor().context("the server does not run")?;

    let load = |address: SocketAddr| {
        let length = Duration::from_secs(plan.seconds);
        Posting::start(address, "/greet", BODY, CONNECTIONS, length)?.finish()
    };
    let pairs = Pairs::of(
        plan.rounds,
        || Run::of(&[bare_pid], || load(bare.address())),
        || Run::of(&[supervisor], || load(environment.address())),
    )?;
    let what = "Python JSON service over REST, one worker, 32 connections";
    let mut rows = vec![pairs.row(what, "bare hyper handler", Some(3.5))];
    rows.push(half_rate(plan, &environment, pairs.rate())?);
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
