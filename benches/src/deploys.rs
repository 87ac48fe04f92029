//! Hot deploy: from the file's rename to the new answer of every worker, and memory over many redeploys.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::Plan;
use crate::environment::Environment;
use crate::load::{percentile, post_once, wrk};
use crate::processes::resident_kib;
use crate::report::Row;

const WORKERS: usize = 2;
const HANG: Duration = Duration::from_secs(60);

fn service(version: usize) -> String {
    format!(
        r#"
import os
from crosstie import Service, rest

class Version(Service):
    name = "bench.version"
    channels = [rest("POST", "/version")]

    def handle(self):
        self.response.payload = {{"version": {version}, "pid": os.getpid()}}
"#
    )
}

/// Drops `version` and waits until every worker answers with it.
fn redeploy(environment: &Environment, version: usize) -> Result<Duration> {
    let start = Instant::now();
    environment.drop_file("version.py", &service(version))?;
    let prefix = format!("{{\"version\":{version},");
    let mut seen = HashSet::new();
    while seen.len() < WORKERS {
        ensure!(start.elapsed() < HANG, "version {version} did not arrive");
        let (status, answer) = post_once(environment.port, "/version", "{}")?;
        ensure!(status == 200 || version == 0, "status {status} during a redeploy");
        if answer.starts_with(&prefix) {
            seen.insert(answer);
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(start.elapsed())
}

fn started(plan: &Plan) -> Result<Environment> {
    let environment = Environment::start(&plan.crosstie, WORKERS)?;
    environment.drop_file("version.py", &service(0))?;
    environment.await_answer("/version", "{}", |answer| answer.contains("version"))?;
    Ok(environment)
}

/// Redeploys for a minute under load: latency, count, lost requests.
///
/// # Errors
/// A server does not start, or a version never arrives.
pub(crate) fn latency(plan: &Plan) -> Result<Vec<Row>> {
    let environment = started(plan)?;
    let port = environment.port;
    let load = std::thread::spawn(move || wrk(port, "/version", "{}", 4, 60));
    let start = Instant::now();
    let mut latencies = Vec::new();
    while start.elapsed() < Duration::from_secs(59) {
        latencies.push(redeploy(&environment, latencies.len() + 1)?);
    }
    let load = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
    latencies.sort_unstable();
    let p99 = percentile(&latencies, 99).as_secs_f64() * 1000.0;
    let median = percentile(&latencies, 50).as_secs_f64() * 1000.0;
    Ok(vec![
        Row {
            what: "file dropped → new answer from every worker, under load".into(),
            yardstick: "—".into(),
            measured: format!("p99 {p99:.0} ms"),
            limit: "500 ms".into(),
            holds: p99 <= 500.0,
            beside: format!("median {median:.0} ms; one server, {WORKERS} workers"),
        },
        Row {
            what: "redeploys observed in a minute under load".into(),
            yardstick: "—".into(),
            measured: latencies.len().to_string(),
            limit: "≥ 200".into(),
            holds: latencies.len() >= 200,
            beside: format!("load {:.0} requests/s", load.rate),
        },
        Row {
            what: "requests failed meanwhile".into(),
            yardstick: "—".into(),
            measured: load.failures.to_string(),
            limit: "0".into(),
            holds: load.failures == 0,
            beside: format!("of {}", load.requests),
        },
    ])
}

/// Resident memory after many redeploys against that after the first 100.
///
/// # Errors
/// A server does not start, or a version never arrives.
pub(crate) fn growth(plan: &Plan) -> Result<Vec<Row>> {
    let environment = started(plan)?;
    let total = || -> Result<u64> {
        let workers = environment.workers()?;
        workers.into_iter().map(resident_kib).sum::<Result<u64>>().context("a worker is gone")
    };
    let mut after_first = 0;
    for version in 1..=plan.redeploys.max(101) {
        redeploy(&environment, version)?;
        if version == 100 {
            after_first = total()?;
        }
    }
    let at_end = total()?;
    #[expect(clippy::cast_precision_loss, reason = "sizes in KiB")]
    let ratio = at_end as f64 / after_first as f64;
    Ok(vec![Row {
        what: format!("resident memory of the workers after {} redeploys", plan.redeploys.max(101)),
        yardstick: "after the first 100".into(),
        measured: format!("{ratio:.3} ×"),
        limit: "1.10 ×".into(),
        holds: ratio <= 1.10,
        beside: format!("{at_end} KiB against {after_first} KiB"),
    }])
}
