//! One message on its way into the log.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use crosstie_model::kept::{KeepPolicy, MessageBody, MessageId, MessagePart};
use crosstie_model::message::Principal;
use crosstie_model::{ServiceName, TraceContext};
use http::Method;

use crate::access::LoggedQuery;

/// Whether a message came in or went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It came in through a channel.
    Channel,
    /// It went out through an outgoing.
    Outgoing,
}

/// What is kept of one message. Everything here is moved in or cheap to clone.
#[derive(Debug, Clone)]
pub struct MessageRecord {
    /// When the request came in, or the call began.
    pub time: SystemTime,
    /// How long it took in all, in microseconds.
    pub micros: u64,
    /// Its cid and span.
    pub trace: TraceContext,
    /// Which way it went.
    pub side: Side,
    /// The channel or outgoing.
    pub name: Arc<str>,
    /// Its type.
    pub kind: &'static str,
    /// The service that answered.
    pub service: Option<ServiceName>,
    /// The method, where HTTP is spoken.
    pub method: Option<Method>,
    /// The path, percent-encoded as it came; the statement's kind for a database.
    pub path: String,
    /// The query, if there was one.
    pub query: Option<LoggedQuery>,
    /// The status; 0 where there is none.
    pub status: u16,
    /// What went wrong, in a word.
    pub problem: Option<&'static str>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// The client, behind trusted proxies.
    pub client: Option<IpAddr>,
    /// Who sent it, once authenticated.
    pub principal: Option<Arc<Principal>>,
    /// The kept message that this one repeats.
    pub replay_of: Option<MessageId>,
    /// What is kept, and what is masked in it.
    pub policy: Arc<KeepPolicy>,
    /// What is kept of the request.
    pub request: Option<Box<MessagePart>>,
    /// What is kept of the answer.
    pub response: Option<Box<MessagePart>>,
}

impl MessageRecord {
    /// Bytes of memory its bodies take.
    pub(super) fn body_bytes(&self) -> usize {
        self.bodies().map(|body| body.bytes.len()).sum()
    }

    fn bodies(&self) -> impl Iterator<Item = &MessageBody> {
        [&self.request, &self.response].into_iter().flatten().filter_map(|part| part.body.as_ref())
    }

    /// Lets go of its bodies; gives how many there were.
    pub(super) fn drop_bodies(&mut self) -> u64 {
        let mut dropped = 0;
        let parts = [&mut self.request, &mut self.response].into_iter().flatten();
        for body in parts.filter_map(|part| part.body.as_mut()).filter(|body| !body.bytes.is_empty()) {
            body.bytes = Bytes::new();
            body.is_dropped = true;
            dropped += 1;
        }
        dropped
    }
}
