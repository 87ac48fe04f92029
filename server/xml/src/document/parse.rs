//! From text to a tree. quick-xml finds where markup begins and ends; what it leaves to its users (names,
//! characters, attributes, references, namespaces, one root) is checked here.

use quick_xml::Reader;
use quick_xml::events::{BytesDecl, BytesStart, Event};

use super::attributes::RawAttribute;
use super::{AttributeRecord, Binding, EXTRA, Kind, NO_NAMESPACE, NodeRecord, Span, resolve, slice};
use crate::chars::{first_illegal, is_char, is_ncname, is_space};
use crate::error::{Reason, XmlError};
use crate::limits::{Limits, MAX_DEPTH};
use crate::namespace::XML;

/// Offsets are 31 bits long.
const MAX_BYTES: usize = 1 << 30;

pub(super) struct Tree {
    pub(super) extra: String,
    pub(super) nodes: Vec<NodeRecord>,
    pub(super) attributes: Vec<AttributeRecord>,
    pub(super) bindings: Vec<Binding>,
}

/// What is wrong, and at which byte.
pub(super) type Wrong = (Reason, usize);

pub(super) struct Parser<'s, 'l> {
    pub(super) source: &'s str,
    pub(super) limits: &'l Limits,
    pub(super) tree: Tree,
    /// The attributes of one start tag; kept for its memory.
    pub(super) raw: Vec<RawAttribute>,
    /// Elements begun and not ended.
    open: Vec<u32>,
    pending: Pending,
    has_return: bool,
}

/// Text that may go on after a comment, a reference or a CDATA section.
#[derive(Clone, Copy)]
enum Pending {
    None,
    Source(Span),
    /// From this place of `extra` to its end.
    Extra(usize),
}

pub(super) fn parse(source: &str, limits: &Limits) -> Result<Tree, XmlError> {
    let mut parser = Parser::new(source, limits);
    match parser.run() {
        Ok(()) => Ok(parser.tree),
        Err((reason, offset)) => Err(XmlError::at(reason, source, offset)),
    }
}

pub(super) fn malformed<T>(detail: impl Into<String>, at: usize) -> Result<T, Wrong> {
    Err((Reason::Malformed(detail.into()), at))
}

