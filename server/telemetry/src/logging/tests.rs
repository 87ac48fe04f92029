//! The log as a whole: from a `tracing` macro to lines in the file.

use std::path::Path;

use crosstie_model::settings::BodyFormat;
use serde_json::Value;

use super::*;
use crate::files::rotated_files;
use crate::metrics::test_cells::TestCells;
use crate::metrics::{Metrics, counters};

fn target(directory: &Path, settings: LogSettings) -> LogTarget {
    LogTarget {
        settings,
        directory: directory.join("logs"),
        process: "worker 1".to_owned(),
        terminal: Terminal::Quiet,
    }
}

fn lines(directory: &Path) -> Vec<String> {
    let path = directory.join("logs").join(SERVER_LOG);
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn records(directory: &Path) -> Vec<LogRecord> {
    lines(directory).iter().map(|line| LogRecord::parse(line).unwrap()).collect()
}

/// Runs `work` while a log goes to `directory`; gives its records.
fn logged(settings: LogSettings, work: impl FnOnce(&LogGuard)) -> (tempfile::TempDir, Vec<LogRecord>) {
    let directory = tempfile::tempdir().unwrap();
    let (subscriber, guard) = build(target(directory.path(), settings)).unwrap();
    tracing::subscriber::with_default(subscriber, || work(&guard));
    drop(guard);
    let records = records(directory.path());
    (directory, records)
}

#[test]
fn an_event_becomes_a_record_with_its_spans_fields() {
    let (_directory, records) = logged(LogSettings::default(), |_| {
        let outer = tracing::info_span!(target: "crosstie", "request", cid = "abc", channel = "c1");
        let _outer = outer.enter();
        let inner =
            tracing::info_span!(target: "crosstie", "call", service = tracing::field::Empty, channel = "c2");
        inner.record("service", "demo.hello");
        let _inner = inner.enter();
        tracing::warn!(target: "crosstie_test", attempt = 2, slow = true, share = 0.5, "it {}", "took long");
    });
    let record = &records[0];
    assert_eq!((record.cid.as_deref(), record.service.as_deref()), (Some("abc"), Some("demo.hello")));
    assert_eq!((record.level, record.message.as_str()), (LogLevel::Warn, "it took long"));
    assert_eq!((record.process.as_ref(), record.pid), ("worker 1", std::process::id()));
    let fields = serde_json::json!({"channel": "c2", "attempt": 2, "slow": true, "share": 0.5});
    assert_eq!(Value::Object(record.fields.clone()), fields);
}

#[test]
fn secrets_are_masked_by_name_and_by_look() {
    let (directory, records) = logged(LogSettings::default(), |_| {
        tracing::info!(target: "crosstie", password = "hunter2", api_key = 12345, "connecting with token=hunter2");
        tracing::info!(target: "crosstie", url = "amqp://u:hunter2@h", header = ?"Basic aHVudGVyMmh1bnRlcjI=", "x");
    });
    assert_eq!(records.len(), 2);
    let text = lines(directory.path()).concat();
    assert!(!text.contains("hunter2") && !text.contains("12345") && !text.contains("aHVudGVy"), "{text}");
}

#[test]
fn an_errors_causes_are_told() {
    let (_directory, records) = logged(LogSettings::default(), |_| {
        let error = LogError::Thread(io::Error::other("no memory"));
        tracing::error!(target: "crosstie", error = &error as &dyn std::error::Error, "failed");
    });
    assert!(records[0].fields["error"].as_str().unwrap().contains("no memory"));
}

#[test]
fn the_level_is_obeyed_and_can_change_while_running() {
    let (_directory, records) = logged(LogSettings::default(), |guard| {
        for level in [LogLevel::Info, LogLevel::Debug, LogLevel::Error] {
            guard.apply(&LogSettings { level, ..LogSettings::default() });
            tracing::debug!(target: "crosstie", "debug at {level:?}");
            tracing::warn!(target: "crosstie", "warn at {level:?}");
        }
    });
    let messages: Vec<_> = records.iter().map(|record| record.message.as_str()).collect();
    assert_eq!(messages, ["warn at Info", "debug at Debug", "warn at Debug"]);
}

#[test]
fn libraries_are_heard_from_warn_on() {
    let (_directory, records) =
        logged(LogSettings { level: LogLevel::Debug, ..LogSettings::default() }, |_| {
            tracing::info!(target: "hyper::proto", "chatter");
            tracing::warn!(target: "hyper::proto", "trouble");
        });
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].message, "trouble");
}

