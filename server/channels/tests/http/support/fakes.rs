//! Services and ports made for the tests.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use crosstie_channels::ports::{
    ConcurrencyCells, ConcurrencyGauge, ConnectionShare, EntranceObserver, Kept, ObservedEntrance, Readiness,
    RequestObserver, RequestRecord, ServerStatus,
};
use crosstie_model::kept::{KeepPolicy, MessageBody};
use crosstie_model::message::{Message, Payload, Reply, ReplyBody, ReplyStream};
use crosstie_model::names::{ServiceName, UnitName};
use crosstie_model::ports::{Blame, BlameSlot, LoadedService, RateCells, RateDecision, ServiceDirectory};
use crosstie_model::refusal::RefusalReason;
use crosstie_model::unit::ServiceDescription;
use crosstie_model::{Failure, FailureKind, Fault, Origin};
use serde_json::{Value, json};

/// What a service does.
#[derive(Debug, Clone, Copy)]
enum Behaviour {
    /// Answers with all it was given.
    Echo,
    /// Answers after `?ms=`.
    Slow,
    /// Fails as `?kind=` says.
    Fail,
    /// Panics.
    Panic,
    /// Streams `?pieces=` pieces, `?ms=` apart; fails after them with `?fail=1`.
    Stream,
    /// Answers with `?bytes=` bytes of text.
    Big,
    /// Answers with what the query says: `status`, `type`, `text`.
    Reply,
}

struct Fake {
    description: ServiceDescription,
    behaviour: Behaviour,
}

/// The services of a test.
pub(crate) struct Directory(HashMap<String, Arc<dyn LoadedService>>);

impl Directory {
    pub(crate) fn standard() -> Self {
        let mut services = HashMap::new();
        let mut add = |behaviour, description: Value| {
            let description: ServiceDescription = serde_json::from_value(description).unwrap();
            let name = description.name.to_string();
            services.insert(name, Arc::new(Fake { description, behaviour }) as Arc<dyn LoadedService>);
        };
        add(
            Behaviour::Echo,
            json!({"name": "echo", "class": "t.Echo", "doc": "Says what it heard.\n\nAll of it."}),
        );
        add(
            Behaviour::Echo,
            json!({"name": "typed", "class": "t.Typed",
            "input": {"title": "In", "type": "object", "properties": {"n": {"type": "integer"}}},
            "output": {"title": "Out", "type": "object"}}),
        );
        add(
            Behaviour::Echo,
            json!({"name": "reader", "class": "t.Reader", "methods": ["GET"], "deadline_ms": 5000}),
        );
        for (name, behaviour) in [
            ("slow", Behaviour::Slow),
            ("fail", Behaviour::Fail),
            ("panic", Behaviour::Panic),
            ("stream", Behaviour::Stream),
            ("big", Behaviour::Big),
            ("reply", Behaviour::Reply),
        ] {
            add(behaviour, json!({"name": name, "class": "t.T"}));
        }
        Self(services)
    }

