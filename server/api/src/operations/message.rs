//! Kept messages of this server: finding them, showing one with its bodies, sending one through its channel again.
//!
//! They lie on each server's own disk, and no server asks another: who wants those of all servers asks each.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crosstie_channels::replay::{Replay, ReplayError};
use crosstie_model::definition::{DefinitionName, SecurityDefinition};
use crosstie_model::kept::MessageId;
use crosstie_model::{Cid, Principal, Snapshot, TraceContext};
use crosstie_telemetry::messages::{
    self, Found, MessageQuery, Side, StoredBody, StoredMessage, StoredPart, search,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{OperationError, Operations, Refusal};
use crate::access::Caller;
use crate::clock::timestamp;

/// How many messages a search gives when it does not say.
const DEFAULT_LIMIT: usize = 100;
/// Most messages it gives.
const MAX_LIMIT: usize = 1_000;
/// How long a search may take. What it found by then is its answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// What stands in the place of a secret.
const MASK: &str = "***";
/// What stands for the type of a security definition that is gone.
const UNKNOWN: &str = "unknown";

/// Which messages are looked for: all that fit everything which is given.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct MessageFilter {
    /// The correlation id, or the id of one message.
    pub cid: Option<String>,
    /// The channel they came through.
    pub channel: Option<String>,
    /// The outgoing they went to.
    pub outgoing: Option<String>,
    /// The service that answered.
    pub service: Option<String>,
    /// The status of the answer: `404`, `5xx` or `400-499`.
    pub status: Option<String>,
    /// Only those that ended in an error.
    pub failed: Option<bool>,
    /// The earliest time at which they began (RFC 3339).
    pub from: Option<String>,
    /// The latest (RFC 3339).
    pub to: Option<String>,
    /// Most messages, the newest; 100 by default, 1,000 at most.
    #[schemars(range(min = 1, max = 1_000))]
    pub limit: Option<usize>,
}

/// What a search on one server found.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct MessagesView {
    /// The server that was asked.
    pub server: String,
    /// Whether everything was looked at; time was up otherwise.
    pub complete: bool,
    /// How many files have a place that cannot be read, after which nothing could be either.
    pub damaged: usize,
    /// The messages, newest first.
    pub messages: Vec<MessageView>,
}

/// A kept message.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct MessageView {
    /// Its id: its cid and its own span.
    pub id: String,
    /// Its correlation id, which it shares with everything done on its behalf.
    pub cid: String,
    /// The span on whose behalf it went; of a call of another system, that of the request that came in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The server that keeps it.
    pub server: String,
    /// When it came in or went out (RFC 3339).
    pub time: String,
    /// How long it took, in microseconds.
    pub us: u64,
    /// The channel it came through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The outgoing it went to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outgoing: Option<String>,
    /// The type of that channel or outgoing.
    pub r#type: String,
    /// The service that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path; of a statement its first word.
    pub path: String,
    /// The query, secrets masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// The client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The security definition that let it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security: Option<String>,
    /// The user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The message that this one repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<String>,
    /// What was kept of the request, where more than this was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<MessagePartView>,
    /// What was kept of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<MessagePartView>,
}

/// What was kept of a request or an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct MessagePartView {
    /// The body's media type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Header fields as name and value, secrets masked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<MessageBodyView>,
}

/// A kept body.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct MessageBodyView {
    /// The body as text; absent where it is none, and in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A body that is no text, in Base64; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// How many bytes it had.
    pub length: u64,
    /// How many of them are kept.
    pub kept: u64,
    /// Why it is not what was sent; absent where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<String>,
}

/// What became of a message that was sent again.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ReplayView {
    /// The message that was repeated.
    pub replay_of: String,
    /// The server that did it.
    pub server: String,
    /// The channel it went through.
    pub channel: String,
    /// The correlation id of the repetition.
    pub cid: String,
    /// The status of the answer.
    pub status: u16,
    /// The media type of the answer's body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The answer's body.
    pub body: MessageBodyView,
}

impl Operations {
    /// The kept messages of this server that fit `filter`, without their bodies, newest first.
    ///
    /// # Errors
    /// The filter makes no sense, or a file cannot be read.
    pub async fn messages(&self, filter: &MessageFilter) -> Result<MessagesView, OperationError> {
        let found = self.find(query(filter)?).await?;
        let server = self.server().as_str();
        Ok(MessagesView {
            server: server.to_owned(),
            complete: found.is_complete,
            damaged: found.damaged,
            messages: found
                .messages
                .into_iter()
                .map(|message| view(server, message, Bodies::Absent))
                .collect(),
        })
    }

