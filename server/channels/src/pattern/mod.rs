//! Path patterns: `/customers/{id:int}/files/{rest:path}`.
//!
//! A pattern is a sequence of segments, each fixed text or one parameter that takes the whole segment; only
//! `path` takes more than one and so must be last. Where several patterns match a path, the most specific
//! one answers, compared segment by segment from the left: fixed text before `bool`, `int`, `date`, `uuid`,
//! `float`, `str`, `path`. The order in which channels were defined plays no part.
//!
//! Rules for paths:
//! - A trailing slash is part of the path: `/a` and `/a/` are different, and so are their patterns.
//! - No parameter matches an empty segment.
//! - A path is split at its slashes first and percent-decoded after, so `%2F` is part of a value. Decoded
//!   text must be UTF-8 without NUL, and no segment may be `.` or `..`; otherwise the answer is 400.

mod segments;
mod trie;

pub use segments::{PathError, Segments};
pub use trie::{Captures, PathTrie};

use std::fmt;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

/// Most segments of a pattern; bounds the depth of the trie.
pub const MAX_SEGMENTS: usize = 64;

/// The type of a path parameter, most specific first: that order decides which pattern answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParamType {
    /// `true` or `false`.
    Bool,
    /// A whole number of 64 bits.
    Int,
    /// A calendar date, `YYYY-MM-DD` (RFC 3339 full-date).
    Date,
    /// A UUID in its hyphenated form (RFC 9562, section 4).
    Uuid,
    /// A finite decimal number.
    Float,
    /// Any one segment that is not empty.
    Str,
    /// The rest of the path, slashes included; at least one character.
    Path,
}

impl ParamType {
    const ALL: [Self; 7] =
        [Self::Bool, Self::Int, Self::Date, Self::Uuid, Self::Float, Self::Str, Self::Path];

    /// The type's word in a pattern.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Date => "date",
            Self::Uuid => "uuid",
            Self::Float => "float",
            Self::Str => "str",
            Self::Path => "path",
        }
    }

    /// Whether a decoded value is of this type.
    #[must_use]
    pub fn accepts(self, value: &str) -> bool {
        match self {
            Self::Bool => matches!(value, "true" | "false"),
            Self::Int => is_integer(value),
            Self::Date => is_date(value),
            Self::Uuid => is_uuid(value),
            Self::Float => is_float(value),
            Self::Str | Self::Path => !value.is_empty(),
        }
    }
}

fn is_integer(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    digits.bytes().all(|b| b.is_ascii_digit()) && value.parse::<i64>().is_ok()
}

fn is_float(value: &str) -> bool {
    let plain = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E');
    value.bytes().all(plain)
        && value.bytes().any(|b| b.is_ascii_digit())
        && value.parse::<f64>().is_ok_and(f64::is_finite)
}

fn is_date(value: &str) -> bool {
    let mut parts = value.splitn(3, '-');
    let mut number = |length: usize| {
        let part = parts.next().filter(|p| p.len() == length && p.bytes().all(|b| b.is_ascii_digit()))?;
        part.parse::<u16>().ok()
    };
    let (Some(year), Some(month), Some(day)) = (number(4), number(2), number(2)) else { return false };
    let (Ok(month), Ok(day)) = (u8::try_from(month), u8::try_from(day)) else { return false };
    let Ok(month) = time::Month::try_from(month) else { return false };
    time::Date::from_calendar_date(i32::from(year), month, day).is_ok()
}

fn is_uuid(value: &str) -> bool {
    value.len() == 36
        && value.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// One segment of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Text that must match exactly, decoded.
    Static(Box<str>),
    /// A parameter.
    Param {
        /// Its name.
        name: Arc<str>,
        /// Its type.
        kind: ParamType,
    },
}

/// A parsed path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
}

