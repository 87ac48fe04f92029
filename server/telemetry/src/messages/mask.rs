//! Keeps secrets out of kept messages: by the names of header fields and of fields in bodies, and by what
//! credentials look like in text.
//!
//! Names count in JSON, XML, forms and multipart forms. A body that was cut off in the middle is searched as text;
//! one that is no text at all is kept as it is. Works on the writer's thread.

use std::borrow::Cow;

use crosstie_model::kept::KeepPolicy;
use http::{HeaderName, HeaderValue};
use memchr::memmem;
use serde_json::Value;

use crate::masking::{MASK, is_secret_name, mask_assigned, mask_text};

/// What is written of a header field.
pub(super) fn header<'a>(name: &HeaderName, value: &'a HeaderValue, policy: &KeepPolicy) -> &'a [u8] {
    if is_secret(name.as_str(), policy) { MASK.as_bytes() } else { value.as_bytes() }
}

/// A body of that media type with its secrets masked; nothing when it has none.
pub(super) fn body(bytes: &[u8], media_type: &[u8], policy: &KeepPolicy) -> Option<Vec<u8>> {
    if is_multipart(media_type) {
        return multipart(bytes, policy);
    }
    let Ok(text) = std::str::from_utf8(bytes).or_else(|error| {
        // Cut off in the middle of a character it is text all the same.
        let whole = bytes.get(..error.valid_up_to()).unwrap_or_default();
        if error.error_len().is_none() { std::str::from_utf8(whole) } else { Err(error) }
    }) else {
        return None;
    };
    match text.trim_start().bytes().next() {
        Some(b'{' | b'[') => match serde_json::from_str::<Value>(text) {
            Ok(mut value) => json(&mut value, policy).then(|| value.to_string().into_bytes()),
            Err(_) => plain(text, policy),
        },
        Some(b'<') => {
            let elements = xml(text, policy);
            let shown = elements.as_deref().unwrap_or(text);
            plain(shown, policy).or_else(|| elements.map(String::into_bytes))
        }
        _ => plain(text, policy),
    }
}

fn is_secret(name: &str, policy: &KeepPolicy) -> bool {
    is_secret_name(name) || policy.masks(name)
}

/// Masks members whose names are secret, and what looks like credentials in strings; says whether there was any.
fn json(value: &mut Value, policy: &KeepPolicy) -> bool {
    match value {
        Value::Object(members) => members.iter_mut().fold(false, |masked, (name, member)| {
            let is_masked = if is_secret(name, policy) && !member.is_null() {
                *member = MASK.into();
                true
            } else {
                json(member, policy)
            };
            masked | is_masked
        }),
        Value::Array(items) => items.iter_mut().fold(false, |masked, item| masked | json(item, policy)),
        Value::String(text) => match mask_text(text) {
            Cow::Owned(masked) => {
                *text = masked;
                true
            }
            Cow::Borrowed(_) => false,
        },
        _ => false,
    }
}

/// What credentials look like in text, and `name=value` for the policy's names.
fn plain(text: &str, policy: &KeepPolicy) -> Option<Vec<u8>> {
    let mut masked = mask_text(text);
    for name in policy.names() {
        if let Cow::Owned(more) = mask_assigned(&masked, name) {
            masked = Cow::Owned(more);
        }
    }
    match masked {
        Cow::Owned(masked) => Some(masked.into_bytes()),
        Cow::Borrowed(_) => None,
    }
}

/// Masks the content of elements whose names, without prefix, are secret. Tolerates what is no XML: it finds tags,
/// not structure.
fn xml(text: &str, policy: &KeepPolicy) -> Option<String> {
    let (mut shown, mut done, mut from) = (String::new(), 0, 0);
    while let Some(open) = text.get(from..).and_then(|rest| rest.find('<')).map(|at| from + at) {
        from = open + 1;
        let Some((name, end)) = start_tag(text, open) else { continue };
        from = end;
        let local = name.rsplit(':').next().unwrap_or(name);
        if !is_secret(local, policy) {
            continue;
        }
        let closing = format!("</{name}");
        // One that is cut off is secret to its end.
        let close = text.get(end..).and_then(|rest| rest.find(&closing)).map_or(text.len(), |at| end + at);
        if close > end {
            shown.push_str(text.get(done..end).unwrap_or_default());
            shown.push_str(MASK);
            (done, from) = (close, close);
        }
    }
    (done > 0).then(|| shown + text.get(done..).unwrap_or_default())
}

/// The name of the start tag at `open` and where its content begins; nothing for other tags and empty elements.
fn start_tag(text: &str, open: usize) -> Option<(&str, usize)> {
    let rest = text.get(open + 1..)?;
    let length = rest.find(|c: char| c.is_whitespace() || matches!(c, '>' | '/' | '<'))?;
    let name = rest.get(..length).filter(|name| !name.is_empty() && !name.starts_with(['!', '?']))?;
    let mut quote = None;
    for (at, byte) in rest.bytes().enumerate().skip(length) {
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            (None, b'>') if rest.as_bytes().get(at - 1) == Some(&b'/') => return None,
            (None, b'>') => return Some((name, open + 1 + at + 1)),
            _ => {}
        }
    }
    None
}

fn is_multipart(media_type: &[u8]) -> bool {
    media_type.get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
}

