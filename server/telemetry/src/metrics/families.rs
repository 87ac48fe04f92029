//! The metric families of this product: names, kinds and help texts.
//!
//! A new counter is one line in [`counters`] and in [`FAMILIES`].

use std::fmt::Write as _;

/// The media type of the text format (Prometheus exposition formats, text format 0.0.4).
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family's figures mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by bucket, with a sum.
    Histogram,
}

impl MetricKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What its figures mean.
    pub kind: MetricKind,
    /// What it counts, for a person.
    pub help: &'static str,
}

impl Family {
    const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: MetricKind::Counter, help }
    }
}

pub(super) const REQUESTS: Family =
    Family::counter("crosstie_requests_total", "Requests answered, by channel, service and status code.");
pub(super) const RECEIVED: Family = Family::counter(
    "crosstie_request_body_bytes_total",
    "Bytes of request bodies received, by channel and service.",
);
pub(super) const SENT: Family = Family::counter(
    "crosstie_response_body_bytes_total",
    "Bytes of response bodies sent, by channel and service.",
);
/// Cells hold the count of each bucket by itself and the sum in microseconds; rendering adds up and converts.
pub(super) const DURATION: Family = Family {
    name: "crosstie_request_duration_seconds",
    kind: MetricKind::Histogram,
    help: "Time from a request's head to its response's end, by channel and service.",
};
pub(super) const DURATION_BUCKET: &str = "crosstie_request_duration_seconds_bucket";
pub(super) const DURATION_SUM: &str = "crosstie_request_duration_seconds_sum";

pub(super) const OUTGOING_CALLS: Family = Family::counter(
    "crosstie_outgoing_calls_total",
    "Calls of external systems that ended, by outgoing, type and outcome.",
);
/// As [`DURATION`].
pub(super) const OUTGOING_DURATION: Family = Family {
    name: "crosstie_outgoing_call_duration_seconds",
    kind: MetricKind::Histogram,
    help: "Time from the start of a call of an external system to the end of its answer, by outgoing and type.",
};
pub(super) const OUTGOING_BUCKET: &str = "crosstie_outgoing_call_duration_seconds_bucket";
pub(super) const OUTGOING_SUM: &str = "crosstie_outgoing_call_duration_seconds_sum";

/// The histograms, each with the names its cells have.
pub(super) const HISTOGRAMS: [(&Family, &str, &str); 2] =
    [(&DURATION, DURATION_BUCKET, DURATION_SUM), (&OUTGOING_DURATION, OUTGOING_BUCKET, OUTGOING_SUM)];

/// Counters that others add to through [`super::Metrics::counter`].
pub mod counters {
    use super::Family;

