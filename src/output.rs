//! How results are printed: tables for people, JSON and YAML for programs. A list command prints an array,
//! every other one an object, in every format but the table.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use saphyr::{Mapping, Scalar, Yaml, YamlEmitter};
use serde_json::Value;

/// The format of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for a person
    Table,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// One column of a table: its title and how it reads a row.
pub(crate) struct Column {
    title: &'static str,
    cell: fn(&Value) -> String,
}

impl Column {
    /// A column called `title` whose cells `cell` makes of rows.
    pub(crate) const fn new(title: &'static str, cell: fn(&Value) -> String) -> Self {
        Self { title, cell }
    }
}

/// Prints results.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    /// Prints in `format`.
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether a person reads the result rather than a program.
    pub(crate) fn is_for_people(self) -> bool {
        self.format == Format::Table
    }

    /// A list: a table with `columns`, or the whole array. `empty` is what a person reads instead of a table
    /// without rows.
    pub(crate) fn list(self, rows: &Value, columns: &[Column], empty: &str) -> Result<()> {
        match (self.format, rows.as_array().map(Vec::as_slice)) {
            (Format::Table, Some([])) => line(empty),
            (Format::Table, Some(rows)) => write_all(&table(rows, columns)),
            _ => self.value(rows),
        }
    }

    /// One object; people read it as YAML.
    pub(crate) fn value(self, value: &Value) -> Result<()> {
        match self.format {
            Format::Json => line(&serde_json::to_string_pretty(value)?),
            Format::Table | Format::Yaml => write_all(&to_yaml(value)?),
        }
    }

    /// The outcome of a change: a sentence for a person, the whole answer for a program.
    pub(crate) fn done(self, answer: &Value, sentence: &str) -> Result<()> {
        if self.is_for_people() {
            line(&format!("{sentence}{}", pending(answer)))
        } else {
            self.value(answer)
        }
    }
}

/// What is still to come of a change that not every worker serves yet; nothing otherwise.
pub(crate) fn pending(answer: &Value) -> String {
    match answer.pointer("/serving/complete") {
        Some(Value::Bool(false)) => {
            let workers = answer.pointer("/serving/pending").map(cell_text).unwrap_or_default();
            format!(" (stored; not served yet by worker {workers})")
        }
        _ => String::new(),
    }
}

/// Whether progress may be shown: on a terminal, never in a pipe.
pub(crate) fn shows_progress() -> bool {
    io::stderr().is_terminal()
}

/// Writes one line to standard output.
pub(crate) fn line(text: &str) -> Result<()> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Writes what keeps a channel or an outgoing closed, a line for each reason; its name stands under `name` in
/// `row`.
pub(crate) fn closed(kind: &str, row: &Value, name: &str) -> Result<()> {
    for reason in row.get("reasons").and_then(Value::as_array).into_iter().flatten() {
        line(&format!("\nThe {kind} {} is closed: {}", field(row, name), cell_text(reason)))?;
    }
    Ok(())
}

/// Writes text as it is to standard output.
pub(crate) fn write_all(text: &str) -> Result<()> {
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

/// A field of an object as the text of a cell; `-` when it is absent.
pub(crate) fn field(row: &Value, key: &str) -> String {
    cell_text(row.get(key).unwrap_or(&Value::Null))
}

fn cell_text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell_text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// A time (RFC 3339) to the second, as UTC.
pub(crate) fn time_field(row: &Value, key: &str) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    let given = row.get(key).and_then(Value::as_str).unwrap_or_default();
    time::OffsetDateTime::parse(given, &time::format_description::well_known::Rfc3339)
        .ok()
        .and_then(|time| time.to_offset(time::UtcOffset::UTC).format(format).ok())
        .unwrap_or_else(|| field(row, key))
}

/// The first 12 digits of a digest.
pub(crate) fn digest_field(row: &Value, key: &str) -> String {
    field(row, key).chars().take(12).collect()
}

fn table(rows: &[Value], columns: &[Column]) -> String {
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|column| column.title.to_owned()).collect()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|column| (column.cell)(row)).collect()));
    let widths: Vec<usize> = (0..columns.len())
        .map(|index| lines.iter().filter_map(|line| line.get(index)).map(|cell| width(cell)).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut text = String::new();
    for cells in &lines {
        let mut out = String::new();
        for (cell, width_of_column) in cells.iter().zip(&widths) {
            let pad = width_of_column.saturating_sub(width(cell)) + 2;
            let _ = write!(out, "{cell}{:pad$}", "");
        }
        let _ = writeln!(text, "{}", out.trim_end());
    }
    text
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// A value as YAML, without the document marker.
pub(crate) fn to_yaml(value: &Value) -> Result<String> {
    let mut text = String::new();
    let mut emitter = YamlEmitter::new(&mut text);
    emitter.multiline(true);
    emitter.dump(&yaml(value)).context("cannot write this result as YAML; use -o json")?;
    let mut text = text.strip_prefix("---\n").unwrap_or(&text).to_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

fn yaml(value: &Value) -> Yaml<'_> {
    match value {
        Value::Null => Yaml::Value(Scalar::Null),
        Value::Bool(flag) => Yaml::Value(Scalar::Boolean(*flag)),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Yaml::Value(Scalar::Integer(integer)),
            (None, Some(float)) => Yaml::Value(Scalar::FloatingPoint(float.into())),
            (None, None) => Yaml::Value(Scalar::String(number.to_string().into())),
        },
        Value::String(text) => Yaml::Value(Scalar::String(text.as_str().into())),
        Value::Array(items) => Yaml::Sequence(items.iter().map(yaml).collect()),
        Value::Object(fields) => {
            let mut mapping = Mapping::new();
            for (key, value) in fields {
                mapping.insert(Yaml::Value(Scalar::String(key.as_str().into())), yaml(value));
            }
            Yaml::Mapping(mapping)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [json!({"name": "a", "on": true}), json!({"name": "längst", "on": false})];
        let columns = [Column::new("NAME", |r| field(r, "name")), Column::new("ON", |r| field(r, "on"))];
        assert_eq!(table(&rows, &columns), "NAME    ON\na       yes\nlängst  no\n");
    }

    #[test]
    fn a_cell_never_breaks_its_line() {
        assert_eq!(field(&json!({"m": "one\n  two"}), "m"), "one two");
        assert_eq!(field(&json!({}), "m"), "-");
        assert_eq!(field(&json!({"m": ["a", "b"]}), "m"), "a, b");
    }

    #[test]
    fn a_change_that_is_not_served_everywhere_says_so() {
        let answer = json!({"serving": {"complete": false, "pending": [1, 2]}});
        assert_eq!(pending(&answer), " (stored; not served yet by worker 1, 2)");
        assert_eq!(pending(&json!({"serving": {"complete": true}})), "");
    }

    #[test]
    fn yaml_keeps_order_and_quotes_what_would_change_type() {
        let text = to_yaml(&json!({"b": "yes", "a": [1, 2.5, null], "c": {"d": "plain"}})).unwrap();
        assert!(text.starts_with("b: "), "{text}");
        assert!(text.contains("\"yes\""), "{text}");
        assert!(text.contains("d: plain"), "{text}");
    }

    #[test]
    fn times_are_shown_in_utc_to_the_second() {
        assert_eq!(
            time_field(&json!({"t": "2023-11-14T23:13:20.123456+01:00"}), "t"),
            "2023-11-14 22:13:20Z"
        );
        assert_eq!(time_field(&json!({"t": "yesterday"}), "t"), "yesterday");
        assert_eq!(time_field(&json!({}), "t"), "-");
    }
}
