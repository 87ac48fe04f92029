//! A parsed document: a tree in a few flat vectors, with every name in its namespace.
//!
//! Nodes stand in document order and know where their subtree ends, so a document of any size costs five
//! allocations and is dropped at once. Names and texts are places in the source; only what holds references,
//! or was broken by comments, CDATA or carriage returns, is copied. Comments and processing instructions are
//! checked and left out.

mod attributes;
mod parse;
mod walk;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use walk::{Attribute, Element, Node};

use crate::error::{XmlError, place};
use crate::limits::Limits;

/// A well-formed document without a document type declaration.
#[derive(Debug, Clone)]
pub struct Document<'s> {
    source: Cow<'s, str>,
    extra: String,
    nodes: Vec<NodeRecord>,
    attributes: Vec<AttributeRecord>,
    bindings: Vec<Binding>,
}

/// A place in the source, or, with the highest bit of `start` set, in `extra`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

const EXTRA: u32 = 1 << 31;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Element,
    Text,
}

#[derive(Debug, Clone, Copy)]
struct NodeRecord {
    kind: Kind,
    /// The local name, or the text.
    span: Span,
    /// Index of the node after the last descendant.
    end: u32,
    /// Where the source of the element ends.
    source_end: u32,
    /// Which binding its name is in.
    namespace: u32,
    /// The innermost binding in scope.
    scope: u32,
    /// Its attributes, as a range.
    attributes: (u32, u32),
}

#[derive(Debug, Clone, Copy)]
struct AttributeRecord {
    local: Span,
    namespace: u32,
    value: Span,
}

/// A declaration of a namespace. The first stands for no namespace, the second for `xml`; neither is
/// written in any document.
#[derive(Debug, Clone, Copy)]
struct Binding {
    prefix: Span,
    uri: Span,
    /// The binding in scope before it.
    parent: u32,
    /// How many are in scope with it.
    depth: u32,
}

/// Binding of names without namespace.
const NO_NAMESPACE: u32 = 0;

/// An element without name and content.
static NOTHING: NodeRecord = NodeRecord {
    kind: Kind::Element,
    span: Span { start: 0, end: 0 },
    end: 0,
    source_end: 0,
    namespace: NO_NAMESPACE,
    scope: NO_NAMESPACE,
    attributes: (0, 0),
};

impl<'s> Document<'s> {
    /// Reads `source`.
    ///
    /// # Errors
    /// It is not well-formed, has a document type declaration, or passes one of the `limits`.
    pub fn parse(source: impl Into<Cow<'s, str>>, limits: &Limits) -> Result<Self, XmlError> {
        let mut source = source.into();
        if source.starts_with('\u{feff}') {
            source = match source {
                Cow::Borrowed(text) => Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text)),
                Cow::Owned(mut text) => {
                    text.remove(0);
                    Cow::Owned(text)
                }
            };
        }
        let tree = parse::parse(&source, limits)?;
        Ok(Self {
            source,
            extra: tree.extra,
            nodes: tree.nodes,
            attributes: tree.attributes,
            bindings: tree.bindings,
        })
    }

    /// The element that holds all others.
    #[must_use]
    pub fn root(&self) -> Element<'_> {
        Element::root(self)
    }

    /// Its text as it was read, without a byte order mark.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    fn text(&self, span: Span) -> &str {
        slice(&self.source, &self.extra, span)
    }

    fn node(&self, index: u32) -> Option<&NodeRecord> {
        self.nodes.get(index as usize)
    }

    fn binding(&self, index: u32) -> Option<Binding> {
        self.bindings.get(index as usize).copied()
    }

    /// The binding of `prefix` in the scope that ends with binding `scope`.
    fn resolve(&self, prefix: &str, scope: u32) -> Option<u32> {
        resolve(&self.bindings, |span| self.text(span), prefix, scope)
    }

    fn place(&self, offset: usize) -> (usize, usize) {
        place(&self.source, offset)
    }
}

fn slice<'t>(source: &'t str, extra: &'t str, span: Span) -> &'t str {
    let (text, start, end) = match span.start & EXTRA {
        0 => (source, span.start, span.end),
        _ => (extra, span.start & !EXTRA, span.end & !EXTRA),
    };
    text.get(start as usize..end as usize).unwrap_or_default()
}

/// Walks the bindings in scope from the innermost outwards. There are few; their number is limited.
fn resolve<'t>(
    bindings: &[Binding],
    text: impl Fn(Span) -> &'t str,
    prefix: &str,
    mut scope: u32,
) -> Option<u32> {
    loop {
        let binding = bindings.get(scope as usize)?;
        if text(binding.prefix) == prefix {
            return Some(if text(binding.uri).is_empty() { NO_NAMESPACE } else { scope });
        }
        if scope == NO_NAMESPACE {
            return None;
        }
        scope = binding.parent;
    }
}
