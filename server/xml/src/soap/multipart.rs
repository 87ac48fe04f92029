//! `multipart/related` messages (RFC 2387, RFC 2046): taken apart without copying what they hold, and put
//! together.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use memchr::memmem::Finder;

use super::media_type::MediaType;
use crate::attachment::Attachment;

/// Bounds of a multipart message. Its whole size is bounded by whoever receives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultipartLimits {
    /// How many parts there may be, the envelope among them. Default 128.
    pub parts: usize,
    /// How long the headers of one part may be, in bytes. Default 8 KiB.
    pub header_bytes: usize,
}

impl Default for MultipartLimits {
    fn default() -> Self {
        Self { parts: 128, header_bytes: 8 * 1024 }
    }
}

/// A message that is not put together as it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    /// Its media type names no usable boundary.
    #[error("the multipart message names no boundary")]
    NoBoundary,
    /// It ends before its last part does.
    #[error("the multipart message is cut off")]
    Truncated,
    /// It has no part, or not the one that it says it starts with.
    #[error("the multipart message has no part {0:?} to start with")]
    NoStart(String),
    /// The headers of a part are not of their form.
    #[error("the headers of a part of the multipart message are malformed")]
    Header,
    /// A part is in a transfer encoding that is not known, or not what it says.
    #[error(
        "a part of the multipart message is not in the transfer encoding {0:?}, or that is not supported"
    )]
    Encoding(String),
    /// There are too many parts, or their headers are too long.
    #[error("the multipart message has more than {most} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        most: usize,
    },
}

/// A part with all that its headers say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) content_id: String,
    pub(super) media_type: MediaType,
    pub(super) content: Bytes,
}

/// Takes a message apart: the part that it starts with, and the others.
pub(super) fn parse(
    media_type: &MediaType,
    body: &Bytes,
    limits: &MultipartLimits,
) -> Result<(Part, Vec<Attachment>), MultipartError> {
    // RFC 2046 allows 70 characters; some senders take more.
    let boundary = media_type.parameter("boundary").filter(|b| (1..=256).contains(&b.len()));
    let boundary = boundary.ok_or(MultipartError::NoBoundary)?;
    let mut parts = split(body, boundary, limits)?;
    let start = media_type.parameter("start").map(without_brackets);
    let root = match start {
        Some(start) => parts.iter().position(|part| part.content_id == start),
        None => (!parts.is_empty()).then_some(0),
    };
    let root = root.ok_or_else(|| MultipartError::NoStart(start.unwrap_or_default().to_owned()))?;
    let root = parts.remove(root);
    let attachments = parts.into_iter().map(|part| Attachment {
        content_id: part.content_id,
        content_type: part.media_type.to_string(),
        content: part.content,
    });
    Ok((root, attachments.collect()))
}

fn split(body: &Bytes, boundary: &str, limits: &MultipartLimits) -> Result<Vec<Part>, MultipartError> {
    let delimiter = format!("--{boundary}");
    let finder = Finder::new(delimiter.as_bytes());
    let mut parts = Vec::new();
    // Where the part that is being looked at begins; before the first delimiter there is none.
    let mut begun: Option<usize> = None;
    let mut from = 0;
    loop {
        let at = body.get(from..).and_then(|rest| finder.find(rest)).ok_or(MultipartError::Truncated)? + from;
        from = at + delimiter.len();
        let Some(end) = line_start(body, at) else { continue };
        let Some((next, is_last)) = line_end(body, from) else { continue };
        if let Some(begin) = begun {
            if parts.len() == limits.parts {
                return Err(MultipartError::Limit { what: "parts", most: limits.parts });
            }
            // The line end before the delimiter belongs to the delimiter, even if it is all there is.
            parts.push(part(&body.slice(begin..end.max(begin)), limits)?);
        }
        if is_last {
            return Ok(parts);
        }
        begun = Some(next);
        from = next;
    }
}

/// Where the line end before a delimiter at `at` begins; `None` when it is in the middle of a line.
fn line_start(body: &[u8], at: usize) -> Option<usize> {
    match body.get(..at)? {
        [] => Some(0),
        [.., b'\r', b'\n'] => Some(at - 2),
        [.., b'\n'] => Some(at - 1),
        _ => None,
    }
}

/// Where the line after a delimiter begins, and whether it was the last; `None` when the line goes on, so that
/// it was no delimiter.
fn line_end(body: &[u8], from: usize) -> Option<(usize, bool)> {
    let rest = body.get(from..)?;
    if rest.starts_with(b"--") {
        return Some((from + 2, true));
    }
    let spaces = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    match rest.get(spaces..)? {
        [b'\r', b'\n', ..] => Some((from + spaces + 2, false)),
        [b'\n', ..] => Some((from + spaces + 1, false)),
        _ => None,
    }
}

