//! Hot deploy: from the file's rename to the new answer of every worker of every server, and memory over many
//! redeploys.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use crosstie_test_support::{Cluster, Environment};

use crate::Plan;
use crate::connection::Entrance;
use crate::environment::{await_answer, one_server, two_servers};
use crate::load::{Clients, LEAST_RATE, Posting, Run, failures, milliseconds, percentile};
use crate::processes::resident_kib;
use crate::report::{NO_LIMIT, Row};
use crate::watch::{PATH, UNIT, Watch, source};

/// Workers of each server.
const WORKERS: usize = 2;
/// Connections of the load meanwhile.
const CONNECTIONS: u32 = 4;
/// Requests a second through HAProxy while a cluster is deployed to. Everything that a cluster consists of shares
/// the machine's cores here: as much load as it takes leaves nothing for anything else.
const STEADY_RATE: f64 = 1000.0;
/// Requests a second while memory is watched: load, but not so much that 10,000 redeploys take hours.
const GROWTH_RATE: f64 = 500.0;

/// Redeploys on one server under as much load as it takes: latency, count, lost requests.
///
/// # Errors
/// A server does not start, or a version never arrives.
pub(crate) fn one(plan: &Plan) -> Result<Vec<Row>> {
    let environment = one_server(WORKERS)?;
    let entrance = [Entrance::plain(environment.address())];
    let drop_file = |name: &str, text: &str| environment.drop_file(name, text);
    let mut watch = first_version(&entrance, drop_file)?;
    Ok(saturated(plan, environment.address(), &mut watch, drop_file)?.rows("one server"))
}

/// Redeploys on a cluster: the file is dropped on the first server, the load comes through HAProxy, first a steady
/// one, then as much as the cluster takes.
///
/// # Errors
/// The cluster does not start, or a version never arrives.
pub(crate) fn cluster(plan: &Plan) -> Result<Vec<Row>> {
    let cluster = two_servers(WORKERS)?;
    let drop_file = |name: &str, text: &str| cluster.drop_file(1, name, text);
    let mut watch = serving(&cluster)?;
    let mut rows =
        steady(plan, cluster.address(), &mut watch, drop_file)?.rows("two servers, through HAProxy");
    let most = saturated(plan, cluster.address(), &mut watch, drop_file)?;
    let most = most.rows("two servers, through HAProxy, as fast as four connections take");
    // How fast and how often is there to be read; that no request fails is not.
    rows.extend(
        most.into_iter().enumerate().map(|(index, row)| if index < 2 { unlimited(row) } else { row }),
    );
    Ok(rows)
}

/// A row that is there to be read.
fn unlimited(row: Row) -> Row {
    Row { limit: NO_LIMIT.into(), holds: true, ..row }
}

/// A watch over every worker of a cluster that serves version 0.
///
/// # Errors
/// It never answers.
pub(crate) fn serving(cluster: &Cluster) -> Result<Watch> {
    let watch =
        first_version(&Entrance::of_servers(cluster)?, |name, text| cluster.drop_file(1, name, text))?;
    cluster.wait_until_ready();
    await_answer(&Entrance::plain(cluster.address()), PATH, "{}", |_| true)?;
    Ok(watch)
}

fn first_version(entrances: &[Entrance], drop_file: impl Fn(&str, &str) -> Result<()>) -> Result<Watch> {
    drop_file(UNIT, &source(0))?;
    for entrance in entrances {
        await_answer(entrance, PATH, "{}", |_| true)?;
    }
    Watch::over(entrances, WORKERS)
}

/// Redeploys, and the load meanwhile.
struct Redeploys {
    /// How long each took, sorted.
    latencies: Vec<Duration>,
    lasted: Duration,
    requests: u64,
    rate: f64,
    failed: u64,
}

/// Redeploys while `wrk` posts as fast as it can.
fn saturated(
    plan: &Plan,
    address: SocketAddr,
    watch: &mut Watch,
    drop_file: impl Fn(&str, &str) -> Result<()>,
) -> Result<Redeploys> {
    let length = Duration::from_secs(plan.deploy_seconds);
    // The load outlasts the redeploys.
    let load = Posting::start(address, PATH, "{}", CONNECTIONS, length + Duration::from_secs(1))?;
    let (latencies, lasted) = redeploys(length, watch, drop_file)?;
    let load = load.finish()?;
    let failed = failures(&load);
    Ok(Redeploys { latencies, lasted, requests: load.requests, rate: load.per_second, failed })
}

/// Redeploys under [`STEADY_RATE`]. A request that fails fails the measurement.
fn steady(
    plan: &Plan,
    address: SocketAddr,
    watch: &mut Watch,
    drop_file: impl Fn(&str, &str) -> Result<()>,
) -> Result<Redeploys> {
    let length = Duration::from_secs(plan.deploy_seconds);
    let mut clients = Clients::open(&[Entrance::plain(address)], CONNECTIONS as usize, PATH, "{}")?;
    let ((latencies, lasted), load) =
        under_rate(STEADY_RATE, &mut clients, || redeploys(length, watch, drop_file))?;
    Ok(Redeploys { latencies, lasted, requests: load.requests as u64, rate: load.rate, failed: 0 })
}

