//! YAML 1.2 into the located tree, built from the parser's events.
//!
//! Anchors and aliases are refused: definitions are short, and a few nested aliases can stand for billions of
//! nodes. Depth and node count are bounded while the events arrive, before anything is built from them.
//! Keys are the texts as written, so `404:` and `no:` are the keys "404" and "no".

use std::collections::{BTreeSet, HashMap};

use crosstie_model::limits::MAX_DOCUMENT_DEPTH;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::Value;

use super::scalar::resolve;
use super::{Content, Entry, Node, SyntaxFault};

/// Largest YAML file that is read, in bytes.
pub(crate) const MAX_FILE_BYTES: usize = 8 * 1024 * 1024;

/// Most nodes (keys, values, items) of one file.
const MAX_NODES: usize = 500_000;

/// How many faults of one file are reported.
const MAX_SYNTAX_FAULTS: usize = 100;

/// What could be read of a stream that may have faults.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// The documents that were read to their end; empty ones are left out.
    pub documents: Vec<Node>,
    /// Every fault up to the first one that makes the rest unreadable, with its line.
    pub faults: Vec<SyntaxFault>,
    /// The first two keys on the way to each fault that lies that deep: what below them was read may differ
    /// from what was written.
    pub spoilt: BTreeSet<(String, String)>,
    /// Whether everything below the first two levels of keys is in `documents`, spoilt or not.
    pub complete: bool,
}

/// Reads the documents of a stream, as far as they can be read.
pub(crate) fn read(text: &str) -> Reading {
    let mut builder =
        Builder { reading: Reading { complete: true, ..Reading::default() }, ..Builder::default() };
    if text.len() > MAX_FILE_BYTES {
        builder.fault(1, format!("the file is larger than {MAX_FILE_BYTES} bytes"));
        builder.reading.complete = false;
        return builder.reading;
    }
    for event in Parser::new_from_str(text) {
        let step = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => {
                let line = error.marker().line().max(1);
                builder.fault(line, format!("not valid YAML: {}", error.info()));
                Err(Stop)
            }
        };
        if step.is_err() {
            builder.give_up();
            break;
        }
    }
    builder.reading
}

/// Reading further makes no sense.
struct Stop;

#[derive(Default)]
struct Builder {
    reading: Reading,
    stack: Vec<Frame>,
    nodes: usize,
}

/// A collection whose end has not come yet.
struct Frame {
    line: usize,
    parts: Parts,
}

impl Frame {
    fn into_node(self) -> Node {
        let content = match self.parts {
            Parts::Sequence(items) => Content::Sequence(items),
            Parts::Mapping { entries, .. } => Content::Mapping(entries),
        };
        Node { line: self.line, content }
    }
}

enum Parts {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, seen: HashMap<String, usize>, key: PendingKey },
}

/// Where a mapping is between two events.
enum PendingKey {
    /// A key comes next.
    Expected,
    /// This key's value comes next.
    Read(String, usize),
    /// The value of a refused key comes next and is dropped.
    Refused,
}

impl Builder {
    fn fault(&mut self, line: usize, detail: impl Into<String>) {
        if self.reading.faults.len() < MAX_SYNTAX_FAULTS {
            self.reading.faults.push(SyntaxFault { line, detail: detail.into() });
        }
        if let Some(way) = self.way() {
            self.reading.spoilt.insert(way);
        }
    }

    /// The first two keys on the way to what is being read; `None` when it is not that deep.
    fn way(&self) -> Option<(String, String)> {
        let key = |frame: &Frame| match &frame.parts {
            Parts::Mapping { key: PendingKey::Read(key, _), .. } => Some(key.clone()),
            _ => None,
        };
        Some((key(self.stack.first()?)?, key(self.stack.get(1)?)?))
    }

    /// Closes what is open, so that what was read before the unreadable part is not lost.
    fn give_up(&mut self) {
        self.reading.complete = false;
        self.reading.spoilt.extend(self.way());
        while let Some(frame) = self.stack.pop() {
            let node = frame.into_node();
            let is_document = self.stack.is_empty();
            if !self.expects_key() && (!is_document || matches!(node.content, Content::Mapping(_))) {
                self.place(node, "");
            }
        }
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        let line = span.start.line().max(1);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.count(line)?;
                self.refuse_anchor(line, anchor);
                self.scalar(line, &text, style, tag.as_deref());
            }
            Event::SequenceStart(anchor, tag) => {
                let parts = Parts::Sequence(Vec::new());
                self.open(line, anchor, tag.as_deref(), "seq", parts)?;
            }
            Event::MappingStart(anchor, tag) => {
                let key = PendingKey::Expected;
                let parts = Parts::Mapping { entries: Vec::new(), seen: HashMap::new(), key };
                self.open(line, anchor, tag.as_deref(), "map", parts)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(_) => {
                self.fault(line, "aliases (*name) are not supported; repeat the value");
                self.reading.complete &= self.way().is_some();
                self.place(Node { line, content: Content::Scalar(Value::Null) }, "");
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn count(&mut self, line: usize) -> Result<(), Stop> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            self.fault(line, format!("the file has more than {MAX_NODES} keys and values"));
            return Err(Stop);
        }
        Ok(())
    }

