//! Writing YAML, the same bytes for equal values on every server and in every release: cluster commits are
//! compared by hash.
//!
//! Keys are sorted, `type` first. Texts are plain where every YAML reader would take them for the same text,
//! literal blocks where they have lines, and double-quoted otherwise. Collections are always in block style,
//! so that a change is a change of lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crosstie_model::Definition;
use serde_json::Value;

use crate::tree::scalar::resolve;

/// Longest key written before its colon; YAML readers look no further than 1,024 characters for one.
const MAX_SIMPLE_KEY: usize = 900;

/// Spaces per level.
const STEP: usize = 2;

/// One document with all `definitions`, sorted by kind and name; `{}` when there is none.
///
/// # Errors
/// A definition that cannot be serialized; none that was read from a document.
pub fn render(definitions: &[Definition]) -> Result<String, serde_json::Error> {
    let mut kinds: BTreeMap<&str, BTreeMap<&str, Value>> = BTreeMap::new();
    for definition in definitions {
        let body = definition.to_value()?;
        let kind = definition.id.kind.as_str();
        kinds.entry(kind).or_default().insert(definition.id.name.as_str(), body);
    }
    if kinds.is_empty() {
        return Ok("{}\n".to_owned());
    }
    let mut text = String::new();
    for (kind, names) in kinds {
        text.push_str(kind);
        text.push_str(":\n");
        for (name, body) in names {
            entry(&mut text, STEP, name, &body);
        }
    }
    Ok(text)
}

/// One document with one entry: a file of `config/cluster`. `kind` is a word of lower-case letters and `_`.
#[must_use]
pub fn render_entry(kind: &str, name: &str, body: &Value) -> String {
    let mut text = format!("{kind}:\n");
    entry(&mut text, STEP, name, body);
    text
}

/// `key: value` at `indent`, with its line end.
fn entry(out: &mut String, indent: usize, key: &str, value: &Value) {
    pad(out, indent);
    pair(out, indent, key, value);
}

/// As [`entry`], where the line is already indented.
fn pair(out: &mut String, indent: usize, key: &str, value: &Value) {
    let written = one_line(key);
    if written.chars().count() > MAX_SIMPLE_KEY {
        let _ = writeln!(out, "? {written}");
        pad(out, indent);
        out.push(':');
    } else {
        out.push_str(&written);
        out.push(':');
    }
    match value {
        Value::Object(members) if !members.is_empty() => {
            out.push('\n');
            for (key, value) in sorted(value) {
                entry(out, indent + STEP, key, value);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            sequence(out, indent + STEP, items);
        }
        _ => {
            out.push(' ');
            scalar(out, indent + STEP, value);
        }
    }
}

fn sequence(out: &mut String, indent: usize, items: &[Value]) {
    for item in items {
        pad(out, indent);
        out.push('-');
        match item {
            Value::Object(members) if !members.is_empty() => {
                out.push(' ');
                for (at, (key, value)) in sorted(item).into_iter().enumerate() {
                    if at > 0 {
                        pad(out, indent + STEP);
                    }
                    pair(out, indent + STEP, key, value);
                }
            }
            Value::Array(nested) if !nested.is_empty() => {
                out.push('\n');
                sequence(out, indent + STEP, nested);
            }
            _ => {
                out.push(' ');
                scalar(out, indent + STEP, item);
            }
        }
    }
}

/// The members of an object: `type` first, then by key.
fn sorted(value: &Value) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = value.as_object().into_iter().flatten().collect();
    members.sort_by_key(|(key, _)| (key.as_str() != "type", key.as_str()));
    members
}

/// A value that fits behind a colon, with its line end; the lines of a block stand at `indent`.
fn scalar(out: &mut String, indent: usize, value: &Value) {
    match value {
        Value::String(text) if is_block(text) => block(out, indent, text),
        Value::String(text) => out.push_str(&one_line(text)),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
        other => {
            let _ = write!(out, "{other}");
        }
    }
    out.push('\n');
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// A text on one line: plain, or double-quoted.
fn one_line(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

/// Whether `text` needs no quotes: it begins with a letter, `_` or `/`, holds nothing that YAML gives a
/// meaning to, and is no word that a reader of YAML 1.1 or 1.2 takes for something else.
fn is_plain(text: &str) -> bool {
    let begins = text.starts_with(|first: char| first.is_alphabetic() || matches!(first, '_' | '/'));
    let ends = text.ends_with(|last: char| !matches!(last, ' ' | ':'));
    let inside = |c: char| c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric();
    begins
        && ends
        && text.chars().all(inside)
        && !text.contains(": ")
        && !text.contains(" #")
        && !is_word_of_older_yaml(text)
        && matches!(resolve(text), Ok(Value::String(_)))
}

fn is_word_of_older_yaml(text: &str) -> bool {
    let folded = text.to_ascii_lowercase();
    matches!(
        folded.as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null" | "inf" | "nan"
    )
}

/// Whether `text` reads best, and reads back exactly, as a literal block: several lines, no white space that
/// nobody sees, at most one line end at the end.
fn is_block(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    text.contains('\n')
        && !body.is_empty()
        && !body.starts_with([' ', '\t', '\n'])
        && !body.ends_with('\n')
        && body.lines().all(|line| !line.ends_with([' ', '\t']))
        && body.chars().all(|c| matches!(c, '\n' | '\t') || is_printable(c))
}

fn block(out: &mut String, indent: usize, text: &str) {
    out.push_str(if text.ends_with('\n') { "|" } else { "|-" });
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(out, indent);
            out.push_str(line);
        }
    }
}

