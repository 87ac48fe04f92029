//! The traits through which this crate meets shared memory, telemetry and security without importing them.
//!
//! The worker implements each once. Everything on a request's way is called through a handle that was made
//! when the routes were built, so that no name is looked up per request.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crosstie_model::TraceContext;
use crosstie_model::definition::KeptMessages;
use crosstie_model::failure::{FailureKind, Origin};
use crosstie_model::kept::{KeepPolicy, KeptMessage, MessageId};
use crosstie_model::message::Principal;
use crosstie_model::names::ServiceName;
use crosstie_model::ports::{Blame, RateCells};
use crosstie_model::refusal::{RefusalReason, RefusedCredentials};
use crosstie_model::snapshot::Snapshot;
use crosstie_security::credentials::Authenticators;
use http::{HeaderName, HeaderValue, Method, Version};
use serde_json::Value;

/// This worker's part of its server's connections. Decides who accepts when several workers wait on one
/// shared listening socket.
pub trait ConnectionShare: Send + Sync {
    /// A connection was accepted here.
    fn opened(&self);

    /// A connection accepted here is gone.
    fn closed(&self);

    /// A request's head arrived on one of its connections. Not told of requests that only ask how the server
    /// is: health checks come to a drained server, too.
    fn request_started(&self) {}

    /// Its reply was handed over, or it was given up.
    fn request_ended(&self) {}

    /// Whether this worker may accept another one now: it would not hold more than its share. Asked before
    /// every accept; while the answer is no it is asked again after a pause of 5 to 40 ms, or at once when
    /// one of its own connections ends.
    fn may_accept(&self) -> bool;
}

/// A share without siblings: always accepts.
#[derive(Debug, Clone, Copy, Default)]
pub struct WholeShare;

impl ConnectionShare for WholeShare {
    fn opened(&self) {}
    fn closed(&self) {}
    fn may_accept(&self) -> bool {
        true
    }
}

/// Concurrency limits, exact over all workers of a server: gauges in shared memory that the supervisor
/// corrects when a worker dies.
pub trait ConcurrencyCells: Send + Sync {
    /// The gauge called `key`, made on first use. `None` when the table is full: that limit is then not
    /// enforced, and the table counts the overflow.
    fn gauge(&self, key: &str) -> Option<Arc<dyn ConcurrencyGauge>>;
}

/// How much of one thing runs at once.
pub trait ConcurrencyGauge: Send + Sync {
    /// Counts one more unless that would exceed `limit`; says whether it was counted.
    fn try_acquire(&self, limit: u32) -> bool;

    /// Counts one less.
    fn release(&self);
}

/// Learns of every request exactly once: access log, metrics and traces in one call.
pub trait RequestObserver: Send + Sync {
    /// Makes what is kept per channel and service (label handles, counter cells). Called while routes are
    /// built, never by a request.
    fn prepare(&self, entrance: &ObservedEntrance<'_>) -> Arc<dyn EntranceObserver>;

    /// A handshake failed because of the certificate that a client showed: there will be no request.
    fn certificate_refused(&self, client: IpAddr, reason: RefusalReason);
}

/// What requests have in common that take one way through the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedEntrance<'a> {
    /// The channel's name; `none` for requests that matched no channel, `builtin` for the server's own
    /// pages.
    pub channel: &'a str,
    /// `rest`, `http`, `jsonrpc`, `soap`, `amqp`, `builtin` or `none`.
    pub kind: &'static str,
    /// The service; `None` where none is called, or several (a JSON-RPC batch).
    pub service: Option<&'a ServiceName>,
    /// What the channel keeps of its messages; nothing when absent.
    pub message_log: Option<&'a KeptMessages>,
}

/// The observer of one entrance.
pub trait EntranceObserver: Send + Sync {
    /// Whether the request's trace is recorded, which whoever is called on its behalf learns. Without a word of
    /// the observer's own it is as the caller decided.
    fn samples(&self, trace: &TraceContext) -> bool {
        trace.sampled
    }

    /// The channel whose requests these are; `none` and `builtin` as in [`ObservedEntrance`].
    fn channel(&self) -> &str {
        ""
    }

    /// What is kept of its messages; nothing where that is not wanted.
    fn keeps(&self) -> Option<&KeepPolicy> {
        None
    }

    /// Where messages are kept and come faster than they can be written: waits until there is room for another.
    fn room(&self) -> Option<Pin<Box<dyn Future<Output = ()> + Send + '_>>> {
        None
    }

    /// A request is over: its reply was handed to the connection, its stream ended, or its caller went away
    /// (status 499). Runs on the reactor and must not block; what it keeps it copies.
    fn finished(&self, record: &RequestRecord<'_>);

    /// A message is settled, or lost to another consumer. Only observers of channels that consume hear of any.
    fn consumed(&self, record: &ConsumedRecord<'_>) {
        let _ = record;
    }
}

/// All that is known of a message that was worked on.
#[derive(Debug)]
pub struct ConsumedRecord<'a> {
    /// Correlation and tracing; `parent` is set when the message carried a `traceparent`.
    pub trace: &'a TraceContext,
    /// From its arrival to its acknowledgement.
    pub elapsed: Duration,
    /// The queue it came from.
    pub queue: &'a str,
    /// Its size.
    pub bytes_in: u64,
    /// The size of the answer, where one was sent.
    pub bytes_out: u64,
    /// What became of it.
    pub outcome: Consumed,
    /// What the message log keeps of it beyond its metadata.
    pub kept: Option<&'a KeptMessage>,
    /// What went wrong, when it did.
    pub failure: Option<(FailureKind, Origin)>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumed {
    /// The service is done with it.
    Done,
    /// The service failed, and will get it again.
    Again,
    /// It was put beside the queue, with the reason.
    DeadLetter,
    /// It had been worked on before.
    Duplicate,
    /// Somebody else was at work on it; it waits.
    Deferred,
    /// It had come before, and comes again after a pause with the count of that.
    Recounted,
    /// It went back to the queue, or its connection was lost.
    PutBack,
}

