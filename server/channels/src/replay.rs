//! A kept message sent through its channel once more.
//!
//! It takes a request's way from the point where the caller was let in: decoding, the service, encoding, access log,
//! metrics, message log. Who sent it was found out when it first came, so that credentials, addresses and rate
//! limits are not asked for again; limits of concurrency are. The channel must still take it: its path and methods
//! are those of now.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use crosstie_model::kept::MessageId;
use crosstie_model::message::{HttpRequest, Principal};
use crosstie_model::{Failure, TraceContext};
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Limited};

use crate::body::media::Media;
use crate::body::pairs;
use crate::entrance::{Entrance, EntranceKind};
use crate::exchange::{Exchange, Keeping};
use crate::handle::{Seal, conclude};
use crate::methods::{self, Taken, Way};
use crate::pattern::Segments;
use crate::response::Outgoing;
use crate::rest::{self, Arrived};
use crate::routes::Routes;
use crate::server::{ConnectionState, Purpose};
use crate::{jsonrpc, negotiate, problem, soap};

/// Most bytes of an answer that are gathered.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// A kept message.
#[derive(Debug)]
pub struct Replay {
    /// Which message.
    pub id: MessageId,
    /// The channel it came through.
    pub channel: String,
    /// Its method.
    pub method: Method,
    /// Its path and query, without what was masked.
    pub target: PathAndQuery,
    /// Its header fields, as far as they were kept.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Where it came from.
    pub client: IpAddr,
    /// Who sent it.
    pub principal: Option<Arc<Principal>>,
    /// The trace of its repetition.
    pub trace: TraceContext,
}

/// What became of it.
#[derive(Debug)]
pub struct Replayed {
    /// The status of the answer.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why a message was not sent again, or its answer not had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The channel is gone, or takes no such request any more.
    #[error("the channel {channel} does not take {method} {path} now")]
    NoWay {
        /// The channel.
        channel: String,
        /// The message's method.
        method: Method,
        /// Its path.
        path: String,
    },
    /// The channel demands credentials, and nobody's are known to have come with the message.
    #[error("the channel {0} demands credentials, and the message was not let in with any")]
    Stranger(String),
    /// The service answered, and its answer broke off or is too large to be shown.
    #[error("the message was sent again; its answer broke off or has more than 16 MiB")]
    Answer,
}

/// Sends `replay` through the channels of `routes`.
///
/// # Errors
/// See [`ReplayError`]. That the service failed is an answer.
pub async fn replay(routes: &Arc<Routes>, replay: Replay) -> Result<Replayed, ReplayError> {
    let Some(way) = find(routes, &replay) else {
        let path = replay.target.path().to_owned();
        return Err(ReplayError::NoWay { channel: replay.channel, method: replay.method, path });
    };
    if way.entrance.security.is_some() && replay.principal.is_none() {
        return Err(ReplayError::Stranger(replay.channel));
    }
    let mut exchange = begin(routes, &way, &replay);
    let entrance = Arc::clone(&way.entrance);
    let outcome = answer(way, replay, &mut exchange).await;
    let response = outcome.unwrap_or_else(|failure| {
        exchange.failed(&failure);
        match entrance.kind {
            EntranceKind::JsonRpc(_) => jsonrpc::render_failure(&failure, exchange.trace.cid),
            _ => problem::render(&failure, exchange.trace.cid),
        }
    });
    let (head, body) = conclude(exchange, response, Seal::default()).await.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|_| ReplayError::Answer)?;
    Ok(Replayed { status: head.status, headers: head.headers, body: body.to_bytes() })
}

fn find(routes: &Routes, replay: &Replay) -> Option<Way> {
    let segments = Segments::of(replay.target.path()).ok()?;
    let way = methods::find(&routes.trie, &replay.method, &segments)?;
    let is_same = way.entrance.observer().channel() == replay.channel;
    (is_same && !matches!(way.entrance.kind, EntranceKind::Builtin(_))).then_some(way)
}

