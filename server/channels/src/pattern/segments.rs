//! A request path, split and percent-decoded. Nothing is allocated for paths of up to twelve segments
//! without percent-encoding.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

/// Why a path cannot be matched at all (400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("the path does not begin with /")]
    NoSlash,
    /// Percent-encoded bytes are no UTF-8, or NUL.
    #[error("the path is not valid percent-encoded UTF-8")]
    NotText,
    /// A segment is `.` or `..` once decoded: clients resolve these (RFC 3986, section 5.2.4), so one that
    /// arrives tries to reach something else than it seems to.
    #[error("the path contains a . or .. segment")]
    DotSegment,
}

/// The decoded segments of a path.
#[derive(Debug)]
pub struct Segments<'p>(SmallVec<[Cow<'p, str>; 12]>);

impl<'p> Segments<'p> {
    /// Splits `path` at its slashes and decodes each part. A `%` that two hexadecimal digits do not follow
    /// stands for itself, as in the WHATWG URL standard.
    ///
    /// # Errors
    /// [`PathError`] says which rule the path breaks.
    pub fn of(path: &'p str) -> Result<Self, PathError> {
        let rest = path.strip_prefix('/').ok_or(PathError::NoSlash)?;
        let mut segments = SmallVec::new();
        for part in rest.split('/') {
            let decoded = if part.contains('%') {
                percent_decode_str(part).decode_utf8().map_err(|_| PathError::NotText)?
            } else {
                Cow::Borrowed(part)
            };
            if matches!(&*decoded, "." | "..") {
                return Err(PathError::DotSegment);
            }
            if decoded.contains('\0') {
                return Err(PathError::NotText);
            }
            segments.push(decoded);
        }
        Ok(Self(segments))
    }

    /// The segments in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Cow<'p, str>] {
        &self.0
    }

    /// What a capture stands for.
    pub(super) fn value(&self, capture: super::trie::Capture) -> String {
        use super::trie::Capture;
        match capture {
            Capture::Segment(at) => self.0.get(at).map_or_else(String::new, |s| s.clone().into_owned()),
            Capture::From(at) => self.0.get(at..).unwrap_or_default().join("/"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(path: &str) -> Result<Vec<String>, PathError> {
        Ok(Segments::of(path)?.as_slice().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_path_is_split_before_it_is_decoded() {
        assert_eq!(split("/a%2Fb/c").unwrap(), ["a/b", "c"]);
        assert_eq!(split("/").unwrap(), [""]);
        assert_eq!(split("/a/").unwrap(), ["a", ""]);
        assert_eq!(split("/caf%C3%A9/100%/%zz").unwrap(), ["café", "100%", "%zz"]);
    }

    #[test]
    fn a_path_that_is_no_text_or_climbs_is_refused() {
        assert_eq!(split("/%FF"), Err(PathError::NotText));
        assert_eq!(split("/a%00b"), Err(PathError::NotText));
        assert_eq!(split("/a/../b"), Err(PathError::DotSegment));
        assert_eq!(split("/%2e%2E/b"), Err(PathError::DotSegment));
        assert_eq!(split("*"), Err(PathError::NoSlash));
    }
}
