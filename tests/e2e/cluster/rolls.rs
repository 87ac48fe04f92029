//! Rolling restarts and binary upgrades of whole clusters, while clients keep their connections.

use crosstie_test_support::{Cluster, command, processes, wait_until};
use nix::sys::signal::Signal;

use super::{Steady, everything, load, nothing_lost};

fn roll(cluster: &Cluster, number: u16) {
    let before = cluster.workers_of(number);
    let supervisor = cluster.processes_of(number)[0].pid;
    processes::send(supervisor, Signal::SIGHUP).unwrap();
    wait_until("new workers", || {
        let now = cluster.workers_of(number);
        now.len() == before.len() && now.iter().all(|pid| !before.contains(pid))
    });
    cluster.wait_until_ready();
}

#[test]
fn rolling_restarts_and_upgrades_lose_nothing() {
    let steady = Steady::start();
    let cluster = &steady.cluster;
    let load = load(cluster, &everything());
    for _ in 0..crate::volume(25, 2) {
        (1..=2).for_each(|number| roll(cluster, number));
    }
    for _ in 0..crate::volume(5, 1) {
        (1..=2).for_each(|number| upgrade(cluster, number));
    }
    load.wait_for_more(200);
    nothing_lost("rolls and upgrades", &load.stop());
}

fn upgrade(cluster: &Cluster, number: u16) {
    let before = cluster.processes_of(number)[0].pid;
    let directory = cluster.server(number);
    let directory = directory.to_str().unwrap();
    let outcome = command::Command::new()
        .unwrap()
        .environment(&cluster.root())
        .args(["server", "upgrade", directory])
        .run()
        .unwrap();
    outcome.success().unwrap();
    wait_until("the old supervisor is gone", || !processes::is_alive(before));
    let after = cluster.processes_of(number)[0].pid;
    assert_ne!(before, after);
    cluster.wait_until_ready();
}
