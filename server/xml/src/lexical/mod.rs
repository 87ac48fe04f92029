//! The lexical forms of XML Schema's built-in types (part 2, section 3): checked, compared, and put into the
//! form that JSON or XML wants, without going through a number that would lose digits.

pub(crate) mod binary;
pub(crate) mod decimal;
pub(crate) mod moment;

use std::borrow::Cow;

use crate::chars::{is_name, is_ncname, is_nmtoken, is_space};

/// Whether `text` is an `xs:double` other than `INF`, `-INF` and `NaN`, and which.
pub(crate) fn double(text: &str) -> Option<f64> {
    let numeric = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    text.bytes().all(numeric).then(|| text.parse().ok()).flatten().filter(|value: &f64| value.is_finite())
}

/// A number that is none: `INF`, `-INF`, `NaN`.
pub(crate) fn special_double(text: &str) -> Option<f64> {
    match text {
        "INF" | "+INF" => Some(f64::INFINITY),
        "-INF" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ => None,
    }
}

pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// `xs:language`: what RFC 3066 allows.
pub(crate) fn is_language(text: &str) -> bool {
    let mut subtags = text.split('-');
    let sized = |subtag: &str| (1..=8).contains(&subtag.len());
    subtags.next().is_some_and(|first| sized(first) && first.bytes().all(|byte| byte.is_ascii_alphabetic()))
        && subtags.all(|subtag| sized(subtag) && subtag.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// `xs:duration`, such as `-P1Y2M3DT4H5M6.7S`.
pub(crate) fn is_duration(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('-').unwrap_or(text).strip_prefix('P') else { return false };
    let (date, time) = match rest.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (rest, None),
    };
    let fields = |mut text: &str, units: &str, with_fraction: bool| {
        let mut found = 0;
        for unit in units.chars() {
            let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let (number, after) = text.split_at(digits);
            let fraction = match after.strip_prefix('.').filter(|_| with_fraction && unit == 'S') {
                Some(after) => {
                    let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                    Some(after.split_at(digits)).filter(|(digits, _)| !digits.is_empty())
                }
                None => Some(("", after)),
            };
            if let Some(after) = fraction.and_then(|(_, after)| after.strip_prefix(unit)) {
                if number.is_empty() {
                    return None;
                }
                text = after;
                found += 1;
            }
        }
        text.is_empty().then_some(found)
    };
    match (fields(date, "YMD", false), time.map(|time| fields(time, "HMS", true))) {
        (Some(dates), None) => dates > 0,
        (Some(_), Some(Some(times))) => times > 0,
        _ => false,
    }
}

/// Whether `text` is an `xs:QName` by form; whether its prefix is declared is another question.
pub(crate) fn is_qname(text: &str) -> bool {
    let (prefix, local) = text.split_once(':').unwrap_or(("a", text));
    is_ncname(prefix) && is_ncname(local)
}

/// The rules of the types derived from `xs:token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Language,
    NmToken,
    Name,
    NcName,
}

impl Form {
    pub(crate) fn allows(self, text: &str) -> bool {
        match self {
            Self::Language => is_language(text),
            Self::NmToken => is_nmtoken(text),
            Self::Name => is_name(text),
            Self::NcName => is_ncname(text),
        }
    }
}

/// What happens to white space before a value is looked at (XML Schema part 2, section 4.3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhiteSpace {
    Preserve,
    Replace,
    Collapse,
}

impl WhiteSpace {
    pub(crate) fn apply(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Preserve => Cow::Borrowed(text),
            Self::Replace => match text.contains(['\t', '\n', '\r']) {
                true => Cow::Owned(text.replace(['\t', '\n', '\r'], " ")),
                false => Cow::Borrowed(text),
            },
            Self::Collapse => collapse(text),
        }
    }
}

fn collapse(text: &str) -> Cow<'_, str> {
    let trimmed = crate::chars::trim(text);
    let mut spaces = trimmed.bytes().zip(trimmed.bytes().skip(1));
    let is_clean = spaces.all(|(byte, next)| !is_space(byte) || (byte == b' ' && !is_space(next)));
    if is_clean {
        return Cow::Borrowed(trimmed);
    }
    Cow::Owned(words(trimmed).collect::<Vec<_>>().join(" "))
}

/// The words of `text`, which white space of XML separates.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\t', '\n', '\r']).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_from_other_text() {
        assert_eq!(double("-1.5e3"), Some(-1500.0));
        assert_eq!(double(".5"), Some(0.5));
        for text in ["", "inf", "nan", "1,5", "0x10", "e5", "1e999", "infinity", "1 "] {
            assert_eq!(double(text), None, "{text}");
        }
        assert_eq!(special_double("-INF"), Some(f64::NEG_INFINITY));
        assert!(special_double("NaN").is_some_and(f64::is_nan) && special_double("Inf").is_none());
    }

    #[test]
    fn durations_follow_their_grammar() {
        for text in ["P1Y", "-P1Y2M3DT4H5M6.7S", "PT0S", "P3DT1M", "PT1.5S", "P0M"] {
            assert!(is_duration(text), "{text}");
        }
        for text in
            ["", "P", "PT", "P1YT", "1Y", "P1S", "PT1Y", "P1M1Y", "P1.5D", "PT.5S", "PT1.S", "P-1Y", "P1"]
        {
            assert!(!is_duration(text), "{text}");
        }
    }

    #[test]
    fn tokens_follow_their_forms() {
        assert!(is_language("de-CH-1901") && !is_language("") && !is_language("1de") && !is_language("a-"));
        assert!(is_qname("a:b") && is_qname("b") && !is_qname("a:b:c") && !is_qname(":b"));
        assert!(Form::NmToken.allows("1a") && !Form::Name.allows("1a") && !Form::NcName.allows("a:b"));
    }

    #[test]
    fn white_space_is_replaced_or_collapsed() {
        assert_eq!(WhiteSpace::Preserve.apply(" a\t"), " a\t");
        assert_eq!(WhiteSpace::Replace.apply("a\tb\n"), "a b ");
        assert_eq!(WhiteSpace::Collapse.apply("\n a \t b\u{a0}  "), "a b\u{a0}");
        assert_eq!(WhiteSpace::Collapse.apply("a\tb"), "a b");
        assert!(matches!(WhiteSpace::Collapse.apply(" a b "), Cow::Borrowed("a b")));
    }
}