    /// The kept messages of one cid, or the one of that id, with what was kept of their bodies, oldest first. That
    /// somebody read them is noted in the log.
    ///
    /// # Errors
    /// None is kept on this server.
    pub async fn message(&self, caller: &Caller, id: &str) -> Result<Vec<MessageView>, OperationError> {
        let mut query = query(&MessageFilter { cid: Some(id.to_owned()), ..MessageFilter::default() })?;
        (query.bodies, query.limit) = (true, MAX_LIMIT);
        let mut messages = self.find(query).await?.messages;
        if messages.is_empty() {
            return Err(self.no_message(id));
        }
        messages.reverse();
        tracing::info!(author = caller.name, id, count = messages.len(), "kept messages were read");
        let server = self.server().as_str();
        Ok(messages.into_iter().map(|message| view(server, message, Bodies::Shown)).collect())
    }

    /// Sends the kept message of that id, or the only one of a cid that came through a channel, through its channel
    /// once more, on behalf of whoever sent it first. The repetition gets a cid of its own; who asked for it is noted
    /// in the log.
    ///
    /// # Errors
    /// None is kept on this server, or several; not all of it is kept; its channel does not take it any more.
    pub async fn replay(
        &self,
        caller: &Caller,
        id: &str,
        trace: TraceContext,
    ) -> Result<ReplayView, OperationError> {
        let filter = MessageFilter { cid: Some(id.to_owned()), ..MessageFilter::default() };
        let query = MessageQuery { side: Some(Side::Channel), bodies: true, limit: 2, ..query(&filter)? };
        let mut found = self.find(query).await?.messages;
        if found.len() > 1 {
            let ids: Vec<_> = found.iter().map(|message| message.id.to_string()).collect();
            let text =
                format!("several messages have this cid: name one by its id, such as {}", ids.join(", "));
            return Err(OperationError::Invalid(text));
        }
        let message = found.pop().ok_or_else(|| self.no_message(id))?;
        let principal = self.principal_of(&message).await?;
        let replayed = message.id;
        let replay = as_replay(message, principal, trace)?;
        let channel = replay.channel.clone();
        tracing::info!(
            author = caller.name, id = %replayed, channel, cid = %trace.cid,
            "a kept message is sent through its channel again"
        );
        let answer = self.host().replay(replay).await.map_err(|error| match error {
            ReplayError::NoWay { .. } | ReplayError::Stranger(_) => {
                OperationError::Refused(Refusal::new(error.to_string()))
            }
            ReplayError::Answer => OperationError::Internal(error.to_string()),
        })?;
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let length = answer.body.len() as u64;
        Ok(ReplayView {
            replay_of: replayed.to_string(),
            server: self.server().to_string(),
            channel,
            cid: trace.cid.to_string(),
            status: answer.status.as_u16(),
            content_type: answer.headers.get(header::CONTENT_TYPE).map(text),
            body: shown(StoredBody {
                bytes: answer.body.to_vec(),
                length,
                kept: length,
                ..StoredBody::default()
            }),
        })
    }

    async fn find(&self, query: MessageQuery) -> Result<Found, OperationError> {
        let directory = self.message_directory();
        let _turn = self.inner.searches.acquire().await;
        let until = Instant::now() + PATIENCE;
        let found = tokio::task::spawn_blocking(move || search(&directory, &query, until)).await;
        let failed = |error: &dyn std::fmt::Display| {
            OperationError::Internal(format!("the message log cannot be read: {error}"))
        };
        found.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
    }

    fn message_directory(&self) -> PathBuf {
        self.directory().join("logs").join(messages::DIRECTORY)
    }

    fn no_message(&self, id: &str) -> OperationError {
        OperationError::NotFound(format!("kept message {id} on {}", self.server()))
    }

    /// Who sent a message, as far as it is known: what else their credentials said was not kept.
    ///
    /// # Errors
    /// Its channel does not let in such credentials any more.
    async fn principal_of(&self, message: &StoredMessage) -> Result<Option<Arc<Principal>>, OperationError> {
        let Some(security) = &message.security else { return Ok(None) };
        let snapshot = self.odb().snapshot().await?;
        if !lets_in(&snapshot, &message.name, security) {
            let text = format!("the channel {} does not let in credentials of {security} now", message.name);
            return Err(OperationError::Refused(Refusal::new(text)));
        }
        let definition = DefinitionName::new(security).ok();
        let definition = definition.as_ref().and_then(|name| snapshot.security(name));
        let mut principal =
            Principal::new(security.as_str(), definition.map_or(UNKNOWN, SecurityDefinition::type_name));
        principal.username.clone_from(&message.username);
        Ok(Some(Arc::new(principal)))
    }
}

