//! What the message log keeps of one call, gathered while it goes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crosstie_model::TraceContext;
use crosstie_model::kept::{KeepPolicy, KeptMessage, MessageBody, MessagePart, PassingBody};
use crosstie_telemetry::LoggedQuery;
use crosstie_telemetry::messages::{MessageLog, MessageRecord, Side};
use crosstie_telemetry::metrics::CallOutcome;
use crosstie_telemetry::traces::began;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

/// Where the calls of one outgoing are kept, and how much of them.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    pub(crate) log: MessageLog,
    pub(crate) policy: Arc<KeepPolicy>,
}

/// One call of it.
#[derive(Debug)]
pub(crate) struct KeptCall {
    keeper: Keeper,
    method: Option<Method>,
    path: String,
    query: Option<LoggedQuery>,
    status: u16,
    bytes_in: u64,
    bytes_out: u64,
    parts: Option<Box<KeptMessage>>,
    passing: Option<PassingBody>,
}

/// What else is known of a call when it has ended.
pub(crate) struct Ended {
    pub(crate) name: Arc<str>,
    pub(crate) kind: &'static str,
    pub(crate) trace: TraceContext,
    pub(crate) duration: Duration,
    pub(crate) outcome: CallOutcome,
}

impl KeptCall {
    pub(crate) fn new(keeper: Keeper) -> Box<Self> {
        Box::new(Self {
            keeper,
            method: None,
            path: String::new(),
            query: None,
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            parts: None,
            passing: None,
        })
    }

    /// A request goes out over HTTP, without the credentials it will carry; its body, where it is whole.
    pub(crate) fn sends(
        &mut self,
        method: &Method,
        target: &PathAndQuery,
        headers: &HeaderMap,
        body: Option<&Bytes>,
    ) {
        let policy = &self.keeper.policy;
        self.method = Some(method.clone());
        target.path().clone_into(&mut self.path);
        let masked = Arc::new(BTreeSet::new());
        self.query = target.query().map(|raw| LoggedQuery { raw: raw.to_owned(), masked });
        self.bytes_in = body.map_or(0, |body| body.len() as u64);
        self.parts = policy.begin(headers, &BTreeSet::new());
        if let Some(parts) = &mut self.parts
            && policy.settings().bodies.of_requests()
        {
            parts.request.body = body.cloned().map(MessageBody::whole);
        }
    }

    /// A statement goes to a database.
    pub(crate) fn runs(&mut self, statement: &str) {
        self.path = statement.split_whitespace().next().unwrap_or_default().to_uppercase();
        self.bytes_in = statement.len() as u64;
        if self.keeper.policy.settings().bodies.of_requests() {
            let request = MessagePart {
                content_type: Some(HeaderValue::from_static("application/sql")),
                headers: Vec::new(),
                body: Some(MessageBody::whole(Bytes::copy_from_slice(statement.as_bytes()))),
            };
            self.parts = Some(Box::new(KeptMessage { request, ..KeptMessage::default() }));
        }
    }

    /// A message goes to a broker, with the routing key at `path`.
    pub(crate) fn publishes(&mut self, path: &str, media_type: Option<&str>, body: &Bytes) {
        path.clone_into(&mut self.path);
        self.bytes_in = body.len() as u64;
        if self.keeper.policy.settings().bodies.of_requests() {
            let request = MessagePart {
                content_type: media_type.and_then(|text| HeaderValue::from_str(text).ok()),
                headers: Vec::new(),
                body: Some(MessageBody::whole(body.clone())),
            };
            self.parts = Some(Box::new(KeptMessage { request, ..KeptMessage::default() }));
        }
    }

    /// The head of an answer came.
    pub(crate) fn answers(&mut self, status: StatusCode, headers: &HeaderMap) {
        let policy = &self.keeper.policy;
        self.status = status.as_u16();
        if let Some(parts) = &mut self.parts {
            parts.response = policy.part(headers, &BTreeSet::new());
            self.passing = policy.settings().bodies.of_responses().then(|| PassingBody::new(policy));
        }
    }

    /// A piece of its body came.
    pub(crate) fn receives(&mut self, piece: &[u8]) {
        self.bytes_out = self.bytes_out.saturating_add(piece.len() as u64);
        if let Some(passing) = &mut self.passing {
            passing.pass(piece);
        }
    }

    /// It is over.
    pub(crate) fn end(mut self, ended: Ended) {
        let problem = match ended.outcome {
            CallOutcome::Failed(trouble) => Some(trouble.as_str()),
            CallOutcome::Abandoned => Some("abandoned"),
            _ => None,
        };
        if let (Some(parts), Some(passing)) = (&mut self.parts, self.passing.take()) {
            parts.response.body = Some(passing.end(problem.is_some()));
        }
        let (request, response) = match self.parts {
            Some(parts) => (Some(Box::new(parts.request)), Some(Box::new(parts.response))),
            None => (None, None),
        };
        self.keeper.log.record(MessageRecord {
            time: began(ended.duration),
            micros: u64::try_from(ended.duration.as_micros()).unwrap_or(u64::MAX),
            trace: ended.trace,
            side: Side::Outgoing,
            name: ended.name,
            kind: ended.kind,
            service: None,
            method: self.method,
            path: self.path,
            query: self.query,
            status: self.status,
            problem,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            client: None,
            principal: None,
            replay_of: None,
            policy: self.keeper.policy,
            request,
            response,
        });
    }
}
