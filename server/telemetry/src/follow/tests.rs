//! Following a log while it is written and rotated.

use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::files::{LineFile, Rotation};

const LARGE: Rotation = Rotation { max_bytes: u64::MAX, keep: 1000 };
/// Rotates before nearly every line.
const SMALL: Rotation = Rotation { max_bytes: 1, keep: 1000 };

struct Log {
    directory: tempfile::TempDir,
    file: LineFile,
}

impl Log {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = LineFile::open(directory.path().join("server.log")).unwrap();
        Self { directory, file }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    fn write(&mut self, lines: &[&str], rotation: Rotation) {
        for line in lines {
            self.file.append(format!("{line}\n").as_bytes(), rotation).unwrap();
        }
    }

    fn follow(&self, start: Start) -> LogFollower {
        LogFollower::open(self.path(), start, LogFilter::default()).unwrap()
    }
}

#[test]
fn what_is_there_is_read_and_what_comes_is_followed() {
    let mut log = Log::new();
    log.write(&["1", "2", "3"], LARGE);
    let mut follower = log.follow(Start::Last(2));
    assert_eq!(follower.poll().unwrap(), ["2", "3"]);
    assert!(follower.poll().unwrap().is_empty());
    log.write(&["4"], LARGE);
    assert_eq!(follower.poll().unwrap(), ["4"]);
}

#[test]
fn older_files_are_read_when_the_newest_has_not_enough() {
    let mut log = Log::new();
    log.write(&["1", "2", "3", "4"], SMALL);
    assert_eq!(log.follow(Start::Last(3)).poll().unwrap(), ["2", "3", "4"]);
    assert_eq!(log.follow(Start::Beginning).poll().unwrap(), ["1", "2", "3", "4"]);
    assert!(log.follow(Start::Last(0)).poll().unwrap().is_empty());
}

#[test]
fn several_rotations_between_two_polls_lose_and_repeat_nothing() {
    let mut log = Log::new();
    log.write(&["1"], LARGE);
    let mut follower = log.follow(Start::Beginning);
    assert_eq!(follower.poll().unwrap(), ["1"]);
    log.write(&["2"], LARGE);
    log.write(&["3", "4", "5"], SMALL);
    assert_eq!(follower.poll().unwrap(), ["2", "3", "4", "5"]);
    log.write(&["6"], SMALL);
    log.write(&["7"], LARGE);
    assert_eq!(follower.poll().unwrap(), ["6", "7"]);
    assert!(follower.poll().unwrap().is_empty());
}

#[test]
fn a_line_that_reached_a_rotated_file_late_is_still_shown() {
    let mut log = Log::new();
    log.write(&["1"], LARGE);
    let mut follower = log.follow(Start::Beginning);
    let mut late = std::fs::OpenOptions::new().append(true).open(log.path()).unwrap();
    log.write(&["2"], SMALL);
    assert_eq!(follower.poll().unwrap(), ["1", "2"]);
    late.write_all(b"late\n").unwrap();
    assert_eq!(follower.poll().unwrap(), ["late"]);
    let later = Instant::now() + AFTERGLOW;
    assert!(follower.poll_at(later).unwrap().is_empty());
    assert!(follower.rotated.is_empty(), "old files are let go");
}

#[test]
fn a_log_that_does_not_exist_yet_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logs/server.log");
    let mut follower = LogFollower::open(path.clone(), Start::Last(10), LogFilter::default()).unwrap();
    assert!(follower.poll().unwrap().is_empty());
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "first\n").unwrap();
    assert_eq!(follower.poll().unwrap(), ["first"]);
}

#[test]
fn half_a_line_waits_for_its_other_half() {
    for (start, before) in [(Start::Last(0), &[] as &[&str]), (Start::Beginning, &["whole"])] {
        let log = Log::new();
        let mut raw = std::fs::OpenOptions::new().append(true).open(log.path()).unwrap();
        raw.write_all(b"whole\nha").unwrap();
        let mut follower = log.follow(start);
        assert_eq!(follower.poll().unwrap(), before);
        raw.write_all(b"lf\n").unwrap();
        assert_eq!(follower.poll().unwrap(), ["half"]);
    }
}

#[test]
fn a_deleted_log_does_not_bring_old_lines_back() {
    let mut log = Log::new();
    log.write(&["1", "2"], SMALL);
    let mut follower = log.follow(Start::Beginning);
    assert_eq!(follower.poll().unwrap(), ["1", "2"]);
    std::fs::remove_file(log.path()).unwrap();
    log.write(&["3"], LARGE);
    assert_eq!(follower.poll().unwrap(), ["3"]);
}

#[test]
fn endless_lines_and_broken_text_do_no_harm() {
    let log = Log::new();
    let mut raw = std::fs::OpenOptions::new().append(true).open(log.path()).unwrap();
    raw.write_all(&vec![b'x'; 3 * MAX_LINE]).unwrap();
    raw.write_all(b"\n\xff\xfe\n").unwrap();
    let lines = log.follow(Start::Beginning).poll().unwrap();
    assert_eq!((lines[0].len(), lines[1].as_str()), (MAX_LINE, "\u{fffd}\u{fffd}"));
}

const RECORDS: [&str; 3] = [
    r#"{"time":"2026-01-31T23:59:59.000123Z","level":"warn","process":"worker 1","pid":1,"cid":"4bf92f3577b34da6a3ce929d0e0e4736","service":"crm.get","target":"service","message":"one"}"#,
    "2026-01-31T23:59:59.000124Z  INFO worker 1[1] service=crm.get cid=11111111111111111111111111111111 service: two",
    r#"{"time":"2026-01-31T23:59:59.000125Z","cid":"11111111111111111111111111111111","status":200,"service":"crm.put"}"#,
];

#[test]
fn lines_of_every_form_are_filtered() {
    let matching = |filter: &LogFilter| -> Vec<usize> {
        (0..RECORDS.len()).filter(|index| filter.matches(RECORDS[*index])).collect()
    };
    let filter = LogFilter::default();
    assert_eq!(matching(&filter), [0, 1, 2]);
    assert_eq!(matching(&LogFilter { level: Some(LogLevel::Info), ..filter.clone() }), [0, 1, 2]);
    assert_eq!(matching(&LogFilter { level: Some(LogLevel::Warn), ..filter.clone() }), [0]);
    assert_eq!(matching(&LogFilter { service: Some("crm.get".into()), ..filter.clone() }), [0, 1]);
    assert_eq!(matching(&LogFilter { service: Some("crm".into()), ..filter.clone() }), [0; 0]);
    assert_eq!(matching(&LogFilter { cid: Some("1".repeat(32)), ..filter.clone() }), [1, 2]);
    let both = LogFilter { cid: Some("1".repeat(32)), service: Some("crm.put".into()), ..filter };
    assert_eq!(matching(&both), [2]);
}

proptest! {
    /// Whatever the order of writes, rotations and polls, every line is seen once and in order.
    #[test]
    fn every_line_is_seen_once(steps in prop::collection::vec((1usize..4, any::<bool>(), any::<bool>()), 1..30)) {
        let mut log = Log::new();
        let mut follower = log.follow(Start::Beginning);
        let (mut written, mut seen) = (Vec::new(), Vec::new());
        for (count, rotate, poll) in steps {
            for _ in 0..count {
                let line = written.len().to_string();
                log.write(&[&line], if rotate { SMALL } else { LARGE });
                written.push(line);
            }
            if poll {
                seen.extend(follower.poll().unwrap());
            }
        }
        seen.extend(follower.poll().unwrap());
        prop_assert_eq!(seen, written);
    }
}
