//! The parts alike, and what concerns databases only.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use crosstie_parts::{MariaDb, Part, PartError, PartPlan, Postgres, RabbitMq};
use crosstie_test_support::PortBase;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::support::{Started, credentials, plan};

/// Runs `test` on a part that is made but not started.
fn on<P: Part>(user: &str, make: fn(PartPlan) -> P, test: &impl Fn(&dyn Part, &PartPlan)) {
    let directory = tempfile::tempdir().unwrap();
    let port = PortBase::reserve().unwrap();
    let plan = plan(directory.path(), "part", user, &port);
    let started = Started { part: make(plan.clone()) };
    started.part.create(&credentials()).unwrap();
    test(&started.part, &plan);
}

/// Runs `test` on each database, made but not started.
fn on_each(test: impl Fn(&dyn Part, &PartPlan)) {
    on("postgres", Postgres::new, &test);
    on("mysql", MariaDb::new, &test);
}

/// Runs `test` on every part, made but not started.
fn on_every(test: impl Fn(&dyn Part, &PartPlan)) {
    on_each(&test);
    on("rabbitmq", RabbitMq::new, &test);
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn listens(plan: &PartPlan) -> bool {
    TcpStream::connect(plan.address).is_ok()
}

#[test]
fn a_part_starts_once_and_stops() {
    on_every(|part, plan| {
        assert_eq!(part.pid(), None);
        let pid = part.start().unwrap();
        assert!(listens(plan));
        assert_eq!((part.pid(), part.start().unwrap()), (Some(pid), pid));
        // In a session of its own, as its user, with nothing of ours in its arguments.
        let session = nix::unistd::getsid(Some(Pid::from_raw(i32::try_from(pid).unwrap()))).unwrap();
        assert_eq!(session.as_raw(), i32::try_from(pid).unwrap());
        let owner = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
        assert_eq!(owner != 0, geteuid().is_root());
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!String::from_utf8_lossy(&arguments).contains("ecret"));
        part.stop().unwrap();
        assert!(!listens(plan) && part.pid().is_none());
        part.stop().unwrap();
    });
}

#[test]
fn a_killed_part_starts_again() {
    on_every(|part, plan| {
        let first = part.start().unwrap();
        send(first, Signal::SIGKILL);
        wait_until("the killed database is gone", || part.pid() != Some(first));
        let second = part.start().unwrap();
        assert!(second != first && listens(plan));
    });
}

#[test]
fn a_part_killed_this_moment_is_not_taken_for_running() {
    on_every(|part, plan| {
        let mut last = part.start().unwrap();
        for _ in 0..3 {
            // As long as it holds its files and its address nobody has noticed its death.
            send(last, Signal::SIGKILL);
            let next = part.start().unwrap();
            assert!(next != last && listens(plan), "{} {last} {next}", part.name());
            last = next;
        }
        send(last, Signal::SIGKILL);
        assert_eq!(part.pid(), None, "{}", part.name());
        // Nor when whoever started it could not write its id down.
        let last = part.start().unwrap();
        fs::remove_file(plan.directory.join("part.pid")).unwrap();
        send(last, Signal::SIGKILL);
        assert_eq!(part.pid(), None, "{}", part.name());
        assert_ne!(part.start().unwrap(), last);
    });
}

#[test]
fn a_part_whose_starter_died_is_found_again() {
    on_every(|part, plan| {
        let pid = part.start().unwrap();
        fs::remove_file(plan.directory.join("part.pid")).unwrap();
        assert_eq!(part.pid(), Some(pid));
        assert_eq!(part.start().unwrap(), pid);
        assert!(plan.directory.join("part.pid").is_file());
    });
}

#[test]
fn a_stale_file_with_the_id_of_another_process_keeps_nobody_from_starting() {
    on_each(|part, plan| {
        let pid = part.start().unwrap();
        send(pid, Signal::SIGKILL);
        wait_until("the killed database is gone", || part.pid().is_none());
        let stale = plan.directory.join("data/postmaster.pid");
        if stale.is_file() {
            let text = fs::read_to_string(&stale).unwrap();
            let own = std::process::id().to_string();
            fs::write(&stale, text.replacen(&pid.to_string(), &own, 1)).unwrap();
        }
        fs::write(plan.directory.join("part.pid"), format!("{}\n1\nx\n", std::process::id())).unwrap();
        assert_eq!(part.pid(), None);
        part.start().unwrap();
    });
}

