//! TOML 1.x into the located tree.
//!
//! The parser recovers from syntax faults, so all of them are reported together. It refuses nesting deeper
//! than 80 by itself. Dates become texts (RFC 3339): nothing here has a setting of that type.

use serde_json::{Map, Number, Value};
use toml::de::{DeTable, DeValue};
use toml::{Spanned, de::DeString};

use super::{Content, Entry, Node, SyntaxFault};

/// Largest TOML file that is read, in bytes.
pub(crate) const MAX_FILE_BYTES: usize = 1024 * 1024;

/// How many syntax faults of one file are reported; the first ones cause most of the others.
const MAX_SYNTAX_FAULTS: usize = 20;

/// Reads a document.
///
/// # Errors
/// Every syntax fault, number out of range included, with its line.
pub(crate) fn parse(text: &str) -> Result<Node, Vec<SyntaxFault>> {
    if text.len() > MAX_FILE_BYTES {
        let detail = format!("the file is larger than {MAX_FILE_BYTES} bytes");
        return Err(vec![SyntaxFault { line: 1, detail }]);
    }
    let lines = LineIndex::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let fault = |error: &toml::de::Error| SyntaxFault {
            line: lines.line(error.span().map_or(0, |span| span.start)),
            detail: error.message().to_owned(),
        };
        return Err(errors.iter().take(MAX_SYNTAX_FAULTS).map(fault).collect());
    }
    let mut reader = Reader { lines, faults: Vec::new() };
    let root = Node { line: 1, content: reader.table(table.into_inner()) };
    if reader.faults.is_empty() { Ok(root) } else { Err(reader.faults) }
}

/// Where lines begin, to turn byte offsets into line numbers.
struct LineIndex {
    breaks: Vec<usize>,
}

impl LineIndex {
    fn new(text: &str) -> Self {
        Self { breaks: text.match_indices('\n').map(|(at, _)| at).collect() }
    }

    fn line(&self, offset: usize) -> usize {
        self.breaks.partition_point(|at| *at < offset) + 1
    }
}

struct Reader {
    lines: LineIndex,
    faults: Vec<SyntaxFault>,
}

impl Reader {
    fn table(&mut self, table: DeTable<'_>) -> Content {
        let mut entries: Vec<Entry> = table.into_iter().map(|(key, value)| self.entry(key, value)).collect();
        entries.sort_by_key(|entry| entry.line);
        Content::Mapping(entries)
    }

    fn entry(&mut self, key: Spanned<DeString<'_>>, value: Spanned<DeValue<'_>>) -> Entry {
        let line = self.lines.line(key.span().start);
        Entry { line, node: self.node(value), key: key.into_inner().into_owned() }
    }

    fn node(&mut self, value: Spanned<DeValue<'_>>) -> Node {
        let line = self.lines.line(value.span().start);
        let content = match value.into_inner() {
            DeValue::String(text) => Content::Scalar(Value::String(text.into_owned())),
            DeValue::Boolean(value) => Content::Scalar(Value::Bool(value)),
            DeValue::Datetime(time) => Content::Scalar(Value::String(time.to_string())),
            DeValue::Integer(number) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
                self.number(line, parsed.map(Number::from))
            }
            DeValue::Float(number) => {
                let parsed = number.as_str().parse::<f64>().ok();
                self.number(line, parsed.and_then(Number::from_f64))
            }
            DeValue::Array(items) => {
                Content::Sequence(items.into_iter().map(|item| self.node(item)).collect())
            }
            DeValue::Table(table) => self.table(table),
        };
        Node { line, content }
    }

    fn number(&mut self, line: usize, number: Option<Number>) -> Content {
        if number.is_none() {
            self.faults.push(SyntaxFault { line, detail: "the number is out of range".to_owned() });
        }
        Content::Scalar(number.map_or(Value::Object(Map::new()), Value::Number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn every_way_to_write_a_table_is_one_tree() {
        let text = "a.b = 1\n[c]\nd = { e = [1, 2.5] }\n[[f]]\ng = 1979-05-27\n[[f]]\nh = \"\"\"x\ny\"\"\"\n";
        let node = parse(text).unwrap();
        assert_eq!(
            node.to_value(),
            json!({"a": {"b": 1}, "c": {"d": {"e": [1, 2.5]}},
                   "f": [{"g": "1979-05-27"}, {"h": "x\ny"}]})
        );
        assert_eq!(node.line_of("/a/b"), 1);
        assert_eq!(node.line_of("/c/d/e"), 3);
        assert_eq!(node.line_of("/f/1/h"), 7);
    }

    #[test]
    fn all_syntax_faults_are_reported_with_their_lines() {
        let faults = parse("a = \nb = 1\nb = 2\n[x\nc = 3\n").unwrap_err();
        let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
        assert!(lines.contains(&1) && lines.contains(&3) && lines.contains(&4), "{faults:?}");
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let faults = parse("a = 99999999999999999999\nb = inf\nc = nan\n").unwrap_err();
        let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [1, 2, 3]);
    }

    #[test]
    fn deep_nesting_is_refused_without_harm() {
        let deep = format!("a = {}", "[".repeat(100_000));
        assert!(parse(&deep).is_err());
        let dotted = format!("{} = 1", vec!["a"; 100_000].join("."));
        assert!(parse(&dotted).is_err());
        assert!(parse(&"x".repeat(MAX_FILE_BYTES + 1)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}=\"'.,#a-c0-9 \n\\\\_-]{0,200}") {
            drop(parse(&text));
        }
    }
}
