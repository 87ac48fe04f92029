//! Workers die, roll and are replaced while traffic goes on.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use crosstie_test_support::processes::{Process, is_alive, send};
use crosstie_test_support::{Builder, Environment, wait_for, wait_until, wrk};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::hot_deploy::service;

fn serving(name: &str) -> Environment {
    serving_with(Environment::builder(), name)
}

fn serving_with(builder: Builder, name: &str) -> Environment {
    let environment = builder.setting("server.workers", "2").start().unwrap();
    environment.drop_file(&format!("{name}.py"), &service(name, "here")).unwrap();
    environment.wait_for_status(&format!("/{name}"), 200);
    live_everywhere(&environment, name, None);
    environment
}

/// Waits until both workers serve a deployment of `unit` other than `before`, and gives its digest. One
/// answer alone says only that one worker has it.
fn live_everywhere(environment: &Environment, unit: &str, before: Option<&str>) -> String {
    wait_for(&format!("{unit} on both workers"), || {
        let list = environment.json(&["deployment", "list"]).ok()?;
        let row = list.as_array()?.iter().find(|row| row["unit"] == unit)?;
        let live = row.pointer("/live/0")?;
        let everywhere = live["state"] == "serving" && live["serving"] == 2 && live["workers"] == 2;
        let digest = row["digest"].as_str().filter(|digest| everywhere && Some(*digest) != before)?;
        Some(digest.to_owned())
    })
}

fn both_ready(environment: &Environment, except: &[i32]) -> Vec<i32> {
    let mut ready = Vec::new();
    wait_until("two workers", || {
        ready = environment.ready_workers().unwrap_or_default();
        ready.len() == 2 && !ready.iter().any(|pid| except.contains(pid))
    });
    ready
}

fn zombies(environment: &Environment) -> Vec<Process> {
    environment.processes().into_iter().filter(|process| process.state == 'Z').collect()
}

#[test]
fn a_killed_worker_loses_only_what_it_had_in_hand() {
    let environment = serving("kill");
    let connections = 16;
    let mut load = wrk::Load::new(environment.url("/kill"), Duration::from_secs(8));
    load.connections = connections;
    let mut load = load.start().unwrap();
    let mut kills = 0;
    while load.is_running() && kills < 3 {
        let victim = both_ready(&environment, &[])[0];
        send(victim, Signal::SIGKILL).unwrap();
        kills += 1;
        both_ready(&environment, &[victim]);
    }
    let report = load.finish().unwrap();
    assert_eq!(report.not_ok, 0, "{report:?}");
    // Each connection has one request in hand at most, and wrk opens a new one for the next.
    assert!(report.socket_errors <= u64::from(connections) * kills, "{kills} kills: {report:?}");
    assert!(report.requests > 100, "{report:?}");
    assert!(zombies(&environment).is_empty());
}

#[test]
fn rolling_restarts_lose_nothing() {
    let rolls = crate::volume(25, 2);
    let environment = serving("roll");
    let mut load = wrk::Load::new(environment.url("/roll"), Duration::from_secs(rolls * 60)).start().unwrap();
    for _ in 0..rolls {
        let before = both_ready(&environment, &[]);
        environment.reload().unwrap();
        both_ready(&environment, &before);
    }
    assert!(load.is_running(), "the load lasts for all rolls");
    let report = load.finish_early().unwrap();
    assert!(report.lost_nothing(), "{rolls} rolls: {report:?}");
    assert!(zombies(&environment).is_empty());
}

