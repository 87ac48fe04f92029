//! A server changes over to a new binary while requests come in.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crosstie_test_support::processes::{is_alive, tree};
use crosstie_test_support::{Environment, command, wait_until, wrk};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::hot_deploy::service;

/// A server that runs a copy of the binary, which can be replaced.
struct Upgradable {
    environment: Environment,
    program: PathBuf,
    _place: tempfile::TempDir,
}

impl Upgradable {
    fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let environment = Environment::builder()
            .setting("server.workers", "2")
            .setting("server.drain_linger_s", "1")
            .setting("server.upgrade_s", "10")
            .create()
            .unwrap();
        let made = Self { environment, program: place.path().join("crosstie"), _place: place };
        made.install(None);
        let started = made.run(&["start"]);
        assert!(started.status.success(), "{started:?}");
        made.environment.drop_file("steady.py", &service("steady", "here")).unwrap();
        made.environment.wait_for_status("/steady", 200);
        made
    }

    /// Puts a script, or another copy of the binary, in the place of the running program.
    fn install(&self, script: Option<&str>) {
        let beside = self.program.with_extension("new");
        match script {
            Some(text) => fs::write(&beside, text).unwrap(),
            None => drop(fs::copy(command::binary().unwrap(), &beside).unwrap()),
        }
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(beside, &self.program).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        // The installed program may be a script that fails: the command line is the test's own binary then.
        let program = if arguments == ["start"] { self.program.clone() } else { command::binary().unwrap() };
        Command::new(program).args(arguments).env("CROSSTIE_DIR", self.environment.root()).output().unwrap()
    }

    fn upgrade(&self) -> Output {
        self.run(&["server", "upgrade", "-o", "json"])
    }

    fn supervisor(&self) -> i32 {
        self.environment.supervisor().unwrap()
    }
}

impl Drop for Upgradable {
    fn drop(&mut self) {
        // An old supervisor that still drains is no descendant of the new one.
        let program = fs::canonicalize(&self.program).unwrap_or_default();
        for process in running(&program) {
            let _ = crosstie_test_support::processes::send(process, Signal::SIGKILL);
        }
    }
}

/// The processes that run the file at `program`, or one that lay there.
fn running(program: &Path) -> Vec<i32> {
    let runs = |pid: &i32| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| {
            exe.to_string_lossy().trim_end_matches(" (deleted)") == program.to_string_lossy()
        })
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(runs).collect()
}

#[test]
fn upgrades_lose_nothing_whether_the_new_binary_is_good_or_bad() {
    let rounds = crate::volume(20, 1);
    let server = Upgradable::start();
    let seconds = Duration::from_secs(rounds * 45);
    let load = wrk::Load::new(server.environment.url("/steady"), seconds).start().unwrap();
    for _ in 0..rounds {
        good(&server);
        bad(&server, "#!/bin/sh\nexit 1\n", "exit code 1");
        bad(&server, "#!/bin/sh\nexec sleep 1000\n", "did not serve within 10 s");
        good(&server);
    }
    let report = load.finish().unwrap();
    assert!(report.lost_nothing(), "{report:?}");
    assert!(report.requests > 100, "{report:?}");
    // Everything the last supervisor needs to go on is its own.
    let workers = server.environment.ready_workers().unwrap();
    assert_eq!(workers.len(), 2);
    server.environment.reload().unwrap();
    wait_until("a roll", || {
        server
            .environment
            .ready_workers()
            .is_ok_and(|now| now.len() == 2 && now.iter().all(|pid| !workers.contains(pid)))
    });
    server.environment.stop().unwrap();
}

fn good(server: &Upgradable) {
    let old = server.supervisor();
    server.install(None);
    let output = server.upgrade();
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let new = server.supervisor();
    assert_ne!(new, old);
    assert_eq!(said[0]["pid"], new);
    assert_eq!(said[0]["predecessor"], old);
    wait_until("the old supervisor's end", || !is_alive(old));
    let exe = fs::read_link(format!("/proc/{new}/exe")).unwrap();
    assert_eq!(exe, fs::canonicalize(&server.program).unwrap(), "the new file runs, not the one it replaced");
    assert_eq!(tree(new).len(), 3, "one supervisor and two workers");
    // The singleton moved: the management API answers.
    wait_until("the management API", || {
        server.environment.ready_workers().is_ok_and(|ready| ready.len() == 2)
    });
}

fn bad(server: &Upgradable, script: &str, reason: &str) {
    let (old, processes) = (server.supervisor(), tree(server.supervisor()).len());
    server.install(Some(script));
    let output = server.upgrade();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains(reason) && said.contains("goes on with its old binary"), "{said}");
    assert_eq!(server.supervisor(), old);
    wait_until("the end of the bad binary", || tree(old).len() == processes);
}
