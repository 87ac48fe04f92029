//! What becomes of each finished request: its line in the access log, its counts, its span, and what the message log
//! keeps of it.
//!
//! Handles are made when routes are built; a request then costs a few atomic additions and two moves into
//! queues. Formatting, disk and network are other threads' work.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use crosstie_channels::ports::{
    Consumed, ConsumedRecord, EntranceObserver, Kept, ObservedEntrance, RequestObserver, RequestRecord,
};
use crosstie_model::certificate::{CertificateEnd, EXPIRY_METRIC};
use crosstie_model::kept::KeepPolicy;
use crosstie_model::ports::GaugeCells;
use crosstie_model::refusal::RefusalReason;
use crosstie_model::settings::ServerSettings;
use crosstie_model::{ServiceName, TraceContext};
use crosstie_outgoing::Environment;
use crosstie_process::shm::Segment;
use crosstie_security::tls;
use crosstie_telemetry::messages::{self, Limits, MessageLog, MessageRecord, Side};
use crosstie_telemetry::metrics::{
    Counter, Gauge, OUTGOING_GAUGES, ObservedProcess, Sample, counters, outgoing_gauge,
};
use crosstie_telemetry::traces::{
    AttributeValue, Endpoint, Sampler, SpanKind, SpanStatus, TraceOptions, Tracer,
};
use crosstie_telemetry::{
    AccessLog, AccessRecord, ChannelMetrics, Exporter, LogGuard, LoggedQuery, Metrics, SpanRecord,
};
use tokio::runtime::Handle;

use crate::follow::Standing;
use crate::refusals::Refusals;
use crate::server::workers;

/// Access log, metrics and traces of one worker.
pub(crate) struct Telemetry {
    access: AccessLog,
    metrics: Metrics,
    refusals: Arc<Refusals>,
    traces: Option<Tracer>,
    messages: MessageLog,
}

impl Telemetry {
    /// Opens the access log, the message log and, if an endpoint is configured, the exporter, which sends on `runtime`.
    ///
    /// # Errors
    /// A log cannot be written, or the endpoint of the traces is no address.
    pub(crate) fn start(
        directory: &Path,
        settings: &ServerSettings,
        worker: u16,
        metrics: Metrics,
        runtime: &Handle,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let access = AccessLog::open(&directory.join("logs"), &settings.log)?;
        let traces = match &settings.telemetry.otlp_endpoint {
            None => None,
            Some(address) => {
                let roots = tls::system_roots().ok();
                let client = roots.map(|roots| tls::client_config(roots, None, &[])).transpose()?;
                let options = TraceOptions {
                    endpoint: Endpoint::new(address, client)?,
                    server: settings.server.name.to_string(),
                    process: format!("worker {}", u32::from(worker) + 1),
                };
                let sampler = Sampler::new(settings.telemetry.otlp_sample);
                Some(Tracer::new(Exporter::start(options, runtime), sampler))
            }
        };
        let messages = MessageLog::open(message_directory(directory), worker, message_limits(settings))?;
        let refusals = Arc::new(Refusals::new(metrics.clone()));
        Ok(Self { access, refusals, metrics, traces, messages })
    }

    /// Where messages are kept.
    pub(crate) fn messages(&self) -> MessageLog {
        self.messages.clone()
    }

    /// What outgoings get of it.
    pub(crate) fn environment(&self, gauges: Arc<dyn GaugeCells>) -> Environment {
        Environment {
            metrics: self.metrics.clone(),
            gauges,
            tracer: self.traces.clone(),
            messages: Some(self.messages.clone()),
        }
    }

    /// Counts in the server's metrics what this process's queues had to drop.
    pub(crate) fn count_drops(&self, log: &LogGuard) {
        self.metrics.count_log_drops(log, &self.access);
        let counter = |family| self.metrics.counter(family, &[]);
        self.messages.count_in(counter(&counters::MESSAGE_BODIES_DROPPED), counter(&counters::MESSAGE_WAITS));
        if let Some(traces) = &self.traces {
            traces.exporter().count_in(&self.metrics);
        }
    }
}

impl RequestObserver for Telemetry {
    fn certificate_refused(&self, client: IpAddr, reason: RefusalReason) {
        self.refusals.tell_handshake(client, reason);
    }