fn part(bytes: &Bytes, limits: &MultipartLimits) -> Result<Part, MultipartError> {
    let (headers, content) = match blank_line(bytes, limits.header_bytes) {
        Some((end, start)) => (bytes.get(..end).unwrap_or_default(), bytes.slice(start..)),
        None if bytes.len() > limits.header_bytes => {
            return Err(MultipartError::Limit { what: "bytes of headers", most: limits.header_bytes });
        }
        None => return Err(MultipartError::Header),
    };
    let headers = std::str::from_utf8(headers).map_err(|_| MultipartError::Header)?;
    let mut found =
        Part { content_id: String::new(), media_type: MediaType::new("text/plain"), content: Bytes::new() };
    let mut encoding = String::new();
    for line in unfolded(headers) {
        let (name, value) = line.split_once(':').ok_or(MultipartError::Header)?;
        let value = value.trim();
        match name.trim().to_ascii_lowercase().as_str() {
            "content-id" => found.content_id = without_brackets(value).to_owned(),
            "content-type" => found.media_type = MediaType::parse(value),
            "content-transfer-encoding" => encoding = value.to_ascii_lowercase(),
            _ => {}
        }
    }
    found.content = match encoding.as_str() {
        "" | "binary" | "8bit" | "7bit" => content,
        "base64" => {
            let compact: Vec<u8> =
                content.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
            STANDARD.decode(compact).map_err(|_| MultipartError::Encoding(encoding))?.into()
        }
        "quoted-printable" => quoted_printable(&content).ok_or(MultipartError::Encoding(encoding))?.into(),
        _ => return Err(MultipartError::Encoding(encoding.chars().take(40).collect())),
    };
    Ok(found)
}

/// Where the headers end and where the content begins.
fn blank_line(bytes: &[u8], most: usize) -> Option<(usize, usize)> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        match rest {
            [b'\r', b'\n', ..] => return Some((at, at + 2)),
            [b'\n', ..] => return Some((at, at + 1)),
            _ => {}
        }
        at += memchr::memchr(b'\n', rest.get(..rest.len().min(most))?)? + 1;
        if at > most {
            return None;
        }
    }
}

