//! One record of the log and its two written forms: a JSON object per line, and text for people.
//!
//! Both can be read back, so `crosstie logs` filters either.

use std::fmt::Write as _;
use std::sync::Arc;

use crosstie_model::settings::LogLevel;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// RFC 3339, UTC, microseconds: fixed width, so that lines sort by time.
pub(crate) const TIME_FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// A time as [`TIME_FORMAT`] writes it; any RFC 3339 is read.
mod rfc3339_micros {
    use serde::{Deserialize, Deserializer, Serializer};
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    pub(super) fn serialize<S: Serializer>(time: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
        let text = time.format(super::TIME_FORMAT).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<OffsetDateTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        OffsetDateTime::parse(&text, &Rfc3339).map_err(serde::de::Error::custom)
    }
}

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    /// When (UTC, microseconds).
    #[serde(with = "rfc3339_micros")]
    pub time: OffsetDateTime,
    /// How severe.
    pub level: LogLevel,
    /// Which process of the server: `supervisor`, `worker 1` …
    pub process: Arc<str>,
    /// Its process id.
    pub pid: u32,
    /// The message it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<String>,
    /// The service that wrote it or that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The part of the program that wrote it.
    pub target: String,
    /// What happened, for a person.
    pub message: String,
    /// More, by name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

/// How text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextStyle {
    /// One line per record, for a file.
    Line,
    /// Several lines where the message has several, for a pipe.
    Plain,
    /// The same with ANSI colours, for a terminal.
    Color,
}

impl LogRecord {
    /// Appends the record as one line of JSON.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let start = out.len();
        if serde_json::to_writer(&mut *out, self).is_err() {
            // Only a value that JSON cannot express gets here, and none of the fields can hold one.
            out.truncate(start);
            return;
        }
        out.push(b'\n');
    }

    /// Appends the record as text.
    pub fn write_text(&self, style: TextStyle, out: &mut String) {
        let (dim, bold, plain) = match style {
            TextStyle::Color => ("\x1b[2m", level_color(self.level), "\x1b[0m"),
            TextStyle::Line | TextStyle::Plain => ("", "", ""),
        };
        let time = self.time.format(TIME_FORMAT).unwrap_or_default();
        let level = level_text(self.level);
        let _ = write!(out, "{dim}{time}{plain} {bold}{level:>5}{plain} ");
        let _ = write!(out, "{dim}{}[{}]{plain}", self.process, self.pid);
        for (name, value) in [("service", &self.service), ("cid", &self.cid)] {
            if let Some(value) = value {
                let _ = write!(out, " {dim}{name}={plain}");
                escape(value, TextStyle::Line, out);
            }
        }
        let _ = write!(out, " {dim}{}:{plain} ", self.target);
        escape(&self.message, style, out);
        for (name, value) in &self.fields {
            let _ = write!(out, " {dim}{name}={plain}");
            match value {
                Value::String(text) if is_word(text) => escape(text, style, out),
                // A traceback reads as one, not as a JSON string full of \n.
                Value::String(text) if style != TextStyle::Line && text.contains('\n') => {
                    out.push_str("\n    ");
                    escape(text, style, out);
                }
                other => escape(&other.to_string(), TextStyle::Line, out),
            }
        }
        out.push('\n');
    }

    /// Reads a line of either form. Of text, the fields stay part of the message.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        if line.starts_with('{') { serde_json::from_str(line).ok() } else { parse_text(line) }
    }
}

/// `TIME LEVEL PROCESS[PID] [service=…] [cid=…] TARGET: MESSAGE`
fn parse_text(line: &str) -> Option<LogRecord> {
    let (time, rest) = line.split_once(' ')?;
    let time = OffsetDateTime::parse(time, &Rfc3339).ok()?;
    let (level, rest) = rest.trim_start().split_once(' ')?;
    let level = level_from_text(level)?;
    let (process, rest) = rest.split_once('[')?;
    let (pid, mut rest) = rest.split_once("] ")?;
    let mut take = |name: &str| {
        let (value, after) = rest.strip_prefix(name)?.split_once(' ')?;
        rest = after;
        Some(value.to_owned())
    };
    let (service, cid) = (take("service="), take("cid="));
    let (target, message) = rest.split_once(": ")?;
    Some(LogRecord {
        time,
        level,
        process: process.into(),
        pid: pid.parse().ok()?,
        cid,
        service,
        target: target.to_owned(),
        message: message.to_owned(),
        fields: Map::new(),
    })
}