fn begin(routes: &Routes, way: &Way, replay: &Replay) -> Exchange {
    let observer = Arc::clone(way.entrance.observer());
    let mut trace = replay.trace;
    trace.sampled = observer.samples(&trace);
    let no_secrets = Arc::new(BTreeSet::new());
    let connection = ConnectionState::unconnected();
    connection.request_started(Purpose::Probe);
    Exchange {
        trace,
        started: Instant::now(),
        client: replay.client,
        secure: true,
        version: Version::HTTP_11,
        method: replay.method.clone(),
        target: Some(replay.target.clone()),
        principal: replay.principal.clone(),
        refused: None,
        user_agent: None,
        masked: replay.target.query().map(|_| Arc::clone(&routes.masked_parameters)),
        logged_headers: Vec::new(),
        bytes_in: replay.body.len() as u64,
        // What was secret is masked already.
        keeping: Keeping::begin(&*observer, &replay.headers, &no_secrets, Some(replay.id)),
        observer,
        connection,
        purpose: Purpose::Probe,
        failure: None,
        reported: false,
    }
}

async fn answer(way: Way, replay: Replay, exchange: &mut Exchange) -> Result<Response<Outgoing>, Failure> {
    let entrance = &*way.entrance;
    if exchange.must_wait() {
        exchange.wait_for_room().await?;
    }
    exchange.keep_request(&replay.body);
    let mut permits: Vec<_> = entrance.acquire()?.into_iter().collect();
    if let EntranceKind::Rest { target, .. } | EntranceKind::Plain { target, .. } = &entrance.kind {
        permits.extend(target.admit()?);
    }
    let query = replay.target.query().map(|text| pairs::parse(text.as_bytes()));
    // It was read once already.
    let query = query.and_then(Result::ok).unwrap_or_default();
    let media =
        if replay.body.is_empty() { Media::Absent } else { Media::of(replay.headers.get(CONTENT_TYPE)) };
    let arrived = Arrived {
        trace: exchange.trace,
        http: Box::new(HttpRequest {
            method: if way.taken == Taken::HeadAsGet { Method::GET } else { replay.method },
            path: replay.target.path().to_owned(),
            params: way.params,
            query,
            headers: replay.headers,
            client: replay.client,
            secure: exchange.secure,
        }),
        raw: replay.body,
        media,
        principal: replay.principal,
    };
    let response = pass(entrance, arrived, exchange).await?;
    Ok(rest::hold(response, permits))
}

/// Hands a request to what lies behind `entrance`.
async fn pass(
    entrance: &Entrance,
    arrived: Arrived,
    exchange: &mut Exchange,
) -> Result<Response<Outgoing>, Failure> {
    let (response, target) = match &entrance.kind {
        EntranceKind::Rest { target, format, transforms } => {
            let choice = negotiate::choose(&arrived.http.headers, *format);
            let insists = (*format, entrance.max_depth);
            return rest::answer_rest(target, insists, transforms, arrived, choice).await;
        }
        EntranceKind::Plain { target, transforms } => {
            return rest::answer_plain(target, transforms, arrived).await;
        }
        EntranceKind::Builtin(page) => return page.answer().await,
        EntranceKind::Passthrough(channel) => {
            return channel.repeat(arrived, exchange.target.clone()).await;
        }
        EntranceKind::JsonRpc(channel) => {
            let (result, target) = jsonrpc::answer(entrance, channel, exchange.client, arrived).await;
            (result?, target)
        }
        EntranceKind::Soap(channel) => {
            let heard = soap::hear(channel, entrance.max_depth, &arrived).await?;
            let answer = soap::answer(channel, heard, arrived).await;
            if let Some(failure) = &answer.failure {
                exchange.failed(failure);
            }
            (answer.response, answer.target)
        }
    };
    if let Some(target) = target {
        exchange.observer = Arc::clone(&target.observer);
    }
    Ok(response)
}
