//! JSON to XML.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosstie_model::Fault;
use crosstie_model::limits::MAX_DOCUMENT_DEPTH;
use serde_json::{Map, Value};

use super::emit::Emission;
use super::path::{Step, Trail};
use super::read::XOP;
use super::text::{self, Context};
use super::{Scalars, UnknownMembers, WriteOptions, Zoneless};
use crate::attachment::Attachment;
use crate::namespace::{XSD, XSI};
use crate::untyped;
use crate::writer::{Mark, Writer};
use crate::xsd::{
    ComplexType, Content, ElementDeclaration, ElementId, Member, Model, SchemaSet, Shape, TypeDefinition,
    TypeId,
};

/// How many alternatives are tried for one message. Choices in choices could otherwise multiply.
const MAX_TRIES: u32 = 100_000;

pub(super) struct Writing<'w, 'o, 'a> {
    pub(super) set: &'w SchemaSet,
    pub(super) writer: &'o mut Writer,
    pub(super) options: &'o mut WriteOptions<'a>,
    pub(super) trail: Trail<'w>,
    begin: Mark,
    tries: u32,
    /// Elements begun and not ended: schemas may nest where the value does not.
    nesting: usize,
}

impl<'w, 'o, 'a> Writing<'w, 'o, 'a> {
    pub(super) fn new(set: &'w SchemaSet, writer: &'o mut Writer, options: &'o mut WriteOptions<'a>) -> Self {
        writer.prefer("xsi", XSI);
        writer.prefer("xs", XSD);
        let begin = writer.mark();
        Self { set, writer, options, trail: Trail::default(), begin, tries: 0, nesting: 0 }
    }

    pub(super) fn finish(self) -> Result<(), Vec<Fault>> {
        if self.trail.faults.is_empty() {
            return Ok(());
        }
        self.writer.rewind(self.begin);
        Err(self.trail.faults)
    }

    /// Writes `value` as the element `id`.
    pub(super) fn element(&mut self, id: ElementId, value: &'w Value) {
        let declaration: &'w ElementDeclaration = self.set.declaration(id);
        if declaration.is_abstract {
            self.trail.fault("the element is abstract: one that stands for it has to be given");
            return;
        }
        let name = (&*declaration.name.namespace, &*declaration.name.local);
        self.writer.start(name.0, name.1);
        if value.is_null() && declaration.nillable {
            self.writer.attribute(XSI, "nil", "true");
        } else {
            self.content(declaration.type_id, value);
        }
        self.writer.end();
    }

    /// Writes `value` as an element called `name` of the type `id`.
    pub(super) fn named(&mut self, id: TypeId, name: (&str, &str), value: &'w Value) {
        self.writer.start(name.0, name.1);
        self.content(id, value);
        self.writer.end();
    }

    /// Writes attributes and content of the element just begun.
    fn content(&mut self, id: TypeId, value: &'w Value) {
        if self.nesting >= MAX_DOCUMENT_DEPTH {
            self.trail.fault(format!("the value nests deeper than {MAX_DOCUMENT_DEPTH} elements"));
            return;
        }
        self.nesting += 1;
        match self.set.definition(id) {
            TypeDefinition::Any => self.anything(value),
            TypeDefinition::Simple(_) => self.simple(id, value),
            TypeDefinition::Complex(complex) => self.complex(id, complex, value),
        }
        self.nesting -= 1;
    }

    fn anything(&mut self, value: &'w Value) {
        let named = value.as_object().and_then(|members| members.get("@xsi:type"));
        match named.and_then(|name| self.type_called(name.as_str()?, None)) {
            Some(id) if !matches!(self.set.definition(id), TypeDefinition::Any) => self.derived(id, value),
            _ => untyped::write_content(self.writer, value, untyped::Scalars::Typed),
        }
    }

    fn simple(&mut self, id: TypeId, value: &Value) {
        let text = match self.text(id, value) {
            Ok(text) => text,
            Err(detail) => return self.trail.fault(detail),
        };
        if !(text::is_base64(self.set, id) && self.attach(&text)) {
            self.writer.text(&text);
        }
    }

