//! What goes over the wire: one small JSON object per message, with the version of its form.
//!
//! `{"version":1,"server":"server1","changed":"revision","revision":42}`

use crosstie_model::{Event, Revision, UnitName};
use serde::{Deserialize, Serialize};

/// The form that is written, and the only one that is read.
const VERSION: u32 = 1;
/// Longest message that is looked at, in bytes.
const MAX_BYTES: usize = 4096;
/// The media type of messages.
pub(crate) const MEDIA_TYPE: &str = "application/json";

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Frame {
    version: u32,
    /// Who says it.
    pub(crate) server: UnitName,
    /// What.
    #[serde(flatten)]
    pub(crate) notice: Notice,
}

/// What changed. The other events concern the server alone on which they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "changed", rename_all = "snake_case")]
pub(crate) enum Notice {
    /// Definitions or deployments.
    Revision {
        /// The newest revision its sender knows.
        revision: Revision,
    },
}

impl From<Notice> for Event {
    fn from(notice: Notice) -> Self {
        match notice {
            Notice::Revision { revision } => Self::RevisionChanged { revision },
        }
    }
}

/// Why a message is not one of ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// Longer than any of ours.
    #[error("{0} bytes are more than any message of a server has")]
    TooLong(usize),
    /// Not the JSON that is expected.
    #[error("it is not a message of a server: {0}")]
    Form(#[source] serde_json::Error),
    /// A newer form.
    #[error("it has version {0} and this server knows version {VERSION}")]
    Version(u32),
}

impl Frame {
    /// What `server` says.
    pub(crate) fn new(server: UnitName, notice: Notice) -> Self {
        Self { version: VERSION, server, notice }
    }

    /// The bytes of a message.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, FrameError> {
        serde_json::to_vec(self).map_err(FrameError::Form)
    }

    /// Reads a message that anybody who may publish could have written.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        /// Read first: a newer form may differ in everything else.
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        if bytes.len() > MAX_BYTES {
            return Err(FrameError::TooLong(bytes.len()));
        }
        let head: Head = serde_json::from_slice(bytes).map_err(FrameError::Form)?;
        if head.version != VERSION {
            return Err(FrameError::Version(head.version));
        }
        serde_json::from_slice(bytes).map_err(FrameError::Form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As the first release wrote it: servers of different releases share a bus during an upgrade.
    const PINNED: &str = r#"{"version":1,"server":"server1","changed":"revision","revision":42}"#;

    #[test]
    fn the_form_is_the_one_older_servers_read() {
        let frame = Frame::new("server1".parse().unwrap(), Notice::Revision { revision: Revision(42) });
        assert_eq!(String::from_utf8(frame.encode().unwrap()).unwrap(), PINNED);
        assert_eq!(Frame::decode(PINNED.as_bytes()).unwrap(), frame);
    }

    #[test]
    fn fields_that_a_later_release_adds_are_passed_over() {
        let more = PINNED.replace("\"revision\":42", "\"revision\":42,\"kind\":\"x\"");
        assert!(Frame::decode(more.as_bytes()).is_ok());
    }

    #[test]
    fn garbage_is_refused_with_a_reason() {
        let newer = PINNED.replace("\"version\":1", "\"version\":7");
        assert!(matches!(Frame::decode(newer.as_bytes()), Err(FrameError::Version(7))));
        assert!(matches!(Frame::decode(&[b' '; 5000]), Err(FrameError::TooLong(5000))));
        let unknown = PINNED.replace("\"changed\":\"revision\"", "\"changed\":\"weather\"");
        let wrong_name = PINNED.replace("server1", "no name at all");
        for text in ["", "{}", "[1]", "\u{0}\u{1}", unknown.as_str(), wrong_name.as_str()] {
            assert!(matches!(Frame::decode(text.as_bytes()), Err(FrameError::Form(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Frame::decode(&bytes);
        }

        #[test]
        fn what_was_written_is_read(revision in any::<u32>(), name in "[a-z][a-z0-9]{0,20}") {
            let notice = Notice::Revision { revision: Revision(u64::from(revision)) };
            let frame = Frame::new(name.parse().unwrap(), notice);
            prop_assert_eq!(Frame::decode(&frame.encode().unwrap()).unwrap(), frame);
        }
    }
}
