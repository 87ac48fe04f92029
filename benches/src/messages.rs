//! The message log, metadata only, against the same service through a channel that keeps nothing; and whether every
//! message is found afterwards.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crosstie_telemetry::messages::messages;
use crosstie_test_support::Environment;

use crate::Plan;
use crate::connection::Entrance;
use crate::environment::{await_answer, one_server, wait};
use crate::load::{Posting, failures, milliseconds};
use crate::processes::cpu_time_of_trees;
use crate::python_rest::{BODY, CONNECTIONS, SERVICE};
use crate::report::{Row, median};
use crate::yardstick;

/// Most that keeping metadata may cost.
const LIMIT: f64 = 1.15;
/// Messages that are looked for one by one.
const SAMPLE: usize = 2_000;
/// Two channels that lead to [`SERVICE`], one of which keeps its messages.
const CHANNELS: &str = r#"
channel:
  bench.kept: {type: rest, methods: [POST], path: /kept, service: bench.greet, message_log: {}}
  bench.unkept: {type: rest, methods: [POST], path: /unkept, service: bench.greet}
"#;

/// CPU microseconds per request of the server's processes, requests a second, p99 in milliseconds, and requests.
struct Run {
    cost: f64,
    rate: f64,
    p99: f64,
    requests: u64,
}

fn run(pid: i32, address: SocketAddr, path: &str, seconds: u64) -> Result<Run> {
    let before = cpu_time_of_trees(&[pid]);
    let report = Posting::start(address, path, BODY, CONNECTIONS, Duration::from_secs(seconds))?.finish()?;
    let spent = cpu_time_of_trees(&[pid]).saturating_sub(before);
    ensure!(failures(&report) == 0, "{} requests failed", failures(&report));
    #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
    let cost = spent.as_secs_f64() * 1e6 / report.requests as f64;
    Ok(Run { cost, rate: report.per_second, p99: milliseconds(report.p99()), requests: report.requests })
}

/// The row of this file.
///
/// # Errors
/// The server does not start, a request fails, or a message is not kept.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let environment = one_server(1)?;
    environment.drop_file("greet.py", SERVICE)?;
    let entrance = Entrance::plain(environment.address());
    await_answer(&entrance, "/greet", BODY, |answer| answer == yardstick::ANSWER)?;
    let file = environment.root().join("channels.yaml");
    std::fs::write(&file, CHANNELS)?;
    environment.run(&["apply", "-f", file.to_str().context("a path that is not UTF-8")?])?.success()?;
    for path in ["/kept", "/unkept"] {
        await_answer(&entrance, path, BODY, |answer| answer == yardstick::ANSWER)?;
    }
    let supervisor = environment.supervisor().context("the server does not run")?;
    let address = environment.address();
    let (mut ratios, mut kept, mut unkept, mut answered) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..plan.rounds {
        let without = run(supervisor, address, "/unkept", plan.seconds)?;
        let with = run(supervisor, address, "/kept", plan.seconds)?;
        ratios.push(with.cost / without.cost);
        answered += with.requests;
        kept.push(with);
        unkept.push(without);
    }
    let found = all_found(&environment, answered)?;
    let of = |runs: &[Run], figure: fn(&Run) -> f64| median(runs.iter().map(figure).collect());
    let ratio = median(ratios);
    Ok(vec![Row {
        what: "message log on, metadata only, every cid found afterwards: cost".into(),
        yardstick: "the same service through a channel that keeps nothing".into(),
        measured: format!("{ratio:.2} ×"),
        limit: format!("{LIMIT} ×"),
        holds: ratio <= LIMIT,
        beside: format!(
            "{:.1} µs against {:.1} µs; {:.0}/s against {:.0}/s; p99 {:.2} ms against {:.2} ms; {found} messages",
            of(&kept, |run| run.cost),
            of(&unkept, |run| run.cost),
            of(&kept, |run| run.rate),
            of(&unkept, |run| run.rate),
            of(&kept, |run| run.p99),
            of(&unkept, |run| run.p99),
        ),
    }])
}

/// Waits until the log has a message for each of the requests that were answered under load, and for each cid of a
/// sample that is posted now; gives how many it has.
fn all_found(environment: &Environment, answered: u64) -> Result<usize> {
    let http = environment.http();
    let mut sample = HashSet::new();
    for _ in 0..SAMPLE {
        let reply = http.post("/kept", "application/json", BODY.as_bytes())?;
        sample.insert(reply.header("x-crosstie-cid").to_owned());
    }
    ensure!(sample.len() == SAMPLE, "cids repeat");
    let directory = environment.server().join("logs/messages");
    let (mut found, mut last) = (0, String::new());
    let told =
        |found, last: &str| format!("a message of each request: {found} of {answered}, missing {last}");
    let waited = wait("a message of each request", || {
        let mut cids = HashSet::new();
        messages(&directory, |message| {
            cids.insert(message.id.cid.to_string());
        })?;
        found = cids.len();
        last = sample.iter().find(|cid| !cids.contains(*cid)).cloned().unwrap_or_default();
        Ok(last.is_empty() && found as u64 >= answered + SAMPLE as u64)
    });
    waited.with_context(|| told(found, &last))?;
    Ok(found)
}
