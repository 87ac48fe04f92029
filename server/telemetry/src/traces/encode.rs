//! Spans to an OTLP export request (opentelemetry-proto, `collector/trace/v1`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind as ProtoKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

use super::{AttributeValue, SpanKind, SpanRecord, SpanStatus};

/// Longest text attribute, in bytes: the usual limit of collectors.
const MAX_TEXT: usize = 4096;
/// The sampled flag of W3C Trace Context, the lowest byte of a span's flags.
const SAMPLED: u32 = 1;

/// Who sends the spans (OpenTelemetry semantic conventions, "Resource").
#[derive(Debug, Clone)]
pub(super) struct Resource(ProtoResource);

impl Resource {
    pub(super) fn new(server: &str, process: &str) -> Self {
        let text = |value: &str| any_value::Value::StringValue(value.to_owned());
        let attributes = vec![
            attribute("service.name", text("crosstie")),
            attribute("service.version", text(env!("CARGO_PKG_VERSION"))),
            attribute("service.instance.id", text(server)),
            attribute("process.pid", any_value::Value::IntValue(i64::from(std::process::id()))),
            attribute("process.title", text(process)),
        ];
        Self(ProtoResource { attributes, ..ProtoResource::default() })
    }
}

/// One request with all of `spans`.
pub(super) fn request(resource: &Resource, spans: Vec<SpanRecord>) -> Bytes {
    let scope = InstrumentationScope {
        name: "crosstie".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans = ScopeSpans {
        scope: Some(scope),
        spans: spans.into_iter().map(span).collect(),
        ..ScopeSpans::default()
    };
    let resource_spans = ResourceSpans {
        resource: Some(resource.0.clone()),
        scope_spans: vec![scope_spans],
        ..ResourceSpans::default()
    };
    let request = ExportTraceServiceRequest { resource_spans: vec![resource_spans] };
    Bytes::from(request.encode_to_vec())
}

fn span(record: SpanRecord) -> Span {
    let status = match record.status {
        SpanStatus::Unset => None,
        SpanStatus::Error(message) => Some(Status { message: cut(message), code: StatusCode::Error.into() }),
    };
    let kind = match record.kind {
        SpanKind::Internal => ProtoKind::Internal,
        SpanKind::Server => ProtoKind::Server,
        SpanKind::Client => ProtoKind::Client,
        SpanKind::Producer => ProtoKind::Producer,
        SpanKind::Consumer => ProtoKind::Consumer,
    };
    Span {
        trace_id: record.trace.cid.as_bytes().to_vec(),
        span_id: record.trace.span.to_vec(),
        parent_span_id: record.trace.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        flags: if record.trace.sampled { SAMPLED } else { 0 },
        name: record.name.to_string(),
        kind: kind.into(),
        start_time_unix_nano: nanos(record.start),
        end_time_unix_nano: nanos(record.start + record.duration),
        attributes: record.attributes.into_iter().map(|(name, value)| attribute(name, any(value))).collect(),
        status,
        ..Span::default()
    }
}

fn any(value: AttributeValue) -> any_value::Value {
    match value {
        AttributeValue::Shared(text) => any_value::Value::StringValue(cut(text.to_string())),
        AttributeValue::Text(text) => any_value::Value::StringValue(cut(text)),
        AttributeValue::Int(number) => any_value::Value::IntValue(number),
        AttributeValue::Bool(truth) => any_value::Value::BoolValue(truth),
    }
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn cut(mut text: String) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