#[test]
fn a_library_that_shows_logins_and_messages_tells_its_errors_alone() {
    let (_directory, records) =
        logged(LogSettings { level: LogLevel::Trace, ..LogSettings::default() }, |_| {
            tracing::trace!(target: "lapin::frames", "a login");
            tracing::warn!(target: "lapin::returned_messages", "a message that came back");
            tracing::error!(target: "lapin::io_loop", "a fault");
            tracing::trace!(target: "hyper::proto", "chatter");
        });
    let messages: Vec<_> = records.iter().map(|record| record.message.as_str()).collect();
    assert_eq!(messages, ["a fault", "chatter"]);
}

#[test]
fn the_format_is_obeyed() {
    let settings = LogSettings { format: BodyFormat::Text, ..LogSettings::default() };
    let (directory, records) = logged(settings, |_| tracing::info!(target: "crosstie", n = 1, "hello"));
    assert!(lines(directory.path())[0].ends_with("crosstie: hello n=1"));
    assert_eq!(records[0].message, "hello n=1");
}

#[test]
fn files_are_rotated_and_only_so_many_kept() {
    let settings = LogSettings { rotate_mib: 1, keep: 2, ..LogSettings::default() };
    let (directory, _) = logged(settings, |guard| {
        for _ in 0..600 {
            tracing::warn!(target: "crosstie", text = "x".repeat(10_000), "large");
            if !guard.flush() {
                panic!("not written");
            }
        }
    });
    let path = directory.path().join("logs").join(SERVER_LOG);
    let rotated = rotated_files(&path).unwrap();
    assert_eq!(rotated.len(), 2);
    for file in rotated {
        let size = std::fs::metadata(file).unwrap().len();
        assert!(size > 900_000 && size <= 1024 * 1024, "{size}");
    }
}

#[test]
fn endless_texts_are_cut() {
    let (_directory, records) =
        logged(LogSettings::default(), |_| tracing::info!(target: "crosstie", "{}", "é".repeat(100_000)));
    assert_eq!(records[0].message.len(), 32 * 1024);
}

#[test]
fn no_warning_is_lost_in_a_storm_and_what_is_dropped_is_counted() {
    let mut dropped = 0;
    let metrics = Metrics::new(Arc::new(TestCells::new(1000)));
    let (directory, records) = logged(LogSettings::default(), |guard| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let dispatch = tracing::dispatcher::get_default(Clone::clone);
                scope.spawn(move || {
                    tracing::dispatcher::with_default(&dispatch, || {
                        for number in 0..20_000 {
                            tracing::info!(target: "crosstie", number, "chatter");
                            tracing::warn!(target: "crosstie", number, "important");
                        }
                    });
                });
            }
        });
        assert!(guard.flush());
        // What was dropped before there was a cell is counted there, too.
        guard.count_drops_in(metrics.counter(&counters::LOG_DROPPED, &[("log", "server")]));
        dropped = guard.dropped();
    });
    let count = |message: &str| records.iter().filter(|record| record.message == message).count();
    assert_eq!(count("important"), 80_000);
    assert_eq!(u64::try_from(count("chatter")).unwrap() + dropped, 80_000);
    let reported: u64 = records.iter().filter_map(|record| record.fields.get("count")?.as_u64()).sum();
    assert_eq!(reported, dropped);
    drop(directory);
    let counted = format!("crosstie_log_records_dropped_total{{log=\"server\"}} {dropped}\n");
    assert!(metrics.render(&[], &[]).contains(&counted));
}

/// A service may fork: the child has the queue but no writer thread.
#[test]
fn a_forked_child_writes_for_itself_at_once() {
    let (_directory, records) = logged(LogSettings::default(), |guard| {
        tracing::info!(target: "crosstie", "from the parent");
        assert!(guard.flush());
        let path = &guard.shared.path;
        let text = std::fs::read_to_string(path).unwrap();
        let mut record = LogRecord::parse(text.trim_end()).unwrap();
        record.pid += 1;
        guard.shared.submit(record);
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 2);
    });
    assert_eq!(records.len(), 2);
}
