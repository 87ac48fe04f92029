//! What the load balancer costs: a Python service of two servers through HAProxy, and the same servers asked
//! directly, over TLS with the load balancer's certificate as HAProxy asks them.
//!
//! The same clients make both loads. Each figure counts the same processes: both servers, the load balancer's
//! agent and HAProxy. What differs is HAProxy's work, and what its connections cost the servers. Both ways are
//! compared at the same rate, as a request costs the less the busier a server is: half of what the way through
//! HAProxy takes at most. Clients that come directly have made their connections, and shown their certificates,
//! before the load; HAProxy makes its own when the load comes, so that each load begins with a second that does
//! not count.

use std::time::Duration;

use anyhow::{Context as _, Result};
use crosstie_test_support::Cluster;

use crate::connection::Entrance;
use crate::environment::{await_answer, two_servers};
use crate::load::{Clients, Run, milliseconds};
use crate::processes::cpu_time_of_trees;
use crate::python_rest::{BODY, SERVICE};
use crate::report::{Row, median};
use crate::{Plan, yardstick};

/// Workers of each server.
const WORKERS: usize = 2;
/// Connections of every load.
const CONNECTIONS: usize = 32;
/// How long every load lasts before it counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// HAProxy parses, logs, encrypts and decrypts what a worker does too, and runs no service: a request through
/// it may cost no more than two.
const COST: f64 = 2.0;
/// Twice what a server by itself may take: there are two processes on the way instead of one.
const P99_MS: f64 = 10.0;

/// CPU microseconds per request.
#[derive(Clone, Copy)]
struct Cost {
    servers: f64,
    balancer: f64,
}

impl Cost {
    fn total(self) -> f64 {
        self.servers + self.balancer
    }
}

/// What one way to the servers gave, a value per round.
#[derive(Default)]
struct Way {
    costs: Vec<f64>,
    balancers: Vec<f64>,
    rates: Vec<f64>,
    p99s: Vec<f64>,
}

impl Way {
    fn add(&mut self, cost: Cost, run: &Run) {
        self.costs.push(cost.total());
        self.balancers.push(cost.balancer);
        self.rates.push(run.rate);
        self.p99s.push(milliseconds(run.p99));
    }
}

/// Both ways, measured in turn under the same load.
#[derive(Default)]
struct Pair {
    through: Way,
    direct: Way,
    ratios: Vec<f64>,
}

/// The two ways into a cluster.
struct Ways<'a> {
    cluster: &'a Cluster,
    through: Vec<Entrance>,
    direct: Vec<Entrance>,
}

/// The rows of this file.
///
/// # Errors
/// The cluster does not start, or a request fails.
pub(crate) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let cluster = two_servers(WORKERS)?;
    cluster.drop_file(1, "greet.py", SERVICE)?;
    let ways = Ways {
        cluster: &cluster,
        through: vec![Entrance::plain(cluster.address())],
        direct: Entrance::of_servers(&cluster)?,
    };
    for entrance in ways.direct.iter().chain(&ways.through) {
        await_answer(entrance, "/greet", BODY, |answer| answer == yardstick::ANSWER)?;
    }
    cluster.wait_until_ready();
    let length = Duration::from_secs(plan.seconds);
    let most = ways.measure(plan.rounds, length, Clients::closed_loop)?;
    let rate = median(most.through.rates.clone()) / 2.0;
    let half = ways.measure(plan.rounds, length, |clients, length| clients.open_loop(rate, length))?;
    Ok(vec![cost(&half, &most), latency(&half, rate)])
}

impl Ways<'_> {
    fn measure(
        &self,
        rounds: usize,
        length: Duration,
        load: impl Fn(&mut Clients, Duration) -> Result<Run>,
    ) -> Result<Pair> {
        let mut pair = Pair::default();
        for _ in 0..rounds {
            let (direct, direct_run) = self.cost(&self.direct, length, &load)?;
            let (through, through_run) = self.cost(&self.through, length, &load)?;
            pair.ratios.push(through.total() / direct.total());
            pair.direct.add(direct, &direct_run);
            pair.through.add(through, &through_run);
        }
        Ok(pair)
    }

    /// What requests cost that take one way, whichever it is: the same processes count.
    fn cost(
        &self,
        entrances: &[Entrance],
        length: Duration,
        load: impl Fn(&mut Clients, Duration) -> Result<Run>,
    ) -> Result<(Cost, Run)> {
        let balancer = [
            self.cluster.agent().context("the load balancer's agent does not run")?,
            self.cluster.haproxy().context("HAProxy does not run")?,
        ];
        let servers = (1..=self.cluster.servers())
            .map(|number| {
                let processes = self.cluster.processes_of(number);
                Ok(processes.first().context("a server does not run")?.pid)
            })
            .collect::<Result<Vec<i32>>>()?;
        let spent = || (cpu_time_of_trees(&servers), cpu_time_of_trees(&balancer));
        let mut clients = Clients::open(entrances, CONNECTIONS, "/greet", BODY)?;
        load(&mut clients, WARM_UP)?;
        let before = spent();
        let run = load(&mut clients, length)?;
        let after = spent();
        #[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
        let each =
            |before, after: Duration| after.saturating_sub(before).as_secs_f64() * 1e6 / run.requests as f64;
        let cost = Cost { servers: each(before.0, after.0), balancer: each(before.1, after.1) };
        Ok((cost, run))
    }
}

fn cost(half: &Pair, most: &Pair) -> Row {
    let ratio = median(half.ratios.clone());
    let of = |values: &[f64]| median(values.to_vec());
    Row {
        what: "Python JSON service through HAProxy, two servers of two workers, 32 connections: cost".into(),
        yardstick: "the same servers asked directly, over TLS, at the same rate".into(),
        measured: format!("{ratio:.2} ×"),
        limit: format!("{COST} ×"),
        holds: ratio <= COST,
        beside: format!(
            "{:.1} µs, {:.1} of them the load balancer's, against {:.1} µs; at most {:.0}/s ({:.1} µs) against \
             {:.0}/s ({:.1} µs)",
            of(&half.through.costs),
            of(&half.through.balancers),
            of(&half.direct.costs),
            of(&most.through.rates),
            of(&most.through.costs),
            of(&most.direct.rates),
            of(&most.direct.costs),
        ),
    }
}

fn latency(half: &Pair, rate: f64) -> Row {
    let (through, direct) = (median(half.through.p99s.clone()), median(half.direct.p99s.clone()));
    Row {
        what: "p99 at half the maximum rate through HAProxy, Python service".into(),
        yardstick: "the same servers asked directly, at that rate".into(),
        measured: format!("{through:.2} ms"),
        limit: format!("{P99_MS} ms"),
        holds: through <= P99_MS,
        beside: format!("{direct:.2} ms directly; {rate:.0} requests/s, open loop, 32 connections"),
    }
}
