//! What stands beside an envelope in a multipart message.

use bytes::Bytes;

/// A part of a message that the envelope refers to by its content id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its `Content-ID` without angle brackets, as `cid:` refers to it.
    pub content_id: String,
    /// Its media type.
    pub content_type: String,
    /// Its content, with no transfer encoding.
    pub content: Bytes,
}
