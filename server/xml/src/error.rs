//! Why a document was refused, and where.

/// A document that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (line {line}, column {column})")]
pub struct XmlError {
    /// What is wrong.
    pub reason: Reason,
    /// The line, counted from 1.
    pub line: usize,
    /// The column in characters, counted from 1.
    pub column: usize,
}

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It breaks a rule of XML 1.0 or of Namespaces in XML 1.0.
    #[error("{0}")]
    Malformed(String),
    /// It has a document type declaration, so it could define entities.
    #[error("a document type declaration is not allowed")]
    Doctype,
    /// An entity that is not one of the five predefined ones.
    #[error("the entity {0:?} is not defined")]
    Entity(String),
    /// A prefix that no declaration in scope binds.
    #[error("the prefix {0:?} is not declared")]
    Prefix(String),
    /// It passes one of the [`Limits`](crate::Limits).
    #[error("{what} exceeds the limit of {most}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        most: usize,
    },
    /// Its bytes are not text in an encoding that is understood here.
    #[error("{0}")]
    Encoding(String),
}

impl XmlError {
    /// The error `reason` at byte `offset` of `text`.
    pub(crate) fn at(reason: Reason, text: &str, offset: usize) -> Self {
        let (line, column) = place(text, offset);
        Self { reason, line, column }
    }
}

/// Line and column of byte `offset` of `text`, both counted from 1. Costs a walk over the text before it.
pub(crate) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..text.floor_char_boundary(offset)).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let last = before.rsplit('\n').next().unwrap_or_default();
    (line, last.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters_from_one() {
        assert_eq!(place("", 0), (1, 1));
        assert_eq!(place("aé\nüb", 6), (2, 2));
        assert_eq!(place("a\n", 2), (2, 1));
        assert_eq!(place("a", 99), (1, 2));
    }
}