    fn prepare(&self, entrance: &ObservedEntrance<'_>) -> Arc<dyn EntranceObserver> {
        let service = entrance.service.map_or("_none", ServiceName::as_str);
        Arc::new(Entrance {
            channel: Arc::from(entrance.channel),
            service: entrance.service.cloned(),
            kind: entrance.kind,
            counts: self.metrics.channel(entrance.channel, service),
            access: self.access.clone(),
            refusals: Arc::clone(&self.refusals),
            traces: self.traces.clone(),
            outcomes: (entrance.kind == "amqp").then(|| self.outcomes(entrance.channel)),
            messages: entrance
                .message_log
                .map(|kept| Messages { log: self.messages.clone(), policy: KeepPolicy::new(kept) }),
        })
    }
}

/// How much the message log keeps, and for how long.
pub(crate) fn message_limits(settings: &ServerSettings) -> Limits {
    Limits::new(&settings.message_log, workers(settings.server.workers))
}

/// The directory of kept messages of the server in `directory`.
pub(crate) fn message_directory(directory: &Path) -> PathBuf {
    directory.join("logs").join(messages::DIRECTORY)
}

/// Where the messages of an entrance are kept, and how much of them.
struct Messages {
    log: MessageLog,
    policy: Arc<KeepPolicy>,
}

/// The handles of one entrance.
struct Entrance {
    channel: Arc<str>,
    service: Option<ServiceName>,
    kind: &'static str,
    counts: ChannelMetrics,
    access: AccessLog,
    refusals: Arc<Refusals>,
    traces: Option<Tracer>,
    messages: Option<Messages>,
    /// What became of its messages, for one that consumes.
    outcomes: Option<Outcomes>,
}

/// A counter for each outcome of a message.
type Outcomes = [(Consumed, Counter); Consumed::ALL.len()];

impl Telemetry {
    fn outcomes(&self, channel: &str) -> Outcomes {
        Consumed::ALL.map(|outcome| {
            let labels = [("channel", channel), ("outcome", outcome.as_str())];
            (outcome, self.metrics.counter(&counters::AMQP_MESSAGES, &labels))
        })
    }
}

impl Entrance {
    fn consumer_span(&self, traces: &Tracer, record: &ConsumedRecord<'_>) {
        let mut trace = *record.trace;
        trace.sampled = traces.samples(&trace);
        if !trace.sampled {
            return;
        }
        let mut attributes = vec![
            ("messaging.system", AttributeValue::Text("rabbitmq".to_owned())),
            ("messaging.destination.name", AttributeValue::Text(record.queue.to_owned())),
            ("crosstie.channel", AttributeValue::Shared(Arc::clone(&self.channel))),
            ("crosstie.outcome", AttributeValue::Text(record.outcome.as_str().to_owned())),
        ];
        if let Some(service) = &self.service {
            attributes.push(("crosstie.service", AttributeValue::Shared(service.to_shared())));
        }
        let status = match record.failure {
            Some((kind, _)) => SpanStatus::Error(kind.default_text().to_owned()),
            None => SpanStatus::Unset,
        };
        traces.span(SpanRecord {
            trace,
            name: Arc::clone(&self.channel),
            kind: SpanKind::Consumer,
            start: SystemTime::now().checked_sub(record.elapsed).unwrap_or(SystemTime::UNIX_EPOCH),
            duration: record.elapsed,
            status,
            attributes,
        });
    }

    fn keep_consumed(&self, messages: &Messages, record: &ConsumedRecord<'_>) {
        messages.log.record(MessageRecord {
            time: SystemTime::now().checked_sub(record.elapsed).unwrap_or(SystemTime::UNIX_EPOCH),
            micros: u64::try_from(record.elapsed.as_micros()).unwrap_or(u64::MAX),
            trace: *record.trace,
            side: Side::Channel,
            name: Arc::clone(&self.channel),
            kind: self.kind,
            service: self.service.clone(),
            method: None,
            path: record.queue.to_owned(),
            query: None,
            status: 0,
            problem: record.failure.map(|(kind, _)| kind.default_text()),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            client: None,
            principal: None,
            replay_of: None,
            policy: Arc::clone(&messages.policy),
            request: record.kept.map(|kept| Box::new(kept.request.clone())),
            response: None,
        });
    }