/// Whether `channel` demands no credentials, or takes those of the definition `security`.
fn lets_in(snapshot: &Snapshot, channel: &str, security: &str) -> bool {
    let channels = snapshot.effective_channels().unwrap_or_default();
    let found = channels.iter().find(|found| found.name.as_str() == channel);
    let demanded = found.and_then(|found| found.definition.entrance()?.security.as_ref());
    demanded.is_none_or(|demanded| {
        snapshot.credentials_for(demanded).iter().any(|(name, _)| name.as_str() == security)
    })
}

/// The message as it can be sent again.
fn as_replay(
    message: StoredMessage,
    principal: Option<Arc<Principal>>,
    trace: TraceContext,
) -> Result<Replay, OperationError> {
    let refuse = |text: String| OperationError::Refused(Refusal::new(text));
    let Some(method) = message.method.as_ref().and_then(|method| Method::from_bytes(method.as_bytes()).ok())
    else {
        return Err(refuse(format!("messages of channels of type {} cannot be sent again", message.kind)));
    };
    let request = message.request.unwrap_or_default();
    let body = match request.body {
        None if (400..500).contains(&message.status) => {
            return Err(refuse("this message was refused, perhaps before its body was read".to_owned()));
        }
        None if message.bytes_in > 0 => {
            let mend = "its channel's message_log.bodies must be request or both when it comes";
            return Err(refuse(format!("the body of this message was not kept: {mend}")));
        }
        None => Vec::new(),
        Some(body) => match body.difference() {
            Some(difference) => return Err(refuse(format!("the body of this message {difference}"))),
            None => body.bytes,
        },
    };
    let mut target = message.path;
    let kept: Vec<_> =
        message.query.iter().flat_map(|query| query.split('&')).filter(|pair| !is_masked(pair)).collect();
    if !kept.is_empty() {
        target = format!("{target}?{}", kept.join("&"));
    }
    let unreadable = |what: &str| OperationError::Internal(format!("the kept message has no {what}"));
    let client = message.client.and_then(|client| client.parse::<IpAddr>().ok());
    Ok(Replay {
        id: message.id,
        channel: message.name,
        method,
        target: PathAndQuery::try_from(target).map_err(|_| unreadable("path"))?,
        headers: headers(&request.headers, request.content_type.as_deref()),
        body: Bytes::from(body),
        client: client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        principal,
        trace,
    })
}

fn is_masked(pair: &str) -> bool {
    pair.split_once('=').is_some_and(|(_, value)| value == MASK)
}

/// Header fields as they came, without those that frame the message or were masked.
fn headers(kept: &[(String, String)], content_type: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in kept.iter().filter(|(_, value)| value != MASK) {
        if let (Ok(name), Ok(value)) =
            (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()))
            && !matches!(name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION)
        {
            headers.append(name, value);
        }
    }
    if let Some(value) = content_type.and_then(|text| HeaderValue::try_from(text).ok()) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    headers
}

fn query(filter: &MessageFilter) -> Result<MessageQuery, OperationError> {
    let invalid = |what: &str, rule: &str| OperationError::Invalid(format!("{what} must be {rule}"));
    let moment = |what: &str, text: &Option<String>| -> Result<Option<u64>, OperationError> {
        let Some(text) = text else { return Ok(None) };
        let moment = OffsetDateTime::parse(text, &Rfc3339);
        let moment = moment.map_err(|_| invalid(what, "a time such as 2026-01-31T08:00:00Z"))?;
        Ok(Some(u64::try_from(moment.unix_timestamp_nanos() / 1_000).unwrap_or_default()))
    };
    let (mut cid, mut span) = (None, None);
    if let Some(text) = &filter.cid {
        match text.parse::<MessageId>() {
            Ok(id) => (cid, span) = (Some(id.cid), Some(id.span)),
            Err(_) => {
                let rule = "32 hexadecimal digits, or those and the rest of a message's id";
                cid = Some(text.parse::<Cid>().map_err(|_| invalid("cid", rule))?);
            }
        }
    }
    let (side, name) = match (&filter.channel, &filter.outgoing) {
        (Some(_), Some(_)) => return Err(invalid("channel", "absent where there is an outgoing")),
        (Some(channel), None) => (Some(Side::Channel), Some(channel.clone())),
        (None, Some(outgoing)) => (Some(Side::Outgoing), Some(outgoing.clone())),
        (None, None) => (None, None),
    };
    let status = filter
        .status
        .as_deref()
        .map(|text| statuses(text).ok_or_else(|| invalid("status", "a status such as 404, 5xx or 400-499")));
    Ok(MessageQuery {
        cid,
        span,
        side,
        name,
        service: filter.service.clone(),
        status: status.transpose()?,
        failed: filter.failed.unwrap_or_default(),
        from: moment("from", &filter.from)?,
        to: moment("to", &filter.to)?,
        limit: filter.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT),
        bodies: false,
    })
}

