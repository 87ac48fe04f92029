//! Writing XML: text is escaped, names are names, and each namespace has a prefix where it is used.
//!
//! Elements and attributes in a namespace always get a prefix and a default namespace is never declared, so an
//! element in no namespace can stand anywhere, and so can the text of another document.

use std::fmt::Write as _;

use crate::chars::{encode_name, is_char, is_ncname};
use crate::namespace::XML;

/// A document, or a part of one, being written. Nothing in it fails; what XML cannot hold becomes U+FFFD.
#[derive(Debug, Default)]
pub struct Writer {
    out: String,
    /// Declarations in scope, innermost last.
    scope: Vec<Declared>,
    open: Vec<Open>,
    /// Prefixes wanted for namespaces, used when they are free.
    preferred: Vec<(String, String)>,
    in_tag: bool,
    made: u32,
}

#[derive(Debug)]
struct Declared {
    prefix: String,
    namespace: String,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    /// Where its name stands in `out`.
    name: (usize, usize),
    /// How many declarations are in scope around it.
    outside: usize,
}

/// A place to go back to: see [`Writer::rewind`].
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    out: usize,
    scope: usize,
    open: usize,
    in_tag: bool,
    made: u32,
}

impl Writer {
    /// An empty part of a document.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A document with an XML declaration.
    #[must_use]
    pub fn document() -> Self {
        Self { out: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned(), ..Self::default() }
    }

    /// Asks for `prefix` where `namespace` needs one. The first to ask for a prefix or a namespace has it.
    pub fn prefer(&mut self, prefix: &str, namespace: &str) {
        let free = !self.preferred.iter().any(|(known, uri)| known == prefix || uri == namespace);
        if free && is_ncname(prefix) && !prefix.to_ascii_lowercase().starts_with("xml") {
            self.preferred.push((prefix.to_owned(), namespace.to_owned()));
        }
    }

    /// Begins the element `local` of `namespace` (empty for none).
    pub fn start(&mut self, namespace: &str, local: &str) {
        self.close_tag();
        let outside = self.scope.len();
        // The prefix is settled before the name is written, the declaration follows the name.
        let (prefix, is_new) = self.choose(namespace);
        self.out.push('<');
        let start = self.out.len();
        push_name(&mut self.out, &prefix, local);
        self.open.push(Open { name: (start, self.out.len()), outside });
        self.in_tag = true;
        if is_new {
            self.write_declaration(prefix, namespace);
        }
    }

    /// Declares the preferred prefix of `namespace`, or a new one, in the tag that was just begun, so that the
    /// elements in it need not. Returns the prefix, for names in content.
    pub fn declare(&mut self, namespace: &str) -> String {
        let (prefix, is_new) = self.choose(namespace);
        if is_new {
            debug_assert!(self.in_tag, "namespaces are declared before content");
            self.write_declaration(prefix.clone(), namespace);
        }
        prefix
    }

    /// Adds an attribute to the tag that was just begun.
    pub fn attribute(&mut self, namespace: &str, local: &str, value: &str) {
        debug_assert!(self.in_tag, "attributes are written before content");
        let prefix = self.declare(namespace);
        self.out.push(' ');
        push_name(&mut self.out, &prefix, local);
        self.out.push_str("=\"");
        escape_attribute(&mut self.out, value);
        self.out.push('"');
    }

    /// Adds an attribute whose value is a qualified name.
    pub fn name_attribute(&mut self, namespace: &str, local: &str, value: (&str, &str)) {
        let value = self.name(value.0, value.1);
        self.attribute(namespace, local, &value);
    }

    /// `local` with the prefix of `namespace`, for a value that is a qualified name. To be called while the tag
    /// can still declare it.
    pub fn name(&mut self, namespace: &str, local: &str) -> String {
        let prefix = self.declare(namespace);
        let mut name = String::with_capacity(prefix.len() + local.len() + 1);
        push_name(&mut name, &prefix, local);
        name
    }

    /// Adds text.
    pub fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.close_tag();
            escape_text(&mut self.out, text);
        }
    }

    /// Adds XML as it is: one or more elements that declare every prefix they use.
    pub fn raw(&mut self, xml: &str) {
        self.close_tag();
        self.out.push_str(xml);
    }

    /// Ends the element begun last.
    pub fn end(&mut self) {
        let Some(Open { name: (start, end), outside }) = self.open.pop() else { return };
        self.scope.truncate(outside);
        if std::mem::take(&mut self.in_tag) {
            self.out.push_str("/>");
            return;
        }
        self.out.push_str("</");
        self.out.extend_from_within(start..end);
        self.out.push('>');
    }

    /// Adds an element that holds text only.
    pub fn leaf(&mut self, namespace: &str, local: &str, text: &str) {
        self.start(namespace, local);
        self.text(text);
        self.end();
    }

    /// How many bytes are written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// This place, to come back to. Only elements begun after it may be ended before coming back.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            out: self.out.len(),
            scope: self.scope.len(),
            open: self.open.len(),
            in_tag: self.in_tag,
            made: self.made,
        }
    }

    /// Forgets what was written since `mark`.
    pub fn rewind(&mut self, mark: Mark) {
        self.out.truncate(mark.out);
        self.scope.truncate(mark.scope);
        self.open.truncate(mark.open);
        self.in_tag = mark.in_tag;
        self.made = mark.made;
    }

    /// What was written, every element ended.
    #[must_use]
    pub fn finish(mut self) -> String {
        while !self.open.is_empty() {
            self.end();
        }
        self.out
    }

    fn close_tag(&mut self) {
        if std::mem::take(&mut self.in_tag) {
            self.out.push('>');
        }
    }

    /// The prefix of `namespace` here, and whether it still has to be declared.
    fn choose(&mut self, namespace: &str) -> (String, bool) {
        if namespace.is_empty() {
            return (String::new(), false);
        }
        if namespace == XML {
            return ("xml".to_owned(), false);
        }
        if let Some(declared) = self.scope.iter().rev().find(|declared| declared.namespace == namespace) {
            return (declared.prefix.clone(), false);
        }
        let preferred = self.preferred.iter().find(|(_, uri)| uri == namespace);
        if let Some((prefix, _)) = preferred {
            return (prefix.clone(), true);
        }
        loop {
            self.made += 1;
            let prefix = format!("ns{}", self.made);
            if !self.preferred.iter().any(|(taken, _)| *taken == prefix) {
                return (prefix, true);
            }
        }
    }

    fn write_declaration(&mut self, prefix: String, namespace: &str) {
        let _ = write!(self.out, " xmlns:{prefix}=\"");
        escape_attribute(&mut self.out, namespace);
        self.out.push('"');
        self.scope.push(Declared { prefix, namespace: namespace.to_owned() });
    }
}

