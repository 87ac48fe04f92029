//! Which characters XML 1.0 (fifth edition) and Namespaces in XML 1.0 allow where, and how names that XML
//! cannot hold are written all the same.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether XML can hold the character at all (XML 1.0, production 2).
pub(crate) fn is_char(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// Where the first character stands that XML cannot hold.
pub(crate) fn first_illegal(text: &str) -> Option<usize> {
    let suspicious = |byte: u8| (byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r')) || byte == 0xef;
    let mut from = 0;
    while let Some(at) = text.bytes().skip(from).position(suspicious) {
        let at = from + at;
        match text.get(at..).and_then(|rest| rest.chars().next()) {
            Some(character) if is_char(character) => from = at + character.len_utf8(),
            _ => return Some(at),
        }
    }
    None
}

/// White space of XML (production 3).
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// `text` without white space of XML at its ends.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r'])
}

fn starts_name(character: char) -> bool {
    matches!(character,
        'a'..='z' | 'A'..='Z' | '_' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}'
        | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}'
        | '\u{2c00}'..='\u{2fef}' | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}'
        | '\u{fdf0}'..='\u{fffd}' | '\u{10000}'..='\u{effff}')
}

fn continues_name(character: char) -> bool {
    starts_name(character)
        || matches!(character,
            '0'..='9' | '-' | '.' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

/// Whether `text` is a name without a colon (Namespaces in XML 1.0, production 4).
#[must_use]
pub fn is_ncname(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(starts_name) && characters.all(continues_name)
}

/// Whether `text` is a `Name` (production 5).
pub(crate) fn is_name(text: &str) -> bool {
    text.starts_with(|first| first == ':' || starts_name(first)) && is_nmtoken(text)
}

/// Whether `text` is an `Nmtoken` (production 7).
pub(crate) fn is_nmtoken(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|character| character == ':' || continues_name(character))
}

/// A name made of `text`: every character that a name without a colon cannot hold is written `_xHHHH_`, and
/// so is an underscore that would read as the start of such an escape. Different texts stay different names.
#[must_use]
pub fn encode_name(text: &str) -> Cow<'_, str> {
    if is_ncname(text) && !text.contains("_x") {
        return Cow::Borrowed(text);
    }
    let mut name = String::with_capacity(text.len() + 8);
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let allowed = if name.is_empty() { starts_name(character) } else { continues_name(character) };
        if allowed && !(character == '_' && rest.as_str().starts_with('x')) {
            name.push(character);
        } else {
            let _ = write!(name, "_x{:04X}_", u32::from(character));
        }
    }
    if name.is_empty() {
        name.push('_');
    }
    Cow::Owned(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn characters_that_xml_cannot_hold_are_found() {
        assert_eq!(first_illegal("a\tb\r\n\u{fffd}ﷲ\u{10ffff}"), None);
        assert_eq!(first_illegal("é\u{1}"), Some(2));
        assert_eq!(first_illegal("\u{feff}\u{fffe}"), Some(3));
        assert_eq!(first_illegal("\0"), Some(0));
    }

    #[test]
    fn names_are_told_from_other_text() {
        for name in ["a", "_", "Zürich", "a-b.c1", "中文", "a·b"] {
            assert!(is_ncname(name), "{name}");
        }
        for other in ["", "1a", "-a", "a b", "a:b", ".", "a\u{d7}"] {
            assert!(!is_ncname(other), "{other}");
        }
    }

    #[test]
    fn names_and_tokens_may_hold_colons() {
        assert!(is_name(":a") && is_name("a:b") && is_name(":") && !is_name("1") && !is_name(""));
        assert!(is_nmtoken("1-:") && !is_nmtoken("") && !is_nmtoken("a b"));
    }

    #[test]
    fn any_text_becomes_a_name() {
        assert_eq!(encode_name("customer"), "customer");
        assert_eq!(encode_name("two words"), "two_x0020_words");
        assert_eq!(encode_name("1st"), "_x0031_st");
        assert_eq!(encode_name("a_x0020_b"), "a_x005F_x0020_b");
        assert_eq!(encode_name("a_b"), "a_b");
        assert_eq!(encode_name(""), "_");
    }

    proptest! {
        #[test]
        fn encoded_names_are_names_and_differ(one in ".{1,12}", other in "[a_x0-9: ]{1,12}") {
            prop_assert!(is_ncname(&encode_name(&one)), "{}", encode_name(&one));
            prop_assert!(is_ncname(&encode_name(&other)));
            prop_assert_eq!(one == other, encode_name(&one) == encode_name(&other));
        }
    }
}