    /// Log records that found their queue full. Label `log`: `server`, `access`.
    pub const LOG_DROPPED: Family = Family::counter(
        "crosstie_log_records_dropped_total",
        "Log records dropped because they came faster than they could be written.",
    );
    /// Spans that could not be exported.
    pub const SPANS_DROPPED: Family =
        Family::counter("crosstie_trace_spans_dropped_total", "Trace spans that could not be exported.");
    /// Spans exported.
    pub const SPANS_EXPORTED: Family =
        Family::counter("crosstie_trace_spans_exported_total", "Trace spans exported.");
    /// Deployments by what became of them. Label `outcome`: `deployed`, `refused`, `failed`.
    pub const DEPLOYMENTS: Family = Family::counter(
        "crosstie_deployments_total",
        "Artifacts that were to be deployed, by what became of them.",
    );
    /// Snapshots a worker applied or could not. Label `outcome`: `applied`, `failed`.
    pub const SNAPSHOTS: Family = Family::counter(
        "crosstie_snapshots_total",
        "Snapshots that workers were to serve, by what became of them.",
    );
    /// Bodies that the message log kept not, for lack of room.
    pub const MESSAGE_BODIES_DROPPED: Family = Family::counter(
        "crosstie_message_log_bodies_dropped_total",
        "Bodies that were not kept in the message log because they came faster than they could be written.",
    );
    /// Waits for room in the message log.
    pub const MESSAGE_WAITS: Family = Family::counter(
        "crosstie_message_log_waits_total",
        "Requests and calls that waited because messages came faster than they could be written.",
    );
    /// Refused credentials. Labels `security`, the definition, and `reason`.
    pub const REFUSED_CREDENTIALS: Family = Family::counter(
        "crosstie_refused_credentials_total",
        "Requests whose credentials were missing or refused, by security definition and reason.",
    );
    /// Calls of external systems that were tried again. Labels `outgoing` and `type`.
    pub const OUTGOING_RETRIES: Family = Family::counter(
        "crosstie_outgoing_retries_total",
        "Calls of external systems that were tried again, by outgoing and type.",
    );
    /// Connections to external systems. Labels `outgoing`, `type` and `outcome`: `opened`, `failed`.
    pub const OUTGOING_CONNECTIONS: Family = Family::counter(
        "crosstie_outgoing_connections_total",
        "Connections to external systems, by outgoing, type and what became of the attempt.",
    );
    /// Calls that found all connections of a pool busy.
    pub const OUTGOING_WAITS: Family = Family::counter(
        "crosstie_outgoing_connection_waits_total",
        "Calls that had to wait for a connection of the pool, by outgoing.",
    );
    /// Messages of AMQP channels. Labels `channel` and `outcome`: `done`, `again`, `dead_letter`, `duplicate`,
    /// `recounted`, `put_back`.
    pub const AMQP_MESSAGES: Family = Family::counter(
        "crosstie_amqp_messages_total",
        "Messages that AMQP channels consumed, by channel and what became of them.",
    );
    /// Connections to the broker.
    pub const BUS_CONNECTIONS: Family =
        Family::counter("crosstie_bus_connections_total", "Connections made to the bus's broker.");
    /// Notices between servers. Label `outcome`: `sent`, `received`, `unreadable`.
    pub const BUS_NOTICES: Family = Family::counter(
        "crosstie_bus_notices_total",
        "Notices on the bus: sent and confirmed, received, or dropped because no server wrote them.",
    );
}

/// Every family of which this crate knows a kind and a help text.
pub(super) const FAMILIES: &[Family] = &[
    REQUESTS,
    RECEIVED,
    SENT,
    DURATION,
    counters::LOG_DROPPED,
    counters::SPANS_DROPPED,
    counters::SPANS_EXPORTED,
    counters::DEPLOYMENTS,
    counters::SNAPSHOTS,
    counters::MESSAGE_BODIES_DROPPED,
    counters::MESSAGE_WAITS,
    counters::REFUSED_CREDENTIALS,
    OUTGOING_CALLS,
    OUTGOING_DURATION,
    counters::OUTGOING_RETRIES,
    counters::OUTGOING_CONNECTIONS,
    counters::OUTGOING_WAITS,
    counters::AMQP_MESSAGES,
    counters::BUS_CONNECTIONS,
    counters::BUS_NOTICES,
    Family::counter(
        "crosstie_counter_cells_overflow_total",
        "Counters that found no cell because the table was full.",
    ),
];

/// Upper bounds of the duration buckets, in microseconds, each with its `le` label: from what a passthrough
/// takes to what a deadline allows.
pub(super) const BUCKETS: &[(u64, &str)] = &[
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
    (30_000_000, "30"),
    (u64::MAX, "+Inf"),
];

/// `name{label="value",…}`, values escaped as the text format demands.
pub(super) fn key(name: &str, labels: &[(&str, &str)]) -> String {
    let mut key = String::with_capacity(name.len() + 64);
    key.push_str(name);
    for (index, (label, value)) in labels.iter().enumerate() {
        key.push(if index == 0 { '{' } else { ',' });
        let _ = write!(key, "{label}=\"");
        escape_label(value, &mut key);
        key.push('"');
    }
    if !labels.is_empty() {
        key.push('}');
    }
    key
}

/// Label values escape backslash, double quote and line feed; nothing else.
fn escape_label(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}