    /// The text of `value`. Qualified names get a prefix that is declared here, so the tag must still be open.
    fn text<'v>(&mut self, id: TypeId, value: &'v Value) -> Result<std::borrow::Cow<'v, str>, String> {
        let (zoneless, scalars) = (Zoneless::Keep, Scalars::Json);
        let context = Context { set: self.set, zoneless, scalars, element: None, nesting: 0 };
        let text = text::write(context, id, value)?;
        if !text::is_name(self.set, id) {
            return Ok(text);
        }
        let (namespace, local) = expanded(&text);
        Ok(self.writer.name(namespace, local).into())
    }

    /// Puts a binary value beside the envelope, if it is large enough (XOP, section 3.1).
    fn attach(&mut self, base64: &str) -> bool {
        let Some(attach) = self.options.attach.as_deref_mut() else { return false };
        if base64.len() / 4 * 3 < attach.from_bytes.max(1) {
            return false;
        }
        let Ok(content) = STANDARD.decode(base64) else { return false };
        let content_id = format!("{}-{}@crosstie", attach.id, attach.attachments.len() + 1);
        self.writer.prefer("xop", XOP);
        self.writer.start(XOP, "Include");
        self.writer.attribute("", "href", &format!("cid:{content_id}"));
        self.writer.end();
        let content_type = "application/octet-stream".to_owned();
        attach.attachments.push(Attachment { content_id, content_type, content: content.into() });
        true
    }

    fn complex(&mut self, id: TypeId, complex: &'w ComplexType, value: &'w Value) {
        let named = value.as_object().and_then(|members| members.get("@xsi:type"));
        if let Some(name) = named.filter(|_| complex.shape == Shape::Object) {
            let derived = name.as_str().and_then(|name| self.type_called(name, Some(id)));
            return match derived {
                Some(derived) if self.set.is_derived(derived, id) => self.derived(derived, value),
                _ => self
                    .trail
                    .fault_at("@xsi:type", "the type is not known, or not derived from the declared one"),
            };
        }
        if complex.is_abstract {
            return self.trail.fault("the type is abstract: \"@xsi:type\" has to name one derived from it");
        }
        self.body(complex, value);
    }

    /// Writes a value as one of a type that `xsi:type` names.
    fn derived(&mut self, id: TypeId, value: &'w Value) {
        if let Some(name) = self.set.name_of(id) {
            self.writer.name_attribute(XSI, "type", (&name.namespace, &name.local));
        }
        match self.set.definition(id) {
            TypeDefinition::Complex(complex) if complex.is_abstract => {
                self.trail.fault_at("@xsi:type", "the type is abstract");
            }
            TypeDefinition::Complex(complex) => self.body(complex, value),
            _ => match value.as_object().and_then(|members| members.get("#text")) {
                Some(text) => self.simple(id, text),
                None => self.trail.fault_at("#text", "is required"),
            },
        }
    }

    /// The type that `name` names: `{namespace}local`, or a local name in the namespace of `near`.
    fn type_called(&self, name: &str, near: Option<TypeId>) -> Option<TypeId> {
        if name.starts_with('{') {
            let (namespace, local) = expanded(name);
            return self.set.type_named(namespace, local);
        }
        let namespace = near.and_then(|near| self.set.name_of(near)).map_or(XSD, |name| &name.namespace);
        self.set.type_named(namespace, name)
    }

    fn body(&mut self, complex: &'w ComplexType, value: &'w Value) {
        match (&complex.content, complex.shape) {
            (Content::Simple(text), _) => self.text_with_attributes(complex, *text, value),
            (Content::Elements(model), Shape::Value) => self.sole(model, value),
            (Content::Elements(model), Shape::Tuple) => self.tuple(model, value),
            (Content::Elements(model), Shape::Choice) => self.alternatives(model, value),
            (Content::Empty, Shape::Value) => self.nothing(value),
            (content, shape) => {
                let empty = Value::Null;
                let members = match value {
                    Value::Object(members) => members,
                    // An element that may be empty needs no object.
                    value if *value == empty && is_optional(content) => &EMPTY,
                    _ => return self.trail.fault("the value is not an object"),
                };
                self.attributes(complex, members);
                let model = match content {
                    Content::Elements(model) => Some(model),
                    _ => None,
                };
                if let Some(text) = members.get("#text").filter(|_| complex.mixed)
                    && let Ok(text) = self.text(crate::xsd::STRING, text)
                {
                    self.writer.text(&text);
                }
                let known = |key: &str| {
                    (key == "#text" && complex.mixed) || key == "@xsi:type" || is_attribute(complex, key)
                };
                Emission::new(self, model, members, shape, &known).run();
            }
        }
    }

    fn text_with_attributes(&mut self, complex: &'w ComplexType, id: TypeId, value: &'w Value) {
        let Value::Object(members) = value else {
            self.attributes(complex, &EMPTY);
            return self.simple(id, value);
        };
        self.attributes(complex, members);
        match members.get("#text") {
            Some(text) => self.simple(id, text),
            None => self.simple(id, &Value::String(String::new())),
        }
        if self.options.unknown == UnknownMembers::Refuse {
            for key in members.keys() {
                if key != "#text" && key != "@xsi:type" && !is_attribute(complex, key) {
                    self.trail.fault_at(key, "is not known here");
                }
            }
        }
    }

    fn attributes(&mut self, complex: &'w ComplexType, members: &'w Map<String, Value>) {
        for own in &complex.attributes {
            match members.get(&*own.key).filter(|value| !value.is_null()) {
                Some(value) => match self.text(own.type_id, value) {
                    Ok(text) => self.writer.attribute(&own.name.namespace, &own.name.local, &text),
                    Err(detail) => self.trail.fault_at(&own.key, detail),
                },
                None if own.required => match &own.fixed {
                    Some(fixed) => self.writer.attribute(&own.name.namespace, &own.name.local, fixed),
                    None => self.trail.fault_at(&own.key, "is required"),
                },
                None => {}
            }
        }
        let Some(any) = &complex.any_attribute else { return };
        for (key, value) in members {
            let Some(name) = key.strip_prefix('@').filter(|name| *name != "xsi:type") else { continue };
            let (namespace, local) = expanded(name);
            if complex.attributes.iter().any(|own| *own.key == **key) || !any.allows(namespace) {
                continue;
            }
            let id = self.set.attribute(namespace, local).unwrap_or(crate::xsd::ANY_SIMPLE_TYPE);
            match self.text(id, value) {
                Ok(text) => self.writer.attribute(namespace, local, &text),
                Err(detail) => self.trail.fault_at(key, detail),
            }
        }
    }

    /// A type that holds nothing.
    fn nothing(&mut self, value: &Value) {
        if !value.is_null() {
            self.trail.fault("the value is not null");
        }
    }

    /// A type that is the value of its one member.
    fn sole(&mut self, model: &'w Model, value: &'w Value) {
        let Some(member) = model.members.first() else { return self.nothing(value) };
        match (member.is_array, value) {
            (true, Value::Array(values)) => {
                for (index, value) in values.iter().enumerate() {
                    self.trail.push(Step::Index(index));
                    self.element(member.element, value);
                    self.trail.pop();
                }
                let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
                let (min, max) = (model.particle.min, model.particle.max);
                self.check_count(model, count, min, max);
            }
            (true, _) => self.trail.fault("the value is not an array"),
            (false, value) => self.element(member.element, value),
        }
    }

    /// The bounds of the one element in a model that is its value.
    fn check_count(&mut self, model: &Model, count: u32, min: u32, max: Option<u32>) {
        let (min, max) = match &model.particle.term {
            crate::xsd::Term::Sequence(parts) => match parts.first() {
                Some(part) => (part.min, part.max),
                None => (min, max),
            },
            _ => (min, max),
        };
        if count < min {
            self.trail.fault(format!("the array has fewer than {min} items"));
        } else if let Some(max) = max.filter(|max| count > *max) {
            self.trail.fault(format!("the array has more than {max} items"));
        }
    }

    fn tuple(&mut self, model: &'w Model, value: &'w Value) {
        let Value::Array(values) = value else { return self.trail.fault("the value is not an array") };
        if values.len() != model.members.len() {
            return self.trail.fault(format!("the array does not have {} items", model.members.len()));
        }
        for (index, (member, value)) in model.members.iter().zip(values).enumerate() {
            self.trail.push(Step::Index(index));
            self.element(member.element, value);
            self.trail.pop();
        }
    }

    /// Writes the first alternative that the value fits: before any text is taken for a number, one that the
    /// value is of by itself.
    fn alternatives(&mut self, model: &'w Model, value: &'w Value) {
        // Dropping what one alternative does not know would make it fit everything.
        let unknown = std::mem::replace(&mut self.options.unknown, UnknownMembers::Refuse);
        let is_exact = |member: &&Member| {
            let declaration = self.set.declaration(member.element);
            text::is_natural(self.set, declaration.type_id, value)
                || (value.is_null() && declaration.nillable)
        };
        let (exact, others): (Vec<_>, Vec<_>) = model.members.iter().partition(is_exact);
        let meant = exact.len();
        let mut likeliest: Option<Vec<Fault>> = None;
        let mut fits = false;
        for (place, member) in exact.into_iter().chain(others).enumerate() {
            let faults = self.attempt(member, value);
            fits = faults.is_empty();
            if fits {
                break;
            }
            let is_better = likeliest.as_ref().is_none_or(|known| known.len() > faults.len());
            if place < meant && is_better {
                likeliest = Some(faults);
            }
        }
        self.options.unknown = unknown;
        match likeliest {
            _ if fits => {}
            Some(faults) => self.trail.faults.extend(faults),
            None => self.trail.fault("the value is none of those that may stand here"),
        }
        self.trail.faults.truncate(super::MAX_FAULTS);
    }

    /// Writes `value` as `member`, or nothing and tells why it does not fit.
    fn attempt(&mut self, member: &'w Member, value: &'w Value) -> Vec<Fault> {
        self.tries += 1;
        let mark = self.writer.mark();
        let attached = self.options.attach.as_ref().map_or(0, |attach| attach.attachments.len());
        // Faults of their own: those known might fill the list.
        let known = std::mem::take(&mut self.trail.faults);
        if self.tries > MAX_TRIES {
            self.trail.fault("finding out which alternative fits takes too long");
        } else {
            self.alternative(member, value);
        }
        let faults = std::mem::replace(&mut self.trail.faults, known);
        if !faults.is_empty() {
            self.writer.rewind(mark);
            if let Some(attach) = self.options.attach.as_deref_mut() {
                attach.attachments.truncate(attached);
            }
        }
        faults
    }

    fn alternative(&mut self, member: &'w Member, value: &'w Value) {
        match (member.is_array, value) {
            (true, Value::Array(values)) => {
                for (index, value) in values.iter().enumerate() {
                    self.trail.push(Step::Index(index));
                    self.element(member.element, value);
                    self.trail.pop();
                }
            }
            _ => self.element(member.element, value),
        }
    }
}

static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

fn is_optional(content: &Content) -> bool {
    match content {
        Content::Empty => true,
        Content::Elements(model) => model.particle.is_optional(),
        Content::Simple(_) => false,
    }
}

/// Whether `key` names an attribute of the type.
fn is_attribute(complex: &ComplexType, key: &str) -> bool {
    let Some(name) = key.strip_prefix('@') else { return false };
    complex.attributes.iter().any(|own| *own.key == *key)
        || complex.any_attribute.as_ref().is_some_and(|any| any.allows(expanded(name).0))
}

/// Namespace and local part of `{namespace}local`.
pub(super) fn expanded(text: &str) -> (&str, &str) {
    text.strip_prefix('{').and_then(|rest| rest.split_once('}')).unwrap_or(("", text))
}