/// Whether a text can stand without quotes.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '='))
}

/// Control characters are written as escapes: a log line must not move a terminal's cursor or pass for two.
fn escape(text: &str, style: TextStyle, out: &mut String) {
    for c in text.chars() {
        match c {
            '\n' if style != TextStyle::Line => out.push_str("\n    "),
            '\t' if style != TextStyle::Line => out.push('\t'),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
}

fn level_text(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "TRACE",
        LogLevel::Debug => "DEBUG",
        LogLevel::Info => "INFO",
        LogLevel::Warn => "WARN",
        LogLevel::Error => "ERROR",
    }
}

fn level_from_text(text: &str) -> Option<LogLevel> {
    [LogLevel::Trace, LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error]
        .into_iter()
        .find(|level| level_text(*level) == text)
}

fn level_color(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace | LogLevel::Debug => "\x1b[2m",
        LogLevel::Info => "\x1b[32m",
        LogLevel::Warn => "\x1b[33m",
        LogLevel::Error => "\x1b[31m",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use time::macros::datetime;

    fn record(message: &str) -> LogRecord {
        LogRecord {
            time: datetime!(2026-01-31 23:59:59.000123 UTC),
            level: LogLevel::Warn,
            process: "worker 1".into(),
            pid: 4711,
            cid: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
            service: Some("crm.customer.get".into()),
            target: "crosstie_channels::server".into(),
            message: message.to_owned(),
            fields: Map::new(),
        }
    }

    #[test]
    fn json_has_one_line_with_the_documented_keys() {
        let mut record = record("two\nlines");
        record.fields.insert("attempt".into(), json!(2));
        let mut out = Vec::new();
        record.write_json(&mut out);
        let expected = "{\"time\":\"2026-01-31T23:59:59.000123Z\",\"level\":\"warn\",\"process\":\"worker 1\",\
            \"pid\":4711,\"cid\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"service\":\"crm.customer.get\",\
            \"target\":\"crosstie_channels::server\",\"message\":\"two\\nlines\",\"fields\":{\"attempt\":2}}\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn text_is_readable_and_cannot_forge_a_line_in_a_file() {
        let mut record = record("two\nlines \x1b[2J");
        record.fields.insert("path".into(), json!("/a b"));
        record.fields.insert("size".into(), json!(3));
        let mut out = String::new();
        record.write_text(TextStyle::Line, &mut out);
        assert_eq!(
            out,
            "2026-01-31T23:59:59.000123Z  WARN worker 1[4711] service=crm.customer.get \
             cid=4bf92f3577b34da6a3ce929d0e0e4736 crosstie_channels::server: two\\nlines \\u{1b}[2J \
             path=\"/a b\" size=3\n"
        );
        let mut out = String::new();
        record.write_text(TextStyle::Plain, &mut out);
        assert!(out.contains("two\n    lines") && !out.contains('\x1b'));
    }

    proptest! {
        #[test]
        fn both_forms_are_read_back(message in "\\PC{0,60}", cid in prop::option::of("[0-9a-f]{32}")) {
            let mut record = record(&message);
            record.cid = cid;
            let (mut json, mut text) = (Vec::new(), String::new());
            record.write_json(&mut json);
            record.write_text(TextStyle::Line, &mut text);
            prop_assert_eq!(LogRecord::parse(std::str::from_utf8(&json).unwrap().trim_end_matches('\n')), Some(record.clone()));
            prop_assert_eq!(LogRecord::parse(text.trim_end_matches('\n')), Some(record));
        }

        #[test]
        fn arbitrary_lines_are_never_a_panic(line in ".{0,200}") {
            let _ = LogRecord::parse(&line);
        }
    }
}
