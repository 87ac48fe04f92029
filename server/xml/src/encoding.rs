//! From the bytes of a document to its text.
//!
//! A byte order mark tells first, then the `charset` that the protocol gave, then the document's own
//! declaration; without any it is UTF-8 (RFC 7303, section 3). UTF-8, US-ASCII, ISO-8859-1 and UTF-16 are
//! understood, which is what clients of SOAP send; others are refused by name.

use std::borrow::Cow;

use crate::chars::{is_space, trim};
use crate::error::{Reason, XmlError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Ascii,
    Latin1,
    Utf16 { little_endian: bool },
}

/// The text of `bytes`, without its byte order mark; `charset` is what the protocol says of it, if anything.
/// UTF-8 is not copied.
///
/// # Errors
/// [`Reason::Encoding`]: an encoding that is not understood, or bytes that are not of the encoding named.
pub fn decode<'b>(bytes: &'b [u8], charset: Option<&str>) -> Result<Cow<'b, str>, XmlError> {
    let (encoding, bytes) = detect(bytes, charset)?;
    match encoding {
        Encoding::Utf8 => utf8(bytes),
        Encoding::Ascii => match bytes.iter().position(|byte| !byte.is_ascii()) {
            Some(at) => Err(not_in(bytes, at, "US-ASCII")),
            None => utf8(bytes),
        },
        Encoding::Latin1 if bytes.is_ascii() => utf8(bytes),
        Encoding::Latin1 => Ok(bytes.iter().copied().map(char::from).collect::<String>().into()),
        Encoding::Utf16 { little_endian } => utf16(bytes, little_endian),
    }
}

fn detect<'b>(bytes: &'b [u8], charset: Option<&str>) -> Result<(Encoding, &'b [u8]), XmlError> {
    if let Some(rest) = bytes.strip_prefix(b"\xef\xbb\xbf") {
        return Ok((Encoding::Utf8, rest));
    }
    if let Some(rest) = bytes.strip_prefix(b"\xff\xfe") {
        return Ok((Encoding::Utf16 { little_endian: true }, rest));
    }
    if let Some(rest) = bytes.strip_prefix(b"\xfe\xff") {
        return Ok((Encoding::Utf16 { little_endian: false }, rest));
    }
    if let Some(charset) = charset {
        return Ok((named(charset)?, bytes));
    }
    // XML 1.0, appendix F: how a document without a mark begins in UTF-16.
    if bytes.starts_with(b"<\0?\0") {
        return Ok((Encoding::Utf16 { little_endian: true }, bytes));
    }
    if bytes.starts_with(b"\0<\0?") {
        return Ok((Encoding::Utf16 { little_endian: false }, bytes));
    }
    match declared(bytes) {
        // A declaration that was legible byte by byte is not in UTF-16, whatever it says.
        Some(name) if name.to_ascii_lowercase().starts_with("utf-16") => Ok((Encoding::Utf8, bytes)),
        Some(name) => Ok((named(name)?, bytes)),
        None => Ok((Encoding::Utf8, bytes)),
    }
}

fn named(name: &str) -> Result<Encoding, XmlError> {
    match trim(name).trim_matches(['"', '\'']).to_ascii_lowercase().as_str() {
        "utf-8" | "utf8" => Ok(Encoding::Utf8),
        "us-ascii" | "ascii" => Ok(Encoding::Ascii),
        "iso-8859-1" | "latin1" => Ok(Encoding::Latin1),
        // Big-endian is the rule without a mark (RFC 2781, section 4.3).
        "utf-16" | "utf-16be" => Ok(Encoding::Utf16 { little_endian: false }),
        "utf-16le" => Ok(Encoding::Utf16 { little_endian: true }),
        other => {
            let shown: String = other.chars().take(40).collect();
            Err(start(format!("the encoding {shown:?} is not supported: use UTF-8")))
        }
    }
}

