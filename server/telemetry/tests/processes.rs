//! Several processes write one log, as the workers of a server do. Each is this test binary run again.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "functions that only tests call report a failure by panicking, as the tests do"
)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crosstie_model::Cid;
use crosstie_model::settings::LogSettings;
use crosstie_telemetry::access::ACCESS_LOG;
use crosstie_telemetry::follow::{LogFilter, LogFollower, Start};
use crosstie_telemetry::logging::{self, SERVER_LOG};
use crosstie_telemetry::{AccessLog, AccessRecord, LogRecord, LogTarget, Terminal};

const DIRECTORY: &str = "CROSSTIE_TEST_LOG_DIRECTORY";
const NAME: &str = "CROSSTIE_TEST_LOG_PROCESS";
const RECORDS: usize = 8_000;

fn settings() -> LogSettings {
    LogSettings { rotate_mib: 1, keep: 1000, ..LogSettings::default() }
}

fn start(role: &str, directory: &Path, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", role, "--ignored", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .env(NAME, name)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn child_setup() -> (logging::LogGuard, std::path::PathBuf) {
    let directory = std::path::PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let target = LogTarget {
        settings: settings(),
        directory: directory.clone(),
        process: std::env::var(NAME).unwrap(),
        terminal: Terminal::Quiet,
    };
    (logging::init(target).unwrap(), directory)
}

fn request(number: usize) -> AccessRecord {
    AccessRecord {
        time: SystemTime::now(),
        cid: Cid::random(),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        method: http::Method::GET,
        path: format!("/{number}/{}", "x".repeat(300)),
        query: None,
        version: http::Version::HTTP_11,
        channel: Some(std::env::var(NAME).unwrap().into()),
        service: None,
        status: 200,
        bytes_in: 0,
        bytes_out: 0,
        micros: 1,
        principal: None,
        refused: None,
        user_agent: None,
        headers: Vec::new(),
    }
}

#[test]
#[ignore = "a process that another test starts"]
fn child_that_writes() {
    let (guard, directory) = child_setup();
    let access = AccessLog::open(&directory, &settings()).unwrap();
    for number in 0..RECORDS {
        tracing::warn!(target: "crosstie", number, padding = "x".repeat(300), "a record");
        access.record(request(number));
        if number % 100 == 0 {
            // Many small batches race more than a few large ones.
            assert!(guard.flush() && access.flush(Duration::from_secs(30)));
        }
    }
    assert_eq!((guard.dropped(), access.dropped()), (0, 0));
}

#[test]
#[ignore = "a process that another test starts"]
fn child_that_panics() {
    let (_guard, _) = child_setup();
    let _ = std::thread::Builder::new().name("doomed".into()).spawn(|| panic!("on purpose")).unwrap().join();
}

#[test]
#[ignore = "a process that another test starts"]
fn child_that_cannot_write() {
    let (_guard, directory) = child_setup();
    // The log's place is taken by something that cannot be opened as a file.
    std::fs::remove_file(directory.join(SERVER_LOG)).unwrap();
    std::fs::create_dir(directory.join(SERVER_LOG)).unwrap();
    tracing::info!(target: "crosstie", "chatter");
    tracing::error!(target: "crosstie", "important");
}

/// Reads who wrote a line and which of its lines it is.
type Reader = fn(&str) -> (String, usize);

/// What was seen of one log, by process: the numbers in the order they came.
fn numbers(lines: &[String], of: Reader) -> BTreeMap<String, Vec<usize>> {
    let mut seen: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for line in lines {
        let (process, number) = of(line);
        seen.entry(process).or_default().push(number);
    }
    seen
}

fn log_number(line: &str) -> (String, usize) {
    let record = LogRecord::parse(line).unwrap_or_else(|| panic!("broken line {line}"));
    let number = record.fields["number"].as_u64().unwrap();
    (record.process.to_string(), usize::try_from(number).unwrap())
}

fn access_number(line: &str) -> (String, usize) {
    let value: serde_json::Value =
        serde_json::from_str(line).unwrap_or_else(|_| panic!("broken line {line}"));
    let number = value["path"].as_str().unwrap().split('/').nth(1).unwrap();
    (value["channel"].as_str().unwrap().to_owned(), number.parse().unwrap())
}

#[test]
fn processes_that_append_and_rotate_lose_no_line_and_a_follower_sees_each_once() {
    let directory = tempfile::tempdir().unwrap();
    let follow = |name: &str, start| {
        LogFollower::open(directory.path().join(name), start, LogFilter::default()).unwrap()
    };
    let mut followers = [follow(SERVER_LOG, Start::Beginning), follow(ACCESS_LOG, Start::Last(0))];
    let mut seen = [Vec::new(), Vec::new()];
    let mut children: Vec<_> = ["worker 1", "worker 2", "worker 3"]
        .map(|name| start("child_that_writes", directory.path(), name))
        .into();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !children.is_empty() {
        assert!(Instant::now() < deadline, "the writers hang");
        for (follower, lines) in followers.iter_mut().zip(&mut seen) {
            lines.extend(follower.poll().unwrap());
        }
        children.retain_mut(|child| match child.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success());
                false
            }
            None => true,
        });
    }
    for (follower, lines) in followers.iter_mut().zip(&mut seen) {
        lines.extend(follower.poll().unwrap());
    }
    let rotated = |name: &str| {
        let found = std::fs::read_dir(directory.path()).unwrap();
        found.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with(name)).count()
            - 1
    };
    assert!(rotated(SERVER_LOG) >= 5 && rotated(ACCESS_LOG) >= 5, "they were to be rotated often");

    let everything: Vec<usize> = (0..RECORDS).collect();
    let readers: [(&str, Reader); 2] = [(SERVER_LOG, log_number), (ACCESS_LOG, access_number)];
    for (index, (name, number)) in readers.into_iter().enumerate() {
        let mut written = numbers(&follow(name, Start::Beginning).poll().unwrap(), number);
        let mut followed = numbers(&seen[index], number);
        for all in [&mut written, &mut followed] {
            assert_eq!(all.len(), 3);
            for numbers in all.values_mut() {
                // A batch that raced with a rotation is read a little late, so not strictly in order.
                numbers.sort_unstable();
                assert_eq!(*numbers, everything, "{name}");
            }
        }
    }
}

#[test]
fn a_panic_is_a_record_of_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let output = start("child_that_panics", directory.path(), "worker 1").wait_with_output().unwrap();
    assert!(output.status.success());
    let text = std::fs::read_to_string(directory.path().join(SERVER_LOG)).unwrap();
    let record = LogRecord::parse(text.lines().next().unwrap()).unwrap();
    assert_eq!(record.message, "a thread panicked: on purpose");
    assert_eq!(record.fields["thread"], "doomed");
    assert!(record.fields["location"].as_str().unwrap().contains("processes.rs"));
}

#[test]
fn a_log_that_cannot_be_written_leaves_its_warnings_on_stderr() {
    let directory = tempfile::tempdir().unwrap();
    let output = start("child_that_cannot_write", directory.path(), "worker 1").wait_with_output().unwrap();
    assert!(output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("cannot write") && stderr.contains("important"), "{stderr}");
    assert!(!stderr.contains("chatter"), "{stderr}");
}