    fn refuse_anchor(&mut self, line: usize, anchor: usize) {
        if anchor != 0 {
            self.fault(line, "anchors (&name) are not supported; repeat the value");
        }
    }

    fn open(
        &mut self,
        line: usize,
        anchor: usize,
        tag: Option<&Tag>,
        own_tag: &str,
        parts: Parts,
    ) -> Result<(), Stop> {
        self.count(line)?;
        self.refuse_anchor(line, anchor);
        if tag.is_some_and(|tag| !(tag.is_yaml_core_schema() && tag.suffix == own_tag)) {
            self.fault(line, "tags are not supported, except !!str");
        }
        if self.stack.len() >= MAX_DOCUMENT_DEPTH {
            self.fault(line, format!("nested deeper than {MAX_DOCUMENT_DEPTH}"));
            return Err(Stop);
        }
        self.stack.push(Frame { line, parts });
        Ok(())
    }

    fn close(&mut self) {
        if let Some(frame) = self.stack.pop() {
            self.place(frame.into_node(), "");
        }
    }

    fn scalar(&mut self, line: usize, text: &str, style: ScalarStyle, tag: Option<&Tag>) {
        let is_text = match tag {
            None => style != ScalarStyle::Plain,
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => true,
            Some(_) => {
                self.fault(line, "tags are not supported, except !!str");
                true
            }
        };
        let value = if is_text || self.expects_key() {
            Value::String(text.to_owned())
        } else {
            resolve(text).unwrap_or_else(|why| {
                self.fault(line, why);
                Value::Null
            })
        };
        self.place(Node { line, content: Content::Scalar(value) }, text);
    }

    fn expects_key(&self) -> bool {
        let parts = self.stack.last().map(|frame| &frame.parts);
        matches!(parts, Some(Parts::Mapping { key: PendingKey::Expected, .. }))
    }

    /// Puts a finished node where it belongs; `text` is what it says when it is a scalar.
    fn place(&mut self, node: Node, text: &str) {
        let line = node.line;
        let fault = match self.stack.last_mut().map(|frame| &mut frame.parts) {
            None => {
                if node.content != Content::Scalar(Value::Null) {
                    self.reading.documents.push(node);
                }
                None
            }
            Some(Parts::Sequence(items)) => {
                items.push(node);
                None
            }
            Some(Parts::Mapping { entries, seen, key }) => {
                match std::mem::replace(key, PendingKey::Expected) {
                    PendingKey::Expected => {
                        let (next, fault) = read_key(&node, text, seen);
                        *key = next;
                        fault
                    }
                    PendingKey::Read(key, line) => {
                        entries.push(Entry { key, line, node });
                        None
                    }
                    PendingKey::Refused => None,
                }
            }
        };
        if let Some(detail) = fault {
            self.fault(line, detail);
            // What stands below a refused key is dropped, on the first level with names nobody learns of.
            self.reading.complete &= self.stack.len() > 1;
        }
    }
}