/// Header lines, with those that continue another joined to it.
fn unfolded(headers: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in headers.lines() {
        match lines.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => {
                last.push(' ');
                last.push_str(line.trim());
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

/// RFC 2045, section 6.7.
fn quoted_printable(content: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(content.len());
    let mut rest = content;
    loop {
        rest = match rest {
            [] => return Some(out),
            [b'=', b'\r', b'\n', rest @ ..] | [b'=', b'\n', rest @ ..] => rest,
            [b'=', high, low, rest @ ..] => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                out.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
                rest
            }
            [b'=', ..] => return None,
            [byte, rest @ ..] => {
                out.push(*byte);
                rest
            }
        };
    }
}

fn without_brackets(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or(text)
}

/// Puts a message together in pieces, so that attachments are not copied. `boundary` should be random; it is
/// lengthened until no part holds it. Returns the boundary used.
pub(super) fn build(root: &Part, attachments: &[Attachment], boundary: &str) -> (String, Vec<Bytes>) {
    let mut boundary: String = boundary.chars().filter(char::is_ascii_alphanumeric).take(48).collect();
    loop {
        let finder = Finder::new(boundary.as_bytes());
        let is_held = |content: &Bytes| finder.find(content).is_some();
        if boundary.len() >= 16 && !is_held(&root.content) && !attachments.iter().any(|a| is_held(&a.content))
        {
            break;
        }
        boundary.push_str("crosstie");
    }
    let mut pieces = Vec::with_capacity(attachments.len() * 2 + 3);
    let open = |content_id: &str, media_type: &MediaType, first: bool| {
        let before = if first { "" } else { "\r\n" };
        let content_id: String = content_id.chars().filter(|c| !c.is_control()).collect();
        Bytes::from(format!(
            "{before}--{boundary}\r\nContent-Type: {media_type}\r\nContent-Transfer-Encoding: binary\r\n\
             Content-ID: <{content_id}>\r\n\r\n"
        ))
    };
    pieces.push(open(&root.content_id, &root.media_type, true));
    pieces.push(root.content.clone());
    for attachment in attachments {
        pieces.push(open(&attachment.content_id, &MediaType::parse(&attachment.content_type), false));
        pieces.push(attachment.content.clone());
    }
    pieces.push(Bytes::from(format!("\r\n--{boundary}--\r\n")));
    (boundary, pieces)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(media_type: &str, body: &str) -> Result<(Part, Vec<Attachment>), MultipartError> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        parse(&MediaType::parse(media_type), &body, &MultipartLimits::default())
    }

    const BODY: &str = "preamble\r\n--b\r\nContent-ID: <x>\r\ncontent-type: image/png;\r\n name=\"p\"\r\n\r\n\r\n--bb\r\n--b \r\n\
        Content-Id: root@x\r\nContent-Type: application/xop+xml; charset=UTF-8\r\n\r\n<a/>\r\n--b\n\
        Content-Transfer-Encoding: BASE64\n\nAAE\nC\n--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\na=3D=\r\nb\r\n\
        --b\r\n\r\n\r\n--b--\r\nepilogue --b";

    #[test]
    fn messages_are_taken_apart() {
        let (root, others) = parsed("multipart/related; boundary=b; start=\"<root@x>\"", BODY).unwrap();
        assert_eq!((root.content_id.as_str(), &root.content[..]), ("root@x", &b"<a/>"[..]));
        assert_eq!(root.media_type.parameter("charset"), Some("UTF-8"));
        let contents: Vec<_> = others.iter().map(|part| &part.content[..]).collect();
        assert_eq!(contents, [&b"\r\n--bb"[..], &[0, 1, 2], b"a=b", b""]);
        assert_eq!(
            (others[0].content_id.as_str(), others[0].content_type.as_str()),
            ("x", "image/png; name=\"p\"")
        );
        let (first, _) = parsed("multipart/related; boundary=b", BODY).unwrap();
        assert_eq!(first.content_id, "x");
    }

    #[test]
    fn messages_that_are_not_what_they_say_are_refused() {
        let limits = MultipartLimits { parts: 2, header_bytes: 64 };
        let strict = |body: &str| {
            parse(&MediaType::parse("a/b; boundary=b"), &Bytes::copy_from_slice(body.as_bytes()), &limits)
        };
        assert_eq!(parsed("multipart/related", BODY), Err(MultipartError::NoBoundary));
        assert_eq!(
            parsed("a/b; boundary=b; start=<none>", BODY),
            Err(MultipartError::NoStart("none".into()))
        );
        assert_eq!(parsed("a/b; boundary=b", "--b--"), Err(MultipartError::NoStart(String::new())));
        for cut in ["", "--b", "--b\r\n\r\nx", "--b\r\n\r\nx\r\n--bb\r\n", "x--b--"] {
            assert_eq!(parsed("a/b; boundary=b", cut), Err(MultipartError::Truncated), "{cut}");
        }
        assert_eq!(
            parsed("a/b; boundary=b", "--b\r\nno colon\r\n\r\nx\r\n--b--"),
            Err(MultipartError::Header)
        );
        assert_eq!(parsed("a/b; boundary=b", "--b\r\nA: b\r\n--b--"), Err(MultipartError::Header));
        let encoded = |encoding: &str| {
            parsed(
                "a/b; boundary=b",
                &format!("--b\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n=?\r\n--b--"),
            )
        };
        for encoding in ["base64", "quoted-printable", "uuencode"] {
            assert_eq!(encoded(encoding), Err(MultipartError::Encoding(encoding.into())));
        }
        assert!(strict("--b\r\n\r\n1\r\n--b\r\n\r\n2\r\n--b--").is_ok());
        assert!(matches!(
            strict("--b\r\n\r\n1\r\n--b\r\n\r\n2\r\n--b\r\n\r\n3\r\n--b--"),
            Err(MultipartError::Limit { what: "parts", .. })
        ));
        let long = format!("--b\r\nA: {}\r\n\r\n1\r\n--b--", "x".repeat(100));
        assert!(matches!(strict(&long), Err(MultipartError::Limit { what: "bytes of headers", .. })));
        let endless = "--b\r\n".to_owned() + &"A: b\r\n".repeat(100_000) + "\r\n\r\n--b--";
        assert!(matches!(strict(&endless), Err(MultipartError::Limit { .. })));
    }

    proptest! {
        #[test]
        fn what_is_put_together_is_taken_apart_again(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5)) {
            let attachments: Vec<_> = contents.iter().enumerate().map(|(n, content)| Attachment {
                content_id: format!("{n}@x"),
                content_type: "image/png; a=\"b\"".into(),
                content: content.clone().into(),
            }).collect();
            let root = Part { content_id: "root".into(), media_type: MediaType::new("application/xop+xml"), content: "<a/>".into() };
            let (boundary, pieces) = build(&root, &attachments, "00112233445566778899aabbccddeeff");
            let body = Bytes::from(pieces.concat());
            let media_type = MediaType::new("multipart/related").with("boundary", &boundary).with("start", "<root>");
            let (again, others) = parse(&MediaType::parse(&media_type.to_string()), &body, &MultipartLimits::default()).unwrap();
            prop_assert_eq!(again, root);
            prop_assert_eq!(others, attachments);
        }

        #[test]
        fn a_part_may_hold_the_boundary(tail in "[a-z\r\n-]{0,10}") {
            let content = Bytes::from(format!("--0011223344556677{tail}--0011223344556677crosstie--"));
            let attachment = Attachment { content_id: "a".into(), content_type: "a/b".into(), content };
            let root = Part { content_id: "r".into(), media_type: MediaType::new("a/b"), content: Bytes::new() };
            let (boundary, pieces) = build(&root, std::slice::from_ref(&attachment), "0011223344556677");
            let media_type = MediaType::new("multipart/related").with("boundary", &boundary);
            let (_, others) = parse(&media_type, &Bytes::from(pieces.concat()), &MultipartLimits::default()).unwrap();
            prop_assert_eq!(others, vec![attachment]);
        }

        #[test]
        fn no_message_makes_it_panic(body in "(--b|--|\r\n|\n|Content-ID: x|Content-Transfer-Encoding: base64|:|=|[a-c]){0,20}") {
            let _ = parsed("multipart/related; boundary=b", &body);
        }
    }
}