    pub(crate) fn descriptions(&self) -> Vec<ServiceDescription> {
        let mut all: Vec<_> = self.0.values().map(|service| service.description().clone()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

impl ServiceDirectory for Directory {
    fn find(&self, name: &str) -> Option<Arc<dyn LoadedService>> {
        self.0.get(name).cloned()
    }

    fn dictionary(&self, _name: &str) -> Option<Arc<Value>> {
        None
    }
}

fn query<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    let http = message.http.as_ref()?;
    http.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn number(message: &Message, name: &str, fallback: u64) -> u64 {
    query(message, name).map_or(fallback, |text| text.parse().unwrap())
}

#[async_trait]
impl LoadedService for Fake {
    fn description(&self) -> &ServiceDescription {
        &self.description
    }

    async fn invoke(&self, message: Message) -> Result<Reply, Failure> {
        match self.behaviour {
            Behaviour::Echo => Ok(Reply::new(ReplyBody::Json(echo(&message).to_string().into()))),
            Behaviour::Slow => {
                tokio::time::sleep(Duration::from_millis(number(&message, "ms", 50))).await;
                Ok(Reply::new(ReplyBody::Json(Bytes::from_static(b"\"slow\""))))
            }
            Behaviour::Fail => Err(failure(query(&message, "kind").unwrap_or("internal"))),
            Behaviour::Panic => panic!("a service of the tests panics"),
            Behaviour::Stream => Ok(Reply::new(ReplyBody::Stream(Box::new(Pieces {
                left: number(&message, "pieces", 3),
                pause: Duration::from_millis(number(&message, "ms", 0)),
                fail: query(&message, "fail").is_some(),
            })))),
            Behaviour::Big => {
                let length = usize::try_from(number(&message, "bytes", 100_000)).unwrap();
                Ok(Reply::new(ReplyBody::Text("x".repeat(length))))
            }
            Behaviour::Reply => {
                let body = match query(&message, "text") {
                    Some(text) => ReplyBody::Text(text.to_owned()),
                    None => ReplyBody::Empty,
                };
                let mut reply = Reply::new(body);
                reply.status = query(&message, "status").map(|text| text.parse().unwrap());
                reply.content_type = query(&message, "type").map(|text| text.parse().unwrap());
                Ok(reply)
            }
        }
    }
}

fn echo(message: &Message) -> Value {
    let payload = match &message.payload {
        Payload::Empty => json!({"empty": true}),
        Payload::Json(value) => json!({"json": value}),
        Payload::Form(pairs) => json!({"form": pairs}),
        Payload::Multipart(parts) => {
            json!({"parts": parts.iter().map(|part| json!([part.name, part.file_name, part.content.len()])).collect::<Vec<_>>()})
        }
        Payload::Text(text) => json!({"text": text}),
        Payload::Bytes(bytes) => json!({"bytes": bytes.len()}),
    };
    let http = message.http.as_ref().unwrap();
    let params: Vec<_> = http.params.iter().map(|(name, value)| json!([&**name, value])).collect();
    json!({
        "method": http.method.as_str(), "path": http.path, "params": params, "query": http.query,
        "payload": payload, "raw": message.raw.len(), "client": http.client, "secure": http.secure,
        "coded": http.headers.contains_key("content-encoding"),
        "principal": message.principal.as_ref().map(|p| p.definition.to_string()),
        "channel": &*message.channel.name, "service": message.channel.service,
        "cid": message.trace.cid, "depth": message.depth,
        "deadline": u64::try_from(message.deadline.saturating_duration_since(Instant::now()).as_millis()).unwrap(),
    })
}

fn failure(kind: &str) -> Failure {
    match kind {
        "faults" => Failure::new(FailureKind::BadRequest, Origin::Client).with_faults(vec![
            Fault { pointer: "/a".into(), detail: "is missing".into() },
            Fault { pointer: "/b/0".into(), detail: "is not of type integer".into() },
        ]),
        "teapot" => {
            let mut failure =
                Failure::new(FailureKind::BadRequest, Origin::Service).with_text("short and stout");
            failure.status = Some(418);
            failure
        }
        "busy" => {
            let mut failure = Failure::new(FailureKind::Unavailable, Origin::Platform);
            failure.retry_after = Some(Duration::from_millis(2_500));
            failure
        }
        "timeout" => Failure::timeout(),
        _ => Failure::new(FailureKind::Internal, Origin::Service),
    }
}

#[derive(Debug)]
struct Pieces {
    left: u64,
    pause: Duration,
    fail: bool,
}

#[async_trait]
impl ReplyStream for Pieces {
    async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        if self.left == 0 {
            tokio::time::sleep(self.pause).await;
            return std::mem::take(&mut self.fail)
                .then(|| Err(Failure::new(FailureKind::Internal, Origin::Service)));
        }
        if !self.pause.is_zero() {
            tokio::time::sleep(self.pause).await;
        }
        self.left -= 1;
        Some(Ok(Bytes::from(format!("piece {}\n", self.left))))
    }
}

/// A finished request as the observer saw it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) channel: String,
    pub(crate) service: Option<String>,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    /// The query parameters that must not be shown.
    pub(crate) masked: Vec<String>,
    pub(crate) status: u16,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) principal: Option<String>,
    pub(crate) refused: Option<(String, RefusalReason)>,
    pub(crate) user_agent: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) failure: Option<FailureKind>,
    pub(crate) cid: String,
    pub(crate) kept: SeenKept,
}

/// What a request left for the message log.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SeenKept {
    /// It found no room.
    pub(crate) is_refused: bool,
    pub(crate) request: Option<String>,
    /// With whether it broke off.
    pub(crate) response: Option<(String, bool)>,
    pub(crate) headers: Vec<(String, String)>,
}

impl SeenKept {
    fn of(kept: Kept<'_>) -> Self {
        let parts = match kept {
            Kept::Nothing => return Self { is_refused: true, ..Self::default() },
            Kept::Metadata | Kept::Replay(_, None) => return Self::default(),
            Kept::Parts(parts) | Kept::Replay(_, Some(parts)) => parts,
        };
        let text = |body: &MessageBody| String::from_utf8(body.bytes.to_vec()).unwrap();
        let headers = parts.request.headers.iter();
        Self {
            is_refused: false,
            request: parts.request.body.as_ref().map(text),
            response: parts.response.body.as_ref().map(|body| (text(body), body.is_broken)),
            headers: headers
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
                .collect(),
        }
    }
}

/// Every port but the share.
#[derive(Default)]
pub(crate) struct Fakes {
    pub(crate) refused_certificates: Mutex<Vec<RefusalReason>>,
    used: Mutex<HashMap<u128, u32>>,
    gauges: Mutex<HashMap<String, Arc<Gauge>>>,
    pub(crate) quarantined: Mutex<HashSet<String>>,
    pub(crate) unready: AtomicBool,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// The message log has no room.
    pub(crate) full: Arc<AtomicBool>,
}

