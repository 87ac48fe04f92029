//! A server is cut off from the database and the broker: it serves on, writes nothing, and converges when
//! the network is whole again.

use crosstie_test_support::processes::send;
use crosstie_test_support::{Cluster, Wire, wait_for, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Steady, idempotent, load, nothing_lost, service, wait_until_live};

/// The servers that say they lead.
fn leaders(cluster: &Cluster) -> Vec<u16> {
    let status = cluster.json(&["status"]).unwrap_or_default();
    let components = status["components"].as_array().cloned().unwrap_or_default();
    let leads = |component: &&Value| {
        component["workers"].as_array().is_some_and(|all| all.iter().any(|it| it["leader"] == true))
    };
    let number = |component: &Value| component["name"].as_str()?.strip_prefix("server")?.parse().ok();
    components.iter().filter(leads).filter_map(number).collect()
}

fn the_leader(cluster: &Cluster) -> u16 {
    wait_for("one leader", || match leaders(cluster).as_slice() {
        [one] => Some(*one),
        _ => None,
    })
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
    let old = the_leader(cluster);
    let other = 3 - old;
    wires[usize::from(old) - 1].iter().for_each(Wire::cut);
    wait_until("the other server leads", || leaders(cluster).contains(&other));
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
    assert_eq!(the_leader(cluster), other, "the deposed leader does not take over again");
    nothing_lost("a split", &load.stop());
}

#[test]
fn a_leader_that_was_stopped_wakes_deposed() {
    let steady = Steady::start();
    let cluster = &steady.cluster;
    let old = the_leader(cluster);
    let other = 3 - old;
    let processes = cluster.processes_of(old);
    let signal_all = |signal| {
        for process in &processes {
            send(process.pid, signal).unwrap();
        }
    };
    signal_all(Signal::SIGSTOP);
    wait_until("the other server leads", || leaders(cluster).contains(&other));
    signal_all(Signal::SIGCONT);
    cluster.wait_until_ready();
    assert_eq!(the_leader(cluster), other);
    let members: Value = cluster.json_of(old, &["server", "list"]).unwrap();
    let states: Vec<&Value> = members.as_array().unwrap().iter().map(|member| &member["state"]).collect();
    assert_eq!(states, [&json!("ready"), &json!("ready")], "what it had decided before changed nothing");
}
