//! The attributes of one start tag: read, normalised, and put into their namespaces.

use super::parse::{Parser, Wrong, malformed, offset, reference};
use super::{AttributeRecord, Binding, EXTRA, NO_NAMESPACE, Span};
use crate::chars::is_space;
use crate::error::Reason;
use crate::namespace::{XML, XMLNS};

/// An attribute that declares no namespace, before its prefix is resolved.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawAttribute {
    prefix: Span,
    local: Span,
    value: Span,
}

impl Parser<'_, '_> {
    /// Reads what stands between a tag's name and its end: namespaces come into scope at once, since they
    /// count for the attributes before them too; the others wait in `raw`. Returns the innermost scope.
    pub(super) fn read_attributes(&mut self, start: usize, end: usize, outer: u32) -> Result<u32, Wrong> {
        self.raw.clear();
        let mut scope = outer;
        let mut at = start;
        let mut count = 0;
        let source = self.source.as_bytes();
        let skip = |from: usize| {
            let rest = source.get(from..end).unwrap_or_default();
            from + rest.iter().position(|byte| !is_space(*byte)).unwrap_or(rest.len())
        };
        loop {
            let name_at = skip(at);
            if name_at >= end {
                return Ok(scope);
            }
            if name_at == at {
                return malformed("no white space before an attribute", at);
            }
            count += 1;
            if count > self.limits.attributes {
                let most = self.limits.attributes;
                return Err((Reason::Limit { what: "the number of attributes", most }, name_at));
            }
            let rest = source.get(name_at..end).unwrap_or_default();
            let length = rest.iter().position(|byte| is_space(*byte) || *byte == b'=').unwrap_or(rest.len());
            let name_end = name_at + length;
            let equals = skip(name_end);
            let quote_at = skip(equals + 1);
            let quote = source.get(quote_at).copied().filter(|byte| matches!(byte, b'"' | b'\''));
            let (Some(b'='), Some(quote)) = (source.get(equals).filter(|_| equals < end), quote) else {
                return malformed("an attribute without a quoted value", name_at);
            };
            let value_at = quote_at + 1;
            let value = source.get(value_at..end).unwrap_or_default();
            let Some(length) = value.iter().position(|byte| *byte == quote) else {
                return malformed("an attribute without a quoted value", name_at);
            };
            at = value_at + length + 1;
            let (prefix, local) = self.split_name(name_at, name_end)?;
            let value = self.normalise(value_at, value_at + length)?;
            match (self.text(prefix), self.text(local)) {
                ("", "xmlns") => {
                    let none = Span { start: local.start, end: local.start };
                    scope = self.declare(none, value, scope, outer, name_at)?;
                }
                ("xmlns", _) => scope = self.declare(local, value, scope, outer, name_at)?,
                _ => self.raw.push(RawAttribute { prefix, local, value }),
            }
        }
    }

    fn declare(&mut self, prefix: Span, uri: Span, scope: u32, outer: u32, at: usize) -> Result<u32, Wrong> {
        let (name, namespace) = (self.text(prefix), self.text(uri));
        let most = self.limits.namespace_bytes;
        if namespace.len() > most {
            return Err((Reason::Limit { what: "the length of a namespace in bytes", most }, at));
        }
        let reserved = name == "xmlns" || namespace == XMLNS || (name == "xml") != (namespace == XML);
        if reserved || (namespace.is_empty() && !name.is_empty()) {
            return malformed(format!("the prefix {name:?} cannot be bound to {namespace:?}"), at);
        }
        let mut known = scope;
        while known != outer {
            let Some(binding) = self.tree.bindings.get(known as usize) else { break };
            if self.text(binding.prefix) == name {
                return malformed(format!("the prefix {name:?} is declared twice"), at);
            }
            known = binding.parent;
        }
        let depth = self.tree.bindings.get(scope as usize).map_or(0, |binding| binding.depth) + 1;
        let most = self.limits.namespaces;
        if depth as usize > most {
            return Err((Reason::Limit { what: "the number of namespaces in scope", most }, at));
        }
        self.tree.bindings.push(Binding { prefix, uri, parent: scope, depth });
        Ok(offset(self.tree.bindings.len() - 1))
    }

    /// Puts the attributes read last into their namespaces. An attribute without prefix is in none.
    pub(super) fn resolve_attributes(&mut self, scope: u32) -> Result<(u32, u32), Wrong> {
        let first = self.tree.attributes.len();
        let most = self.limits.nodes;
        for index in 0..self.raw.len() {
            let Some(raw) = self.raw.get(index).copied() else { break };
            let at = raw.local.start as usize;
            let namespace = match raw.prefix.start == raw.prefix.end {
                true => NO_NAMESPACE,
                false => self.namespace(raw.prefix, scope, at)?,
            };
            if self.tree.nodes.len() + self.tree.attributes.len() >= most {
                return Err((Reason::Limit { what: "the number of nodes", most }, at));
            }
            self.tree.attributes.push(AttributeRecord { local: raw.local, namespace, value: raw.value });
        }
        self.refuse_twins(first)?;
        Ok((offset(first), offset(self.tree.attributes.len())))
    }

    /// Two attributes of one element never share a name, whatever their prefixes.
    fn refuse_twins(&self, first: usize) -> Result<(), Wrong> {
        let own = self.tree.attributes.get(first..).unwrap_or_default();
        if own.len() < 2 {
            return Ok(());
        }
        let uri = |binding: u32| match self.tree.bindings.get(binding as usize) {
            Some(binding) => self.text(binding.uri),
            None => "",
        };
        let mut names: Vec<_> =
            own.iter().map(|a| (self.text(a.local), uri(a.namespace), a.local.start)).collect();
        names.sort_unstable();
        for pair in names.array_windows() {
            let [(one, one_uri, _), (other, other_uri, at)] = pair;
            if (one, one_uri) == (other, other_uri) {
                return malformed(format!("the attribute {one:?} appears twice"), *at as usize);
            }
        }
        Ok(())
    }

    /// The value that stands there (XML 1.0, section 3.3.3): references resolved, white space made spaces.
    fn normalise(&mut self, start: usize, end: usize) -> Result<Span, Wrong> {
        let raw = self.source.get(start..end).unwrap_or_default();
        let most = self.limits.text_bytes;
        if raw.len() > most {
            return Err((Reason::Limit { what: "the length of a value in bytes", most }, start));
        }
        if let Some(at) = raw.find('<') {
            return malformed("\"<\" in the value of an attribute", start + at);
        }
        if !raw.bytes().any(|byte| matches!(byte, b'&' | b'\t' | b'\n' | b'\r')) {
            return Ok(Span { start: offset(start), end: offset(end) });
        }
        let from = self.tree.extra.len();
        let mut rest = raw;
        while let Some(at) = rest.find(['&', '\t', '\n', '\r']) {
            let (before, special) = rest.split_at(at);
            self.tree.extra.push_str(before);
            if let Some(name) = special.strip_prefix('&') {
                let place = end - special.len();
                let Some((name, after)) = name.split_once(';') else {
                    return malformed("\"&\" that begins no reference", place);
                };
                self.tree.extra.push(reference(name, place)?);
                rest = after;
            } else {
                self.tree.extra.push(' ');
                rest = special.strip_prefix("\r\n").or_else(|| special.get(1..)).unwrap_or_default();
            }
        }
        self.tree.extra.push_str(rest);
        Ok(Span { start: offset(from) | EXTRA, end: offset(self.tree.extra.len()) | EXTRA })
    }
}
