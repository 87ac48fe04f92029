//! One request from its head to its end: what is known of it so far, and that its end is reported once,
//! however it comes about.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crosstie_model::cid::TraceContext;
use crosstie_model::failure::{Failure, FailureKind, Origin};
use crosstie_model::kept::{KeptMessage, MessageBody, MessageId, PassingBody};
use crosstie_model::message::Principal;
use crosstie_model::refusal::RefusedCredentials;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};

use crate::ports::{EntranceObserver, Kept, ObservedQuery, RequestRecord, STATUS_CALLER_GONE};
use crate::response::Outgoing;
use crate::server::{ConnectionState, Purpose};

/// How long a request waits for room in the message log.
const ROOM_PATIENCE: Duration = Duration::from_secs(10);

/// A request under way. Dropping one that was not finished reports that its caller went away.
pub(crate) struct Exchange {
    pub(crate) trace: TraceContext,
    pub(crate) started: Instant,
    pub(crate) client: IpAddr,
    pub(crate) secure: bool,
    pub(crate) version: Version,
    pub(crate) method: Method,
    pub(crate) target: Option<PathAndQuery>,
    pub(crate) principal: Option<Arc<Principal>>,
    pub(crate) refused: Option<Box<RefusedCredentials>>,
    pub(crate) user_agent: Option<HeaderValue>,
    pub(crate) logged_headers: Vec<(HeaderName, HeaderValue)>,
    /// Query parameters nobody may read; only where there is a query.
    pub(crate) masked: Option<Arc<BTreeSet<String>>>,
    pub(crate) bytes_in: u64,
    pub(crate) observer: Arc<dyn EntranceObserver>,
    pub(crate) connection: Arc<ConnectionState>,
    pub(crate) purpose: Purpose,
    pub(crate) failure: Option<(FailureKind, Origin)>,
    pub(crate) keeping: Keeping,
    pub(crate) reported: bool,
}

/// What is kept of an exchange for the message log.
pub(crate) struct Keeping {
    /// What the channel wants beyond metadata.
    kept: Option<Box<KeptMessage>>,
    /// Header fields with credentials.
    masked: Arc<BTreeSet<String>>,
    /// The message that is repeated.
    replay_of: Option<MessageId>,
    /// The request was not taken.
    is_refused: bool,
}

impl Keeping {
    /// Keeps what `observer` wants of a request with these header fields, but not the values of those in `masked`.
    pub(crate) fn begin(
        observer: &dyn EntranceObserver,
        headers: &HeaderMap,
        masked: &Arc<BTreeSet<String>>,
        replay_of: Option<MessageId>,
    ) -> Self {
        let kept = observer.keeps().and_then(|policy| policy.begin(headers, masked));
        Self { kept, masked: Arc::clone(masked), replay_of, is_refused: false }
    }
}

impl Exchange {
    /// The path as it came, without the query.
    pub(crate) fn path(&self) -> &str {
        self.target.as_ref().map_or("*", |target| target.path())
    }

    /// The query, with what must be masked in it.
    fn query(&self) -> Option<ObservedQuery<'_>> {
        let raw = self.target.as_ref()?.query()?;
        Some(ObservedQuery { raw, masked: self.masked.as_ref()? })
    }

    /// Remembers what went wrong, for the report.
    pub(crate) fn failed(&mut self, failure: &Failure) {
        self.failure = Some((failure.kind, failure.origin));
    }

    /// Whether what is kept of it has no room now.
    pub(crate) fn must_wait(&self) -> bool {
        self.observer.room().is_some()
    }

    /// Waits until there is room for what is kept of it.
    ///
    /// # Errors
    /// 503 when there is none in time.
    pub(crate) async fn wait_for_room(&mut self) -> Result<(), Failure> {
        let observer = Arc::clone(&self.observer);
        let Some(room) = observer.room() else { return Ok(()) };
        if tokio::time::timeout(ROOM_PATIENCE, room).await.is_ok() {
            return Ok(());
        }
        self.keeping.is_refused = true;
        let mut failure = Failure::new(FailureKind::Unavailable, Origin::Platform)
            .with_text("Messages come faster than they can be recorded");
        failure.retryable = true;
        failure.retry_after = Some(ROOM_PATIENCE);
        Err(failure)
    }

    /// Keeps the request's body, where that is wanted.
    pub(crate) fn keep_request(&mut self, body: &Bytes) {
        let (Some(kept), Some(policy)) = (&mut self.keeping.kept, self.observer.keeps()) else { return };
        if policy.settings().bodies.of_requests() {
            kept.request.body = Some(MessageBody::whole(body.clone()));
        }
    }

    /// Keeps what is wanted of the reply: `body` where it is whole. Gives what one that is streamed passes through.
    pub(crate) fn keep_reply(&mut self, headers: &HeaderMap, body: &Outgoing) -> Option<PassingBody> {
        let (Some(kept), Some(policy)) = (&mut self.keeping.kept, self.observer.keeps()) else { return None };
        kept.response = policy.part(headers, &self.keeping.masked);
        if !policy.settings().bodies.of_responses() || self.method == Method::HEAD {
            return None;
        }
        match body {
            Outgoing::Whole(bytes) => {
                kept.response.body = Some(MessageBody::whole(bytes.clone()));
                None
            }
            Outgoing::Stream(_) | Outgoing::Passed(_) => Some(PassingBody::new(policy)),
        }
    }

    /// A streamed reply has passed.
    pub(crate) fn keep_passed(&mut self, body: MessageBody) {
        if let Some(kept) = &mut self.keeping.kept {
            kept.response.body = Some(body);
        }
    }

    /// Reports the end.
    pub(crate) fn finish(mut self, status: u16, bytes_out: u64) {
        self.report(status, bytes_out);
    }

    fn report(&mut self, status: u16, bytes_out: u64) {
        self.reported = true;
        self.observer.finished(&RequestRecord {
            trace: &self.trace,
            started: self.started,
            elapsed: self.started.elapsed(),
            client: self.client,
            secure: self.secure,
            version: self.version,
            method: &self.method,
            path: self.path(),
            query: self.query(),
            status,
            bytes_in: self.bytes_in,
            bytes_out,
            principal: self.principal.as_ref(),
            refused: self.refused.as_deref(),
            user_agent: self.user_agent.as_ref(),
            headers: &self.logged_headers,
            failure: self.failure,
            kept: match (&self.keeping, self.keeping.kept.as_deref()) {
                (Keeping { is_refused: true, .. }, _) => Kept::Nothing,
                (Keeping { replay_of: Some(id), .. }, kept) => Kept::Replay(*id, kept),
                (_, Some(kept)) => Kept::Parts(kept),
                (_, None) => Kept::Metadata,
            },
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.reported {
            self.report(STATUS_CALLER_GONE, 0);
        }
        self.connection.request_ended(self.purpose);
    }
}
