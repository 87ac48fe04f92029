//! What a document may cost at most, before and while it is read.

use crosstie_model::limits::MAX_DOCUMENT_DEPTH;

/// Bounds of one document. Each is refused as soon as it is passed, so a hostile document costs no more time
/// and memory than an honest one of the same bounds: about 40 bytes for each node, and the text once more
/// where it holds references.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Size of the document in bytes of UTF-8; never more than 1 GiB. Default 16 MiB.
    pub bytes: usize,
    /// How deep elements nest; never more than 200, since what walks a document recurses. Default
    /// [`MAX_DOCUMENT_DEPTH`].
    pub depth: usize,
    /// Attributes of one element, declarations of namespaces among them. Default 128.
    pub attributes: usize,
    /// Declarations of namespaces in scope at once. Default 128.
    pub namespaces: usize,
    /// Length of a name with its prefix, in bytes. Default 1,024.
    pub name_bytes: usize,
    /// Length of a namespace, in bytes. Default 1,024. It is declared once and stands for every name in it, so that
    /// a long one would cost its length as often as there are names.
    pub namespace_bytes: usize,
    /// Length of one text or of one attribute's value, in bytes. Default 16 MiB.
    pub text_bytes: usize,
    /// Elements, attributes and texts together. Default 1,000,000.
    pub nodes: usize,
}

/// What `depth` can be at most.
pub(crate) const MAX_DEPTH: usize = 200;

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 16 * 1024 * 1024,
            depth: MAX_DOCUMENT_DEPTH,
            attributes: 128,
            namespaces: 128,
            name_bytes: 1024,
            namespace_bytes: 1024,
            text_bytes: 16 * 1024 * 1024,
            nodes: 1_000_000,
        }
    }
}