impl Consumed {
    /// Every outcome.
    pub const ALL: [Self; 7] = [
        Self::Done,
        Self::Again,
        Self::DeadLetter,
        Self::Duplicate,
        Self::Deferred,
        Self::Recounted,
        Self::PutBack,
    ];

    /// The word for it in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Again => "again",
            Self::DeadLetter => "dead_letter",
            Self::Duplicate => "duplicate",
            Self::Deferred => "deferred",
            Self::Recounted => "recounted",
            Self::PutBack => "put_back",
        }
    }
}

/// Status of a request whose caller went away before the reply (nginx's convention; never sent).
pub const STATUS_CALLER_GONE: u16 = 499;

/// All that is known of a finished request.
#[derive(Debug)]
pub struct RequestRecord<'a> {
    /// Correlation and tracing; `parent` is set when the caller sent a `traceparent`.
    pub trace: &'a TraceContext,
    /// When its head had arrived.
    pub started: Instant,
    /// From then to the end of the reply's making (of the stream, for a streamed one).
    pub elapsed: Duration,
    /// The client, through trusted proxies.
    pub client: IpAddr,
    /// Whether the client's hop was encrypted.
    pub secure: bool,
    /// The protocol version.
    pub version: Version,
    /// The request method.
    pub method: &'a Method,
    /// The path as it came, without the query.
    pub path: &'a str,
    /// The query, if there was one. It may hold credentials.
    pub query: Option<ObservedQuery<'a>>,
    /// The status sent, or [`STATUS_CALLER_GONE`].
    pub status: u16,
    /// Bytes of request body taken in, after content decoding.
    pub bytes_in: u64,
    /// Bytes of reply body, after content coding.
    pub bytes_out: u64,
    /// Who sent it, once authenticated.
    pub principal: Option<&'a Arc<Principal>>,
    /// The credentials that kept it out, if that is what did.
    pub refused: Option<&'a RefusedCredentials>,
    /// The client's `User-Agent`.
    pub user_agent: Option<&'a HeaderValue>,
    /// The request headers named by `access_log_headers` that were present.
    pub headers: &'a [(HeaderName, HeaderValue)],
    /// What went wrong, when it did.
    pub failure: Option<(FailureKind, Origin)>,
    /// What becomes of it in the message log.
    pub kept: Kept<'a>,
}

/// What the message log keeps of a request, where its channel keeps messages.
#[derive(Debug, Clone, Copy)]
pub enum Kept<'a> {
    /// Nothing: it was refused because there was no room, and was not taken.
    Nothing,
    /// Its metadata.
    Metadata,
    /// More than that.
    Parts(&'a KeptMessage),
    /// It repeats an earlier message.
    Replay(MessageId, Option<&'a KeptMessage>),
}

/// A query as it came, without the question mark.
#[derive(Debug, Clone, Copy)]
pub struct ObservedQuery<'a> {
    /// The query, credentials included: not to be written down before those in `masked` are.
    pub raw: &'a str,
    /// Decoded names of the parameters that carry credentials.
    pub masked: &'a Arc<BTreeSet<String>>,
}

/// What the server's own pages show.
pub trait ServerStatus: Send + Sync {
    /// Whether the server should get traffic, for `/health/ready`.
    fn readiness(&self) -> Readiness;

    /// Prometheus text (0.0.4) for the metrics path.
    fn metrics(&self) -> String;

    /// Metadata of the OpenAPI document.
    fn title(&self) -> String {
        "Crosstie".to_owned()
    }
}

/// The answer of `/health/ready`.
#[derive(Debug, Clone, PartialEq)]
pub struct Readiness {
    /// 200 when true, 503 otherwise.
    pub ready: bool,
    /// A JSON object to show; must not tell a stranger anything he may not know.
    pub detail: Value,
}

/// The ports that routes and requests use. Cheap to clone.
#[derive(Clone)]
pub struct Ports {
    /// Rate limits.
    pub rates: Arc<dyn RateCells>,
    /// Concurrency limits.
    pub concurrency: Arc<dyn ConcurrencyCells>,
    /// Quarantine.
    pub blame: Arc<dyn Blame>,
    /// Access log, metrics, traces.
    pub observer: Arc<dyn RequestObserver>,
    /// The server's own pages.
    pub status: Arc<dyn ServerStatus>,
}

/// What routes are built of.
pub struct RouteInputs<'a> {
    /// The definitions and deployments.
    pub snapshot: Arc<Snapshot>,
    /// The services loaded for that snapshot. A channel whose service is not among them answers 503.
    pub services: &'a dyn crosstie_model::ports::ServiceDirectory,
    /// The credentials of that snapshot.
    pub authenticators: &'a Authenticators,
    /// `[http]`.
    pub http: &'a crosstie_model::settings::HttpSettings,
    /// `[telemetry] metrics_path`; empty for none.
    pub metrics_path: &'a str,
    /// `[security] require_security`.
    pub require_security: bool,
    /// The ports.
    pub ports: Ports,
}
