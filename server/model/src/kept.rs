//! What is kept of messages, on its way from those who see them to the message log.
//!
//! Channels and outgoings keep what their definitions ask for; whoever writes the log masks and cuts. Nothing here
//! copies a body.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::cid::Cid;
use crate::definition::KeptMessages;

/// What stands in the place of a credential.
const MASK: HeaderValue = HeaderValue::from_static("***");

/// What tells one kept message from all others: the cid, which it shares with everything done on its behalf, and
/// its own span. Written `CID-SPAN`, both hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// The correlation id.
    pub cid: Cid,
    /// The span of this message alone.
    pub span: [u8; 8],
}

/// A text that is no message's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message's id is its cid, a dash and 16 lower-case hexadecimal digits")]
pub struct MessageIdError;

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.cid, u64::from_be_bytes(self.span))
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let (cid, span) = text.split_once('-').ok_or(MessageIdError)?;
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if span.len() != 16 || !span.bytes().all(is_digit) {
            return Err(MessageIdError);
        }
        let span = u64::from_str_radix(span, 16).map_err(|_| MessageIdError)?;
        Ok(Self { cid: cid.parse().map_err(|_| MessageIdError)?, span: span.to_be_bytes() })
    }
}

/// What is kept of the messages of one channel or outgoing. Made when routes or outgoings are.
#[derive(Debug)]
pub struct KeepPolicy {
    settings: KeptMessages,
    /// Names to mask, in lower case.
    mask: BTreeSet<String>,
}

impl KeepPolicy {
    /// The policy that a definition's `message_log` stands for.
    #[must_use]
    pub fn new(settings: &KeptMessages) -> Arc<Self> {
        let mask = settings.mask.iter().map(|name| name.to_lowercase()).collect();
        Arc::new(Self { settings: settings.clone(), mask })
    }

    /// What the definition says.
    #[must_use]
    pub fn settings(&self) -> &KeptMessages {
        &self.settings
    }

    /// Most bytes of a body that are kept.
    #[must_use]
    pub fn max_body(&self) -> usize {
        usize::try_from(self.settings.max_body_bytes).unwrap_or(usize::MAX)
    }

    /// What is kept of a message with these header fields beyond its metadata; nothing where that is all. Fields
    /// that `secret` names, in lower case, are masked.
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap, secret: &BTreeSet<String>) -> Option<Box<KeptMessage>> {
        let wants_bodies = self.settings.bodies.of_requests() || self.settings.bodies.of_responses();
        (wants_bodies || self.settings.headers)
            .then(|| Box::new(KeptMessage { request: self.part(headers, secret), ..KeptMessage::default() }))
    }

    /// The beginning of what is kept of a request or an answer with these header fields.
    #[must_use]
    pub fn part(&self, headers: &HeaderMap, secret: &BTreeSet<String>) -> MessagePart {
        let shown = |(name, value): (&HeaderName, &HeaderValue)| {
            let value = if secret.contains(name.as_str()) { MASK } else { value.clone() };
            (name.clone(), value)
        };
        MessagePart {
            content_type: headers.get(CONTENT_TYPE).cloned(),
            headers: if self.settings.headers { headers.iter().map(shown).collect() } else { Vec::new() },
            body: None,
        }
    }

    /// Whether values of that name are masked because the definition says so.
    #[must_use]
    pub fn masks(&self, name: &str) -> bool {
        !self.mask.is_empty() && self.mask.contains(&name.to_lowercase())
    }

    /// Those names, in lower case.
    #[must_use]
    pub fn names(&self) -> &BTreeSet<String> {
        &self.mask
    }
}

/// What is kept of one message beyond its metadata.
#[derive(Debug, Clone, Default)]
pub struct KeptMessage {
    /// What is kept of the request.
    pub request: MessagePart,
    /// What is kept of the answer.
    pub response: MessagePart,
}

/// What is kept of a request or an answer.
#[derive(Debug, Clone, Default)]
pub struct MessagePart {
    /// The body's media type.
    pub content_type: Option<HeaderValue>,
    /// Header fields, those with credentials masked by whoever knows which they are.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, where bodies are kept.
    pub body: Option<MessageBody>,
}

/// A body that is kept.
#[derive(Debug, Clone, Default)]
pub struct MessageBody {
    /// All of it, or its beginning.
    pub bytes: Bytes,
    /// How many bytes it had.
    pub length: u64,
    /// It did not come to its end.
    pub is_broken: bool,
    /// There was no room for it.
    pub is_dropped: bool,
}

impl MessageBody {
    /// A body that is all there.
    #[must_use]
    pub fn whole(bytes: Bytes) -> Self {
        Self { length: bytes.len() as u64, bytes, ..Self::default() }
    }
}

/// A body that is kept while its pieces pass by: as much of its beginning as will be kept, and its length.
#[derive(Debug)]
pub struct PassingBody {
    beginning: BytesMut,
    most: usize,
    length: u64,
}

impl PassingBody {
    /// Nothing of it has passed yet.
    #[must_use]
    pub fn new(policy: &KeepPolicy) -> Self {
        Self { beginning: BytesMut::new(), most: policy.max_body(), length: 0 }
    }

    /// A piece passes.
    pub fn pass(&mut self, piece: &[u8]) {
        self.length = self.length.saturating_add(piece.len() as u64);
        let room = self.most.saturating_sub(self.beginning.len()).min(piece.len());
        self.beginning.extend_from_slice(piece.get(..room).unwrap_or_default());
    }

    /// It has ended, well or not.
    #[must_use]
    pub fn end(self, is_broken: bool) -> MessageBody {
        MessageBody { bytes: self.beginning.freeze(), length: self.length, is_broken, is_dropped: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::KeptBodies;

    #[test]
    fn an_id_survives_its_text() {
        let id = MessageId { cid: Cid::random(), span: [0, 1, 2, 3, 4, 5, 6, 255] };
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "-", &id.cid.to_string(), &format!("{}-0", id.cid), &id.to_string().to_uppercase()]
        {
            assert_eq!(wrong.parse::<MessageId>(), Err(MessageIdError), "{wrong}");
        }
    }

    #[test]
    fn what_is_kept_is_what_the_definition_says() {
        let mut headers = HeaderMap::new();
        headers.insert("x-key", HeaderValue::from_static("hush"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        let secret = BTreeSet::from(["x-key".to_owned()]);
        let begin = |settings| KeepPolicy::new(&settings).begin(&headers, &secret);
        assert!(begin(KeptMessages::default()).is_none());
        let bodies = KeptMessages { bodies: KeptBodies::Response, ..KeptMessages::default() };
        let kept = begin(bodies).unwrap();
        assert_eq!(
            (kept.request.content_type.unwrap().as_bytes(), kept.request.headers.len()),
            (&b"text/plain"[..], 0)
        );
        let kept = begin(KeptMessages { headers: true, ..KeptMessages::default() }).unwrap();
        let shown: Vec<_> =
            kept.request.headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        assert_eq!(shown, [("x-key", "***"), ("content-type", "text/plain")]);
    }

    #[test]
    fn of_a_passing_body_the_beginning_is_kept() {
        let policy = KeepPolicy::new(&KeptMessages { max_body_bytes: 5, ..KeptMessages::default() });
        let mut body = PassingBody::new(&policy);
        for piece in ["abc", "def", "g"] {
            body.pass(piece.as_bytes());
        }
        let body = body.end(true);
        assert_eq!((&body.bytes[..], body.length, body.is_broken), (&b"abcde"[..], 7, true));
    }
}
