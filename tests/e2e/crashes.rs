//! Everything is killed at any moment: what was acknowledged is there afterwards, and nothing is torn.

use std::process::Command;

use crosstie_test_support::Environment;
use serde_json::Value;

use crate::hot_deploy::service;

/// The database with what SQLite keeps beside it.
const DATABASE_FILES: [&str; 3] = ["odb.sqlite", "odb.sqlite-wal", "odb.sqlite-shm"];

/// A small deterministic generator: the seed is printed, so a failure can be repeated.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn kill_minus_nine_of_everything_loses_nothing_acknowledged() {
    let rounds = crate::volume(50, 3);
    let seed = std::env::var("CROSSTIE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261);
    println!("seed {seed}");
    let mut chance = Chance(seed);
    let environment = Environment::start().unwrap();
    let mut deployed = None;
    let mut applied = None;
    for round in 0..rounds {
        let killer_delay = std::time::Duration::from_millis(chance.below(900));
        let (last_deployed, last_applied) = std::thread::scope(|scope| {
            let killer = scope.spawn(|| {
                // Not a wait for a condition: the moment of the kill is the random variable.
                std::thread::park_timeout(killer_delay);
                environment.kill_all()
            });
            let (mut last_deployed, mut last_applied) = (None, None);
            for step in 0..100u64 {
                let number = round * 100 + step;
                let file = environment.root().join("steady.py");
                std::fs::write(&file, service("steady", &number.to_string())).unwrap();
                let file = file.to_string_lossy().into_owned();
                match environment.run(&["deploy", &file]) {
                    Ok(outcome) if outcome.code == 0 => last_deployed = Some(number),
                    _ => break,
                }
                let document = format!("dictionary:\n  numbers:\n    entries:\n      last: {number}\n");
                match environment.command(&["apply", "-f", "-"]).unwrap().input(document).run() {
                    Ok(outcome) if outcome.code == 0 => last_applied = Some(number),
                    _ => break,
                }
            }
            killer.join().unwrap().unwrap();
            (last_deployed, last_applied)
        });
        deployed = last_deployed.or(deployed);
        applied = last_applied.or(applied);
        environment.start_again().unwrap();
        check(&environment, deployed, applied);
    }
}

/// What was acknowledged is there, or something newer whose acknowledgement the kill cut off.
fn check(environment: &Environment, deployed: Option<u64>, applied: Option<u64>) {
    if let Some(number) = deployed {
        let answer = environment.wait_for_status("/steady", 200).json();
        let found: u64 = answer["answer"].as_str().unwrap().parse().unwrap();
        assert!(found >= number, "version {found} is served, {number} was acknowledged");
    }
    if let Some(number) = applied {
        let found = environment.json(&["get", "dictionary", "numbers"]).unwrap();
        let last = find_number(&found);
        assert!(last.is_some_and(|last| last >= number), "{found} is there, {number} was acknowledged");
    }
    let database = environment.root().join("odb.sqlite");
    let integrity = Command::new("sqlite3").arg(&database).arg("pragma integrity_check").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&integrity.stdout).trim(), "ok");
    for repository in ["config", "config/cluster"] {
        let check = Command::new("git")
            // The tests' user need not be the repository's.
            .args(["-c", "safe.directory=*", "fsck", "--strict"])
            .current_dir(environment.server().join(repository))
            .output()
            .unwrap();
        assert!(check.status.success(), "{repository}: {}", String::from_utf8_lossy(&check.stderr));
    }
}

fn find_number(value: &Value) -> Option<u64> {
    match value {
        Value::Object(map) => {
            map.get("last").and_then(Value::as_u64).or_else(|| map.values().find_map(find_number))
        }
        Value::Array(items) => items.iter().find_map(find_number),
        _ => None,
    }
}

/// Puts the database out of reach by its directory entry: root reads whatever the mode says.
fn hide_database(environment: &Environment) {
    for name in DATABASE_FILES {
        let path = environment.root().join(name);
        if path.exists() {
            std::fs::rename(&path, environment.root().join(format!("{name}.away"))).unwrap();
        }
    }
    std::fs::create_dir(environment.root().join("odb.sqlite")).unwrap();
}

fn bring_database_back(environment: &Environment) {
    std::fs::remove_dir(environment.root().join("odb.sqlite")).unwrap();
    for name in DATABASE_FILES {
        let away = environment.root().join(format!("{name}.away"));
        if away.exists() {
            std::fs::rename(away, environment.root().join(name)).unwrap();
        }
    }
}

/// Kills every worker and waits until others are ready.
fn replace_workers(environment: &Environment) {
    let before = environment.ready_workers().unwrap();
    for pid in &before {
        crosstie_test_support::processes::send(*pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    crosstie_test_support::wait_until("new workers", || {
        environment
            .ready_workers()
            .is_ok_and(|now| !now.is_empty() && now.iter().all(|pid| !before.contains(pid)))
    });
}

fn wait_until_kept(environment: &Environment, service: &str) {
    let kept = environment.server().join("work/snapshot");
    crosstie_test_support::wait_until("the snapshot on disk", || {
        std::fs::read(&kept).is_ok_and(|text| String::from_utf8_lossy(&text).contains(service))
    });
}

#[test]
fn code_that_could_not_be_read_is_loaded_once_the_database_is_back() {
    let environment = Environment::start().unwrap();
    environment.drop_file("lasting.py", &service("lasting", "still here")).unwrap();
    environment.wait_for_status("/lasting", 200);
    wait_until_kept(&environment, "demo.lasting");
    hide_database(&environment);
    std::fs::remove_dir_all(environment.server().join("work/artifacts")).unwrap();
    replace_workers(&environment);
    environment.wait_for_status("/lasting", 503);
    bring_database_back(&environment);
    // Nobody changes anything: there is no newer revision to follow.
    environment.wait_for_json("/lasting", &serde_json::json!({"answer": "still here"}));
    // One worker answers before the others have loaded it, and the server's state is that of all.
    crosstie_test_support::wait_until("the server is ready", || {
        environment
            .http()
            .get("/health/ready")
            .is_ok_and(|reply| reply.status == 200 && reply.json()["detail"]["status"] == "ready")
    });
}

#[test]
fn traffic_goes_on_from_the_last_good_snapshot_when_the_database_is_unreadable() {
    let environment = Environment::start().unwrap();
    environment.drop_file("lasting.py", &service("lasting", "still here")).unwrap();
    environment.wait_for_status("/lasting", 200);
    wait_until_kept(&environment, "demo.lasting");
    hide_database(&environment);
    replace_workers(&environment);
    environment.wait_for_json("/lasting", &serde_json::json!({"answer": "still here"}));
    crosstie_test_support::wait_until("the status to say degraded", || {
        environment.component().is_ok_and(|component| component.to_string().contains("degraded"))
    });
    let refused = environment.command(&["apply", "-f", "-"]).unwrap();
    let refused = refused.input("dictionary:\n  d:\n    entries: {a: 1}\n").run().unwrap();
    assert_eq!(refused.code, 1, "{refused:?}");

    bring_database_back(&environment);
    environment.drop_file("after.py", &service("after", "back")).unwrap();
    environment.wait_for_status("/after", 200);
}
