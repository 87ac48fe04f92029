//! XML to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosstie_model::Fault;
use serde_json::{Map, Value};

use super::ReadOptions;
use super::matching::{Matching, Slot};
use super::path::{Step, Trail};
use super::text::{self, Context};
use crate::chars::trim;
use crate::document::Element;
use crate::namespace::{XML, XSI};
use crate::untyped;
use crate::xsd::{
    AttributeUse, ComplexType, Content, ElementDeclaration, Member, Model, Process, SchemaSet, Shape,
    TypeDefinition, TypeId,
};

/// XML-binary Optimized Packaging.
pub(crate) const XOP: &str = "http://www.w3.org/2004/08/xop/include";

/// Namespaces whose attributes may stand on any element: they speak to the machinery of messages, not to
/// whom the message is for. Toolkits put `wsu:Id` and `encodingStyle` on what their schemas say nothing of.
const TOLERATED: [&str; 5] = [
    XSI,
    XML,
    "http://schemas.xmlsoap.org/soap/envelope/",
    "http://www.w3.org/2003/05/soap-envelope",
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd",
];

/// How many bytes of attachments a message may stand for beyond their size, by referring to them again: as many as
/// they have, and this many at least. Every reference becomes a value of its own.
const REPEATED: usize = 1024 * 1024;

pub(super) struct Reading<'r> {
    pub(super) set: &'r SchemaSet,
    options: ReadOptions<'r>,
    /// How many bytes of attachments may still be referred to.
    attachable: usize,
    pub(super) trail: Trail<'r>,
}

impl<'r> Reading<'r> {
    pub(super) fn new(set: &'r SchemaSet, options: ReadOptions<'r>) -> Self {
        let own: usize = options.attachments.iter().map(|part| part.content.len()).sum();
        let attachable = own.saturating_add(own.max(REPEATED));
        Self { set, options, attachable, trail: Trail::default() }
    }

    pub(super) fn finish(self, value: Value) -> Result<Value, Vec<Fault>> {
        if self.trail.faults.is_empty() { Ok(value) } else { Err(self.trail.faults) }
    }

    /// The value of an element that is declared as `declaration`, or stands for it.
    pub(super) fn element(&mut self, declaration: &'r ElementDeclaration, element: Element<'r>) -> Value {
        if element.is_nil() {
            return self.nil(declaration.nillable, element);
        }
        let id = self.actual_type(declaration.type_id, element);
        let is_empty = element.children().next().is_none();
        let assumed = declaration.default.as_ref().or(declaration.fixed.as_ref()).filter(|_| is_empty);
        if let (Some(text), Some(simple)) = (assumed, self.text_type(id)) {
            return self.text_value(simple, text, None);
        }
        let value = self.content(id, element);
        if let Some(fixed) = &declaration.fixed
            && let Some(simple) = self.text_type(id)
            && !is_empty
            && text::read(self.context(None), simple, fixed).is_ok_and(|fixed| fixed != value)
        {
            self.trail.fault("the value is not the only one allowed");
        }
        value
    }

    /// The value of an element of the type `id`, whatever it is called.
    pub(super) fn typed(&mut self, id: TypeId, element: Element<'r>) -> Value {
        if element.is_nil() {
            return self.nil(true, element);
        }
        let id = self.actual_type(id, element);
        self.content(id, element)
    }

    fn nil(&mut self, nillable: bool, element: Element<'r>) -> Value {
        if !nillable {
            self.trail.fault("the value may not be nil");
        } else if element.children().next().is_some() {
            self.trail.fault("a nil element is empty");
        }
        Value::Null
    }

