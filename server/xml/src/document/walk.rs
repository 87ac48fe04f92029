//! Walking a document: elements are handles of three words.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::{Document, Kind, NOTHING, NodeRecord};
use crate::chars::trim;
use crate::namespace::{QName, XSI};

/// An element of a document.
#[derive(Clone, Copy)]
pub struct Element<'d> {
    document: &'d Document<'d>,
    index: u32,
    record: &'d NodeRecord,
}

/// An attribute of an element. Declarations of namespaces are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'d> {
    /// The namespace of its name; empty for none.
    pub namespace: &'d str,
    /// Its name without prefix.
    pub local: &'d str,
    /// Its value.
    pub value: &'d str,
}

/// A child of an element.
#[derive(Debug, Clone, Copy)]
pub enum Node<'d> {
    /// An element.
    Element(Element<'d>),
    /// Text, references resolved; never empty, and never beside another text.
    Text(&'d str),
}

impl std::fmt::Debug for Element<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{}>", self.qname())
    }
}

impl<'d> Element<'d> {
    pub(super) fn root(document: &'d Document<'d>) -> Self {
        // No document without a root is ever made.
        Self { document, index: 0, record: document.node(0).unwrap_or(&NOTHING) }
    }

    /// Its name without prefix.
    #[must_use]
    pub fn local(&self) -> &'d str {
        self.document.text(self.record.span)
    }

    /// The namespace of its name; empty for none.
    #[must_use]
    pub fn namespace(&self) -> &'d str {
        self.uri(self.record.namespace)
    }

    /// Its name.
    #[must_use]
    pub fn qname(&self) -> QName {
        QName::new(self.namespace(), self.local())
    }

    /// Whether it is the element `local` of `namespace`.
    #[must_use]
    pub fn is(&self, namespace: &str, local: &str) -> bool {
        self.local() == local && self.namespace() == namespace
    }

    /// Its attributes in document order.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'d>> + use<'d> {
        let (start, end) = self.record.attributes;
        let Self { document, .. } = *self;
        let records = document.attributes.get(start as usize..end as usize).unwrap_or_default();
        records.iter().map(move |record| Attribute {
            namespace: document.binding(record.namespace).map_or("", |binding| document.text(binding.uri)),
            local: document.text(record.local),
            value: document.text(record.value),
        })
    }

    /// The value of the attribute `local` of `namespace` (empty for none).
    #[must_use]
    pub fn attribute(&self, namespace: &str, local: &str) -> Option<&'d str> {
        self.attributes()
            .find(|attribute| attribute.local == local && attribute.namespace == namespace)
            .map(|attribute| attribute.value)
    }

    /// Its children in document order.
    pub fn children(&self) -> impl Iterator<Item = Node<'d>> + use<'d> {
        let Self { document, record, mut index } = *self;
        index += 1;
        std::iter::from_fn(move || {
            let child = document.node(index).filter(|_| index < record.end)?;
            let at = std::mem::replace(&mut index, child.end);
            Some(match child.kind {
                Kind::Element => Node::Element(Element { document, index: at, record: child }),
                Kind::Text => Node::Text(document.text(child.span)),
            })
        })
    }

    /// Its child elements in document order.
    pub fn elements(&self) -> impl Iterator<Item = Element<'d>> + use<'d> {
        self.children().filter_map(|child| match child {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// Its first child element `local` of `namespace`.
    #[must_use]
    pub fn child(&self, namespace: &str, local: &str) -> Option<Element<'d>> {
        self.elements().find(|element| element.is(namespace, local))
    }

    /// The text of its own children; that of child elements is not part of it.
    #[must_use]
    pub fn text(&self) -> Cow<'d, str> {
        let mut texts = self.children().filter_map(|child| match child {
            Node::Text(text) => Some(text),
            Node::Element(_) => None,
        });
        let Some(first) = texts.next() else { return Cow::Borrowed("") };
        let mut all = Cow::Borrowed(first);
        texts.for_each(|text| all.to_mut().push_str(text));
        all
    }

    /// Whether it has no children but white space.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.children().all(|child| matches!(child, Node::Text(text) if trim(text).is_empty()))
    }

    /// The namespace bound to `prefix` here; empty for the default without declaration.
    #[must_use]
    pub fn namespace_of(&self, prefix: &str) -> Option<&'d str> {
        self.document.resolve(prefix, self.record.scope).map(|binding| self.uri(binding))
    }

    /// The name that `text`, a `QName` in content, stands for here: with the default namespace when it has no
    /// prefix. `None` when its prefix is not declared.
    #[must_use]
    pub fn resolve(&self, text: &str) -> Option<QName> {
        let (prefix, local) = trim(text).split_once(':').unwrap_or(("", trim(text)));
        Some(QName::new(self.namespace_of(prefix)?, local))
    }

    /// Whether `xsi:nil` says that it has no value.
    #[must_use]
    pub fn is_nil(&self) -> bool {
        self.attribute(XSI, "nil").is_some_and(|value| matches!(trim(value), "true" | "1"))
    }

    /// The line and the column where it begins, counted from 1. Costs a walk over the document before it.
    #[must_use]
    pub fn place(&self) -> (usize, usize) {
        self.document.place(self.start())
    }

    /// Its source text as a document of its own: namespaces that it uses from outside are declared in it.
    #[must_use]
    pub fn to_source(&self) -> String {
        let source = self.document.source();
        let own = source.get(self.start()..self.record.source_end as usize).unwrap_or_default();
        let name = own.find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>')).filter(|at| *at > 0);
        let (name, rest) = own.split_at(name.unwrap_or(own.len()));
        let mut out = String::with_capacity(own.len() + 64);
        out.push_str(name);
        for (prefix, uri) in self.outer_namespaces() {
            let separator = if prefix.is_empty() { "" } else { ":" };
            let _ = write!(out, " xmlns{separator}{prefix}=\"");
            crate::writer::escape_attribute(&mut out, uri);
            out.push('"');
        }
        out.push_str(rest);
        out
    }

    /// What is declared outside it and in scope, each prefix once.
    fn outer_namespaces(&self) -> Vec<(&'d str, &'d str)> {
        let mut seen: Vec<&str> = Vec::new();
        let mut outer = Vec::new();
        let start = self.start();
        let mut scope = self.record.scope;
        while scope > 1 {
            let Some(binding) = self.document.binding(scope) else { break };
            let (prefix, uri) = (self.document.text(binding.prefix), self.document.text(binding.uri));
            if !seen.contains(&prefix) {
                seen.push(prefix);
                if (binding.prefix.start as usize) < start && !(prefix.is_empty() && uri.is_empty()) {
                    outer.push((prefix, uri));
                }
            }
            scope = binding.parent;
        }
        outer
    }

    /// Its number in the document.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Where its `<` stands.
    fn start(&self) -> usize {
        let name = self.record.span.start as usize;
        let before = self.document.source().get(..name).unwrap_or_default();
        before.rfind('<').unwrap_or_default()
    }

    fn uri(&self, binding: u32) -> &'d str {
        self.document.binding(binding).map_or("", |binding| self.document.text(binding.uri))
    }
}
