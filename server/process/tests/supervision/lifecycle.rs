//! Start, death, drain, roll: the life of workers under a real supervisor.

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};

use crosstie_process::pidfile::{self, Signal};
use serde_json::json;

use crate::Test;
use crate::server::{Client, PATIENCE, Server, free_address, wait_for, wait_until};

pub(crate) const TESTS: &[Test] = crate::tests![
    a_killed_worker_is_replaced_and_leaves_no_zombie,
    a_crash_loop_is_slowed_down_and_ends_when_its_cause_does,
    workers_that_die_just_after_readiness_are_slowed_down_too,
    connections_wait_out_a_time_without_workers,
    sigterm_finishes_what_is_in_hand_and_then_stops,
    a_worker_that_does_not_drain_is_killed_at_the_deadline,
    a_second_interrupt_does_not_wait_for_the_drain,
    sighup_replaces_every_worker_and_refuses_no_connection,
    sighup_with_a_bad_configuration_changes_nothing,
    a_roll_to_workers_that_cannot_start_leaves_the_old_ones_serving,
    a_worker_that_asks_is_replaced_while_it_finishes,
    a_worker_that_breaks_the_protocol_is_replaced,
    a_directory_has_one_supervisor_at_a_time,
    workers_do_not_outlive_a_killed_supervisor,
    what_a_worker_started_does_not_outlive_it,
    what_a_service_detached_does_not_outlive_the_server,
    the_service_manager_is_kept_informed,
];

fn a_killed_worker_is_replaced_and_leaves_no_zombie() {
    let server = Server::start(2);
    for _ in 0..5 {
        let before = server.pids();
        pidfile::signal(before[0], Signal::Kill).unwrap();
        wait_until("the replacement", || {
            let pids = server.pids();
            pids.len() == 2 && !pids.contains(&before[0]) && pids.contains(&before[1])
        });
        wait_until("reaping", || server.children().iter().all(|(_, zombie)| !zombie));
        server.wait_ready();
    }
    assert_eq!(server.children().len(), 2);
    let restarts: u64 = server.workers().iter().map(|view| view["restarts"].as_u64().unwrap()).sum();
    assert_eq!(restarts, 5);
}

/// Seconds between the last `count` starts, oldest first.
fn gaps(server: &Server, count: usize) -> Option<Vec<f64>> {
    let text = std::fs::read_to_string(server.path("starts")).unwrap_or_default();
    let starts: Vec<f64> = text.lines().filter_map(|line| line.parse().ok()).collect();
    let gaps: Vec<f64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    (gaps.len() >= count).then(|| gaps[gaps.len() - count..].to_vec())
}

fn a_crash_loop_is_slowed_down_and_ends_when_its_cause_does() {
    let server = Server::start_with(1, json!({"budget": 2}), &[]);
    server.mode("die-at-start", true);
    pidfile::signal(server.pids()[0], Signal::Kill).unwrap();
    // The kill itself may count (a quick death); within the budget starts follow at once, then pauses grow
    // from 100 ms: five more starts are beyond it whatever the kill counted as.
    let gaps = wait_for("eight starts", || gaps(&server, 7));
    let last = gaps[6];
    assert!(last >= 0.39, "pauses grow: {gaps:?}");
    server.mode("die-at-start", false);
    server.wait_ready();
}

fn workers_that_die_just_after_readiness_are_slowed_down_too() {
    let server = Server::start_with(1, json!({"budget": 1}), &[]);
    server.mode("die-when-ready", true);
    pidfile::signal(server.pids()[0], Signal::Kill).unwrap();
    let gaps = wait_for("seven starts", || gaps(&server, 6));
    assert!(gaps[5] >= 0.39, "pauses grow: {gaps:?}");
    server.mode("die-when-ready", false);
    server.wait_ready();
}

fn connections_wait_out_a_time_without_workers() {
    let server = Server::start_with(1, json!({"budget": 2}), &[]);
    let pid = server.pids()[0];
    server.mode("die-at-start", true);
    pidfile::signal(pid, Signal::Kill).unwrap();
    assert!(pidfile::wait_gone(pid, PATIENCE).unwrap());
    let mut waiting: Vec<_> = (0..20).map(|_| Client::try_connect(server.address).unwrap()).collect();
    waiting.iter_mut().for_each(|client| client.say("pid"));
    server.mode("die-at-start", false);
    let answers: Vec<_> = waiting.iter_mut().map(|client| client.hear().unwrap()).collect();
    assert!(answers.iter().all(|answer| *answer != pid.to_string()));
}

fn sigterm_finishes_what_is_in_hand_and_then_stops() {
    let mut server = Server::start(2);
    let mut client = server.connect();
    client.say("hold");
    assert_eq!(client.hear().unwrap(), "holding");
    let supervisor = pidfile::running_supervisor(server.directory.path());
    assert_eq!(supervisor, Some(server.pid()));
    server.signal(Signal::Stop);
    wait_until("the idle worker's end", || server.children().len() == 1);
    assert!(!server.has_ended(), "a request is in hand");
    client.say("go on");
    assert_eq!(client.hear().unwrap(), "held");
    assert!(server.wait_end().success());
    assert_eq!(pidfile::running_supervisor(server.directory.path()), None);
}

fn a_worker_that_does_not_drain_is_killed_at_the_deadline() {
    let mut server = Server::start_with(1, json!({"drain_ms": 100}), &[]);
    server.mode("never-drain", true);
    server.signal(Signal::Stop);
    assert!(server.wait_end().success());
    assert!(server.log().contains("it was not drained in time"));
}

