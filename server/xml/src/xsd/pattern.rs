//! The regular expressions of XML Schema (part 2, appendix F), translated for the `regex` crate, which
//! matches in time linear in the text whatever the expression.

use std::iter::Peekable;
use std::str::Chars;

use regex::{Regex, RegexBuilder};

/// Memory one compiled expression may take, in bytes; `(((a{99}){99}){99})` would take gigabytes.
const MAX_COMPILED: usize = 4 * 1024 * 1024;

const SPACES: &str = r" \t\n\r";
/// Characters that begin a name (XML 1.0, production 4), as members of a class.
const NAME_START: &str = r":A-Z_a-z\xC0-\xD6\xD8-\xF6\xF8-\x{2FF}\x{370}-\x{37D}\x{37F}-\x{1FFF}\x{200C}-\x{200D}\x{2070}-\x{218F}\x{2C00}-\x{2FEF}\x{3001}-\x{D7FF}\x{F900}-\x{FDCF}\x{FDF0}-\x{FFFD}\x{10000}-\x{EFFFF}";
/// What else a name holds (production 4a).
const NAME_REST: &str = r"\-.0-9\xB7\x{300}-\x{36F}\x{203F}-\x{2040}";

/// The blocks of Unicode that schemas name, without `Is`.
const BLOCKS: &[(&str, &str)] = &[
    ("BasicLatin", r"\x{0}-\x{7F}"),
    ("Latin-1Supplement", r"\x{80}-\x{FF}"),
    ("LatinExtended-A", r"\x{100}-\x{17F}"),
    ("LatinExtended-B", r"\x{180}-\x{24F}"),
    ("IPAExtensions", r"\x{250}-\x{2AF}"),
    ("SpacingModifierLetters", r"\x{2B0}-\x{2FF}"),
    ("CombiningDiacriticalMarks", r"\x{300}-\x{36F}"),
    ("Greek", r"\x{370}-\x{3FF}"),
    ("GreekandCoptic", r"\x{370}-\x{3FF}"),
    ("Cyrillic", r"\x{400}-\x{4FF}"),
    ("Armenian", r"\x{530}-\x{58F}"),
    ("Hebrew", r"\x{590}-\x{5FF}"),
    ("Arabic", r"\x{600}-\x{6FF}"),
    ("Thai", r"\x{E00}-\x{E7F}"),
    ("LatinExtendedAdditional", r"\x{1E00}-\x{1EFF}"),
    ("GreekExtended", r"\x{1F00}-\x{1FFF}"),
    ("GeneralPunctuation", r"\x{2000}-\x{206F}"),
    ("CurrencySymbols", r"\x{20A0}-\x{20CF}"),
    ("LetterlikeSymbols", r"\x{2100}-\x{214F}"),
    ("Arrows", r"\x{2190}-\x{21FF}"),
    ("MathematicalOperators", r"\x{2200}-\x{22FF}"),
    ("Hiragana", r"\x{3040}-\x{309F}"),
    ("Katakana", r"\x{30A0}-\x{30FF}"),
    ("CJKUnifiedIdeographs", r"\x{4E00}-\x{9FFF}"),
    ("HangulSyllables", r"\x{AC00}-\x{D7A3}"),
    ("PrivateUse", r"\x{E000}-\x{F8FF}"),
];

/// Compiles alternatives of which a whole value has to match one.
///
/// # Errors
/// What of it is not understood, for a person.
pub(super) fn compile<'p>(alternatives: impl Iterator<Item = &'p str>) -> Result<Regex, String> {
    let mut all = String::from("^(?:");
    for (index, pattern) in alternatives.enumerate() {
        if index > 0 {
            all.push('|');
        }
        all.push_str(&translate(pattern)?);
    }
    all.push_str(")$");
    RegexBuilder::new(&all).size_limit(MAX_COMPILED).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
        _ => "it is not a regular expression".to_owned(),
    })
}

fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\\' => escape(&mut rest, &mut out)?,
            '[' => class(&mut rest, &mut out, 0)?,
            '.' => out.push_str(r"[^\n\r]"),
            '(' => {
                // In other dialects this begins something that is no group.
                if rest.peek() == Some(&'?') {
                    return Err("\"(?\" means nothing in XML Schema".to_owned());
                }
                out.push_str("(?:");
            }
            '{' => {
                let count: String = rest.by_ref().take_while(|c| *c != '}').collect();
                if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit() || byte == b',') {
                    return Err("braces that hold no count".to_owned());
                }
                out.push_str(&format!("{{{count}}}"));
            }
            '^' | '$' | ']' | '}' => {
                out.push('\\');
                out.push(character);
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

/// What follows a backslash, inside a class or outside: both take a class.
fn escape(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    let Some(character) = rest.next() else { return Err("it ends with \"\\\"".to_owned()) };
    let class = match character {
        'n' | 'r' | 't' => format!("\\{character}"),
        's' => format!("[{SPACES}]"),
        'S' => format!("[^{SPACES}]"),
        'd' => r"\p{Nd}".to_owned(),
        'D' => r"\P{Nd}".to_owned(),
        'w' => r"[^\p{P}\p{Z}\p{C}]".to_owned(),
        'W' => r"[\p{P}\p{Z}\p{C}]".to_owned(),
        'i' => format!("[{NAME_START}]"),
        'I' => format!("[^{NAME_START}]"),
        'c' => format!("[{NAME_START}{NAME_REST}]"),
        'C' => format!("[^{NAME_START}{NAME_REST}]"),
        'p' | 'P' => property(rest, character == 'P')?,
        // More than the standard lists: schemas escape slashes, quotes and dollars too.
        other if other.is_ascii_punctuation() => regex::escape(&other.to_string()),
        other => return Err(format!("\"\\{other}\" means nothing in XML Schema")),
    };
    out.push_str(&class);
    Ok(())
}

fn property(rest: &mut Peekable<Chars<'_>>, negated: bool) -> Result<String, String> {
    let name: String = match rest.next() {
        Some('{') => rest.by_ref().take_while(|c| *c != '}').collect(),
        _ => return Err("\"\\p\" without a name in braces".to_owned()),
    };
    if let Some(block) = name.strip_prefix("Is") {
        let known = BLOCKS.iter().find(|(known, _)| known.eq_ignore_ascii_case(block));
        let Some((_, range)) = known else { return Err(format!("the block {name:?} is not known")) };
        return Ok(format!("[{}{range}]", if negated { "^" } else { "" }));
    }
    let is_category = (1..=2).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphabetic());
    match is_category {
        true => Ok(format!("\\{}{{{name}}}", if negated { 'P' } else { 'p' })),
        false => Err(format!("the category {name:?} is not known")),
    }
}

/// What follows `[`, to its `]`.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String, depth: u8) -> Result<(), String> {
    if depth > 16 {
        return Err("its classes nest too deep".to_owned());
    }
    out.push('[');
    if rest.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut is_first = true;
    while let Some(character) = rest.next() {
        match character {
            ']' => {
                out.push(']');
                return Ok(());
            }
            '\\' => escape(rest, out)?,
            '-' => match rest.peek() {
                // `[a-z-[aeiou]]`: the second class is taken away from the first.
                Some('[') => {
                    rest.next();
                    out.push_str("--");
                    class(rest, out, depth + 1)?;
                }
                Some(']') | None => out.push_str("\\-"),
                Some(_) if is_first => out.push_str("\\-"),
                Some(_) => out.push('-'),
            },
            '[' | '^' | '&' | '~' => {
                out.push('\\');
                out.push(character);
            }
            other => out.push(other),
        }
        is_first = false;
    }
    Err("a class is not closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, text: &str) -> bool {
        compile(std::iter::once(pattern)).expect(pattern).is_match(text)
    }

    #[test]
    fn patterns_match_whole_values() {
        for (pattern, yes, no) in [
            ("[A-Z]{2}\\d{2}", "DE12", "xDE12"),
            ("a|bc", "bc", "abc"),
            ("^a$", "^a$", "a"),
            ("[a-z-[aeiou]]+", "xyz", "xaz"),
            ("[^a-z-[x]]", "A", "b"),
            ("\\i\\c*", "_a-1:b", "1a"),
            (".+", "a b", "a\nb"),
            ("[+\\-]?[0-9]+", "-12", "--12"),
            ("[-a]+", "-a", "+"),
            ("[a-]+", "a-", "+"),
            ("[.^&&~]", "&", "a"),
            ("\\w+", "Zoë", "a b"),
            ("\\p{Lu}\\P{L}", "A1", "AA"),
            ("\\p{IsBasicLatin}*", "abc", "é"),
            ("[\\s\\d]*", "1 2", "a"),
            ("\\[x\\]\\{\\}\\/\\$", "[x]{}/$", "x"),
            ("(a(b)?){1,2}", "aba", "abba"),
            ("", "", "a"),
            ("\\d", "٣", "a"),
        ] {
            assert!(matches(pattern, yes), "{pattern} {yes}");
            assert!(!matches(pattern, no), "{pattern} {no}");
        }
        assert!(compile(["a", "b|c"].into_iter()).unwrap().is_match("c"));
        assert!(!matches("a", "a\n"));
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for pattern in [
            "(?i)a",
            "\\",
            "\\b",
            "\\p{IsKlingon}",
            "\\pL",
            "[a",
            "a{2,1}",
            "a{x}",
            "*",
            "((((a{99}){99}){99}){99})",
        ] {
            assert!(compile(std::iter::once(pattern)).is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_makes_it_panic(pattern in "[a\\[\\]^|.?*+(){}0-9,\\\\pdwisIC&~-]{0,20}") {
            let _ = compile(std::iter::once(pattern.as_str()));
        }
    }
}