/// An offset into the source or into `extra`, neither of which grows beyond 31 bits.
pub(super) fn offset(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl<'s, 'l> Parser<'s, 'l> {
    fn new(source: &'s str, limits: &'l Limits) -> Self {
        let extra = format!("xml{XML}");
        let place =
            |start: usize, end: usize| Span { start: offset(start) | EXTRA, end: offset(end) | EXTRA };
        let none = Binding { prefix: place(0, 0), uri: place(0, 0), parent: NO_NAMESPACE, depth: 0 };
        let xml = Binding { prefix: place(0, 3), uri: place(3, extra.len()), ..none };
        let tree = Tree {
            extra,
            // A guess for messages of services; a large one may be a single text.
            nodes: Vec::with_capacity((source.len() / 32).min(4096)),
            attributes: Vec::new(),
            bindings: vec![none, xml],
        };
        let has_return = source.contains('\r');
        Self { source, limits, tree, raw: Vec::new(), open: Vec::new(), pending: Pending::None, has_return }
    }

    fn run(&mut self) -> Result<(), Wrong> {
        let most = self.limits.bytes.min(MAX_BYTES);
        if self.source.len() > most {
            return Err((Reason::Limit { what: "the size of the document in bytes", most }, 0));
        }
        if let Some(at) = first_illegal(self.source) {
            return malformed("a character that XML does not allow", at);
        }
        let mut reader = Reader::from_str(self.source);
        reader.config_mut().check_comments = true;
        loop {
            let at = position(reader.buffer_position());
            let event = reader
                .read_event()
                .map_err(|error| (Reason::Malformed(error.to_string()), position(reader.error_position())))?;
            let end = position(reader.buffer_position());
            if matches!(event, Event::Eof) {
                return self.finish(at);
            }
            self.event(event, at, end)?;
        }
    }

    fn event(&mut self, event: Event<'_>, at: usize, end: usize) -> Result<(), Wrong> {
        match event {
            Event::Start(start) => self.start(&start, at),
            Event::Empty(start) => {
                self.start(&start, at)?;
                self.end(end)
            }
            Event::End(_) => self.end(end),
            Event::Text(text) if text.is_empty() => Ok(()),
            Event::Text(text) => {
                if text.contains("]]>") {
                    return malformed("\"]]>\" stands for nothing outside CDATA", at);
                }
                if self.open.is_empty() && text.bytes().all(is_space) {
                    return Ok(());
                }
                self.piece(at, end)
            }
            Event::CData(_) => self.piece(at + "<![CDATA[".len(), end - "]]>".len()),
            Event::GeneralRef(name) => {
                let character = reference(&name, at)?;
                self.inside(at)?;
                self.copy_pending();
                self.tree.extra.push(character);
                Ok(())
            }
            Event::DocType(_) => Err((Reason::Doctype, at)),
            Event::Comment(_) | Event::Eof => Ok(()),
            Event::Decl(declaration) => declared(&declaration, at),
            Event::PI(instruction) => match instruction.target() {
                target if target.eq_ignore_ascii_case("xml") || !is_ncname(target) => {
                    malformed("a processing instruction without a proper target", at)
                }
                _ => Ok(()),
            },
        }
    }

    fn start(&mut self, tag: &BytesStart<'_>, at: usize) -> Result<(), Wrong> {
        self.flush(at)?;
        if self.open.is_empty() && !self.tree.nodes.is_empty() {
            return malformed("a second element after the root", at);
        }
        let most = self.limits.depth.min(MAX_DEPTH);
        if self.open.len() >= most {
            return Err((Reason::Limit { what: "the nesting of elements", most }, at));
        }
        let outer = match self.open.last().and_then(|open| self.tree.nodes.get(*open as usize)) {
            Some(parent) => parent.scope,
            None => 1,
        };
        let name_at = at + 1;
        let attributes_at = name_at + tag.name().as_ref().len();
        let (prefix, local) = self.split_name(name_at, attributes_at)?;
        let scope = self.read_attributes(attributes_at, name_at + tag.len(), outer)?;
        let namespace = self.namespace(prefix, scope, at)?;
        let attributes = self.resolve_attributes(scope)?;
        self.open.push(offset(self.tree.nodes.len()));
        let record = NodeRecord {
            kind: Kind::Element,
            span: local,
            end: 0,
            source_end: 0,
            namespace,
            scope,
            attributes,
        };
        self.node(record, at)
    }

    fn end(&mut self, end: usize) -> Result<(), Wrong> {
        self.flush(end)?;
        let next = offset(self.tree.nodes.len());
        if let Some(node) = self.open.pop().and_then(|open| self.tree.nodes.get_mut(open as usize)) {
            node.end = next;
            node.source_end = offset(end);
        }
        Ok(())
    }

    fn finish(&mut self, at: usize) -> Result<(), Wrong> {
        self.flush(at)?;
        match self.open.last().and_then(|open| self.tree.nodes.get(*open as usize)) {
            Some(open) => malformed(format!("the element {:?} is not closed", self.text(open.span)), at),
            None if self.tree.nodes.is_empty() => malformed("there is no element", at),
            None => Ok(()),
        }
    }

    fn node(&mut self, node: NodeRecord, at: usize) -> Result<(), Wrong> {
        let most = self.limits.nodes;
        if self.tree.nodes.len() + self.tree.attributes.len() >= most {
            return Err((Reason::Limit { what: "the number of nodes", most }, at));
        }
        self.tree.nodes.push(node);
        Ok(())
    }

    pub(super) fn text(&self, span: Span) -> &str {
        slice(self.source, &self.tree.extra, span)
    }

    /// The namespace that `prefix` stands for.
    pub(super) fn namespace(&self, prefix: Span, scope: u32, at: usize) -> Result<u32, Wrong> {
        let name = self.text(prefix);
        resolve(&self.tree.bindings, |span| self.text(span), name, scope)
            .ok_or_else(|| (Reason::Prefix(name.to_owned()), at))
    }

    /// Prefix and local part of the name that stands there in the source.
    pub(super) fn split_name(&self, start: usize, end: usize) -> Result<(Span, Span), Wrong> {
        let most = self.limits.name_bytes;
        if end - start > most {
            return Err((Reason::Limit { what: "the length of a name in bytes", most }, start));
        }
        let name = self.source.get(start..end).unwrap_or_default();
        let (prefix, local) = name.split_once(':').unwrap_or(("", name));
        if !is_ncname(local) || (name.contains(':') && !is_ncname(prefix)) {
            return malformed(format!("{name:?} is not a name"), start);
        }
        let prefix = Span { start: offset(start), end: offset(start + prefix.len()) };
        Ok((prefix, Span { start: offset(end - local.len()), end: offset(end) }))
    }

    fn inside(&self, at: usize) -> Result<(), Wrong> {
        if self.open.is_empty() { malformed("text outside the root element", at) } else { Ok(()) }
    }

    /// A part of a text, as it stands in the source.
    fn piece(&mut self, start: usize, end: usize) -> Result<(), Wrong> {
        self.inside(start)?;
        let source = self.source;
        let text = source.get(start..end).unwrap_or_default();
        if matches!(self.pending, Pending::None) && !(self.has_return && text.contains('\r')) {
            self.pending = Pending::Source(Span { start: offset(start), end: offset(end) });
            return Ok(());
        }
        self.copy_pending();
        push_lines(&mut self.tree.extra, text);
        Ok(())
    }

    fn copy_pending(&mut self) {
        let from = self.tree.extra.len();
        match self.pending {
            Pending::Extra(_) => {}
            Pending::None => self.pending = Pending::Extra(from),
            Pending::Source(span) => {
                let text = slice(self.source, "", span);
                self.tree.extra.push_str(text);
                self.pending = Pending::Extra(from);
            }
        }
    }

    /// Ends the text, if there is one.
    fn flush(&mut self, at: usize) -> Result<(), Wrong> {
        let span = match std::mem::replace(&mut self.pending, Pending::None) {
            Pending::None => return Ok(()),
            Pending::Source(span) => span,
            Pending::Extra(start) => {
                Span { start: offset(start) | EXTRA, end: offset(self.tree.extra.len()) | EXTRA }
            }
        };
        let most = self.limits.text_bytes;
        let length = (span.end - span.start) as usize;
        if length > most {
            return Err((Reason::Limit { what: "the length of a text in bytes", most }, at));
        }
        if length == 0 {
            return Ok(());
        }
        let end = offset(self.tree.nodes.len() + 1);
        let (namespace, scope, attributes) = (NO_NAMESPACE, NO_NAMESPACE, (0, 0));
        let record =
            NodeRecord { kind: Kind::Text, span, end, source_end: offset(at), namespace, scope, attributes };
        self.node(record, at)
    }
}

/// Appends `text` with its line ends made one line feed each (XML 1.0, section 2.11).
fn push_lines(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\r') {
        out.push_str(before);
        out.push('\n');
        rest = after.strip_prefix('\n').unwrap_or(after);
    }
    out.push_str(rest);
}