#[test]
fn a_replaced_certificate_is_served_without_a_lost_request() {
    let environment = serving("tls");
    let address = environment.tls_address();
    let serial = || -> Option<String> {
        let shown = std::process::Command::new("openssl")
            .args(["s_client", "-connect", &address.to_string(), "-showcerts"])
            .stdin(std::process::Stdio::null())
            .output()
            .ok()?;
        let mut parse = std::process::Command::new("openssl")
            .args(["x509", "-noout", "-serial"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .ok()?;
        std::io::Write::write_all(&mut parse.stdin.take()?, &shown.stdout).ok()?;
        let output = parse.wait_with_output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let old = serial().unwrap();
    let mut load = wrk::Load::new(format!("https://{address}/tls"), Duration::from_secs(6)).start().unwrap();
    // An authority of the operator's own; the environment's key lies sealed in the ODB.
    let authority = crosstie_security::CertificateAuthority::create("operator").unwrap();
    let issued = authority.issue_server("server1", &["localhost"], &["127.0.0.1".parse().unwrap()]).unwrap();
    let tls = environment.server().join("tls");
    // Whoever replaces them sees to it that the server's user can read the key.
    let (staged, owner) = (environment.root(), std::fs::metadata(&tls).unwrap());
    issued.save(&staged.join("server.pem"), &staged.join("server.key")).unwrap();
    for file in ["server.pem", "server.key"] {
        std::os::unix::fs::chown(staged.join(file), Some(owner.uid()), Some(owner.gid())).unwrap();
        std::fs::rename(staged.join(file), tls.join(file)).unwrap();
    }
    // Both workers answer with the new one: ten connections in a row that never show the old.
    wait_until("the new certificate everywhere", || {
        (0..10).all(|_| serial().is_some_and(|serial| serial != old))
    });
    wait_until("the end of the load", || !load.is_running());
    let report = load.finish().unwrap();
    assert!(report.lost_nothing(), "{report:?}");
}

#[test]
fn a_service_that_aborts_is_quarantined_and_released() {
    let environment = serving("steady");
    let aborting = r#"
import os
from crosstie import Service, rest

class Abort(Service):
    name = "demo.abort"
    channels = [rest("GET", "/abort")]

    def handle(self):
        os.abort()
"#;
    environment.drop_file("abort.py", aborting).unwrap();
    let quarantined = || -> Vec<Value> {
        let list = environment.json(&["service", "list"]).unwrap_or_default();
        let rows = list.as_array().cloned().unwrap_or_default();
        rows.into_iter().filter(|row| row["name"] == "demo.abort" && row["quarantined"].is_object()).collect()
    };
    wait_until("the quarantine", || {
        // Each call that is let through kills a worker; its connection breaks.
        environment
            .http()
            .get("/abort")
            .is_ok_and(|reply| reply.status == 503 && reply.text().contains("quarantine"))
    });
    environment.wait_for_status("/steady", 200);
    both_ready(&environment, &[]);
    assert!(zombies(&environment).is_empty());
    wait_until("the list to say so", || !quarantined().is_empty());

    // Released before the mended code runs, it would crash workers again and be quarantined again.
    let broken = live_everywhere(&environment, "abort", None);
    environment.drop_file("abort.py", &service("abort", "mended")).unwrap();
    live_everywhere(&environment, "abort", Some(&broken));
    environment.run(&["service", "release", "demo.abort"]).unwrap().success().unwrap();
    environment.wait_for_status("/abort", 200);
}

#[test]
fn workers_killed_while_they_serve_a_good_service_never_quarantine_it() {
    let kills = crate::volume(100, 8);
    // The budget is not what is tried here; it would delay the restarts.
    let environment = serving_with(Environment::builder().setting("server.restart_budget", "1000"), "good");
    let load = wrk::Load::new(environment.url("/good"), Duration::from_secs(kills * 2 + 20)).start().unwrap();
    for _ in 0..kills {
        let victim = both_ready(&environment, &[])[0];
        send(victim, Signal::SIGKILL).unwrap();
        wait_until("its end", || !is_alive(victim));
    }
    both_ready(&environment, &[]);
    assert_eq!(environment.http().get("/good").unwrap().status, 200);
    let report = load.finish_early().unwrap();
    assert_eq!(report.not_ok, 0, "{report:?}");
}

#[test]
fn a_service_that_forks_and_starts_processes_harms_nobody() {
    let environment = serving("calm");
    let forking = r#"
import multiprocessing
import os
import subprocess
import threading
from crosstie import Service, rest

class Fork(Service):
    name = "demo.fork"
    channels = [rest("GET", "/fork")]

    def handle(self):
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        _, status = os.waitpid(pid, 0)
        thread = threading.Thread(target=len, args=("x",))
        thread.start()
        thread.join()
        shell = subprocess.run(["/bin/echo", "out"], capture_output=True, text=True, check=True)
        with multiprocessing.Pool(1) as pool:
            power = pool.apply(pow, (2, 10))
        self.response.payload = {"child": os.waitstatus_to_exitcode(status), "echo": shell.stdout.strip(),
                                 "power": power}
"#;
    environment.drop_file("fork.py", forking).unwrap();
    environment.wait_for_json("/fork", &serde_json::json!({"child": 7, "echo": "out", "power": 1024}));
    live_everywhere(&environment, "fork", None);
    for _ in 0..5 {
        assert_eq!(environment.http().get("/fork").unwrap().status, 200);
        assert_eq!(environment.http().get("/calm").unwrap().status, 200);
    }
    both_ready(&environment, &[]);
}

#[test]
fn a_service_past_its_deadline_costs_its_caller_504_and_nobody_else() {
    let environment = serving("prompt");
    let slow = r#"
import time
from crosstie import Service, rest

class Slow(Service):
    name = "demo.slow"
    channels = [rest("GET", "/slow", deadline_ms=300)]

    def handle(self):
        while True:
            time.sleep(0.01)
"#;
    environment.drop_file("slow.py", slow).unwrap();
    environment.wait_for_status("/slow", 504);
    live_everywhere(&environment, "slow", None);
    // The interrupted threads are free again: many more such calls than there are threads.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..12 {
                    assert_eq!(environment.http().get("/slow").unwrap().status, 504);
                }
            });
        }
        for _ in 0..20 {
            assert_eq!(environment.http().get("/prompt").unwrap().status, 200);
        }
    });
}
