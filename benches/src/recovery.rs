//! How long a cluster takes to be whole again after one of its processes was killed, and what that costs.
//!
//! Each time begins with SIGKILL. What nothing else starts again is started at once, with `crosstie start`, as
//! a service manager would. The cluster is whole when new connections through the load balancer reach every
//! server, every worker of every server answers when it is asked itself, and every component says that it
//! runs, reaches the bus and is ready. That a change reaches every worker afterwards is tried too, outside the
//! time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use crosstie_test_support::processes::{self, is_alive};
use crosstie_test_support::{Account, Cluster, Kind, Load, Phase};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::Plan;
use crate::connection::{Connection, Entrance};
use crate::deploys::serving;
use crate::environment::{two_servers, wait};
use crate::load::{LEAST_RATE, milliseconds};
use crate::report::Row;
use crate::watch::{Answer, PATH, Watch};

/// Workers of each server.
const WORKERS: usize = 2;
/// Connections of the load. Each has one request in hand at most.
const CLIENTS: u32 = 8;
/// Its requests per second, with room for what a busy machine delays.
const RATE: u32 = 320;

/// One process, or a group of them, that dies.
struct Victim {
    name: &'static str,
    /// Ends it and gives it back dead.
    kill: fn(&Cluster) -> Result<()>,
    /// The component to start again, unless somebody does so by himself.
    component: Option<&'static str>,
    limit: Duration,
    /// Why the limit is what it is.
    reason: &'static str,
    losses: Losses,
}

/// Which requests may be lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Losses {
    None,
    /// Those that the dead process had in hand: one per connection and death.
    InHand,
}

/// A worker of the first server, which its supervisor replaces.
pub(crate) fn worker(plan: &Plan) -> Result<Vec<Row>> {
    measure(
        plan,
        &Victim {
            name: "a worker",
            kill: |cluster| kill_one(answering(&Entrance::of_server(cluster, 1)?)?),
            component: None,
            limit: Duration::from_secs(2),
            reason: "a server's start (1 s), twice",
            losses: Losses::None,
        },
    )
}

/// The first server, all its processes.
pub(crate) fn server(plan: &Plan) -> Result<Vec<Row>> {
    measure(
        plan,
        &Victim {
            name: "a server",
            kill: |cluster| cluster.kill_tree(cluster.processes_of(1).first().map(|process| process.pid)),
            component: Some("server1"),
            limit: Duration::from_secs(5),
            reason: "`lapse_ms`: back before it would be marked dead",
            losses: Losses::None,
        },
    )
}

/// The load balancer's agent, without HAProxy.
pub(crate) fn agent(plan: &Plan) -> Result<Vec<Row>> {
    measure(
        plan,
        &Victim {
            name: "the load balancer's agent",
            kill: |cluster| kill_one(cluster.agent().context("no agent runs")?),
            component: Some("lb"),
            limit: Duration::from_secs(2),
            reason: "meanwhile no server joins or leaves",
            losses: Losses::None,
        },
    )
}

/// The process of HAProxy that carries traffic.
pub(crate) fn haproxy(plan: &Plan) -> Result<Vec<Row>> {
    measure(
        plan,
        &Victim {
            name: "HAProxy's worker",
            kill: |cluster| {
                let master = cluster.haproxy().context("no HAProxy runs")?;
                let children = processes::tree(master);
                let worker = children.iter().find(|process| process.parent == master);
                kill_one(worker.context("HAProxy has no worker")?.pid)
            },
            component: None,
            limit: Duration::from_secs(1),
            reason: "before a client sends its SYN again (RFC 6298)",
            losses: Losses::InHand,
        },
    )
}

/// RabbitMQ, all its processes.
pub(crate) fn broker(plan: &Plan) -> Result<Vec<Row>> {
    measure(
        plan,
        &Victim {
            name: "RabbitMQ",
            kill: |cluster| cluster.kill_tree(cluster.broker()),
            component: Some("broker"),
            limit: Duration::from_secs(30),
            reason: "its own start, and 10 s between attempts to connect",
            losses: Losses::None,
        },
    )
}

/// PostgreSQL, all its processes.
pub(crate) fn database(plan: &Plan) -> Result<Vec<Row>> {
    measure(
        plan,
        &Victim {
            name: "PostgreSQL",
            kill: |cluster| cluster.kill_tree(cluster.postgresql()),
            component: Some("postgresql"),
            limit: Duration::from_secs(10),
            reason: "its own start, and heartbeats and comparisons within 3 s",
            losses: Losses::None,
        },
    )
}

