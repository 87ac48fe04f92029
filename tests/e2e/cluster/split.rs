//! A server is cut off from the database and the broker: it serves on, writes nothing, and converges when
//! the network is whole again.

use crosstie_test_support::processes::send;
use crosstie_test_support::{Cluster, Wire, wait_for, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Steady, idempotent, load, nothing_lost, service, wait_until_live};

/// Which server the leader is on, as `asked` knows it.
fn leader(cluster: &Cluster, asked: u16) -> Option<u16> {
    let members = cluster.json_of(asked, &["server", "list"]).ok()?;
    let leading = members.as_array()?.iter().find(|member| member["leader"] == true)?;
    leading["name"].as_str()?.strip_prefix("server")?.parse().ok()
}

/// Puts wires between a server and what it depends on.
fn wired(cluster: &Cluster, number: u16) -> [Wire; 2] {
    let stopped = cluster.server(number);
    cluster.run(&["stop", stopped.to_str().unwrap()]).unwrap().success().unwrap();
    let wires = [320, 310].map(|offset| Wire::to(cluster.at(offset)).unwrap());
    for (wire, (table, key)) in wires.iter().zip([("odb", "url"), ("bus", "url")]) {
        let url = cluster.setting(number, table, key).unwrap();
        let own = if table == "odb" { cluster.at(320) } else { cluster.at(310) };
        let through = url.replace(&own.to_string(), &wire.address().to_string());
        assert_ne!(url, through);
        cluster.set(number, &format!("{table}.{key}"), &format!("{through:?}")).unwrap();
    }
    cluster.start_component(&format!("server{number}")).unwrap();
    cluster.wait_until_ready();
    wires
}

#[test]
fn a_leader_that_is_cut_off_is_deposed_and_changes_nothing() {
    let steady = Steady::start();
    let cluster = &steady.cluster;
    let wires = [wired(cluster, 1), wired(cluster, 2)];
    let load = load(cluster, &idempotent());
    let old = wait_for("a leader", || leader(cluster, 1));
    let other = 3 - old;
    wires[usize::from(old) - 1].iter().for_each(Wire::cut);
    wait_until("the other server leads", || leader(cluster, other) == Some(other));
    wait_until("the server that is cut off is marked dead", || {
        let members = cluster.members(other).unwrap_or_default();
        members.iter().any(|(name, state)| *name == format!("server{old}") && state == "dead")
    });
    // Changes go on without it.
    let file = cluster.root().join("meanwhile.py");
    std::fs::write(&file, service("meanwhile", "here")).unwrap();
    let name = format!("server{other}");
    let file = file.to_str().unwrap();
    cluster.run(&["deploy", file, "--server", &name]).unwrap().success().unwrap();
    wires[usize::from(old) - 1].iter().for_each(Wire::heal);
    cluster.wait_until_ready();
    wait_until_live(cluster, "meanwhile");
    let _ = cluster.wait_until_converged();
    assert_eq!(leader(cluster, old), Some(other), "the deposed leader does not take over again");
    nothing_lost("a split", &load.stop());
}

#[test]
fn a_leader_that_was_stopped_wakes_deposed() {
    let steady = Steady::start();
    let cluster = &steady.cluster;
    let old = wait_for("a leader", || leader(cluster, 1));
    let other = 3 - old;
    let processes = cluster.processes_of(old);
    let signal_all = |signal| {
        for process in &processes {
            send(process.pid, signal).unwrap();
        }
    };
    signal_all(Signal::SIGSTOP);
    wait_until("the other server leads", || leader(cluster, other) == Some(other));
    signal_all(Signal::SIGCONT);
    cluster.wait_until_ready();
    assert_eq!(leader(cluster, old), Some(other));
    let members: Value = cluster.json_of(old, &["server", "list"]).unwrap();
    let states: Vec<&Value> = members.as_array().unwrap().iter().map(|member| &member["state"]).collect();
    assert_eq!(states, [&json!("ready"), &json!("ready")], "what it had decided before changed nothing");
}
