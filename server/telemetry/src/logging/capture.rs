//! Turns a `tracing` event, with the spans around it, into a record.

use std::fmt;
use std::sync::Arc;

use crosstie_model::settings::LogLevel;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::Shared;
use crate::masking::{MASK, is_secret_name, mask_text};
use crate::record::LogRecord;

/// Longest text of a field or message, in bytes; a traceback fits, a body does not.
const MAX_TEXT: usize = 32 * 1024;
/// Most fields of a record.
const MAX_FIELDS: usize = 64;

/// A library whose traces hold what is sent, a login with its password included, and whose warnings hold messages
/// that came back: only its errors are shown.
const TELLTALE: &str = "lapin";

/// The subscriber's one layer.
pub(super) struct LogLayer {
    shared: Arc<Shared>,
}

impl LogLayer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Our own records by the level that is set; those of libraries from warn on, unless everything is
    /// wanted: at debug an HTTP library alone writes more than the rest of the server.
    fn admits(&self, metadata: &Metadata<'_>) -> bool {
        let set = self.shared.level();
        if metadata.target().starts_with(TELLTALE) {
            return *metadata.level() == Level::ERROR;
        }
        let ours = ["crosstie", "service", "panic"].iter().any(|own| metadata.target().starts_with(own));
        let least = if ours || set == LogLevel::Trace { set } else { set.max(LogLevel::Warn) };
        level_of(*metadata.level()) >= least
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.admits(metadata)
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        // The answer holds until the level changes, which asks every call site again.
        if self.admits(metadata) {
            tracing::subscriber::Interest::always()
        } else {
            tracing::subscriber::Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.shared.level() {
            LogLevel::Trace => LevelFilter::TRACE,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Error => LevelFilter::ERROR,
        })
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut captured = Captured::default();
        attributes.record(&mut captured);
        span.extensions_mut().insert(captured);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(captured) = span.extensions_mut().get_mut::<Captured>() {
            values.record(captured);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut captured = Captured::default();
        for span in context.event_scope(event).into_iter().flatten().collect::<Vec<_>>().into_iter().rev() {
            if let Some(outer) = span.extensions().get::<Captured>() {
                captured.take_over(outer);
            }
        }
        event.record(&mut captured);
        self.shared.submit(LogRecord {
            time: OffsetDateTime::now_utc(),
            level: level_of(*event.metadata().level()),
            process: Arc::clone(&self.shared.process),
            pid: std::process::id(),
            cid: captured.cid,
            service: captured.service,
            target: event.metadata().target().to_owned(),
            message: captured.message,
            fields: captured.fields,
        });
    }
}

fn level_of(level: Level) -> LogLevel {
    match level {
        Level::TRACE => LogLevel::Trace,
        Level::DEBUG => LogLevel::Debug,
        Level::INFO => LogLevel::Info,
        Level::WARN => LogLevel::Warn,
        Level::ERROR => LogLevel::Error,
    }
}

/// The fields of an event or a span, secrets masked.
#[derive(Debug, Default)]
struct Captured {
    cid: Option<String>,
    service: Option<String>,
    message: String,
    fields: Map<String, Value>,
}

impl Captured {
    /// Adds what a span says, inner spans later so that they win.
    fn take_over(&mut self, span: &Self) {
        self.cid = span.cid.clone().or_else(|| self.cid.take());
        self.service = span.service.clone().or_else(|| self.service.take());
        for (name, value) in &span.fields {
            self.put(name, value.clone());
        }
    }

    fn text(&mut self, field: &Field, text: &str) {
        let masked = mask_text(truncated(text));
        match field.name() {
            "message" => self.message = masked.into_owned(),
            "cid" => self.cid = Some(masked.into_owned()),
            "service" => self.service = Some(masked.into_owned()),
            name if is_secret_name(name) => self.put(name, Value::from(MASK)),
            name => self.put(name, Value::from(masked.as_ref())),
        }
    }

    fn value(&mut self, field: &Field, value: Value) {
        let value = if is_secret_name(field.name()) { Value::from(MASK) } else { value };
        self.put(field.name(), value);
    }

    fn put(&mut self, name: &str, value: Value) {
        if self.fields.len() < MAX_FIELDS || self.fields.contains_key(name) {
            self.fields.insert(name.to_owned(), value);
        }
    }
}

impl Visit for Captured {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.text(field, &text);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field, Value::from(value));
    }
}

/// `text` to at most [`MAX_TEXT`] bytes.
fn truncated(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
