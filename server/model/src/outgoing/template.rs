//! Paths with parameters, as outgoings call them: `/customers/{id}/files/{rest:path}`.
//!
//! What a parameter may not do is leave its place: a value comes from a caller more often than not. `.` and
//! `..` are removed from paths by every server and proxy on the way (RFC 3986, section 5.2.4) even when they
//! are encoded, and an empty one turns `/customers/{id}` into the collection; all of them are refused.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// All but the unreserved characters, sub-delimiters, `:` and `@` (RFC 3986, section 3.3); of the
/// sub-delimiters `;` as well, with which some servers begin parameters of a segment.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}')
    .add(b';');

/// A path with places for parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Parameter { name: String, slashes: Slashes },
}

/// What becomes of slashes in a parameter's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slashes {
    Encoded,
    Kept,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its partner.
    #[error("{{ and }} enclose the name of a parameter; one of them is alone")]
    Brace,
    /// A parameter's name is none.
    #[error("{0:?} is no name of a parameter: letters, digits and _")]
    Name(String),
    /// A parameter has a type that there is not.
    #[error("{0:?} is no type of a parameter; there is only path")]
    Type(String),
    /// A parameter stands twice.
    #[error("the parameter {0} stands twice")]
    Twice(String),
    /// What stands between parameters has characters that must be encoded.
    #[error("{0:?} must be percent-encoded in a path")]
    Character(char),
}

/// Why no path can be made of parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A parameter of the path is missing.
    #[error("the parameter {0} of the path is missing")]
    Missing(String),
    /// A value would change which resource the path means.
    #[error("the parameter {0} of the path may not be empty, . or ..")]
    Unsafe(String),
}

impl PathTemplate {
    /// Reads `text`.
    ///
    /// # Errors
    /// Why it is no template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let Some(open) = rest.find('{') else {
                parts.push(literal(rest)?);
                break;
            };
            let (before, from) = rest.split_at(open);
            if !before.is_empty() {
                parts.push(literal(before)?);
            }
            let close = from.find('}').ok_or(TemplateError::Brace)?;
            let inside = from.get(1..close).unwrap_or_default();
            let parameter = parameter(inside)?;
            if parts.contains(&parameter) || names(&parts).any(|name| name == name_of(&parameter)) {
                return Err(TemplateError::Twice(name_of(&parameter).to_owned()));
            }
            parts.push(parameter);
            rest = from.get(close + 1..).unwrap_or_default();
        }
        Ok(Self { parts })
    }

    /// The names of its parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        names(&self.parts)
    }

    /// Writes the path to `out`, with the values that `value_of` gives for its parameters.
    ///
    /// # Errors
    /// A value is missing or would lead elsewhere.
    pub fn expand<'a>(
        &self,
        value_of: impl Fn(&str) -> Option<&'a str>,
        out: &mut String,
    ) -> Result<(), ExpandError> {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Parameter { name, slashes } => {
                    let value = value_of(name).ok_or_else(|| ExpandError::Missing(name.clone()))?;
                    let mut segments = match slashes {
                        Slashes::Encoded => value.split(NEVER),
                        Slashes::Kept => value.split(SLASH),
                    };
                    if value.is_empty() || segments.clone().any(|segment| matches!(segment, "." | "..")) {
                        return Err(ExpandError::Unsafe(name.clone()));
                    }
                    if let Some(first) = segments.next() {
                        let _ = write!(out, "{}", utf8_percent_encode(first, SEGMENT));
                    }
                    for segment in segments {
                        let _ = write!(out, "/{}", utf8_percent_encode(segment, SEGMENT));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Where a value is split into segments: nowhere, or at slashes.
const NEVER: fn(char) -> bool = |_| false;
const SLASH: fn(char) -> bool = |c| c == '/';

fn literal(text: &str) -> Result<Part, TemplateError> {
    if text.contains('}') {
        return Err(TemplateError::Brace);
    }
    match text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '?' | '#' | '"' | '<' | '>' | '\\')) {
        Some(c) => Err(TemplateError::Character(c)),
        None => Ok(Part::Text(text.to_owned())),
    }
}

fn parameter(inside: &str) -> Result<Part, TemplateError> {
    let (name, slashes) = match inside.split_once(':') {
        None => (inside, Slashes::Encoded),
        Some((name, "path")) => (name, Slashes::Kept),
        Some((_, other)) => return Err(TemplateError::Type(other.to_owned())),
    };
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        return Err(TemplateError::Name(name.to_owned()));
    }
    Ok(Part::Parameter { name: name.to_owned(), slashes })
}

fn names(parts: &[Part]) -> impl Iterator<Item = &str> {
    parts.iter().filter_map(|part| match part {
        Part::Parameter { name, .. } => Some(name.as_str()),
        Part::Text(_) => None,
    })
}

fn name_of(part: &Part) -> &str {
    match part {
        Part::Parameter { name, .. } => name,
        Part::Text(_) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expand(template: &str, values: &[(&str, &str)]) -> Result<String, ExpandError> {
        let mut path = String::new();
        let value_of = |name: &str| values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        PathTemplate::parse(template).unwrap().expand(value_of, &mut path).map(|()| path)
    }

    #[test]
    fn parameters_are_encoded_into_their_place() {
        assert_eq!(expand("/", &[]).unwrap(), "/");
        assert_eq!(expand("/c/{id}/x", &[("id", "a b/ü?")]).unwrap(), "/c/a%20b%2F%C3%BC%3F/x");
        assert_eq!(expand("/f/{rest:path}", &[("rest", "a/b c/d")]).unwrap(), "/f/a/b%20c/d");
        assert_eq!(expand("/v{major}.{minor}", &[("major", "1"), ("minor", "2")]).unwrap(), "/v1.2");
    }

    #[test]
    fn a_value_that_would_lead_elsewhere_is_refused() {
        for value in ["", ".", ".."] {
            assert_eq!(expand("/c/{id}", &[("id", value)]), Err(ExpandError::Unsafe("id".into())), "{value}");
        }
        for value in ["a/../b", "..", "../x", "a/."] {
            assert!(expand("/f/{rest:path}", &[("rest", value)]).is_err(), "{value}");
        }
        assert_eq!(expand("/c/{id}", &[]), Err(ExpandError::Missing("id".into())));
    }

    #[test]
    fn what_is_no_template_is_told() {
        for (text, error) in [
            ("/a/{b", TemplateError::Brace),
            ("/a/b}", TemplateError::Brace),
            ("/a/{}", TemplateError::Name(String::new())),
            ("/a/{b c}", TemplateError::Name("b c".into())),
            ("/a/{b:int}", TemplateError::Type("int".into())),
            ("/{a}/{a}", TemplateError::Twice("a".into())),
            ("/a?b", TemplateError::Character('?')),
        ] {
            assert_eq!(PathTemplate::parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_value_reaches_beyond_its_segment(value in "\\PC{1,40}") {
            if let Ok(path) = expand("/a/{v}/b", &[("v", &value)]) {
                prop_assert_eq!(path.split('/').count(), 4);
                prop_assert!(path.parse::<http::uri::PathAndQuery>().is_ok_and(|parsed| parsed.query().is_none()));
            }
        }
    }
}