/// Characters that are themselves in a double-quoted text and in a block; line separators, marks of byte
/// order and the like are not.
fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a1}'..='\u{2027}' | '\u{202f}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}'
        | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::parse;
    use crate::tree::yaml;
    use crosstie_model::{DefinitionId, DefinitionKind};
    use proptest::prelude::*;
    use serde_json::json;
    use std::path::PathBuf;

    fn definition(kind: DefinitionKind, name: &str, body: Value) -> Definition {
        let name = name.parse().unwrap();
        Definition::from_value(DefinitionId { kind, name }, body).unwrap()
    }

    fn read_back(text: &str) -> Vec<Definition> {
        let found = parse(&[(PathBuf::from("x"), text.to_owned())]).all_sound();
        found
            .unwrap_or_else(|faults| panic!("{faults:?}\n{text}"))
            .into_iter()
            .map(|d| d.definition)
            .collect()
    }

    #[test]
    fn a_rendered_document_reads_well_and_stays_the_same() {
        let channel = json!({
            "service": "crm.customer.get", "path": "/customers/{id:int}", "methods": ["GET"], "type": "rest",
            "rate_limit": [{"limit": 10, "per": "minute", "by": "address"}]
        });
        let table =
            json!({"description": "Countries.\nBy code.\n", "entries": {"no": "Norway", "404": [], "a": {}}});
        let definitions = [
            definition(DefinitionKind::Dictionary, "countries", table),
            definition(DefinitionKind::Channel, "crm.customer.get", channel),
        ];
        let expected = "\
channel:
  crm.customer.get:
    type: rest
    methods:
      - GET
    path: /customers/{id:int}
    rate_limit:
      - by: address
        limit: 10
        per: minute
    service: crm.customer.get
dictionary:
  countries:
    description: |
      Countries.
      By code.
    entries:
      \"404\": []
      a: {}
      \"no\": Norway
";
        let text = render(&definitions).unwrap();
        assert_eq!(text, expected);
        assert_eq!(read_back(&text).len(), 2);
    }

    #[test]
    fn the_order_of_definitions_and_keys_makes_no_difference() {
        let one =
            definition(DefinitionKind::Dictionary, "a", json!({"entries": {"x": 1, "y": {"p": 1, "q": 2}}}));
        let same =
            definition(DefinitionKind::Dictionary, "a", json!({"entries": {"y": {"q": 2, "p": 1}, "x": 1}}));
        let other = definition(DefinitionKind::Dictionary, "b", json!({"entries": {}}));
        let forth = render(&[one, other.clone()]).unwrap();
        assert_eq!(forth, render(&[other, same]).unwrap());
    }

    #[test]
    fn nothing_renders_as_an_empty_document() {
        assert_eq!(render(&[]).unwrap(), "{}\n");
        assert!(read_back("{}\n").is_empty());
    }

    #[test]
    fn texts_that_other_readers_would_misread_are_quoted() {
        for text in [
            "no",
            "Yes",
            "null",
            "~",
            "12",
            "1.5",
            "0x1f",
            "007",
            "1:30",
            "2024-01-01",
            "",
            " a",
            "a ",
            "a: b",
            "a #b",
            "b:",
            "- a",
            "&a",
            "*a",
            "!a",
            "@a",
            "`a",
            "%a",
            "?",
            "[a",
            "{a",
            "'a",
            "\"a",
            "|",
            ">",
            "=",
            "<<",
            "---",
            "...",
            "\u{feff}a",
            "a\u{85}b",
            "inf",
        ] {
            assert!(one_line(text).starts_with('"'), "{text}");
        }
        for text in ["a", "a:b", "a#b", "env:NAME", "/x/{y}", "Größe 7", "it's", "a, b", "x]"] {
            assert_eq!(one_line(text), text);
        }
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z/_]{1,12}",
            "[ -~]{0,20}",
            "[a: #\\-\n\t\\[\\]{}&*!|>'\"%@`,?~=0-9.]{0,30}",
            "(\\PC|\n|\r|\t|\u{85}|\u{2028}|\u{feff}|\u{0}|\u{7f}|\u{a0}|\u{ffff}){0,20}",
            "[x ]{880,1100}",
        ]
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("JSON has finite numbers only", |f| f.is_finite()).prop_map(Value::from),
            any_text().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 60, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(any_text(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]
        #[test]
        fn what_is_rendered_reads_back_equal(value in any_value(), name in "[a-z@{][!-&(-\\[\\]-~]{0,30}") {
            let text = render_entry("dictionary", &name, &value);
            let reading = yaml::read(&text);
            prop_assert!(reading.faults.is_empty(), "{:?}\n{}", reading.faults, text);
            let expected = json!({"dictionary": {name: value}});
            prop_assert_eq!(reading.documents[0].to_value(), expected, "{}", text);
        }

        #[test]
        fn definitions_read_back_equal(entries in prop::collection::hash_map(any_text(), any_value(), 0..5),
                                       description in any_text()) {
            let entries = Value::Object(entries.into_iter().collect());
            let body = json!({"description": description, "entries": entries});
            let original = definition(DefinitionKind::Dictionary, "d", body);
            let text = render(std::slice::from_ref(&original)).unwrap();
            prop_assert_eq!(read_back(&text), vec![original], "{}", text);
        }
    }
}