    fn keep(&self, messages: &Messages, record: &RequestRecord<'_>, time: SystemTime) {
        let (parts, replay_of) = match record.kept {
            Kept::Nothing => return,
            Kept::Metadata => (None, None),
            Kept::Parts(parts) => (Some(parts), None),
            Kept::Replay(id, parts) => (parts, Some(id)),
        };
        messages.log.record(MessageRecord {
            time,
            micros: u64::try_from(record.elapsed.as_micros()).unwrap_or(u64::MAX),
            trace: *record.trace,
            side: Side::Channel,
            name: Arc::clone(&self.channel),
            kind: self.kind,
            service: self.service.clone(),
            method: Some(record.method.clone()),
            path: record.path.to_owned(),
            query: logged_query(record),
            status: record.status,
            problem: record.failure.map(|(kind, _)| kind.default_text()),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            client: Some(record.client),
            principal: record.principal.cloned(),
            replay_of,
            policy: Arc::clone(&messages.policy),
            request: parts.map(|parts| Box::new(parts.request.clone())),
            response: parts.map(|parts| Box::new(parts.response.clone())),
        });
    }

    fn span(&self, traces: &Tracer, record: &RequestRecord<'_>, start: SystemTime) {
        let mut trace = *record.trace;
        trace.sampled = traces.samples(&trace);
        if !trace.sampled {
            return;
        }
        let status = match record.failure {
            Some((kind, _)) if record.status >= 500 => SpanStatus::Error(kind.default_text().to_owned()),
            _ => SpanStatus::Unset,
        };
        let mut attributes = vec![
            ("http.request.method", AttributeValue::Text(record.method.to_string())),
            ("http.response.status_code", AttributeValue::Int(i64::from(record.status))),
            ("url.path", AttributeValue::Text(record.path.to_owned())),
            ("crosstie.channel", AttributeValue::Shared(Arc::clone(&self.channel))),
        ];
        if let Some(service) = &self.service {
            attributes.push(("crosstie.service", AttributeValue::Shared(service.to_shared())));
        }
        traces.span(SpanRecord {
            trace,
            name: Arc::clone(&self.channel),
            kind: SpanKind::Server,
            start,
            duration: record.elapsed,
            status,
            attributes,
        });
    }
}

fn logged_query(record: &RequestRecord<'_>) -> Option<LoggedQuery> {
    let query = record.query?;
    Some(LoggedQuery { raw: query.raw.to_owned(), masked: Arc::clone(query.masked) })
}

impl EntranceObserver for Entrance {
    fn channel(&self) -> &str {
        &self.channel
    }

    fn keeps(&self) -> Option<&KeepPolicy> {
        self.messages.as_ref().map(|messages| &*messages.policy)
    }

    fn room(&self) -> Option<Pin<Box<dyn Future<Output = ()> + Send + '_>>> {
        let messages = self.messages.as_ref().filter(|messages| !messages.log.has_room())?;
        Some(Box::pin(messages.log.wait_for_room()))
    }

    fn samples(&self, trace: &TraceContext) -> bool {
        self.traces.as_ref().map_or(trace.sampled, |traces| traces.samples(trace))
    }

    fn consumed(&self, record: &ConsumedRecord<'_>) {
        let status = record.failure.map_or(200, |(kind, _)| kind.status());
        self.counts.request(status, record.elapsed, record.bytes_in, record.bytes_out);
        let counters = self.outcomes.iter().flatten().filter(|(outcome, _)| *outcome == record.outcome);
        counters.for_each(|(_, counter)| counter.add(1));
        if let Some(traces) = &self.traces {
            self.consumer_span(traces, record);
        }
        if let Some(messages) = &self.messages {
            self.keep_consumed(messages, record);
        }
    }

    fn finished(&self, record: &RequestRecord<'_>) {
        self.counts.request(record.status, record.elapsed, record.bytes_in, record.bytes_out);
        let time = SystemTime::now().checked_sub(record.elapsed).unwrap_or(SystemTime::UNIX_EPOCH);
        if let Some(traces) = &self.traces {
            self.span(traces, record, time);
        }
        if let Some(refused) = record.refused {
            self.refusals.tell(refused, &self.channel, record);
        }
        if let Some(messages) = &self.messages {
            self.keep(messages, record, time);
        }
        if !self.access.is_enabled() {
            return;
        }
        self.access.record(AccessRecord {
            time,
            cid: record.trace.cid,
            client: record.client,
            method: record.method.clone(),
            path: record.path.to_owned(),
            query: logged_query(record),
            version: record.version,
            channel: (self.kind != "none").then(|| Arc::clone(&self.channel)),
            service: self.service.clone(),
            status: record.status,
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            micros: u64::try_from(record.elapsed.as_micros()).unwrap_or(u64::MAX),
            principal: record.principal.cloned(),
            refused: record.refused.cloned().map(Box::new),
            user_agent: record.user_agent.cloned(),
            headers: record.headers.to_vec(),
        });
    }
}

