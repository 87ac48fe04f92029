//! Each component is killed alone and started again: no idempotent request is lost, and the cluster mends.

use std::fmt::Write as _;
use std::time::Instant;

use crosstie_test_support::processes::{is_alive, send};
use crosstie_test_support::{Account, Cluster, Phase, wait_until};
use nix::sys::signal::Signal;

use super::{Steady, everything, idempotent, load, nothing_lost, wait_until_live};

/// Runs `work` under a load of idempotent requests and gives what became of them. The recovery time is
/// printed, never asserted.
fn under_load(cluster: &Cluster, what: &str, work: impl FnOnce(&crosstie_test_support::Load)) -> Account {
    let load = load(cluster, &idempotent());
    let begin = Instant::now();
    work(&load);
    println!("{what}: whole again after {:?}", begin.elapsed());
    load.wait_for_more(200);
    load.stop()
}

#[test]
fn each_component_may_be_killed() {
    let steady = Steady::start();
    let cluster = &steady.cluster;
    for _ in 0..crate::volume(5, 1) {
        kill_a_worker(cluster);
        kill_a_server(cluster);
        kill_the_agent(cluster);
        kill_the_broker(cluster);
        kill_the_database(cluster);
        kill_haproxy(cluster);
    }
}

fn kill_a_worker(cluster: &Cluster) {
    let account = under_load(cluster, "a worker", |load| {
        for number in 1..=2 {
            let victim = cluster.workers_of(number)[0];
            send(victim, Signal::SIGKILL).unwrap();
            load.wait_for_more(100);
            wait_until("a new worker", || {
                let workers = cluster.workers_of(number);
                workers.len() == 2 && !workers.contains(&victim)
            });
            cluster.wait_until_ready();
        }
    });
    nothing_lost("a killed worker", &account);
}

fn kill_a_server(cluster: &Cluster) {
    let account = under_load(cluster, "a server", |load| {
        cluster.kill_tree(cluster.processes_of(1).first().map(|process| process.pid)).unwrap();
        load.wait_for_more(500);
        cluster.start_component("server1").unwrap();
        cluster.wait_until_ready();
        wait_until_live(cluster, "steady");
    });
    nothing_lost("a killed server", &account);
}

fn kill_the_agent(cluster: &Cluster) {
    let haproxy = cluster.haproxy();
    let account = under_load(cluster, "the load balancer's agent", |load| {
        let agent = cluster.agent().unwrap();
        send(agent, Signal::SIGKILL).unwrap();
        wait_until("the agent is gone", || !is_alive(agent));
        load.wait_for_more(300);
        cluster.start_component("lb").unwrap();
    });
    nothing_lost("a killed agent", &account);
    assert_eq!(cluster.haproxy(), haproxy, "the new agent takes over the HAProxy that runs");
}

fn kill_the_broker(cluster: &Cluster) {
    let account = under_load(cluster, "RabbitMQ", |load| {
        cluster.kill_tree(cluster.broker()).unwrap();
        load.wait_for_more(500);
        cluster.start_component("broker").unwrap();
        wait_until("the servers are on the bus", || {
            (1..=2).all(|number| {
                let status = cluster.json_of(number, &["status"]).unwrap_or_default();
                let found = status["components"].as_array().cloned().unwrap_or_default();
                let name = format!("server{number}");
                found.iter().any(|it| it["name"] == name && it["bus"]["reachable"] == true)
            })
        });
    });
    nothing_lost("a killed broker", &account);
}

fn kill_the_database(cluster: &Cluster) {
    let account = under_load(cluster, "PostgreSQL", |load| {
        cluster.kill_tree(cluster.postgresql()).unwrap();
        load.wait_for_more(500);
        cluster.start_component("postgresql").unwrap();
        cluster.wait_until_ready();
    });
    nothing_lost("a killed database", &account);
}

/// The only death with losses: the requests in the hands of the process that was killed.
fn kill_haproxy(cluster: &Cluster) {
    let account = under_load(cluster, "HAProxy's worker", |load| {
        let master = cluster.haproxy().unwrap();
        let tree = crosstie_test_support::processes::tree(master);
        let worker = tree.iter().find(|process| process.parent == master).unwrap().pid;
        send(worker, Signal::SIGKILL).unwrap();
        load.wait_for_more(200);
    });
    println!("a killed HAProxy worker: {account}");
    let mut unexpected = String::new();
    for ((method, phase), count) in &account.failed {
        // Its connections broke, and for a moment nobody listened.
        if matches!(phase, Phase::Status(_)) {
            let _ = write!(unexpected, " {method} {phase:?}: {count}");
        }
    }
    assert!(unexpected.is_empty(), "{unexpected}");
}

#[test]
fn requests_that_may_not_be_repeated_are_counted() {
    let steady = Steady::start();
    let cluster = &steady.cluster;
    let load = load(cluster, &everything());
    cluster.kill_tree(cluster.processes_of(2).first().map(|process| process.pid)).unwrap();
    load.wait_for_more(500);
    cluster.start_component("server2").unwrap();
    cluster.wait_until_ready();
    let account = load.stop();
    println!("a killed server, with POST: {account}");
    assert_eq!(account.lost("GET") + account.lost("PUT"), 0, "{account}");
    // Each connection has one request in hand at most.
    assert!(account.lost("POST") <= u64::from(super::CLIENTS), "{account}");
}

#[test]
fn answers_go_on_without_the_database_and_without_the_old_workers() {
    let steady = Steady::start();
    let cluster = &steady.cluster;
    let before = cluster.wait_until_converged();
    let account = under_load(cluster, "PostgreSQL and every worker", |load| {
        cluster.kill_tree(cluster.postgresql()).unwrap();
        for number in 1..=2 {
            let old = cluster.workers_of(number);
            for pid in &old {
                send(*pid, Signal::SIGKILL).unwrap();
            }
            wait_until("new workers", || {
                let new = cluster.workers_of(number);
                new.len() == old.len() && new.iter().all(|pid| !old.contains(pid))
            });
            load.wait_for_more(300);
        }
        let status = cluster.json(&["status"]).unwrap();
        for server in status["components"].as_array().unwrap().iter().filter(|it| it["kind"] == "server") {
            assert_eq!(server["state"], "degraded", "{status:#}");
        }
        cluster.start_component("postgresql").unwrap();
        cluster.wait_until_ready();
    });
    println!("without the database: {account}");
    assert_eq!(account.lost(""), 0, "{account}");
    cluster.drop_file(2, "later.py", &super::service("later", "afterwards")).unwrap();
    wait_until_live(cluster, "later");
    assert!(cluster.wait_until_converged() > before);
}