fn push_name(out: &mut String, prefix: &str, local: &str) {
    if !prefix.is_empty() {
        out.push_str(prefix);
        out.push(':');
    }
    match is_ncname(local) {
        true => out.push_str(local),
        false => out.push_str(&encode_name(local)),
    }
}

/// Appends `text` as the content of an element.
pub(crate) fn escape_text(out: &mut String, text: &str) {
    escape(out, text, |character| match character {
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '&' => Some("&amp;"),
        // Kept apart from the line ends that a reader makes one.
        '\r' => Some("&#13;"),
        _ => None,
    });
}

/// Appends `text` as the value of an attribute in double quotes.
pub(crate) fn escape_attribute(out: &mut String, text: &str) {
    escape(out, text, |character| match character {
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '&' => Some("&amp;"),
        '"' => Some("&quot;"),
        // Kept apart from the spaces that a reader makes of them.
        '\t' => Some("&#9;"),
        '\n' => Some("&#10;"),
        '\r' => Some("&#13;"),
        _ => None,
    });
}

fn escape(out: &mut String, text: &str, special: impl Fn(char) -> Option<&'static str>) {
    // Most text has nothing to escape; that is copied whole.
    let plain = |byte: u8| (b' '..0x7f).contains(&byte) && !matches!(byte, b'<' | b'>' | b'&' | b'"');
    let mut rest = text;
    loop {
        let length = rest.bytes().position(|byte| !plain(byte)).unwrap_or(rest.len());
        let (before, after) = rest.split_at(length);
        out.push_str(before);
        let mut characters = after.chars();
        let Some(character) = characters.next() else { return };
        match special(character) {
            Some(escaped) => out.push_str(escaped),
            None if is_char(character) => out.push(character),
            None => out.push('\u{fffd}'),
        }
        rest = characters.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_get_prefixes_where_they_are_used() {
        let mut writer = Writer::new();
        writer.prefer("s", "urn:soap");
        writer.prefer("s", "urn:other");
        writer.prefer("xmlx", "urn:x");
        writer.start("urn:soap", "Envelope");
        writer.declare("urn:body");
        writer.start("urn:body", "a");
        writer.attribute("", "plain", "1");
        writer.attribute("urn:x", "x", "<\"\n");
        writer.attribute(XML, "lang", "en");
        writer.name_attribute("", "type", ("urn:y", "T"));
        writer.leaf("", "none", "a<b>&\r\u{1}é\"");
        writer.end();
        writer.leaf("urn:other", "o", "");
        assert_eq!(
            writer.finish(),
            "<s:Envelope xmlns:s=\"urn:soap\" xmlns:ns1=\"urn:body\"><ns1:a plain=\"1\" xmlns:ns2=\"urn:x\" \
             ns2:x=\"&lt;&quot;&#10;\" xml:lang=\"en\" xmlns:ns3=\"urn:y\" type=\"ns3:T\">\
             <none>a&lt;b&gt;&amp;&#13;\u{fffd}é\"</none></ns1:a><ns4:o xmlns:ns4=\"urn:other\"/></s:Envelope>"
        );
    }

    #[test]
    fn names_cannot_be_used_to_inject_markup() {
        let mut writer = Writer::document();
        writer.start("", "a><b");
        writer.attribute("", "x=\"1\" y", "1");
        assert_eq!(
            writer.finish().lines().last(),
            Some("<a_x003E__x003C_b x_x003D__x0022_1_x0022__x0020_y=\"1\"/>")
        );
    }

    #[test]
    fn what_was_written_can_be_taken_back() {
        let mut writer = Writer::new();
        writer.start("urn:a", "a");
        let mark = writer.mark();
        writer.start("urn:b", "b");
        writer.leaf("urn:c", "c", "x");
        writer.rewind(mark);
        writer.leaf("urn:b", "d", "");
        assert_eq!(writer.finish(), "<ns1:a xmlns:ns1=\"urn:a\"><ns2:d xmlns:ns2=\"urn:b\"/></ns1:a>");
    }
}