    /// The type that `xsi:type` names, if it may stand for the declared one.
    fn actual_type(&mut self, declared: TypeId, element: Element<'r>) -> TypeId {
        let Some(named) = element.attribute(XSI, "type") else {
            if let TypeDefinition::Complex(ComplexType { is_abstract: true, .. }) =
                self.set.definition(declared)
            {
                self.trail.fault("the type is abstract: xsi:type has to name one derived from it");
            }
            return declared;
        };
        let known = element.resolve(named).and_then(|name| self.set.type_named(&name.namespace, &name.local));
        match known {
            Some(id) if self.set.is_derived(id, declared) => {
                if let TypeDefinition::Complex(ComplexType { is_abstract: true, .. }) =
                    self.set.definition(id)
                {
                    self.trail.fault("the type that xsi:type names is abstract");
                }
                id
            }
            Some(_) => {
                self.trail.fault("the type that xsi:type names is not derived from the declared one");
                declared
            }
            // Where anything may stand, so may what nobody described.
            None if matches!(self.set.definition(declared), TypeDefinition::Any) => declared,
            None => {
                self.trail.fault("the type that xsi:type names is not known");
                declared
            }
        }
    }

    fn text_type(&self, id: TypeId) -> Option<TypeId> {
        matches!(self.set.definition(id), TypeDefinition::Simple(_)).then_some(id)
    }