fn a_second_interrupt_does_not_wait_for_the_drain() {
    let mut server = Server::start(2);
    server.mode("never-drain", true);
    let supervisor = nix::unistd::Pid::from_raw(i32::try_from(server.pid()).unwrap());
    nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGINT).unwrap();
    wait_until("the drain", || server.log().contains("draining"));
    assert!(!server.has_ended());
    nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(server.wait_end().success());
    assert!(server.log().contains("the operator does not wait"));
}

fn sighup_replaces_every_worker_and_refuses_no_connection() {
    let mut server = Server::start(2);
    let over = AtomicBool::new(false);
    let address = server.address;
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = 0;
            while !over.load(Ordering::Relaxed) {
                let mut client = Client::try_connect(address).expect("a connection");
                client.ask("pid");
                asked += 1;
            }
            asked
        });
        for roll in 0..3 {
            let before = server.pids();
            let mark = format!("roll-{roll}");
            server.change_plan(json!({"mark": mark}));
            server.signal(Signal::Reload);
            wait_until("the roll's end", || {
                let pids = server.pids();
                pids.len() == 2 && pids.iter().all(|pid| !before.contains(pid))
            });
            server.wait_ready();
            assert_eq!(server.ask("mark"), mark, "workers are of the new plan");
        }
        over.store(true, Ordering::Relaxed);
        assert!(asking.join().unwrap() > 0);
    });
    let log = server.log();
    assert_eq!(log.matches("every worker was replaced").count(), 3);
    assert!(!log.contains("worker died"));
}

fn sighup_with_a_bad_configuration_changes_nothing() {
    let server = Server::start(1);
    let before = server.pids();
    server.write_broken_plan();
    server.signal(Signal::Reload);
    wait_until("the refusal", || server.log().contains("configuration refused"));
    assert_eq!(server.pids(), before);
}

fn a_roll_to_workers_that_cannot_start_leaves_the_old_ones_serving() {
    let server = Server::start_with(2, json!({"budget": 1}), &[]);
    let before = server.pids();
    server.mode("die-at-start", true);
    server.signal(Signal::Reload);
    wait_until("the roll's end", || server.log().contains("successors die"));
    assert_eq!(server.pids(), before);
}

fn a_worker_that_asks_is_replaced_while_it_finishes() {
    let server = Server::start(1);
    let mut client = server.connect();
    let old = client.pid();
    client.say("hold");
    assert_eq!(client.hear().unwrap(), "holding");
    assert_eq!(server.ask("replace"), "asked");
    wait_until("the successor", || server.ask("pid") != old.to_string());
    assert!(server.children().iter().any(|(pid, _)| *pid == old), "it still has a request in hand");
    client.say("go on");
    assert_eq!(client.hear().unwrap(), "held");
    wait_until("the predecessor's end", || server.children().len() == 1);
}

fn a_worker_that_breaks_the_protocol_is_replaced() {
    let server = Server::start(1);
    let mut client = server.connect();
    let old = client.pid();
    client.say("garbage");
    wait_until("the replacement", || server.ask("pid") != old.to_string());
    assert!(server.log().contains("broke the control protocol"));
}

fn a_directory_has_one_supervisor_at_a_time() {
    let server = Server::start(1);
    let mut second = std::process::Command::new(std::env::current_exe().unwrap())
        .env(crate::server::DIRECTORY_VARIABLE, server.directory.path())
        .spawn()
        .unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(1));
    assert!(server.log().contains(&format!("already running as process {}", server.pid())));
    assert_eq!(server.pids().len(), 1);
}

fn workers_do_not_outlive_a_killed_supervisor() {
    let mut server = Server::start(2);
    let workers = server.pids();
    server.signal(Signal::Kill);
    server.wait_end();
    for pid in workers {
        assert!(pidfile::wait_gone(pid, PATIENCE).unwrap());
    }
    server.start_again();
    assert_eq!(server.pids().len(), 2);
}

fn what_a_worker_started_does_not_outlive_it() {
    let server = Server::start(1);
    let child: u32 = server.ask("child").parse().unwrap();
    pidfile::signal(server.pids()[0], Signal::Kill).unwrap();
    assert!(pidfile::wait_gone(child, PATIENCE).unwrap());
    wait_until("reaping", || server.children().iter().all(|(_, zombie)| !zombie));
}

fn what_a_service_detached_does_not_outlive_the_server() {
    let mut server = Server::start(1);
    let child: u32 = server.ask("detached-child").parse().unwrap();
    pidfile::signal(server.pids()[0], Signal::Kill).unwrap();
    server.wait_ready();
    assert!(server.children().iter().any(|(pid, _)| *pid == child), "the supervisor adopted it");
    server.signal(Signal::Stop);
    assert!(server.wait_end().success());
    assert!(pidfile::wait_gone(child, PATIENCE).unwrap());
}

fn the_service_manager_is_kept_informed() {
    let name = format!("crosstie-test-{}", free_address().port());
    let address =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name);
    let manager = UnixDatagram::bind_addr(&address.unwrap()).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let expect = |wanted: &str| loop {
        let mut text = [0; 500];
        let count = manager.recv(&mut text).unwrap();
        if String::from_utf8_lossy(&text[..count]).contains(wanted) {
            break;
        }
    };
    let variables = [("NOTIFY_SOCKET", format!("@{name}")), ("WATCHDOG_USEC", "100000".to_owned())];
    let variables = variables.each_ref().map(|(key, value)| (*key, value.as_str()));
    let mut server = Server::start_with(1, json!({}), &variables);
    expect("READY=1");
    expect("WATCHDOG=1");
    server.signal(Signal::Reload);
    expect("RELOADING=1\nMONOTONIC_USEC=");
    expect("READY=1");
    server.signal(Signal::Stop);
    expect("STOPPING=1");
    assert!(server.wait_end().success());
}