fn certificate_ends(standing: &Standing) -> Gauge {
    let sample = |end: &CertificateEnd| Sample {
        labels: vec![("certificate", end.certificate.clone())],
        value: f64::from(u32::try_from(end.unix_seconds()).unwrap_or_default()),
    };
    Gauge {
        name: EXPIRY_METRIC,
        help: "When a certificate this server uses ends, in seconds since 1970.",
        samples: standing.membership.certificates().iter().map(sample).collect(),
    }
}

/// What the workers do with each outgoing now.
fn outgoings(segment: &Segment, standing: &Standing) -> Vec<Gauge> {
    let names = standing.open_outgoings();
    let sample = |name: &Arc<str>, gauge| {
        let value = f64::from(segment.gauge(0, &outgoing_gauge(name, gauge)).in_use());
        Sample { labels: vec![("outgoing", name.to_string())], value }
    };
    let family = |(gauge, name, help)| {
        let samples = names.iter().map(|outgoing| sample(outgoing, gauge)).collect();
        Gauge { name, help, samples }
    };
    OUTGOING_GAUGES.into_iter().map(family).collect()
}

/// No sample without a broker, so that nobody is alarmed by a server that needs none.
fn bus_connected(segment: &Segment) -> Gauge {
    let sample = |connected| Sample { labels: Vec::new(), value: f64::from(u8::from(connected)) };
    Gauge {
        name: "crosstie_bus_connected",
        help: "1 while the bus's broker is connected.",
        samples: segment.is_bus_connected().map(sample).into_iter().collect(),
    }
}

/// All metrics of the server as Prometheus text, from any of its workers.
pub(crate) fn render(metrics: &Metrics, segment: &Segment, standing: &Standing) -> String {
    let count = |number: u64| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    let (degraded, revision) = (standing.degraded().is_some(), standing.revision().0);
    let mut gauges = vec![
        Gauge::single("crosstie_connections", "Open client connections.", count(segment.total_connections())),
        Gauge::single(
            "crosstie_requests_in_flight",
            "Requests being worked on.",
            count(segment.total_in_flight()),
        ),
        Gauge::single("crosstie_revision", "The configuration revision served.", count(revision)),
        Gauge::single("crosstie_degraded", "1 while the ODB is away.", f64::from(u8::from(degraded))),
        Gauge::single(
            "crosstie_closed_channels",
            "Active channels of the served revision that nobody can use.",
            count(standing.closed_channels().len() as u64),
        ),
        Gauge::single(
            "crosstie_closed_outgoings",
            "Active outgoings of the served revision that cannot be used.",
            count(standing.closed_outgoings().len() as u64),
        ),
        Gauge::single(
            "crosstie_quarantined_services",
            "Services and units in quarantine.",
            count(segment.quarantined().len() as u64),
        ),
        Gauge::single(
            "crosstie_drain_wanted",
            "1 while the server is to be drained of requests.",
            f64::from(u8::from(segment.is_drain_wanted())),
        ),
        certificate_ends(standing),
        bus_connected(segment),
    ];
    gauges.extend(outgoings(segment, standing));
    let mut processes =
        vec![ObservedProcess { name: "supervisor".into(), pid: std::os::unix::process::parent_id() }];
    processes.extend(segment.workers().into_iter().map(|worker| ObservedProcess {
        name: format!("worker {}", u32::from(worker.index) + 1),
        pid: worker.pid,
    }));
    metrics.render(&gauges, &processes)
}