/// Does `work` while `clients` post at `rate` requests a second: what both gave.
fn under_rate<T>(rate: f64, clients: &mut Clients, work: impl FnOnce() -> Result<T>) -> Result<(T, Run)> {
    let is_over = AtomicBool::new(false);
    let (done, load) = std::thread::scope(|scope| {
        let load = scope.spawn(|| clients.open_loop_until(rate, &is_over));
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        (done, load.join())
    });
    let done = done?;
    Ok((done, load.map_err(|_| anyhow::anyhow!("the load panicked"))??))
}

/// One redeploy after the other for `length`: how long each took, sorted, and all together.
fn redeploys(
    length: Duration,
    watch: &mut Watch,
    drop_file: impl Fn(&str, &str) -> Result<()>,
) -> Result<(Vec<Duration>, Duration)> {
    let start = Instant::now();
    let mut latencies = Vec::new();
    // Versions go on from those of a load before.
    let first = watch.version() + 1;
    while start.elapsed() < length {
        latencies.push(watch.redeploy(first + latencies.len(), &drop_file)?);
    }
    let lasted = start.elapsed();
    latencies.sort_unstable();
    Ok((latencies, lasted))
}

impl Redeploys {
    fn rows(&self, place: &str) -> Vec<Row> {
        let p99 = milliseconds(percentile(&self.latencies, 99));
        let median = milliseconds(percentile(&self.latencies, 50));
        let slowest = milliseconds(self.latencies.last().copied().unwrap_or_default());
        #[expect(clippy::cast_precision_loss, reason = "a count of a minute")]
        let per_minute = self.latencies.len() as f64 * 60.0 / self.lasted.as_secs_f64();
        let (failed, rate) = (self.failed, self.rate);
        vec![
            Row {
                what: format!("{place}: file dropped → new answer from every worker, under load"),
                yardstick: "—".into(),
                measured: format!("p99 {p99:.0} ms"),
                limit: "500 ms".into(),
                holds: p99 <= 500.0,
                beside: format!("median {median:.0} ms, slowest {slowest:.0} ms; {WORKERS} workers each"),
            },
            Row {
                what: format!("{place}: redeploys observed in a minute under load"),
                yardstick: "—".into(),
                measured: format!("{per_minute:.0}"),
                limit: "≥ 200".into(),
                holds: per_minute >= 200.0,
                beside: format!("{} in {:.0} s", self.latencies.len(), self.lasted.as_secs_f64()),
            },
            Row {
                what: format!("{place}: requests failed meanwhile"),
                yardstick: "—".into(),
                measured: format!("{failed} at {rate:.0}/s"),
                limit: format!("0 at ≥ {LEAST_RATE}/s"),
                holds: failed == 0 && rate >= LEAST_RATE,
                beside: format!("of {}", self.requests),
            },
        ]
    }
}

/// Resident memory after many redeploys under load against that after the first 100.
///
/// # Errors
/// A server does not start, a version never arrives, or a request failed.
pub(crate) fn growth(plan: &Plan) -> Result<Vec<Row>> {
    let environment = one_server(WORKERS)?;
    let entrance = [Entrance::plain(environment.address())];
    let drop_file = |name: &str, text: &str| environment.drop_file(name, text);
    let mut watch = first_version(&entrance, drop_file)?;
    let mut clients = Clients::open(&entrance, CONNECTIONS as usize, PATH, "{}")?;
    let last = plan.redeploys.max(101);
    let ((after_first, at_end), load) =
        under_rate(GROWTH_RATE, &mut clients, || redeploy(last, &environment, &mut watch))?;
    #[expect(clippy::cast_precision_loss, reason = "sizes in KiB")]
    let ratio = at_end as f64 / after_first as f64;
    Ok(vec![Row {
        what: format!("resident memory of the workers after {last} redeploys under load"),
        yardstick: "after the first 100".into(),
        measured: format!("{ratio:.3} ×"),
        limit: "1.10 ×".into(),
        holds: ratio <= 1.10,
        beside: format!(
            "{at_end} KiB against {after_first} KiB; {} requests at {:.0}/s, none failed",
            load.requests, load.rate
        ),
    }])
}

/// Redeploys up to version `last`; resident memory after version 100 and at the end, in KiB.
fn redeploy(last: usize, environment: &Environment, watch: &mut Watch) -> Result<(u64, u64)> {
    let mut after_first = 0;
    for version in 1..=last {
        watch.redeploy(version, |name, text| environment.drop_file(name, text))?;
        if version == 100 {
            after_first = resident(environment)?;
        }
    }
    Ok((after_first, resident(environment)?))
}

fn resident(environment: &Environment) -> Result<u64> {
    let workers = environment.ready_workers()?;
    workers.into_iter().map(resident_kib).sum::<Result<u64>>().context("a worker is gone")
}