#[test]
fn an_address_that_is_taken_is_named() {
    on_every(|part, plan| {
        let _taken = TcpListener::bind(plan.address).unwrap();
        let error = part.start().unwrap_err();
        assert!(matches!(&error, PartError::AddressTaken { address, .. } if *address == plan.address));
        assert!(error.to_string().contains("taken"), "{error}");
    });
}

#[test]
fn a_database_that_cannot_start_says_why() {
    on_each(|part, plan| {
        let tls = plan.tls.as_ref().unwrap();
        fs::write(&tls.key, "no key").unwrap();
        let error = part.start().unwrap_err();
        assert!(matches!(error, PartError::Ended { .. }), "{error}");
        assert!(error.to_string().to_lowercase().contains("key"), "{error}");
        assert_eq!(part.pid(), None);
    });
}

#[test]
fn the_copied_key_is_readable_by_the_database_alone() {
    on_each(|part, plan| {
        part.start().unwrap();
        let key = fs::metadata(plan.directory.join("tls/part.key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        let own = plan.user.is_none();
        assert!(own || key.uid() != 0);
        let home = fs::metadata(&plan.directory).unwrap();
        assert_eq!(home.permissions().mode() & 0o777, 0o700);
    });
}

#[test]
fn a_database_is_made_once_and_anew_after_half() {
    on_each(|part, plan| {
        assert!(matches!(part.create(&credentials()), Err(PartError::Exists { .. })));
        let half = plan.directory.join("data.unfinished");
        fs::rename(plan.directory.join("data"), &half).unwrap();
        fs::remove_dir_all(half.join(if part.name() == "mariadb" { "mysql" } else { "base" })).unwrap();
        assert!(!part.is_created());
        assert!(matches!(part.start(), Err(PartError::NotCreated { .. })));
        part.create(&credentials()).unwrap();
        part.start().unwrap();
    });
}

#[test]
fn the_environment_is_opened_to_passing_through_and_nothing_above_it() {
    if !geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let environment = directory.path().join("environment");
    fs::create_dir(&environment).unwrap();
    let close = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    close(&environment, 0o700);
    close(directory.path(), 0o700);
    let port = PortBase::reserve().unwrap();
    let plan = plan(&environment, "postgresql", "postgres", &port);
    let error = Postgres::new(plan.clone()).create(&credentials()).unwrap_err();
    let PartError::Unreachable { directory: closed, .. } = &error else { panic!("{error}") };
    assert_eq!(closed, &directory.path().canonicalize().unwrap());
    close(directory.path(), 0o711);
    Postgres::new(plan).create(&credentials()).unwrap();
    assert_eq!(fs::metadata(&environment).unwrap().permissions().mode() & 0o777, 0o711);
}

#[test]
fn credentials_that_would_need_quoting_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let port = PortBase::reserve().unwrap();
    let plan = plan(directory.path(), "postgresql", "postgres", &port);
    let mut wrong = credentials();
    wrong.user = "crosstie\" SUPERUSER; --".into();
    let error = Postgres::new(plan).create(&wrong).unwrap_err();
    assert!(matches!(error, PartError::Invalid { what: "the user's name", .. }), "{error}");
}

#[test]
fn a_directory_whose_name_the_programs_would_misread_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let port = PortBase::reserve().unwrap();
    for name in ["a\"b", "a'b", "a\\b", "a\nb"] {
        let plan = plan(directory.path(), name, "postgres", &port);
        let error = Postgres::new(plan).create(&credentials()).unwrap_err();
        assert!(matches!(error, PartError::Invalid { what: "the part's directory", .. }), "{error}");
    }
}

#[test]
fn other_signs_in_a_directory_s_name_are_taken_as_they_are() {
    fn start<P: Part>(user: &str, make: fn(PartPlan) -> P) {
        let directory = tempfile::tempdir().unwrap();
        let port = PortBase::reserve().unwrap();
        let started = Started { part: make(plan(directory.path(), "a #part; é", user, &port)) };
        started.part.create(&credentials()).unwrap();
        started.part.start().unwrap();
    }
    start("postgres", Postgres::new);
    start("mysql", MariaDb::new);
    start("rabbitmq", RabbitMq::new);
}