/// `404`, `5xx`, `400-499`.
fn statuses(text: &str) -> Option<(u16, u16)> {
    if let Some((least, most)) = text.split_once('-') {
        return Some((least.parse().ok()?, most.parse().ok()?));
    }
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
        return Some((class * 100, class * 100 + 99));
    }
    let one = text.parse().ok()?;
    Some((one, one))
}

/// Whether bodies are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bodies {
    Shown,
    Absent,
}

fn view(server: &str, message: StoredMessage, bodies: Bodies) -> MessageView {
    let (channel, outgoing) = match message.side {
        Side::Channel => (Some(message.name), None),
        Side::Outgoing => (None, Some(message.name)),
    };
    MessageView {
        id: message.id.to_string(),
        cid: message.id.cid.to_string(),
        parent: message.parent.map(|span| format!("{:016x}", u64::from_be_bytes(span))),
        server: server.to_owned(),
        time: timestamp(i64::try_from(message.time).unwrap_or_default()),
        us: message.micros,
        channel,
        outgoing,
        r#type: message.kind,
        service: message.service,
        method: message.method,
        path: message.path,
        query: message.query,
        status: (message.status > 0).then_some(message.status),
        problem: message.problem,
        bytes_in: message.bytes_in,
        bytes_out: message.bytes_out,
        client: message.client,
        security: message.security,
        username: message.username,
        replay_of: message.replay_of.map(|id| id.to_string()),
        request: message.request.map(|part| part_view(part, bodies)),
        response: message.response.map(|part| part_view(part, bodies)),
    }
}

fn part_view(part: StoredPart, bodies: Bodies) -> MessagePartView {
    let body = part.body.map(|body| match bodies {
        Bodies::Shown => shown(body),
        Bodies::Absent => MessageBodyView { text: None, base64: None, ..shown(body) },
    });
    let headers = if bodies == Bodies::Shown { part.headers } else { Vec::new() };
    MessagePartView { content_type: part.content_type, headers, body }
}

fn shown(body: StoredBody) -> MessageBodyView {
    let difference = body.difference().map(|text| format!("it {text}"));
    let (text, base64) = match String::from_utf8(body.bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
    };
    MessageBodyView { text, base64, length: body.length, kept: body.kept, difference }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_one_a_class_or_a_range() {
        assert_eq!(statuses("404"), Some((404, 404)));
        assert_eq!(statuses("5xx"), Some((500, 599)));
        assert_eq!(statuses("400-499"), Some((400, 499)));
        for wrong in ["", "x", "9xx", "-", "4-", "ok"] {
            assert_eq!(statuses(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused() {
        let refused = |filter: MessageFilter| query(&filter).unwrap_err().to_string();
        let text = |text: &str| Some(text.to_owned());
        assert!(refused(MessageFilter { cid: text("x"), ..Default::default() }).contains("cid"));
        assert!(refused(MessageFilter { from: text("now"), ..Default::default() }).contains("from"));
        assert!(refused(MessageFilter { status: text("bad"), ..Default::default() }).contains("status"));
        let both = MessageFilter { channel: text("a"), outgoing: text("b"), ..Default::default() };
        assert!(refused(both).contains("outgoing"));
    }

    #[test]
    fn what_frames_or_hides_is_not_sent_again() {
        let kept = [("Content-Length", "7"), ("x-key", "***"), ("accept", "a/b"), ("Accept", "c/d")];
        let kept = kept.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let headers = headers(&kept, Some("text/plain"));
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept", "content-type"]);
        assert_eq!(headers.get_all("accept").iter().count(), 2);
        assert!(is_masked("key=***") && !is_masked("key=*") && !is_masked("key"));
    }
}
