//! `multipart/form-data` (RFC 7578) out of a body that is complete in memory. Parts are slices of the body,
//! not copies, except where multer has to join them.

use bytes::Bytes;
use crosstie_model::message::Part;
use futures_util::FutureExt;

/// Most parts of one body; more is 400.
pub const MAX_PARTS: usize = 1000;

/// Why a body is no form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    /// The Content-Type names no boundary.
    #[error("the Content-Type has no boundary")]
    NoBoundary,
    /// More than [`MAX_PARTS`].
    #[error("there are more than {MAX_PARTS} parts")]
    TooMany,
    /// A part has no name.
    #[error("part {0} has no name in its Content-Disposition")]
    Unnamed(usize),
    /// The framing is broken.
    #[error("the multipart body is malformed: {0}")]
    Malformed(String),
}

/// Splits `body` at `boundary`.
///
/// # Errors
/// [`MultipartError`].
pub fn parse(body: Bytes, boundary: &str) -> Result<Vec<Part>, MultipartError> {
    if boundary.is_empty() || boundary.len() > 70 {
        return Err(MultipartError::NoBoundary);
    }
    let stream = futures_util::stream::once(std::future::ready(Ok::<_, std::convert::Infallible>(body)));
    // The stream holds everything, so nothing ever waits.
    collect(multer::Multipart::new(stream, boundary))
        .now_or_never()
        .unwrap_or_else(|| Err(MultipartError::Malformed("it is incomplete".into())))
}

async fn collect(mut multipart: multer::Multipart<'_>) -> Result<Vec<Part>, MultipartError> {
    let malformed = |error: multer::Error| MultipartError::Malformed(error.to_string());
    let mut parts = Vec::new();
    while let Some(field) = multipart.next_field().await.map_err(malformed)? {
        if parts.len() == MAX_PARTS {
            return Err(MultipartError::TooMany);
        }
        let name = field.name().map(str::to_owned).ok_or(MultipartError::Unnamed(parts.len() + 1))?;
        let file_name = field.file_name().map(str::to_owned);
        let content_type = field.content_type().map(ToString::to_string);
        let content = field.bytes().await.map_err(malformed)?;
        parts.push(Part { name, file_name, content_type, content });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(text: &str) -> Bytes {
        Bytes::from(text.replace('\n', "\r\n"))
    }

    #[test]
    fn fields_and_files_are_told_apart() {
        let text = "--X\nContent-Disposition: form-data; name=\"a\"\n\none\n--X\n\
            Content-Disposition: form-data; name=\"f\"; filename=\"t.txt\"\nContent-Type: text/plain\n\n\
            line\nline\n--X--\n";
        let parts = parse(body(text), "X").unwrap();
        assert_eq!((parts[0].name.as_str(), &parts[0].content[..]), ("a", &b"one"[..]));
        assert_eq!(parts[1].file_name.as_deref(), Some("t.txt"));
        assert_eq!(parts[1].content_type.as_deref(), Some("text/plain"));
        assert_eq!(&parts[1].content[..], b"line\r\nline");
    }

    #[test]
    fn a_broken_body_says_what_is_wrong() {
        assert_eq!(parse(body(""), ""), Err(MultipartError::NoBoundary));
        let unnamed = "--X\nContent-Type: text/plain\n\none\n--X--\n";
        assert_eq!(parse(body(unnamed), "X"), Err(MultipartError::Unnamed(1)));
        let cut = "--X\nContent-Disposition: form-data; name=\"a\"\n\none";
        assert!(matches!(parse(body(cut), "X"), Err(MultipartError::Malformed(_))));
        let many = "--X\nContent-Disposition: form-data; name=\"a\"\n\n\n".repeat(MAX_PARTS + 1) + "--X--\n";
        assert_eq!(parse(body(&many), "X"), Err(MultipartError::TooMany));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in "[-X\r\n:a ]{0,60}") {
            let mut all = cut.into_bytes();
            all.extend(bytes);
            let _ = parse(Bytes::from(all), "X");
        }
    }
}