/// Why a text is no path pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It does not begin with a slash.
    #[error("a path begins with /")]
    NoSlash,
    /// More than [`MAX_SEGMENTS`].
    #[error("a path has at most {MAX_SEGMENTS} segments")]
    TooManySegments,
    /// A brace where none may be.
    #[error("{0:?} is no valid segment: a parameter takes the whole segment, as in /{{name}} or /{{id:int}}")]
    BadSegment(String),
    /// A parameter's name is not an identifier.
    #[error("{0:?} is no parameter name: letters, digits and _ are allowed, not starting with a digit")]
    BadName(String),
    /// A parameter's type is not known.
    #[error("{0:?} is no parameter type; there are str, int, float, bool, uuid, date, path")]
    UnknownType(String),
    /// Two parameters have one name.
    #[error("the parameter {0:?} occurs twice")]
    Duplicate(String),
    /// `path` takes the rest, so nothing can follow it.
    #[error("a parameter of type path must be the last segment")]
    PathNotLast,
    /// Fixed text that no request could match.
    #[error(
        "{0:?} can never match: . and .. and empty segments inside a path are not allowed, text is UTF-8"
    )]
    Unmatchable(String),
}

impl PathPattern {
    /// Parses a pattern. Fixed text may be written decoded or percent-encoded.
    ///
    /// # Errors
    /// [`PatternError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let rest = text.strip_prefix('/').ok_or(PatternError::NoSlash)?;
        let parts: Vec<_> = rest.split('/').collect();
        if parts.len() > MAX_SEGMENTS {
            return Err(PatternError::TooManySegments);
        }
        let last = parts.len().saturating_sub(1);
        let mut segments: Vec<Segment> = Vec::with_capacity(parts.len());
        for (at, part) in parts.into_iter().enumerate() {
            let segment = parse_segment(part, at == last)?;
            if let Segment::Param { name, kind } = &segment {
                let known =
                    segments.iter().any(|s| matches!(s, Segment::Param { name: other, .. } if other == name));
                if known {
                    return Err(PatternError::Duplicate(name.to_string()));
                }
                if *kind == ParamType::Path && at != last {
                    return Err(PatternError::PathNotLast);
                }
            }
            segments.push(segment);
        }
        Ok(Self { segments })
    }

    /// The segments in order.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The parameters in order.
    pub fn params(&self) -> impl Iterator<Item = (&Arc<str>, ParamType)> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Param { name, kind } => Some((name, *kind)),
            Segment::Static(_) => None,
        })
    }

    /// The pattern with its parameters' names taken out: two patterns of one shape match the same paths.
    #[must_use]
    pub fn shape(&self) -> String {
        let mut shape = String::new();
        for segment in &self.segments {
            shape.push('/');
            match segment {
                // Braces cannot occur in fixed text, so a shape is unambiguous.
                Segment::Static(text) => shape.push_str(text),
                Segment::Param { kind, .. } => {
                    shape.push('{');
                    shape.push_str(kind.as_str());
                    shape.push('}');
                }
            }
        }
        shape
    }

    /// The path in OpenAPI's notation: `{id}` without a type.
    #[must_use]
    pub fn template(&self) -> String {
        let mut template = String::new();
        for segment in &self.segments {
            template.push('/');
            match segment {
                Segment::Static(text) => template.push_str(&encode(text)),
                Segment::Param { name, .. } => {
                    template.push('{');
                    template.push_str(name);
                    template.push('}');
                }
            }
        }
        template
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Static(text) => write!(f, "/{}", encode(text))?,
                Segment::Param { name, kind: ParamType::Str } => write!(f, "/{{{name}}}")?,
                Segment::Param { name, kind } => write!(f, "/{{{name}:{}}}", kind.as_str())?,
            }
        }
        Ok(())
    }
}

/// Fixed text as it may stand in a path: what would end the path or begin an encoding is encoded.
fn encode(text: &str) -> String {
    text.replace('%', "%25").replace('?', "%3F").replace('#', "%23")
}