impl Fakes {
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits for the `n`th request's report; all of them.
    pub(crate) fn seen_at_least(&self, n: usize) -> Vec<Seen> {
        super::eventually("a request's report", || self.seen().len() >= n);
        self.seen()
    }

    pub(crate) fn running(&self, key: &str) -> u32 {
        self.gauges.lock().unwrap().get(key).map_or(0, |gauge| gauge.0.load(Ordering::SeqCst))
    }
}

impl RateCells for Fakes {
    fn take(&self, key: u128, limit: u32, period: Duration) -> RateDecision {
        let mut used = self.used.lock().unwrap();
        let used = used.entry(key).or_default();
        let allowed = *used < limit;
        *used += u32::from(allowed);
        RateDecision { allowed, remaining: limit - *used, reset: period / limit }
    }
}

#[derive(Default)]
struct Gauge(AtomicU32);

impl ConcurrencyGauge for Gauge {
    fn try_acquire(&self, limit: u32) -> bool {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < limit).then_some(n + 1)).is_ok()
    }

    fn release(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ConcurrencyCells for Fakes {
    fn gauge(&self, key: &str) -> Option<Arc<dyn ConcurrencyGauge>> {
        Some(self.gauges.lock().unwrap().entry(key.to_owned()).or_default().clone())
    }
}

impl Blame for Fakes {
    fn register_thread(&self) -> Box<dyn BlameSlot> {
        Box::new(NoSlot)
    }

    fn is_quarantined(&self, service: &ServiceName) -> bool {
        self.quarantined.lock().unwrap().contains(service.as_str())
    }

    fn thread_lost(&self, _service: &ServiceName) {}
}

struct NoSlot;

impl BlameSlot for NoSlot {
    fn enter(&self, _service: &ServiceName) -> u64 {
        0
    }
    fn enter_load(&self, _unit: &UnitName) -> u64 {
        0
    }
    fn leave(&self, _previous: u64) {}
}

impl RequestObserver for Fakes {
    fn certificate_refused(&self, _: IpAddr, reason: RefusalReason) {
        self.refused_certificates.lock().unwrap().push(reason);
    }

    fn prepare(&self, entrance: &ObservedEntrance<'_>) -> Arc<dyn EntranceObserver> {
        Arc::new(Entrance {
            channel: entrance.channel.to_owned(),
            service: entrance.service.map(ToString::to_string),
            seen: Arc::clone(&self.seen),
            keeps: entrance.message_log.map(KeepPolicy::new),
            full: Arc::clone(&self.full),
        })
    }
}

struct Entrance {
    channel: String,
    service: Option<String>,
    seen: Arc<Mutex<Vec<Seen>>>,
    keeps: Option<Arc<KeepPolicy>>,
    full: Arc<AtomicBool>,
}

impl EntranceObserver for Entrance {
    fn keeps(&self) -> Option<&KeepPolicy> {
        self.keeps.as_deref()
    }

    fn room(&self) -> Option<Pin<Box<dyn Future<Output = ()> + Send + '_>>> {
        let is_full = self.keeps.is_some() && self.full.load(Ordering::SeqCst);
        is_full.then(|| -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            Box::pin(async {
                while self.full.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        })
    }

    fn finished(&self, record: &RequestRecord<'_>) {
        let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
        self.seen.lock().unwrap().push(Seen {
            channel: self.channel.clone(),
            service: self.service.clone(),
            method: record.method.to_string(),
            path: record.path.to_owned(),
            query: record.query.map(|query| query.raw.to_owned()),
            masked: record.query.map(|query| query.masked.iter().cloned().collect()).unwrap_or_default(),
            status: record.status,
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            principal: record.principal.map(|principal| principal.definition.to_string()),
            refused: record.refused.map(|refused| (refused.definition.to_string(), refused.reason)),
            user_agent: record.user_agent.map(text),
            headers: record.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            failure: record.failure.map(|(kind, _)| kind),
            cid: record.trace.cid.to_string(),
            kept: SeenKept::of(record.kept),
        });
    }
}

impl ServerStatus for Fakes {
    fn readiness(&self) -> Readiness {
        let ready = !self.unready.load(Ordering::SeqCst);
        Readiness { ready, detail: json!({"revision": 1}) }
    }

    fn metrics(&self) -> String {
        "crosstie_up 1\n".to_owned()
    }
}

/// A connection share that a test opens and closes.
#[derive(Default)]
pub(crate) struct Share {
    pub(crate) held: AtomicU32,
    pub(crate) refuses: AtomicBool,
    pub(crate) asked: AtomicU32,
    pub(crate) started: AtomicU32,
    pub(crate) ended: AtomicU32,
}

impl ConnectionShare for Share {
    fn request_started(&self) {
        self.started.fetch_add(1, Ordering::SeqCst);
    }

    fn request_ended(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    fn opened(&self) {
        self.held.fetch_add(1, Ordering::SeqCst);
    }

    fn closed(&self) {
        self.held.fetch_sub(1, Ordering::SeqCst);
    }

    fn may_accept(&self) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        !self.refuses.load(Ordering::SeqCst)
    }
}
