//! Traces: spans sent to an OpenTelemetry collector over OTLP/HTTP with protobuf, only when configured.
//!
//! Recording a span moves one struct into a bounded queue. A task takes what gathered in a second, or 512
//! spans, encodes and sends it. A collector that is away costs memory for at most 4,096 spans and then drops,
//! which are counted; a batch is tried three times. Traffic never waits for any of this.

mod encode;
mod tracer;
mod transport;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crosstie_model::TraceContext;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

pub use tracer::{Tracer, began};
pub use transport::{Endpoint, EndpointError};

use crate::metrics::{Metrics, counters};
use crate::tally::Tally;
use encode::Resource;
use transport::{Collector, SendError, Sent};

/// Spans that may wait to be sent.
const CAPACITY: usize = 4096;
/// Most spans of one request.
const BATCH: usize = 512;
/// How long spans gather.
const LINGER: Duration = Duration::from_secs(1);
/// How often a batch is tried.
const ATTEMPTS: u32 = 3;
/// Pause after the first failure; doubled after each further one.
const BACKOFF: Duration = Duration::from_secs(1);
/// Longest pause a collector may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// What a span is (OpenTelemetry trace API, "SpanKind").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// Work within this server.
    Internal,
    /// A request answered.
    Server,
    /// A request made.
    Client,
    /// A message sent.
    Producer,
    /// A message taken.
    Consumer,
}

/// How a span ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpanStatus {
    /// Nothing went wrong here; also when the caller was at fault.
    Unset,
    /// It failed; the text says how and holds no secret.
    Error(String),
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum AttributeValue {
    /// Text shared with whoever owns it.
    Shared(Arc<str>),
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// Yes or no.
    Bool(bool),
}

/// One finished span.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanRecord {
    /// Trace, span and parent.
    pub trace: TraceContext,
    /// Its name, with few distinct values: `GET /customers/{id}`, not the path.
    pub name: Arc<str>,
    /// What it is.
    pub kind: SpanKind,
    /// When it began.
    pub start: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// How it ended.
    pub status: SpanStatus,
    /// More, under the names of the OpenTelemetry semantic conventions.
    pub attributes: Vec<(&'static str, AttributeValue)>,
}

/// Decides which traces are recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// A trace is recorded when the number its id holds is below this.
    bound: u64,
}

impl Sampler {
    /// Records the share `ratio` (0 to 1) of the traces that begin here.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the ratio is clamped to 0..=1 first, and a float cast to an integer saturates"
    )]
    pub fn new(ratio: f64) -> Self {
        let ratio = if ratio.is_nan() { 0.0 } else { ratio.clamp(0.0, 1.0) };
        Self { bound: if ratio >= 1.0 { u64::MAX } else { (ratio * u64::MAX as f64) as u64 } }
    }

    /// Whether the trace is recorded: as its caller decided or, if it begins here, by its id, so that every
    /// server of a cluster decides alike. Whoever opens a trace sets `sampled` to this.
    #[must_use]
    pub fn samples(&self, trace: &TraceContext) -> bool {
        if trace.parent.is_some() {
            return trace.sampled;
        }
        let id = trace.cid.as_bytes();
        // W3C Trace Context Level 2, section 3.2.2.3.2: the rightmost bytes are the random ones.
        let random = id.last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        random < self.bound || self.bound == u64::MAX
    }
}

/// Where spans go and who sends them.
#[derive(Debug, Clone)]
pub struct TraceOptions {
    /// The collector.
    pub endpoint: Endpoint,
    /// The server's name (`service.instance.id`).
    pub server: String,
    /// This process: `worker 1` (`process.title`, beside `process.pid`).
    pub process: String,
}

/// Sends spans. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Exporter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Vec<SpanRecord>>,
    ready: Notify,
    stop: watch::Sender<bool>,
    dropped: Tally,
    exported: Tally,
}

