//! A message as it stands in the log.

use crosstie_model::Cid;
use crosstie_model::kept::MessageId;

use super::record::Side;

/// A kept message, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Which message.
    pub id: MessageId,
    /// The span on whose behalf it went; where a call went out, that of the request that came in.
    pub parent: Option<[u8; 8]>,
    /// When it came in or went out, in microseconds since 1970.
    pub time: u64,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// Which way it went.
    pub side: Side,
    /// The channel or outgoing.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// The service that answered.
    pub service: Option<String>,
    /// The method.
    pub method: Option<String>,
    /// The path.
    pub path: String,
    /// The query, with credentials masked.
    pub query: Option<String>,
    /// The status; 0 where there is none.
    pub status: u16,
    /// What went wrong, in a word.
    pub problem: Option<String>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// The client's address.
    pub client: Option<String>,
    /// The security definition that let it in.
    pub security: Option<String>,
    /// That definition's type.
    pub security_kind: Option<String>,
    /// The user's name.
    pub username: Option<String>,
    /// The message that this one repeats.
    pub replay_of: Option<MessageId>,
    /// What was kept of the request.
    pub request: Option<StoredPart>,
    /// What was kept of the answer.
    pub response: Option<StoredPart>,
}

impl StoredMessage {
    /// The correlation id.
    #[must_use]
    pub fn cid(&self) -> Cid {
        self.id.cid
    }

    /// Whether it ended in an error.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.problem.is_some() || self.status >= 400
    }
}

/// What was kept of a request or an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredPart {
    /// The body's media type.
    pub content_type: Option<String>,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Option<StoredBody>,
}

/// A body that was kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredBody {
    /// What was kept; empty where only metadata was asked for.
    pub bytes: Vec<u8>,
    /// How many bytes of it are in the log.
    pub kept: u64,
    /// How many bytes it had.
    pub length: u64,
    /// Its end is missing because it was too long.
    pub is_cut: bool,
    /// Secrets in it are masked.
    pub is_masked: bool,
    /// There was no room for it.
    pub is_dropped: bool,
    /// It did not come to its end.
    pub is_broken: bool,
}

impl StoredBody {
    /// Why it is not what was sent, if it is not.
    #[must_use]
    pub fn difference(&self) -> Option<&'static str> {
        if self.is_dropped {
            Some("was dropped because there was no room for it")
        } else if self.is_broken {
            Some("did not come to its end")
        } else if self.is_cut {
            Some("was cut off because it is longer than max_body_bytes")
        } else if self.is_masked {
            Some("holds secrets that are masked")
        } else {
            None
        }
    }
}
