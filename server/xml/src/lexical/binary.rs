//! `xs:base64Binary` and `xs:hexBinary`.

use std::borrow::Cow;

use crate::chars::is_space;

/// The Base64 in `text` without white space, with its padding (RFC 4648, section 4); `None` when it is none.
pub(crate) fn base64(text: &str) -> Option<Cow<'_, str>> {
    let compact = match text.bytes().any(is_space) {
        true => Cow::Owned(text.split([' ', '\t', '\n', '\r']).collect::<String>()),
        false => Cow::Borrowed(text),
    };
    let data = compact.trim_end_matches('=');
    let padding = compact.len() - data.len();
    let in_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let is_whole = compact.len() % 4 == 0 && padding <= 2;
    (is_whole && data.bytes().all(in_alphabet)).then_some(compact)
}

/// How many bytes Base64 of that form stands for.
pub(crate) fn base64_length(compact: &str) -> usize {
    let padding = compact.bytes().rev().take_while(|byte| *byte == b'=').count();
    (compact.len() / 4 * 3).saturating_sub(padding)
}

pub(crate) fn is_hex(text: &str) -> bool {
    text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_may_be_broken_by_white_space_only() {
        assert_eq!(base64("aGk=").as_deref(), Some("aGk="));
        assert_eq!(base64(" aG\nk = ").as_deref(), Some("aGk="));
        assert_eq!(base64("").as_deref(), Some(""));
        for text in ["aGk", "a===", "aG=k", "aG-_", "====", "é="] {
            assert_eq!(base64(text), None, "{text}");
        }
        assert_eq!((base64_length("aGk="), base64_length(""), base64_length("YWJj")), (2, 0, 3));
        assert!(is_hex("0aFF") && is_hex("") && !is_hex("0") && !is_hex("0g"));
    }
}