fn measure(plan: &Plan, victim: &Victim) -> Result<Vec<Row>> {
    let cluster = two_servers(WORKERS)?;
    drop(serving(&cluster)?);
    let kinds = [Kind::get(PATH), Kind::sized("PUT", PATH, 8 * 1024)];
    let load = Load::start(cluster.address(), CLIENTS, RATE, &kinds);
    let (mut slowest, mut slowest_start) = (Duration::ZERO, Duration::ZERO);
    for death in 1..=plan.deaths {
        let begin = Instant::now();
        (victim.kill)(&cluster)?;
        if let Some(component) = victim.component {
            cluster.start_component(component)?;
            slowest_start = slowest_start.max(begin.elapsed());
        }
        wait("the cluster to be whole again", || Ok(is_whole(&cluster)))?;
        slowest = slowest.max(begin.elapsed());
        let mut watch = Watch::over(&Entrance::of_servers(&cluster)?, WORKERS)?;
        watch.redeploy(death, |name, text| cluster.drop_file(1, name, text))?;
        load.wait_for_more(u64::from(RATE));
    }
    Ok(vec![row(plan, victim, slowest, slowest_start, &load.stop())])
}

fn row(plan: &Plan, victim: &Victim, slowest: Duration, start: Duration, account: &Account) -> Row {
    let lost = account.lost("");
    let (lawful, allowed) = match victim.losses {
        Losses::None => (lost == 0, "0 lost"),
        Losses::InHand => {
            let in_hand = u64::from(CLIENTS) * plan.deaths as u64;
            let broken = |phase: &Phase| matches!(phase, Phase::NoResponse | Phase::Broken);
            (
                lost <= in_hand && account.failed.keys().all(|(_, phase)| broken(phase)),
                "what it had in hand lost",
            )
        }
    };
    if !lawful {
        // Which ones, and when: too much for the table.
        println!("{}: {account}", victim.name);
    }
    let started = match victim.component {
        Some(_) => format!("`crosstie start` took {:.1} s of it; ", start.as_secs_f64()),
        None => String::new(),
    };
    Row {
        what: format!("{} killed → the cluster is whole", victim.name),
        yardstick: victim.reason.into(),
        measured: format!("{:.2} s, {lost} lost", slowest.as_secs_f64()),
        limit: format!("{} s, {allowed}", victim.limit.as_secs()),
        holds: slowest <= victim.limit && lawful && account.rate() >= LEAST_RATE,
        beside: format!(
            "{started}worst of {}; {} GET and PUT at {:.0}/s through HAProxy, the slowest {:.0} ms",
            plan.deaths,
            account.answered,
            account.rate(),
            milliseconds(account.slowest),
        ),
    }
}

fn kill_one(pid: i32) -> Result<()> {
    processes::send(pid, Signal::SIGKILL)?;
    wait("the end of a process", || Ok(!is_alive(pid)))
}

/// The worker that answers a new connection.
fn answering(entrance: &Entrance) -> Result<i32> {
    Ok(Answer::of(&mut Connection::open(entrance)?)?.pid)
}

/// See the head of this file. What cannot be asked is not whole.
fn is_whole(cluster: &Cluster) -> bool {
    every_server_is_reached(cluster).is_ok()
        && Entrance::of_servers(cluster).and_then(|servers| Watch::over(&servers, WORKERS)).is_ok()
        && every_component_runs(cluster).is_ok()
}

/// New connections through the load balancer reach every server: as many as there are, and as many again, as
/// the load's own take turns with them.
fn every_server_is_reached(cluster: &Cluster) -> Result<()> {
    let entrance = Entrance::plain(cluster.address());
    let mut behind: Vec<Vec<i32>> =
        (1..=cluster.servers()).map(|number| cluster.workers_of(number)).collect();
    for _ in 0..4 * cluster.servers() {
        let pid = answering(&entrance)?;
        behind.retain(|workers| !workers.contains(&pid));
    }
    ensure!(behind.is_empty(), "no new connection reached some server");
    Ok(())
}

/// Every component says so of itself, and every server is ready as the members know it.
fn every_component_runs(cluster: &Cluster) -> Result<()> {
    let status = cluster.json(&["status"])?;
    let components = status.get("components").and_then(Value::as_array).context("no components")?;
    for component in components {
        let is = |pointer: &str, expected: Value| component.pointer(pointer) == Some(&expected);
        let on_the_bus = !is("/kind", "server".into()) || is("/bus/reachable", true.into());
        ensure!(is("/state", "running".into()) && on_the_bus, "{component}");
    }
    let ready = cluster.members(1)?.into_iter().filter(|(_, state)| state == "ready").count();
    ensure!(ready == usize::from(cluster.servers()), "{ready} servers are ready");
    Ok(())
}