/// The encoding that the XML declaration names.
fn declared(bytes: &[u8]) -> Option<&str> {
    let rest = bytes.strip_prefix(b"<?xml").filter(|rest| rest.first().copied().is_some_and(is_space))?;
    let end = rest.iter().take(256).position(|byte| *byte == b'>')?;
    let declaration = std::str::from_utf8(rest.get(..end)?).ok()?;
    let (_, after) = declaration.split_once("encoding")?;
    let value = trim(trim(after).strip_prefix('=')?);
    let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''))?;
    value.get(1..)?.split(quote).next()
}

fn utf8(bytes: &[u8]) -> Result<Cow<'_, str>, XmlError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Cow::Borrowed(text)),
        Err(error) => Err(not_in(bytes, error.valid_up_to(), "UTF-8")),
    }
}

fn utf16(bytes: &[u8], little_endian: bool) -> Result<Cow<'static, str>, XmlError> {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let units = pairs.iter().map(|pair| match little_endian {
        true => u16::from_le_bytes(*pair),
        false => u16::from_be_bytes(*pair),
    });
    let mut text = String::with_capacity(bytes.len() / 2);
    for unit in char::decode_utf16(units) {
        let wrong = |_| XmlError::at(Reason::Encoding("the text is not UTF-16".into()), &text, text.len());
        let character = unit.map_err(wrong)?;
        text.push(character);
    }
    if !odd.is_empty() {
        return Err(XmlError::at(Reason::Encoding("the text is not UTF-16".into()), &text, text.len()));
    }
    Ok(text.into())
}

fn not_in(bytes: &[u8], at: usize, encoding: &str) -> XmlError {
    let before = bytes.get(..at).map(String::from_utf8_lossy).unwrap_or_default();
    XmlError::at(Reason::Encoding(format!("the text is not {encoding}")), &before, before.len())
}

fn start(text: String) -> XmlError {
    XmlError { reason: Reason::Encoding(text), line: 1, column: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16_bytes(text: &str, little_endian: bool) -> Vec<u8> {
        text.encode_utf16()
            .flat_map(|unit| if little_endian { unit.to_le_bytes() } else { unit.to_be_bytes() })
            .collect()
    }

    #[test]
    fn the_mark_the_protocol_and_the_declaration_tell_the_encoding() {
        assert!(matches!(decode("<é/>".as_bytes(), None).unwrap(), Cow::Borrowed("<é/>")));
        assert_eq!(decode(b"\xef\xbb\xbf<a/>", Some("iso-8859-1")).unwrap(), "<a/>");
        for little_endian in [true, false] {
            let marked = utf16_bytes("\u{feff}<é𐍈/>", little_endian);
            assert_eq!(decode(&marked, None).unwrap(), "<é𐍈/>");
            let bare = utf16_bytes("<?xml version='1.0'?><é/>", little_endian);
            assert_eq!(decode(&bare, None).unwrap(), "<?xml version='1.0'?><é/>");
        }
        assert_eq!(decode(&utf16_bytes("<a/>", false), Some("UTF-16")).unwrap(), "<a/>");
        assert_eq!(decode(b"<\xe9/>", Some("ISO-8859-1")).unwrap(), "<é/>");
        let declared = b"<?xml version='1.0' encoding = 'iso-8859-1' ?><\xe9/>";
        assert!(decode(declared, None).unwrap().ends_with("<é/>"));
        assert!(decode(declared, Some("utf-8")).is_err());
        let wrong = "<?xml version='1.0' encoding='utf-16'?><é/>";
        assert_eq!(decode(wrong.as_bytes(), None).unwrap(), wrong);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name_and_place() {
        let error = decode(b"<?xml version=\"1.0\" encoding=\"EBCDIC-CP-US\"?><a/>", None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the encoding \"ebcdic-cp-us\" is not supported: use UTF-8 (line 1, column 1)"
        );
        let error = decode(b"<a>\n\xc3\xa9\xff</a>", None).unwrap_err();
        assert_eq!((error.line, error.column), (2, 2));
        assert!(decode(b"<\xe9/>", Some("us-ascii")).is_err());
        assert!(decode(b"\xff\xfea", None).is_err(), "half a unit");
        assert!(decode(b"\xff\xfe\x00\xd8\x61\x00", None).is_err(), "half a pair");
    }
}