fn parse_segment(part: &str, last: bool) -> Result<Segment, PatternError> {
    if let Some(inner) = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let (name, kind) = inner.split_once(':').unwrap_or((inner, "str"));
        if name.contains(['{', '}']) {
            return Err(PatternError::BadSegment(part.to_owned()));
        }
        let first = |c: char| c.is_ascii_alphabetic() || c == '_';
        if !name.starts_with(first) || !name.chars().all(|c| first(c) || c.is_ascii_digit()) {
            return Err(PatternError::BadName(name.to_owned()));
        }
        let kind = ParamType::ALL
            .into_iter()
            .find(|known| known.as_str() == kind)
            .ok_or_else(|| PatternError::UnknownType(kind.to_owned()))?;
        return Ok(Segment::Param { name: Arc::from(name), kind });
    }
    if part.contains(['{', '}']) {
        return Err(PatternError::BadSegment(part.to_owned()));
    }
    let unmatchable = || PatternError::Unmatchable(part.to_owned());
    let decoded = percent_decode_str(part).decode_utf8().map_err(|_| unmatchable())?;
    let never = matches!(&*decoded, "." | "..") || decoded.contains(['\0', '{', '}', '/']);
    if never || (decoded.is_empty() && !last) || part.contains(['?', '#']) {
        return Err(unmatchable());
    }
    Ok(Segment::Static(decoded.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_prints_as_it_was_written() {
        for text in ["/", "/a", "/a/", "/customers/{id:int}/files/{rest:path}", "/{name}", "/café/{d:date}"]
        {
            assert_eq!(PathPattern::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(PathPattern::parse("/caf%C3%A9").unwrap(), PathPattern::parse("/café").unwrap());
    }

    #[test]
    fn a_wrong_pattern_says_what_is_wrong() {
        use PatternError as E;
        let error = |text: &str| PathPattern::parse(text).unwrap_err();
        assert_eq!(error("a"), E::NoSlash);
        assert_eq!(error("/a{b}"), E::BadSegment("a{b}".into()));
        assert_eq!(error("/{a}{b}"), E::BadSegment("{a}{b}".into()));
        assert_eq!(error("/{9a}"), E::BadName("9a".into()));
        assert_eq!(error("/{}"), E::BadName(String::new()));
        assert_eq!(error("/{a:number}"), E::UnknownType("number".into()));
        assert_eq!(error("/{a}/{a:int}"), E::Duplicate("a".into()));
        assert_eq!(error("/{a:path}/b"), E::PathNotLast);
        assert_eq!(error("/a//b"), E::Unmatchable(String::new()));
        assert_eq!(error("/a/../b"), E::Unmatchable("..".into()));
        assert_eq!(error("/a?b"), E::Unmatchable("a?b".into()));
        assert_eq!(error("/%FF"), E::Unmatchable("%FF".into()));
        assert_eq!(error(&"/a".repeat(MAX_SEGMENTS + 1)), E::TooManySegments);
    }

    #[test]
    fn types_accept_what_they_say() {
        use ParamType as T;
        for (kind, good, bad) in [
            (T::Bool, vec!["true", "false"], vec!["", "True", "1"]),
            (
                T::Int,
                vec!["0", "-7", "9223372036854775807"],
                vec!["", "-", "+1", "1.0", "9223372036854775808"],
            ),
            (
                T::Date,
                vec!["2024-02-29"],
                vec!["2023-02-29", "2024-2-9", "2024-13-01", "20240229", "+024-01-01"],
            ),
            (
                T::Uuid,
                vec!["123e4567-e89b-12d3-a456-426614174000", "123E4567-E89B-12D3-A456-426614174000"],
                vec!["123e4567e89b12d3a456426614174000", "123e4567-e89b-12d3-a456-42661417400g"],
            ),
            (T::Float, vec!["1", "-1.5", "1e3", ".5"], vec!["", "nan", "inf", "1e999", "0x1", "-"]),
            (T::Str, vec!["a", "ä b"], vec![""]),
        ] {
            for value in good {
                assert!(kind.accepts(value), "{kind:?} {value:?}");
            }
            for value in bad {
                assert!(!kind.accepts(value), "{kind:?} {value:?}");
            }
        }
    }

    #[test]
    fn a_pattern_with_encoded_text_is_a_pattern_again_when_written() {
        for text in ["/%%44444W", "/what%3Fnow", "/a%23b", "/100%25"] {
            let pattern = PathPattern::parse(text).unwrap();
            let again = PathPattern::parse(&pattern.to_string()).unwrap();
            assert_eq!(again.shape(), pattern.shape(), "{text}");
        }
    }
}
