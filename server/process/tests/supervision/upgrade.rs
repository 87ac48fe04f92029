//! SIGUSR2: a server gets a new binary under its clients' hands, or keeps the old one.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crosstie_process::pidfile::{self, Signal};
use crosstie_process::supervisor::{Outcome, Report, report};
use serde_json::json;

use crate::Test;
use crate::privilege::{USER, as_root, assert_dropped, privileged_address};
use crate::server::{Client, PATIENCE, PROGRAM, Server, children_of, copy_program, wait_for, wait_until};

pub(crate) const TESTS: &[Test] = crate::tests![
    an_upgrade_replaces_supervisor_and_workers_and_loses_no_question,
    a_server_can_be_upgraded_again_and_again,
    a_successor_listens_where_its_configuration_says,
    a_binary_that_fails_at_once_changes_nothing,
    a_binary_that_hangs_is_killed_and_changes_nothing,
    a_binary_that_cannot_be_run_changes_nothing,
    a_binary_whose_workers_never_serve_is_given_up_with_its_workers,
    a_successor_takes_over_from_a_predecessor_that_dies,
    a_stop_during_an_upgrade_stops_both,
    a_reload_during_an_upgrade_waits_for_its_end,
    nobody_else_can_start_while_a_server_is_upgraded,
    the_service_manager_learns_whom_to_watch,
    a_dropped_supervisor_upgrades_on_a_privileged_port,
];

impl Server {
    /// Puts another file in the place of the program, as a package manager does.
    fn install(&self, script: Option<&str>) {
        let beside = self.path("program.new");
        match script {
            Some(text) => {
                let written = self.path("program.text");
                fs::write(&written, text).unwrap();
                copy_program(&written, &beside);
            }
            None => copy_program(&std::env::current_exe().unwrap(), &beside),
        }
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(beside, self.path(PROGRAM)).unwrap();
    }

    fn supervisor(&self) -> u32 {
        wait_for("a supervisor", || pidfile::running_supervisor(self.directory.path()))
    }

    fn report(&self) -> Option<Report> {
        report(self.directory.path())
    }

    /// Asks for an upgrade and waits for its outcome.
    fn upgrade(&self) -> Outcome {
        let before = self.report();
        let supervisor = self.supervisor();
        pidfile::signal(supervisor, Signal::Upgrade).unwrap();
        wait_for("the outcome", || {
            let now = self.report().filter(|now| Some(now) != before.as_ref())?;
            (now.outcome != Outcome::Starting).then_some(now.outcome)
        })
    }

    /// An upgrade that must fail: nothing of the server changed. Gives the reason.
    fn upgrade_in_vain(&self) -> String {
        let before = (self.supervisor(), self.pids());
        let Outcome::Failed { reason } = self.upgrade() else { panic!("the upgrade succeeded") };
        wait_until("the end of the successor", || {
            let mut children: Vec<_> = self.children().into_iter().map(|(pid, _)| pid).collect();
            children.sort_unstable();
            children == before.1
        });
        assert_eq!((self.supervisor(), self.pids()), before);
        let text = fs::read_to_string(self.path("work/server.pid")).unwrap();
        assert_eq!(text.trim(), before.0.to_string());
        reason
    }
}

fn inode(path: impl AsRef<Path>) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// Clients that keep asking, on kept connections and on new ones, until told to stop. Gives how many answers
/// came; a question without an answer is a panic.
fn clients(server: &Server, stop: &Arc<AtomicBool>) -> (thread::JoinHandle<()>, Arc<AtomicU64>) {
    let (address, stop, answers) = (server.address, Arc::clone(stop), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&answers);
    let asking = thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let mut client = Client::try_connect(address).expect("a connection was refused");
            // A draining worker closes after an answer, never before: the first question always has one.
            client.ask("pid");
            let kept = (0..20).take_while(|_| client.try_ask("pid").is_some()).count();
            counted.fetch_add(1 + kept as u64, Ordering::Relaxed);
        }
    });
    (asking, answers)
}

