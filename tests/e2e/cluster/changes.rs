//! Changes reach every server, whichever was told, whatever dies meanwhile.

use std::collections::BTreeSet;

use crosstie_test_support::{Cluster, wait_until};
use serde_json::{Value, json};

use super::{Steady, idempotent, load, nothing_lost, service, wait_until_live};

#[test]
fn what_is_dropped_on_one_server_answers_on_the_other() {
    let steady = Steady::start();
    let cluster = &steady.cluster;
    for (number, other) in [(1, 2), (2, 1)] {
        let name = format!("from{number}");
        cluster.drop_file(number, &format!("{name}.py"), &service(&name, "here")).unwrap();
        wait_until_live(cluster, &name);
        let answer = cluster.json_of(other, &["service", "invoke", &format!("demo.{name}")]).unwrap();
        assert_eq!(answer, json!({"answer": "here"}), "server{other} has it");
    }
}

#[test]
fn deployments_arrive_while_the_broker_comes_and_goes() {
    let deployments = crate::volume(100, 10);
    let kills = crate::volume(5, 1);
    let steady = Steady::start();
    let cluster = &steady.cluster;
    let load = load(cluster, &idempotent());
    for number in 0..deployments {
        let server = 1 + u16::try_from(number % 2).unwrap();
        cluster.drop_file(server, "wave.py", &service("wave", &number.to_string())).unwrap();
        if number % (deployments / kills) == 1 {
            cluster.kill_tree(cluster.broker()).unwrap();
        }
        cluster.wait_for_json("/wave", &json!({"answer": number.to_string()}));
        if number % (deployments / kills) == deployments / kills - 1 && cluster.broker().is_none() {
            cluster.start_component("broker").unwrap();
        }
    }
    wait_until_live(cluster, "wave");
    let revision = cluster.wait_until_converged();
    assert!(revision >= deployments, "revision {revision} after {deployments} deployments");
    nothing_lost("deployments with a broker that comes and goes", &load.stop());
}

/// One commit of `config/cluster` as a server's command prints it.
fn commits(cluster: &Cluster, number: u16) -> Vec<(u64, String)> {
    let log = cluster.json_of(number, &["config", "log", "--definitions", "--limit", "1000"]).unwrap();
    let commits = log.as_array().unwrap().iter();
    commits.map(|it| (it["revision"].as_u64().unwrap(), it["commit"].as_str().unwrap().to_owned())).collect()
}

fn equal_histories(cluster: &Cluster) -> Vec<(u64, String)> {
    let revision = cluster.wait_until_converged();
    wait_until("both histories are written", || {
        (1..=2).all(|number| commits(cluster, number).first().is_some_and(|(newest, _)| *newest == revision))
    });
    let first = commits(cluster, 1);
    assert_eq!(first, commits(cluster, 2), "equal hashes on both servers");
    let revisions: Vec<u64> = first.iter().rev().map(|(revision, _)| *revision).collect();
    assert!(revisions.windows(2).all(|pair| pair[1] == pair[0] + 1), "no gap: {revisions:?}");
    first
}

#[test]
fn changes_on_both_servers_at_once_are_all_kept() {
    let each = crate::volume(50, 5);
    let steady = Steady::start();
    let cluster = &steady.cluster;
    let load = load(cluster, &idempotent());
    std::thread::scope(|scope| {
        for client in 0..8u16 {
            scope.spawn(move || {
                let server = format!("server{}", 1 + client % 2);
                for step in 0..each {
                    let document =
                        format!("dictionary:\n  d{client}.{step}:\n    entries:\n      by: {client}\n");
                    let arguments = ["apply", "-f", "-", "--server", &server];
                    let command = crosstie_test_support::Command::new().unwrap();
                    let command = command.environment(&cluster.root()).args(arguments).input(document);
                    command.run().unwrap().success().unwrap();
                }
            });
        }
    });
    let definitions = cluster.json(&["get", "dictionary"]).unwrap();
    let names: BTreeSet<String> =
        definitions.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect();
    let expected = (0..8).flat_map(|client| (0..each).map(move |step| format!("d{client}.{step}"))).collect();
    assert_eq!(names, expected, "no update is lost");
    equal_histories(cluster);
    nothing_lost("concurrent changes", &load.stop());
}

#[test]
fn a_server_that_was_down_replays_what_it_missed() {
    let missed = crate::volume(50, 10);
    let steady = Steady::start();
    let cluster = &steady.cluster;
    let secret = |value: &str| {
        format!("security:\n  client:\n    type: basic_auth\n    username: a\n    password: {value}\n")
    };
    apply(cluster, &secret("first-password"));
    let before = equal_histories(cluster);
    cluster.kill_tree(cluster.processes_of(2).first().map(|process| process.pid)).unwrap();
    for step in 0..missed {
        apply(cluster, &format!("dictionary:\n  missed:\n    entries:\n      step: {step}\n"));
    }
    apply(cluster, &secret("second-password"));
    cluster.start_component("server2").unwrap();
    cluster.wait_until_ready();
    let after = equal_histories(cluster);
    assert_eq!(after.len() as u64, before.len() as u64 + missed + 1);

    // Back to where it was, as one revision, on both servers, the secret included.
    let commit = &before[0].1;
    cluster.run(&["config", "rollback", commit, "--definitions"]).unwrap().success().unwrap();
    let rolled = equal_histories(cluster);
    assert_eq!(rolled.len(), after.len() + 1);
    let dictionaries = cluster.json_of(2, &["get", "dictionary"]).unwrap();
    assert_eq!(dictionaries, Value::Array(Vec::new()));
    let client = cluster.json_of(2, &["get", "security", "client"]).unwrap();
    assert_eq!(client["body"]["password"]["version"], 1, "{client}");
}

fn apply(cluster: &Cluster, document: &str) {
    let command = crosstie_test_support::Command::new().unwrap().environment(&cluster.root());
    command.args(["apply", "-f", "-"]).input(document).run().unwrap().success().unwrap();
}
