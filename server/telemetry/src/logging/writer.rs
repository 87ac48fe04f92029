//! The thread that writes the log.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use crosstie_model::settings::{BodyFormat, LogLevel, LogSettings};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::{Shared, Terminal};
use crate::batch::Taken;
use crate::files::{LineFile, Rotation};
use crate::record::{LogRecord, TextStyle};

/// Largest batch handed to one write, in bytes.
const MAX_WRITE: usize = 256 * 1024;

pub(super) struct Writer {
    shared: Arc<Shared>,
    file: LineFile,
    terminal: Option<TextStyle>,
    /// Drops reported so far.
    reported: u64,
    /// Whether the last write failed.
    failing: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, file: LineFile, terminal: Terminal) -> Self {
        let terminal = match terminal {
            Terminal::Quiet => None,
            Terminal::Stderr if io::stderr().is_terminal() => Some(TextStyle::Color),
            Terminal::Stderr => Some(TextStyle::Plain),
        };
        Self { shared, file, terminal, reported: 0, failing: false }
    }

    pub(super) fn run(mut self) {
        let mut batch = Vec::new();
        while self.shared.queue.take(&mut batch) == Taken::Some {
            self.write(&batch);
            // Drops are reported after the batch that filled the queue, where they happened.
            let dropped = self.shared.queue.dropped();
            if dropped > self.reported {
                self.write(&[self.drop_report(dropped - self.reported)]);
                self.reported = dropped;
            }
            self.shared.queue.written(batch.len());
            batch.clear();
        }
    }

    fn write(&mut self, records: &[LogRecord]) {
        let settings = self.shared.settings();
        if let Some(style) = self.terminal {
            show(records.iter(), style);
        }
        let mut lines = Vec::new();
        let mut first = 0;
        for (index, record) in records.iter().enumerate() {
            append(record, &settings, &mut lines);
            if lines.len() >= MAX_WRITE {
                self.append(&lines, records.get(first..=index).unwrap_or_default(), &settings);
                lines.clear();
                first = index + 1;
            }
        }
        if !lines.is_empty() {
            self.append(&lines, records.get(first..).unwrap_or_default(), &settings);
        }
    }

    fn append(&mut self, lines: &[u8], records: &[LogRecord], settings: &LogSettings) {
        match self.file.append(lines, rotation(settings)) {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !self.failing {
                    let _ = writeln!(io::stderr(), "cannot write {}: {error}", self.file.path().display());
                }
                self.failing = true;
                // What must not be lost goes where somebody may still see it.
                if self.terminal.is_none() {
                    show(records.iter().filter(|record| record.level >= LogLevel::Warn), TextStyle::Line);
                }
            }
        }
    }

    fn drop_report(&self, count: u64) -> LogRecord {
        LogRecord {
            time: OffsetDateTime::now_utc(),
            level: LogLevel::Warn,
            process: Arc::clone(&self.shared.process),
            pid: self.shared.pid,
            cid: None,
            service: None,
            target: "crosstie_telemetry::logging".to_owned(),
            message: "log records were dropped because they came faster than they could be written"
                .to_owned(),
            fields: Map::from_iter([("count".to_owned(), Value::from(count))]),
        }
    }
}

pub(super) fn rotation(settings: &LogSettings) -> Rotation {
    Rotation { max_bytes: settings.rotate_mib.saturating_mul(1024 * 1024), keep: usize::from(settings.keep) }
}

/// One record as the file holds it.
pub(super) fn format(record: &LogRecord, settings: &LogSettings) -> Vec<u8> {
    let mut line = Vec::new();
    append(record, settings, &mut line);
    line
}

fn append(record: &LogRecord, settings: &LogSettings, lines: &mut Vec<u8>) {
    match settings.format {
        BodyFormat::Json => record.write_json(lines),
        BodyFormat::Text => {
            let mut text = String::new();
            record.write_text(TextStyle::Line, &mut text);
            lines.extend_from_slice(text.as_bytes());
        }
    }
}

fn show<'a>(records: impl Iterator<Item = &'a LogRecord>, style: TextStyle) {
    let mut text = String::new();
    for record in records {
        record.write_text(style, &mut text);
    }
    // Nobody may be reading; the file has it all.
    let _ = io::stderr().write_all(text.as_bytes());
}