fn an_upgrade_replaces_supervisor_and_workers_and_loses_no_question() {
    let mut server = Server::start(2);
    let (old, old_workers) = (server.supervisor(), server.pids());
    assert_eq!(server.ask("count kept"), "1");
    assert_eq!(server.ask("rate 7 1"), "true");
    let stop = Arc::new(AtomicBool::new(false));
    let (asking, answers) = clients(&server, &stop);
    server.install(None);
    server.change_plan(json!({"mark": "second"}));
    let Outcome::Serving { pid } = server.upgrade() else { panic!("{:?}", server.report()) };
    assert_ne!(pid, old);
    assert_eq!(server.supervisor(), pid);
    assert_eq!(fs::read_to_string(server.path("work/server.pid")).unwrap().trim(), pid.to_string());
    assert!(server.wait_end().success(), "the old supervisor leaves");
    let seen = answers.load(Ordering::Relaxed);
    wait_until("more answers", || answers.load(Ordering::Relaxed) > seen + 100);
    stop.store(true, Ordering::Relaxed);
    asking.join().unwrap();

    server.wait_ready();
    let workers = server.pids();
    assert!(workers.iter().all(|pid| !old_workers.contains(pid)));
    let mut children: Vec<_> = children_of(pid).into_iter().map(|(pid, _)| pid).collect();
    children.sort_unstable();
    assert_eq!(children, workers);
    for process in workers.iter().chain([&pid]) {
        assert_eq!(inode(format!("/proc/{process}/exe")), inode(server.path(PROGRAM)), "the new binary runs");
    }
    assert_eq!(server.ask("mark"), "second", "what is read at start was read");
    // Shared memory went along, and the singleton moved.
    assert_eq!(server.ask("count kept"), "2");
    assert_eq!(server.ask("rate 7 1"), "false");
    wait_until("a singleton", || server.workers().iter().any(|view| view["singleton"] == true));
    pidfile::signal(pid, Signal::Stop).unwrap();
    assert!(pidfile::wait_gone(pid, PATIENCE).unwrap());
}

fn a_server_can_be_upgraded_again_and_again() {
    let server = Server::start(1);
    for _ in 0..5 {
        let before = server.supervisor();
        server.install(None);
        assert!(matches!(server.upgrade(), Outcome::Serving { .. }));
        assert_ne!(server.supervisor(), before);
        assert!(pidfile::wait_gone(before, PATIENCE).unwrap() || !children_of(before).is_empty());
        server.wait_ready();
        // It still knows how to replace a worker and to reload.
        pidfile::signal(server.pids()[0], Signal::Kill).unwrap();
        server.wait_ready();
    }
}

fn a_successor_listens_where_its_configuration_says() {
    let mut server = Server::start(1);
    let old = server.address;
    server.address = crate::server::free_address();
    server.change_plan(json!({"address": server.address.to_string()}));
    assert!(matches!(server.upgrade(), Outcome::Serving { .. }));
    server.wait_ready();
    assert!(server.wait_end().success());
    assert!(Client::try_connect(old).is_none(), "nobody listens there any more");
}

fn a_binary_that_fails_at_once_changes_nothing() {
    let server = Server::start(2);
    server.install(Some("#!/bin/sh\nexit 1\n"));
    let reason = server.upgrade_in_vain();
    assert!(reason.contains("exit code 1"), "{reason}");
    // What helps is to install a good one.
    server.install(None);
    assert!(matches!(server.upgrade(), Outcome::Serving { .. }));
}

fn a_binary_that_hangs_is_killed_and_changes_nothing() {
    let server = Server::start_with(1, json!({"upgrade_ms": 300}), &[]);
    server.install(Some("#!/bin/sh\ntrap '' TERM\nsleep 1000\nsleep 1000\n"));
    let reason = server.upgrade_in_vain();
    assert!(reason.contains("did not serve within 0.3 s"), "{reason}");
}