fn position(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn declared(declaration: &BytesDecl<'_>, at: usize) -> Result<(), Wrong> {
    if at != 0 {
        return malformed("an XML declaration that is not at the start", at);
    }
    match declaration.version() {
        Ok(version) if version == "1.0" => Ok(()),
        Ok(version) => malformed(format!("the XML version {version:?} is not supported: use 1.0"), at),
        Err(error) => malformed(error.to_string(), at),
    }
}

/// The character that `&name;` stands for.
pub(super) fn reference(name: &str, at: usize) -> Result<char, Wrong> {
    let predefined = match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "apos" => Some('\''),
        "quot" => Some('"'),
        _ => None,
    };
    if let Some(character) = predefined {
        return Ok(character);
    }
    let Some(number) = name.strip_prefix('#') else {
        let shown = name.chars().take(40).collect();
        return Err((Reason::Entity(shown), at));
    };
    let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |digits| (digits, 16));
    let code = match digits.bytes().all(|digit| char::from(digit).is_digit(radix)) {
        true => u32::from_str_radix(digits, radix).ok(),
        false => None,
    };
    match code.and_then(char::from_u32).filter(|character| is_char(*character)) {
        Some(character) => Ok(character),
        None => malformed("a character reference that stands for no character of XML", at),
    }
}
