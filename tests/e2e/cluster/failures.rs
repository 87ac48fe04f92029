//! Deployments that some servers, or all, cannot load: who is shown as failed, and who answers.

use std::fs;
use std::path::Path;

use crosstie_test_support::{Cluster, wait_until};
use serde_json::json;

use super::{Steady, everything, load, nothing_lost, service, wait_until_live};

/// A unit that loads once, which its check does, and never again.
fn loads_once(marker: &Path) -> String {
    format!(
        "import os\n\nif os.path.exists({marker:?}):\n    raise RuntimeError(\"not twice\")\nopen({marker:?}, \"w\")\n\n{}",
        service("once", "never served")
    )
}

/// The same under the name of a unit that runs.
fn unloadable(marker: &Path, name: &str) -> String {
    loads_once(marker)
        .replace("\"demo.once\"", &format!("\"demo.{name}\""))
        .replace("/once", &format!("/{name}"))
}

fn wait_for_states(cluster: &Cluster, states: [&str; 2]) {
    wait_until(&format!("the servers are {states:?}"), || {
        let members = cluster.members(1).unwrap_or_default();
        members.iter().map(|(_, state)| state.as_str()).eq(states)
    });
}

#[test]
fn a_deployment_that_no_server_can_load_takes_none_out_of_service() {
    let steady = Steady::start();
    let cluster = &steady.cluster;
    let marker = tempfile::tempdir().unwrap();
    // The servers' user writes it.
    fs::set_permissions(marker.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    cluster.drop_file(2, "older.py", &service("older", "good")).unwrap();
    wait_until_live(cluster, "older");
    let load = load(cluster, &everything());
    cluster.drop_file(1, "once.py", &loads_once(&marker.path().join("new"))).unwrap();
    wait_for_states(cluster, ["failed", "failed"]);
    load.wait_for_more(300);
    // A unit that runs goes on with the version it has.
    cluster.drop_file(2, "older.py", &unloadable(&marker.path().join("changed"), "older")).unwrap();
    load.wait_for_more(300);
    for _ in 0..10 {
        assert_eq!(cluster.http().get("/older").unwrap().json(), json!({"answer": "good"}));
    }
    let list = cluster.json(&["deployment", "list"]).unwrap().to_string();
    assert!(list.contains("not twice"), "{list}");
    for unit in ["once", "older"] {
        cluster.run(&["undeploy", unit]).unwrap().success().unwrap();
    }
    wait_for_states(cluster, ["ready", "ready"]);
    load.wait_for_more(100);
    nothing_lost("a deployment that fails everywhere", &load.stop());
}

#[test]
fn a_server_that_alone_cannot_load_a_deployment_gets_nothing_until_the_others_are_gone() {
    let steady = Steady::start();
    let cluster = &steady.cluster;
    let refuse = cluster.server(2).join("work/refuse");
    fs::write(&refuse, "").unwrap();
    let picky = format!(
        "import os\n\nif os.path.exists(\"work/refuse\"):\n    raise RuntimeError(\"not here\")\n\n{}",
        service("picky", "fine")
    );
    let load = load(cluster, &everything());
    cluster.drop_file(1, "picky.py", &picky).unwrap();
    wait_for_states(cluster, ["ready", "failed"]);
    // The load balancer turns away from it: every request is answered by the server that has the deployment.
    wait_until("the load balancer turned away", || {
        (0..20).all(|_| cluster.http().get("/picky").unwrap().status == 200)
    });
    nothing_lost("a deployment that fails on one server", &load.stop());
    cluster.run(&["stop", cluster.server(1).to_str().unwrap()]).unwrap().success().unwrap();
    wait_until("the other one answers", || {
        cluster.http().get("/steady").is_ok_and(|reply| reply.status == 200)
    });
    assert_eq!(cluster.http().get("/picky").unwrap().status, 503);
    cluster.start_component("server1").unwrap();
    fs::remove_file(refuse).unwrap();
    cluster.drop_file(1, "picky.py", &format!("{picky}\n# again")).unwrap();
    wait_for_states(cluster, ["ready", "ready"]);
    cluster.wait_for_json("/picky", &json!({"answer": "fine"}));
}