    fn context(&self, element: Option<Element<'r>>) -> Context<'r> {
        let ReadOptions { zoneless, scalars, .. } = self.options;
        Context { set: self.set, zoneless, scalars, element, nesting: 0 }
    }

    fn text_value(&mut self, id: TypeId, text: &str, element: Option<Element<'r>>) -> Value {
        match text::read(self.context(element), id, text) {
            Ok(value) => value,
            Err(detail) => {
                self.trail.fault(detail);
                Value::Null
            }
        }
    }

    fn content(&mut self, id: TypeId, element: Element<'r>) -> Value {
        match self.set.definition(id) {
            TypeDefinition::Any => self.anything(element),
            TypeDefinition::Simple(_) => {
                for attribute in element.attributes().filter(|a| !TOLERATED.contains(&a.namespace)) {
                    self.trail.fault_at(&format!("@{}", attribute.local), "is not known here");
                }
                self.simple(id, element)
            }
            TypeDefinition::Complex(complex) => self.complex(id, complex, element),
        }
    }

    fn simple(&mut self, id: TypeId, element: Element<'r>) -> Value {
        let Some(child) = element.elements().next() else {
            return self.text_value(id, &element.text(), Some(element));
        };
        if child.is(XOP, "Include") && text::is_base64(self.set, id) {
            return self.attached(id, child);
        }
        self.trail.fault(format!("the element {:?} stands where there is text only", child.local()));
        Value::Null
    }

    /// The content of the part that `xop:Include` refers to (XOP, section 3.2).
    fn attached(&mut self, id: TypeId, include: Element<'r>) -> Value {
        let href = include.attribute("", "href").unwrap_or_default();
        let wanted = href.strip_prefix("cid:").map(percent_decoded);
        let attachments = self.options.attachments;
        let part = wanted.and_then(|id| attachments.iter().find(|part| part.content_id.as_bytes() == id));
        let Some(part) = part else {
            self.trail.fault("the attachment that stands for the value is not in the message");
            return Value::Null;
        };
        let Some(left) = self.attachable.checked_sub(part.content.len()) else {
            self.trail.fault("the message refers to its attachments too often");
            return Value::Null;
        };
        self.attachable = left;
        self.text_value(id, &STANDARD.encode(&part.content), None)
    }

    /// What no schema describes, except where `xsi:type` does.
    fn anything(&mut self, element: Element<'r>) -> Value {
        if element.attribute(XSI, "type").is_some() && !element.is_nil() {
            let name = element.attribute(XSI, "type").and_then(|name| element.resolve(name));
            let known = name.and_then(|name| self.set.type_named(&name.namespace, &name.local));
            if let Some(id) = known.filter(|id| !matches!(self.set.definition(*id), TypeDefinition::Any)) {
                return self.content(id, element);
            }
        }
        // A hook for the members, not for the element itself: that would ask for ever.
        untyped::read(element, &mut |child| {
            let is_typed = child.attribute(XSI, "type").is_some() && !child.is_nil();
            is_typed.then(|| self.anything(child))
        })
    }

    fn complex(&mut self, id: TypeId, complex: &'r ComplexType, element: Element<'r>) -> Value {
        let mut members = Map::new();
        self.attributes(complex, element, &mut members);
        match &complex.content {
            Content::Simple(text) => {
                let value = self.simple(*text, element);
                if complex.attributes.is_empty() && complex.any_attribute.is_none() {
                    return value;
                }
                members.insert("#text".to_owned(), value);
            }
            Content::Empty => {
                for child in element.elements() {
                    self.trail.fault_at(child.local(), "is not known here");
                }
                self.loose_text(complex, element, &mut members);
                if complex.shape == Shape::Value {
                    return Value::Null;
                }
            }
            Content::Elements(model) => {
                self.loose_text(complex, element, &mut members);
                let slots = self.children(model, element, &mut members);
                if let Some(value) = self.shaped(complex.shape, model, slots, &mut members) {
                    return value;
                }
            }
        }
        if element.attribute(XSI, "type").is_some()
            && let Some(name) = self.set.name_of(id)
        {
            members.insert("@xsi:type".to_owned(), Value::String(name.to_string()));
        }
        Value::Object(members)
    }

    fn attributes(
        &mut self,
        complex: &'r ComplexType,
        element: Element<'r>,
        members: &mut Map<String, Value>,
    ) {
        let mut seen = 0;
        for attribute in element.attributes() {
            let is_own = |own: &&AttributeUse| own.name.is(attribute.namespace, attribute.local);
            let declared = complex.attributes.iter().find(is_own);
            let (key, id) = match (declared, &complex.any_attribute) {
                (Some(own), _) => (own.key.to_string(), Some(own.type_id)),
                (None, _) if attribute.namespace == XSI => continue,
                (None, Some(any)) if any.allows(attribute.namespace) => {
                    let name = crate::QName::new(attribute.namespace, attribute.local);
                    let known = match any.process {
                        Process::Skip => None,
                        _ => self.set.attribute(attribute.namespace, attribute.local),
                    };
                    (format!("@{name}"), known)
                }
                _ if TOLERATED.contains(&attribute.namespace) => continue,
                _ => {
                    self.trail.fault_at(&format!("@{}", attribute.local), "is not known here");
                    continue;
                }
            };
            seen += usize::from(declared.is_some());
            let value = match id {
                Some(id) => text::read(self.context(Some(element)), id, attribute.value),
                None => Ok(Value::String(attribute.value.to_owned())),
            };
            let fixed = declared.and_then(|own| Some((own.type_id, own.fixed.as_ref()?)));
            match value {
                Ok(value) => {
                    if fixed.is_some_and(|(id, fixed)| {
                        text::read(self.context(None), id, fixed).is_ok_and(|fixed| fixed != value)
                    }) {
                        self.trail.fault_at(&key, "the value is not the only one allowed");
                    }
                    members.insert(key, value);
                }
                Err(detail) => self.trail.fault_at(&key, detail),
            }
        }
        if seen < complex.attributes.len() {
            self.absent_attributes(complex, element, members);
        }
    }

    fn absent_attributes(
        &mut self,
        complex: &'r ComplexType,
        element: Element<'r>,
        members: &mut Map<String, Value>,
    ) {
        for own in &complex.attributes {
            if element.attribute(&own.name.namespace, &own.name.local).is_some() {
                continue;
            }
            if own.required {
                self.trail.fault_at(&own.key, "is required");
            } else if let Some(default) = own.default.as_ref().or(own.fixed.as_ref())
                && let Ok(value) = text::read(self.context(None), own.type_id, default)
            {
                members.insert(own.key.to_string(), value);
            }
        }
    }

    /// Text beside elements.
    fn loose_text(&mut self, complex: &ComplexType, element: Element<'r>, members: &mut Map<String, Value>) {
        let text = element.text();
        let text = trim(&text);
        if text.is_empty() {
            return;
        }
        if complex.mixed {
            members.insert("#text".to_owned(), Value::String(text.to_owned()));
        } else {
            self.trail.fault("there is text where only elements may stand");
        }
    }

    /// Reads child elements into the slots of their members; what a wildcard lets in goes into `members`.
    fn children(
        &mut self,
        model: &'r Model,
        element: Element<'r>,
        members: &mut Map<String, Value>,
    ) -> Vec<Slot> {
        let mut matching = Matching::new(self, model, element);
        matching.run();
        let (slots, wild) = matching.finish();
        for (key, value) in wild {
            untyped::add(members, &key, value);
        }
        slots
    }

    pub(super) fn member(&mut self, member: &'r Member, index: usize, element: Element<'r>) -> Value {
        let declaration = self.set.declaration(member.element);
        self.trail.push(Step::Key(&member.key));
        if member.is_array {
            self.trail.push(Step::Index(index));
        }
        let value = self.element(declaration, element);
        if member.is_array {
            self.trail.pop();
        }
        self.trail.pop();
        value
    }

    /// What a wildcard let in: by its declaration, if there is one.
    pub(super) fn wild(&mut self, process: Process, element: Element<'r>) -> Value {
        let declared = match process {
            Process::Skip => None,
            _ => self.set.element(element.namespace(), element.local()),
        };
        match declared {
            Some(id) => self.element(self.set.declaration(id), element),
            None => {
                if process == Process::Strict {
                    self.trail.fault_at(element.local(), "the element is not declared anywhere");
                }
                self.anything(element)
            }
        }
    }

    /// Puts the members' values together. `None`: they are in `members`, which is the value.
    fn shaped(
        &mut self,
        shape: Shape,
        model: &'r Model,
        slots: Vec<Slot>,
        members: &mut Map<String, Value>,
    ) -> Option<Value> {
        let values = model.members.iter().zip(slots);
        match shape {
            Shape::Object => {
                for (member, slot) in values {
                    if let Some(value) = slot.value(member) {
                        members.insert(member.key.to_string(), value);
                    }
                }
                None
            }
            Shape::Value => {
                Some(values.into_iter().find_map(|(member, slot)| slot.value(member)).unwrap_or_default())
            }
            Shape::Choice => {
                let found = values.into_iter().find(|(_, slot)| !slot.is_empty());
                Some(found.and_then(|(member, slot)| slot.value(member)).unwrap_or_default())
            }
            Shape::Tuple => {
                Some(Value::Array(values.filter_map(|(member, slot)| slot.value(member)).collect()))
            }
            Shape::Map => {
                for (member, slot) in values {
                    match slot.value(member) {
                        Some(Value::Array(entries)) if *member.key == *super::ENTRIES => {
                            self.entries(entries, members);
                        }
                        Some(value) => {
                            members.insert(member.key.to_string(), value);
                        }
                        None => {}
                    }
                }
                None
            }
        }
    }

    fn entries(&mut self, entries: Vec<Value>, members: &mut Map<String, Value>) {
        for entry in entries {
            let Value::Object(mut entry) = entry else { continue };
            let Some(Value::String(key)) = entry.remove("key") else { continue };
            let value = entry.remove("value").unwrap_or_default();
            if members.contains_key(&key) {
                self.trail.fault_at(&key, "the key is there twice");
            } else {
                members.insert(key, value);
            }
        }
    }
}

/// `cid:` URLs escape what URLs cannot hold (RFC 2392).
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.extend_from_slice(before.as_bytes());
        match after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(b'%');
                rest = after;
            }
        }
    }
    out.extend_from_slice(rest.as_bytes());
    out
}