impl Exporter {
    /// Starts sending on `runtime`.
    #[must_use]
    pub fn start(options: TraceOptions, runtime: &Handle) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Vec::new()),
            ready: Notify::new(),
            stop: watch::Sender::new(false),
            dropped: Tally::default(),
            exported: Tally::default(),
        });
        let resource = Resource::new(&options.server, &options.process);
        let collector = Collector::new(options.endpoint);
        let task = runtime.spawn(send_all(Arc::clone(&shared), resource, collector));
        Self(Arc::new(Inner { shared, task: Mutex::new(Some(task)) }))
    }

    /// Sends a span, soon, if its trace is sampled.
    pub fn span(&self, span: SpanRecord) {
        if !span.trace.sampled {
            return;
        }
        let shared = &self.0.shared;
        let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= CAPACITY || *shared.stop.borrow() {
            drop(queue);
            shared.dropped.add(1);
            return;
        }
        queue.push(span);
        let wake = queue.len() == 1 || queue.len() == BATCH;
        drop(queue);
        if wake {
            shared.ready.notify_one();
        }
    }

    /// Spans that could not be sent.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.shared.dropped.get()
    }

    /// Spans the collector took.
    #[must_use]
    pub fn exported(&self) -> u64 {
        self.0.shared.exported.get()
    }

    /// Counts both in `metrics` as well, where they outlive this process.
    pub fn count_in(&self, metrics: &Metrics) {
        let shared = &self.0.shared;
        shared.exported.share(metrics.counter(&counters::SPANS_EXPORTED, &[]));
        shared.dropped.share(metrics.counter(&counters::SPANS_DROPPED, &[]));
    }

    /// Sends what is queued, for at most `patience`, and ends. Spans recorded later are dropped.
    pub async fn shut_down(&self, patience: Duration) {
        self.0.shared.stop.send_replace(true);
        self.0.shared.ready.notify_one();
        let task = self.0.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let abort = task.abort_handle();
            if tokio::time::timeout(patience, task).await.is_err() {
                abort.abort();
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Shared {
    /// Waits until spans gathered; `None` when there are none left and the exporter stops.
    async fn next_batch(&self) -> Option<Vec<SpanRecord>> {
        loop {
            let waiting = self.lock().len();
            let stopping = *self.stop.borrow();
            match waiting {
                0 if stopping => return None,
                0 => self.ready.notified().await,
                BATCH.. => break,
                _ if stopping => break,
                // A wake-up means that the batch is full or that the exporter stops.
                _ => {
                    let _ = tokio::time::timeout(LINGER, self.ready.notified()).await;
                    break;
                }
            }
        }
        let mut queue = self.lock();
        let count = queue.len().min(BATCH);
        Some(queue.drain(..count).collect())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SpanRecord>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_spans(&self, count: usize) {
        self.dropped.add(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

/// The exporter's task.
async fn send_all(shared: Arc<Shared>, resource: Resource, mut collector: Collector) {
    let mut failing = false;
    while let Some(spans) = shared.next_batch().await {
        let count = spans.len();
        let body = encode::request(&resource, spans);
        match send_with_retries(&shared, &mut collector, body).await {
            Ok(sent) => {
                let rejected = usize::try_from(sent.rejected).unwrap_or(count).min(count);
                let taken = u64::try_from(count - rejected).unwrap_or(0);
                shared.exported.add(taken);
                shared.drop_spans(rejected);
                if rejected > 0 {
                    tracing::warn!(rejected, reason = sent.message, "the trace collector rejected spans");
                }
                if failing {
                    tracing::info!("traces are exported again");
                }
                failing = false;
            }
            Err(error) => {
                shared.drop_spans(count);
                // Once per outage: the counter tells how bad it is.
                if !failing {
                    tracing::warn!(error = &error as &dyn std::error::Error, "traces cannot be exported");
                }
                failing = true;
            }
        }
    }
}

/// Sends one batch; failures that may pass are tried again, not while stopping.
async fn send_with_retries(
    shared: &Shared,
    collector: &mut Collector,
    body: bytes::Bytes,
) -> Result<Sent, SendError> {
    let mut stop = shared.stop.subscribe();
    let mut pause = BACKOFF;
    let mut attempt = 1;
    loop {
        let error = match collector.send(body.clone()).await {
            Ok(sent) => return Ok(sent),
            Err(error) => error,
        };
        if attempt >= ATTEMPTS || !error.is_retryable() || *stop.borrow() {
            return Err(error);
        }
        let wait = error.retry_after().unwrap_or(pause).min(MAX_RETRY_AFTER);
        let _ = tokio::time::timeout(wait, stop.wait_for(|stopping| *stopping)).await;
        pause *= 2;
        attempt += 1;
    }
}

#[cfg(test)]
mod tests;
