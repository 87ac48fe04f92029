//! A document as a tree whose nodes know their lines: what TOML and YAML are both read into before anything
//! is checked.
//!
//! Lines are found by walking the tree along a JSON Pointer, so memory stays linear in the document however
//! deep or long its keys are; a map from every pointer to its line would not.

pub(crate) mod scalar;
pub(crate) mod toml;
pub(crate) mod yaml;

use serde_json::{Map, Value};

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// The line, from 1.
    pub(crate) line: usize,
    /// What stands there.
    pub(crate) content: Content,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// A text, number, boolean or null.
    Scalar(Value),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values in the order they were written.
    Mapping(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// The line the key stands on.
    pub(crate) line: usize,
    /// The value.
    pub(crate) node: Node,
}

/// A fault found while reading, before its place in the document has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxFault {
    /// The line, from 1.
    pub(crate) line: usize,
    /// What is wrong there.
    pub(crate) detail: String,
}

impl Node {
    /// The value without its lines.
    pub(crate) fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::Sequence(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Content::Mapping(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.node.to_value())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// Whether this is a mapping with `key`.
    pub(crate) fn holds(&self, key: &str) -> bool {
        matches!(&self.content, Content::Mapping(entries) if entries.iter().any(|entry| entry.key == key))
    }

    /// The line of what `pointer` (RFC 6901) names: that of its key, or of the deepest part of the way that
    /// exists.
    pub(crate) fn line_of(&self, pointer: &str) -> usize {
        let mut line = self.line;
        let mut node = self;
        for token in pointer.split('/').skip(1) {
            let token = unescape(token);
            match &node.content {
                Content::Mapping(entries) => {
                    let Some(entry) = entries.iter().find(|entry| entry.key == token) else { return line };
                    line = entry.line;
                    node = &entry.node;
                }
                Content::Sequence(items) => {
                    let Some(item) = token.parse::<usize>().ok().and_then(|index| items.get(index)) else {
                        return line;
                    };
                    line = item.line;
                    node = item;
                }
                Content::Scalar(_) => return line,
            }
        }
        line
    }
}

/// A key as one token of a JSON Pointer.
pub(crate) fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

/// A token of a JSON Pointer as the key it stands for.
pub(crate) fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_finds_the_line_of_its_key() {
        let node = yaml::read("a:\n  b/c:\n    - 1\n    - d: x\n").documents.remove(0);
        assert_eq!(node.line_of(""), 1);
        assert_eq!(node.line_of("/a"), 1);
        assert_eq!(node.line_of("/a/b~1c"), 2);
        assert_eq!(node.line_of("/a/b~1c/0"), 3);
        assert_eq!(node.line_of("/a/b~1c/1/d"), 4);
        assert_eq!(node.line_of("/a/b~1c/1/missing"), 4);
        assert_eq!(node.line_of("/a/missing/deeper"), 1);
    }
}
