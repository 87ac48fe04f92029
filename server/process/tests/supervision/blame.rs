//! Who is blamed for a worker's death, and what follows.

use crosstie_process::pidfile::{self, Signal};

use crate::Test;
use crate::server::{Server, wait_until};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_service_that_aborts_is_quarantined_until_it_is_released,
    a_quarantine_survives_a_restart_of_the_server,
    faults_and_stack_overflows_strike_their_service,
    a_hundred_kills_quarantine_nobody,
    a_unit_that_kills_its_loaders_is_quarantined_and_a_kill_while_loading_is_not_held_against_it,
    lost_threads_are_strikes,
];

/// Makes a worker do `deed` and waits until that worker is replaced.
fn deed(server: &Server, deed: &str) {
    let mut client = server.connect();
    let pid = client.pid();
    client.say(deed);
    assert!(pidfile::wait_gone(pid, crate::server::PATIENCE).unwrap(), "{deed} ends the worker");
    server.wait_ready();
}

fn strikes(server: &Server) -> Vec<(String, u64)> {
    let list: Vec<serde_json::Value> = serde_json::from_str(&server.ask("strikes")).unwrap();
    let name = |verdict: &serde_json::Value| verdict["subject"]["name"].as_str().unwrap().to_owned();
    list.iter().map(|verdict| (name(verdict), verdict["strikes"].as_u64().unwrap())).collect()
}

fn a_service_that_aborts_is_quarantined_until_it_is_released() {
    let server = Server::start(2);
    deed(&server, "abort crm.bad");
    deed(&server, "abort crm.bad");
    assert_eq!(server.ask("quarantined crm.bad"), "false");
    deed(&server, "abort crm.bad");
    assert_eq!(server.ask("quarantined crm.bad"), "true");
    assert_eq!(server.ask("quarantined crm.good"), "false");
    assert_eq!(strikes(&server), [("crm.bad".to_owned(), 3)]);
    assert!(server.children().iter().all(|(_, zombie)| !zombie));
    server.ask("release crm.bad");
    wait_until("the release", || server.ask("quarantined crm.bad") == "false");
    assert_eq!(strikes(&server), []);
}

fn a_quarantine_survives_a_restart_of_the_server() {
    let mut server = Server::start(1);
    for _ in 0..3 {
        deed(&server, "abort crm.bad");
    }
    let kept = server.path("work/quarantine.json");
    wait_until("the file", || std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("crm.bad")));
    server.signal(Signal::Kill);
    server.wait_end();
    server.start_again();
    assert_eq!(server.ask("quarantined crm.bad"), "true");
    server.ask("release crm.bad");
    wait_until("the file", || std::fs::read_to_string(&kept).is_ok_and(|text| !text.contains("crm.bad")));
}

fn faults_and_stack_overflows_strike_their_service() {
    let server = Server::start(1);
    deed(&server, "fault crm.fault");
    deed(&server, "overflow crm.overflow");
    assert_eq!(strikes(&server), [("crm.fault".to_owned(), 1), ("crm.overflow".to_owned(), 1)]);
}

fn a_hundred_kills_quarantine_nobody() {
    let server = Server::start(2);
    for _ in 0..100 {
        let pid: u32 = server.ask("run crm.good").parse().unwrap();
        pidfile::signal(pid, Signal::Kill).unwrap();
        assert!(pidfile::wait_gone(pid, crate::server::PATIENCE).unwrap());
    }
    server.wait_ready();
    assert_eq!(strikes(&server), []);
    assert!(server.children().iter().all(|(_, zombie)| !zombie));
}

fn a_unit_that_kills_its_loaders_is_quarantined_and_a_kill_while_loading_is_not_held_against_it() {
    let server = Server::start(1);
    for _ in 0..4 {
        let pid: u32 = server.ask("load crm").parse().unwrap();
        pidfile::signal(pid, Signal::Kill).unwrap();
        assert!(pidfile::wait_gone(pid, crate::server::PATIENCE).unwrap());
        server.wait_ready();
    }
    assert_eq!(strikes(&server), []);
    for _ in 0..3 {
        deed(&server, "exit-loading crm");
    }
    assert_eq!(server.ask("unit-quarantined crm"), "true");
    assert_eq!(server.ask("quarantined crm"), "false", "a service of that name is another thing");
}

fn lost_threads_are_strikes() {
    let server = Server::start(1);
    for _ in 0..3 {
        assert_eq!(server.ask("quarantined crm.stuck"), "false");
        server.ask("lose crm.stuck");
    }
    assert_eq!(server.ask("quarantined crm.stuck"), "true");
    let kept = server.path("work/quarantine.json");
    wait_until("the file", || std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("lost_thread")));
}