/// Takes `node` as a mapping's key.
fn read_key(node: &Node, text: &str, seen: &mut HashMap<String, usize>) -> (PendingKey, Option<String>) {
    if !matches!(node.content, Content::Scalar(Value::String(_))) {
        return (PendingKey::Refused, Some("a key must be a text".to_owned()));
    }
    match seen.get(text) {
        Some(first) => {
            let detail = format!("the key {text:?} is already on line {first}");
            (PendingKey::Refused, Some(detail))
        }
        None => {
            seen.insert(text.to_owned(), node.line);
            (PendingKey::Read(text.to_owned(), node.line), None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parse(text: &str) -> Result<Vec<Node>, Vec<SyntaxFault>> {
        let reading = read(text);
        if reading.faults.is_empty() { Ok(reading.documents) } else { Err(reading.faults) }
    }

    fn value(text: &str) -> Value {
        parse(text).unwrap().remove(0).to_value()
    }

    fn faults(text: &str) -> Vec<(usize, String)> {
        parse(text).unwrap_err().into_iter().map(|fault| (fault.line, fault.detail)).collect()
    }

    #[test]
    fn a_document_becomes_json() {
        let text = "a: [1, 'x', \"y\\n\", ~]\nb: |\n  two\n  lines\nc: {d: true}\n404: found\nno: Norway\n";
        assert_eq!(
            value(text),
            json!({"a": [1, "x", "y\n", null], "b": "two\nlines\n", "c": {"d": true},
                   "404": "found", "no": "Norway"})
        );
        assert_eq!(value("a: !!str 12"), json!({"a": "12"}));
    }

    #[test]
    fn several_documents_are_read_and_empty_ones_left_out() {
        let documents = parse("a: 1\n---\n---\n# nothing\n---\nb: 2\n").unwrap();
        assert_eq!(documents.len(), 2);
        assert!(parse("").unwrap().is_empty());
        assert!(parse("# only a comment\n").unwrap().is_empty());
    }

    #[test]
    fn a_repeated_key_names_both_lines() {
        let found = faults("a:\n  x: 1\n  y: 2\n  x: 3\n'a': {}\n");
        assert_eq!(
            found,
            [
                (4, "the key \"x\" is already on line 2".to_owned()),
                (5, "the key \"a\" is already on line 1".to_owned())
            ]
        );
    }

    #[test]
    fn a_fault_spoils_what_it_is_in_and_nothing_beside_it() {
        let way = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
        let reading = read("k:\n  a:\n    x: 1\n    x: 2\n  b: {y: &z 1}\n  b: {}\n  c: {}\n");
        assert_eq!(reading.faults.len(), 3, "{:?}", reading.faults);
        assert_eq!(reading.spoilt, [way("k", "a"), way("k", "b")].into());
        assert!(reading.complete);
        assert_eq!(reading.documents[0].to_value(), json!({"k": {"a": {"x": 1}, "b": {"y": 1}, "c": {}}}));

        let reading = read("k:\n  a: {}\n  b:\n    y: [\n");
        assert_eq!((reading.spoilt, reading.complete), ([way("k", "b")].into(), false));
        assert_eq!(reading.documents[0].to_value()["k"]["a"], json!({}));
        for hidden in ["k: {}\nk:\n  a: {}\n", "k: *all\n", "k: &all {}\nl: *all\n"] {
            assert!(!read(hidden).complete, "{hidden}");
        }
    }

    #[test]
    fn aliases_cannot_multiply() {
        let mut bomb = String::from("a0: &a0 [x, x]\n");
        for level in 1..60 {
            let below = level - 1;
            bomb.push_str(&format!("a{level}: &a{level} [*a{below}, *a{below}]\n"));
        }
        let found = faults(&bomb);
        assert_eq!(found.len(), MAX_SYNTAX_FAULTS);
        assert!(found.iter().all(|(_, detail)| detail.contains("not supported")));
    }

    #[test]
    fn every_fault_before_the_first_unreadable_line_is_reported() {
        let found = faults("a: &x 007\nb: !foo bar\n? [1]\n: 2\nc: [\n");
        let lines: Vec<_> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(&lines[..4], [1, 1, 2, 3], "{found:?}");
        assert!(found.last().unwrap().1.contains("YAML"), "{found:?}");
    }

    #[test]
    fn depth_size_and_count_are_bounded() {
        for deep in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000), "? ".repeat(100_000)]
        {
            assert!(parse(&deep).is_err());
        }
        let exactly = format!("{}{}", "[".repeat(MAX_DOCUMENT_DEPTH), "]".repeat(MAX_DOCUMENT_DEPTH));
        assert!(parse(&exactly).is_ok());
        assert!(parse(&"x".repeat(MAX_FILE_BYTES + 1)).is_err());
        assert!(parse(&"- \n".repeat(MAX_NODES + 1)).is_err());
    }

    #[test]
    fn texts_that_once_hung_parsers_end() {
        for text in [
            "{---",
            "[---",
            "{...",
            "\"",
            "'",
            "&",
            "*",
            "!",
            "%YAML",
            "- - -\n\t",
            "? ? ?",
            "{?",
            "|",
            "a: |1\n\n\n \n",
            "\u{feff}",
            "%TAG ! ! \n---\n!a",
            "{a: b: c}",
            "[:]",
            "{:}",
            "- :",
            "--- |",
        ] {
            drop(parse(text));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn no_text_makes_it_panic_or_hang(text in "[\\[\\]{}:,?&*!|>'\"%#@`~a0 \n\t\\\\.-]{0,60}") {
            drop(parse(&text));
        }

        #[test]
        fn no_unicode_makes_it_panic(text in "\\PC{0,100}") {
            drop(parse(&text));
        }
    }
}