/// Masks the content of parts whose names are secret (RFC 7578, section 4.2): what stands between the empty line
/// after `name="…"` and the next boundary.
fn multipart(bytes: &[u8], policy: &KeepPolicy) -> Option<Vec<u8>> {
    let first = bytes.strip_prefix(b"--")?;
    let line = memmem::find(first, b"\r\n")?;
    let mut delimiter = b"\r\n--".to_vec();
    delimiter.extend_from_slice(first.get(..line)?);
    let (mut shown, mut rest, mut is_masked) = (Vec::with_capacity(bytes.len()), bytes, false);
    while let Some(head) = memmem::find(rest, b"\r\n\r\n") {
        let (before, content) = rest.split_at(head + 4);
        let end = memmem::find(content, &delimiter).unwrap_or(content.len());
        let (content, after) = content.split_at(end);
        shown.extend_from_slice(before);
        if part_name(before).is_some_and(|name| is_secret(&name, policy)) && !content.is_empty() {
            shown.extend_from_slice(MASK.as_bytes());
            is_masked = true;
        } else {
            shown.extend_from_slice(content);
        }
        rest = after;
    }
    shown.extend_from_slice(rest);
    is_masked.then_some(shown)
}

fn part_name(head: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(head);
    let line = text
        .lines()
        .rev()
        .find(|line| line.get(..19).is_some_and(|start| start.eq_ignore_ascii_case("content-disposition")))?;
    let (_, name) = line.split_once("; name=").or_else(|| line.split_once(";name="))?;
    let name = name.strip_prefix('"').map_or_else(
        || name.split(';').next().unwrap_or_default(),
        |quoted| quoted.split('"').next().unwrap_or_default(),
    );
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::definition::KeptMessages;
    use proptest::prelude::*;

    fn masked(text: &str, media_type: &str) -> String {
        let settings = KeptMessages { mask: vec!["PIN".into(), "card".into()], ..KeptMessages::default() };
        let policy = KeepPolicy::new(&settings);
        let found = body(text.as_bytes(), media_type.as_bytes(), &policy);
        found.map_or_else(|| text.to_owned(), |bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn members_of_json_are_masked_by_name_and_strings_by_their_look() {
        for (text, shown) in [
            (
                r#"{"user":"u","password":"a\"b","deep":[{"card":{"no":1}}]}"#,
                r#"{"user":"u","password":"***","deep":[{"card":"***"}]}"#,
            ),
            (
                r#"{"pin":1234,"note":"sent Bearer eyJhbGciOi.x.y"}"#,
                r#"{"pin":"***","note":"sent Bearer ***"}"#,
            ),
            // Cut off, and so no JSON.
            (r#"{"card": "4111 1111", "password": "hun"#, r#"{"card": "***", "password": "***"#),
            (r#"{"a": 1, "discarded": [1.10, null]}"#, r#"{"a": 1, "discarded": [1.10, null]}"#),
        ] {
            assert_eq!(masked(text, "application/json"), shown);
        }
    }

    #[test]
    fn elements_and_attributes_of_xml_are_masked_by_name() {
        for (text, shown) in [
            (
                "<a><w:Password Type='x>y'>hush</w:Password><b>1</b></a>",
                "<a><w:Password Type='x>y'>***</w:Password><b>1</b></a>",
            ),
            ("<a password=\"hush\"><pin/><pin>12</pin></a>", "<a password=\"***\"><pin/><pin>***</pin></a>"),
            (
                "<?xml version='1.0'?><!-- x --><a><secret>cut of",
                "<?xml version='1.0'?><!-- x --><a><secret>***",
            ),
            ("<a>1 < 2</a>", "<a>1 < 2</a>"),
        ] {
            assert_eq!(masked(text, "text/xml"), shown);
        }
    }

    #[test]
    fn fields_of_forms_are_masked_by_name() {
        let form = "application/x-www-form-urlencoded";
        assert_eq!(masked("a=b&password=x%20y&pin=1&c=d", form), "a=b&password=***&pin=***&c=d");
        let parts = "--B\r\nContent-Disposition: form-data; name=\"pin\"\r\n\r\n12\r\n--B\r\n\
                     Content-Disposition: form-data; name=\"f\"; filename=\"a\"\r\n\r\nfile\r\n--B--\r\n";
        assert_eq!(
            masked(parts, "multipart/form-data; boundary=B"),
            parts.replace("\r\n12\r\n", "\r\n***\r\n")
        );
    }

    #[test]
    fn a_header_is_masked_by_name() {
        let policy =
            KeepPolicy::new(&KeptMessages { mask: vec!["X-Card".into()], ..KeptMessages::default() });
        let value = HeaderValue::from_static("v");
        let shown = |name: &'static str| header(&HeaderName::from_static(name), &value, &policy).to_vec();
        for name in ["authorization", "cookie", "x-api-key", "x-card"] {
            assert_eq!(shown(name), MASK.as_bytes(), "{name}");
        }
        assert_eq!(shown("content-type"), b"v");
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[<>/=\"{}:a-z é-]{0,80}") {
            let policy = KeepPolicy::new(&KeptMessages { mask: vec!["a".into()], ..KeptMessages::default() });
            for media_type in ["", "multipart/form-data"] {
                let _ = body(&bytes, media_type.as_bytes(), &policy);
                let _ = body(text.as_bytes(), media_type.as_bytes(), &policy);
            }
        }
    }
}