fn a_binary_that_cannot_be_run_changes_nothing() {
    let server = Server::start(1);
    fs::set_permissions(server.path(PROGRAM), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(server.upgrade_in_vain().contains("cannot be run"));
    fs::remove_file(server.path(PROGRAM)).unwrap();
    assert!(server.upgrade_in_vain().contains("cannot be run"));
}

fn a_binary_whose_workers_never_serve_is_given_up_with_its_workers() {
    let server = Server::start_with(2, json!({"upgrade_ms": 500}), &[]);
    server.mode("never-ready", true);
    let reason = server.upgrade_in_vain();
    assert!(reason.contains("did not serve"), "{reason}");
    server.mode("never-ready", false);
    // Its workers left nothing in shared memory.
    server.wait_ready();
    server.mode("die-at-start", true);
    server.upgrade_in_vain();
    server.mode("die-at-start", false);
    server.wait_ready();
}

fn a_successor_takes_over_from_a_predecessor_that_dies() {
    let server = Server::start(1);
    let (old, workers) = (server.supervisor(), server.pids());
    server.mode("never-ready", true);
    pidfile::signal(old, Signal::Upgrade).unwrap();
    // Its worker was started as well.
    let successor = wait_for("a successor", || {
        let others = server.children().into_iter().map(|(pid, _)| pid).filter(|pid| !workers.contains(pid));
        others.into_iter().find(|pid| !children_of(*pid).is_empty())
    });
    pidfile::signal(old, Signal::Kill).unwrap();
    wait_until("the takeover", || pidfile::running_supervisor(server.directory.path()) == Some(successor));
    server.mode("never-ready", false);
    server.wait_ready();
    assert!(!server.pids().contains(&workers[0]));
}

fn a_stop_during_an_upgrade_stops_both() {
    let mut server = Server::start(1);
    server.mode("never-ready", true);
    let old = server.supervisor();
    pidfile::signal(old, Signal::Upgrade).unwrap();
    wait_until("a successor", || server.children().len() == 2);
    let children = server.children();
    server.signal(Signal::Stop);
    assert!(server.wait_end().success());
    for (pid, _) in children {
        assert!(pidfile::wait_gone(pid, Duration::ZERO).unwrap(), "{pid} is left");
    }
    assert_eq!(pidfile::running_supervisor(server.directory.path()), None);
    server.mode("never-ready", false);
    server.start_again();
}

fn a_reload_during_an_upgrade_waits_for_its_end() {
    let mut server = Server::start_with(1, json!({"upgrade_ms": 500}), &[]);
    server.install(Some("#!/bin/sh\nexec sleep 1000\n"));
    let supervisor = server.supervisor();
    pidfile::signal(supervisor, Signal::Upgrade).unwrap();
    wait_until("a successor", || server.children().len() == 2);
    server.change_plan(json!({"mark": "second"}));
    server.signal(Signal::Reload);
    wait_until("the reload", || server.ask("mark") == "second");
    assert!(matches!(server.report().unwrap().outcome, Outcome::Failed { .. }));
    assert_eq!(server.supervisor(), supervisor);
}

fn nobody_else_can_start_while_a_server_is_upgraded() {
    let server = Server::start(1);
    let stop = Arc::new(AtomicBool::new(false));
    let intruder = {
        let (stop, directory) = (Arc::clone(&stop), server.directory.path().to_owned());
        thread::spawn(move || {
            let mut started = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut command = std::process::Command::new(std::env::current_exe().unwrap());
                let mut process = command.env(crate::server::DIRECTORY_VARIABLE, &directory).spawn().unwrap();
                // One that may not start ends at once.
                let ended = (0..2_000).any(|_| {
                    thread::sleep(Duration::from_millis(1));
                    process.try_wait().unwrap().is_some()
                });
                if !ended {
                    started += 1;
                    process.kill().unwrap();
                    process.wait().unwrap();
                }
            }
            started
        })
    };
    for _ in 0..5 {
        assert!(matches!(server.upgrade(), Outcome::Serving { .. }));
        server.wait_ready();
    }
    stop.store(true, Ordering::Relaxed);
    assert_eq!(intruder.join().unwrap(), 0);
}

fn the_service_manager_learns_whom_to_watch() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = |wanted: &str| {
        let mut text = [0; 1024];
        loop {
            let count = manager.recv(&mut text).unwrap();
            let text = String::from_utf8_lossy(&text[..count]).into_owned();
            if text.contains(wanted) {
                return text;
            }
        }
    };
    let variables =
        [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "100000"), ("WATCHDOG_PID", "1")];
    let server = Server::start_with(1, json!({}), &variables);
    heard("READY=1");
    let Outcome::Serving { pid } = server.upgrade() else { panic!("{:?}", server.report()) };
    assert_eq!(heard("MAINPID="), format!("MAINPID={pid}\nREADY=1"));
    // Signs of life come from the new one; the old one's were meant for another process.
    heard("WATCHDOG=1");
}

fn a_dropped_supervisor_upgrades_on_a_privileged_port() {
    if !as_root() {
        return;
    }
    let server = Server::start_at(privileged_address(), 1, json!({"user": USER}), &[]);
    server.install(None);
    // The file is executable for all; the directories above it need not be open to the user.
    let Outcome::Serving { pid } = server.upgrade() else { panic!("{:?}", server.report()) };
    server.wait_ready();
    assert_dropped(pid);
    server.pids().into_iter().for_each(assert_dropped);
}
