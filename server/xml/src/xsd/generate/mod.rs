//! XML Schema from JSON Schema: what services declare as input and output, for whoever calls them with XML.
//!
//! | JSON Schema | XML Schema |
//! |---|---|
//! | object | named complex type, a sequence with one element for each property |
//! | property that is not required | `minOccurs="0"` |
//! | value or `null` | `nillable="true"` |
//! | list | the property's element, repeated |
//! | list that may be `null`, or whose absence is not `[]`; list in a list; list at the top | element that holds `item` elements |
//! | list of fixed items (`prefixItems`) | element that holds `item1`, `item2` … |
//! | object of any keys (`additionalProperties`) | `entry` elements, each with `key` and `value` |
//! | one of several scalars | union; text comes last, since it fits everything |
//! | one of several, not all scalars | element that holds one element, called after the alternative |
//! | `enum`, `const` | enumeration |
//! | integer | `int` or `long`, by its bounds; `unsignedLong` or `integer` where they go beyond |
//! | number | `double` |
//! | number or text | `decimal` |
//! | boolean | `boolean` |
//! | text | `string`; by `format` `date`, `dateTime`, `time`, `duration`, `anyURI` |
//! | text with `contentEncoding: base64` | `base64Binary` |
//! | `null` alone | empty element |
//! | anything | `anyType` |
//!
//! A name that XML cannot hold is written with `_xHHHH_` for each such character. Bounds and lengths become
//! facets. `pattern`, `uniqueItems` and what else has no counterpart is left to who checks the JSON. Where the
//! JSON cannot be told from the schema, attributes of the namespace [`JSON_ANNOTATIONS`] say it; other
//! readers ignore them.

mod alternatives;
mod compound;
mod scalar;
mod tag;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;

use indexmap::IndexMap;
use serde_json::{Map, Value};
use tag::{Tag, TypeRef};

use super::JSON_ANNOTATIONS;
use crate::chars::encode_name;
use crate::namespace::{QName, XSD};
use crate::writer::Writer;

/// How deep schemas may nest, and how long a chain of references may be.
const MAX_NESTING: usize = 64;

/// A JSON Schema that has no counterpart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{element}: {detail}")]
pub struct GenerateError {
    /// The element it is for.
    pub element: String,
    /// Why, for a person.
    pub detail: String,
}

/// What an element carries; decides how undeclared content and values that are no objects are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A request: undeclared, it holds any elements.
    Request,
    /// An answer: undeclared, it holds one `result` of any type.
    Response,
}

/// A part of an rpc/literal message: an element of no namespace called after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagePart {
    /// Its name.
    pub name: String,
    /// The member of the JSON that it is; `None` where it is all of it.
    pub member: Option<String>,
    /// The type of what it holds.
    pub holds: QName,
}

/// A schema being made for one namespace. Types of one name and one content are shared.
#[derive(Debug)]
pub struct SchemaWriter {
    namespace: String,
    types: IndexMap<String, Tag>,
    elements: Vec<Tag>,
    is_qualified: bool,
}

/// How one value is held: the type of its element, and whether it may be nil.
#[derive(Debug, Clone)]
struct Held {
    what: What,
    nillable: bool,
}

#[derive(Debug, Clone)]
enum What {
    Ref(TypeRef),
    Inline(Tag),
}

/// One JSON Schema document while it is translated.
struct Translation<'g, 's> {
    types: &'g mut IndexMap<String, Tag>,
    root: &'s Value,
    /// The type that each reference became.
    references: HashMap<String, String>,
    nesting: usize,
}

type Outcome<T> = Result<T, String>;

/// A part: its name, the member that it is, its type.
type Described = (String, Option<String>, TypeRef);

impl Role {
    /// What a value is called that is no object.
    fn sole(self) -> &'static str {
        match self {
            Self::Request => "value",
            Self::Response => "result",
        }
    }
}

impl SchemaWriter {
    /// A schema without content.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        let (types, elements) = (IndexMap::new(), Vec::new());
        Self { namespace: namespace.to_owned(), types, elements, is_qualified: true }
    }

    /// Puts the elements within those that are added from here on into no namespace, where the parts of rpc/literal
    /// messages are (WS-I Basic Profile 1.1, R2735): there are clients that take both for one.
    pub fn leave_unqualified(&mut self) {
        self.is_qualified = false;
        self.elements.iter_mut().chain(self.types.values_mut()).for_each(Tag::qualify);
    }

    /// Adds the global element `name`, which holds what `schema` declares.
    ///
    /// # Errors
    /// The schema refers to itself without an object between, nests too deep, or holds what XML cannot.
    pub fn element(&mut self, name: &str, schema: Option<&Value>, role: Role) -> Result<(), GenerateError> {
        let nothing = Value::Bool(true);
        let mut translation = Translation {
            types: &mut self.types,
            root: schema.unwrap_or(&nothing),
            references: HashMap::new(),
            nesting: 0,
        };
        let element = Tag::new("element").with("name", &encode_name(name));
        let held = match (schema, role) {
            (None, Role::Request) => Ok(What::Inline(compound::any_content())),
            (None, Role::Response) => Ok(What::Inline(compound::any_result())),
            (Some(schema), role) => translation.root(name, schema, role),
        };
        let held = held.map_err(|detail| GenerateError { element: name.to_owned(), detail })?;
        self.elements.push(element.holding(held));
        Ok(())
    }

    /// Adds the types of the parts of an rpc/literal message of the operation `name`, which holds what `schema`
    /// declares: a part for each property of an object, and one for anything else.
    ///
    /// # Errors
    /// As [`SchemaWriter::element`]; or a part could be nil, which it may not (WS-I Basic Profile 1.1, R2211).
    pub fn parts(
        &mut self,
        name: &str,
        schema: Option<&Value>,
        role: Role,
    ) -> Result<Vec<MessagePart>, GenerateError> {
        let any = || TypeRef::Xs("anyType");
        let found = match (schema, role) {
            (None, Role::Request) => Ok(Vec::new()),
            (None, Role::Response) => Ok(vec![(role.sole().to_owned(), None, any())]),
            (Some(schema), role) => {
                let (types, references) = (&mut self.types, HashMap::new());
                let mut translation = Translation { types, root: schema, references, nesting: 0 };
                translation.parts(name, schema, role)
            }
        };
        let found = found.map_err(|detail| GenerateError { element: name.to_owned(), detail })?;
        let part = |(name, member, holds): Described| {
            let holds = match holds {
                TypeRef::Xs(local) => QName::new(XSD, local),
                TypeRef::Own(local) => QName::new(self.namespace.as_str(), local.as_str()),
            };
            MessagePart { name: encode_name(&name).into_owned(), member, holds }
        };
        Ok(found.into_iter().map(part).collect())
    }

    /// Whether an element of that name was added.
    #[must_use]
    pub fn has_element(&self, name: &str) -> bool {
        let name = encode_name(name);
        self.elements.iter().any(|element| element.is_called(&name))
    }

    /// Writes the schema as an `xs:schema` element.
    pub fn write(&self, writer: &mut Writer) {
        writer.prefer("xs", XSD);
        writer.prefer("tns", &self.namespace);
        writer.prefer("json", JSON_ANNOTATIONS);
        writer.start(XSD, "schema");
        writer.declare(&self.namespace);
        if self.elements.iter().chain(self.types.values()).any(Tag::has_annotations) {
            writer.declare(JSON_ANNOTATIONS);
        }
        writer.attribute("", "targetNamespace", &self.namespace);
        let form = if self.is_qualified { "qualified" } else { "unqualified" };
        writer.attribute("", "elementFormDefault", form);
        for tag in self.elements.iter().chain(self.types.values()) {
            tag.write(writer, &self.namespace);
        }
        writer.end();
    }

    /// The schema as a document.
    #[must_use]
    pub fn document(&self) -> String {
        let mut writer = Writer::document();
        self.write(&mut writer);
        writer.finish()
    }
}

impl<'s> Translation<'_, 's> {
    /// What the element at the top holds.
    fn root(&mut self, name: &str, schema: &'s Value, role: Role) -> Outcome<What> {
        let sole = role.sole();
        let (inner, nullable) = without_null(schema);
        if !nullable {
            let resolved = self.resolve(&inner)?;
            if is_object(resolved) {
                return match inner.get("$ref").is_some() {
                    true => Ok(self.held(&inner, name)?.what),
                    false => Ok(What::Inline(self.object(resolved, name)?)),
                };
            }
            if resolved.get("type") == Some(&Value::from("null")) {
                return Ok(What::Inline(compound::nothing()));
            }
            if is_list(resolved) && resolved.get("prefixItems").is_none() {
                return Ok(What::Inline(self.list(resolved, name)?));
            }
        }
        let held = self.held(schema, &format!("{name}{}", pascal(sole)))?;
        let member = Tag::new("element").with("name", sole).holding(held.what);
        let member = if held.nillable { member.with("nillable", "true") } else { member };
        Ok(What::Inline(compound::sequence(vec![member]).annotated("shape", "value")))
    }

    /// The parts of an rpc/literal message of the operation `name`.
    fn parts(&mut self, name: &str, schema: &'s Value, role: Role) -> Outcome<Vec<Described>> {
        let (inner, nullable) = without_null(schema);
        let resolved = self.resolve(&inner)?;
        if resolved.get("type") == Some(&Value::from("null")) {
            return Ok(Vec::new());
        }
        let properties = resolved.get("properties").and_then(Value::as_object);
        let is_closed = resolved.get("additionalProperties").is_none_or(|more| *more == Value::Bool(false));
        if let (Some(properties), true, false) = (properties, is_object(resolved) && is_closed, nullable) {
            let part = |(key, property): (&String, &Value)| {
                let holds = self.part(property, &format!("{name}{}", pascal(key)));
                let holds = holds.map_err(|detail| format!("{key:?} {detail}"))?;
                Ok((key.clone(), Some(key.clone()), holds))
            };
            return properties.clone().iter().map(part).collect();
        }
        let holds = self.part(schema, &format!("{name}{}", pascal(role.sole())));
        let holds = holds.map_err(|detail| format!("the {} {detail}", role.sole()))?;
        Ok(vec![(role.sole().to_owned(), None, holds)])
    }

    /// The type of a part.
    fn part(&mut self, schema: &Value, hint: &str) -> Outcome<TypeRef> {
        let held = self.held(schema, hint)?;
        let is_anything = matches!(held.what, What::Ref(TypeRef::Xs("anyType")));
        if held.nillable && !is_anything {
            return Err("may be null, and a part of an rpc message never is: let it be a member of a model"
                .to_owned());
        }
        match held.what {
            What::Ref(name) => Ok(name),
            What::Inline(tag) => self.named(hint, None, &|_, _| Ok(tag.clone())).map(TypeRef::Own),
        }
    }

    /// How a value of `schema` is held; `hint` names the type, if it needs a name and has none.
    fn held(&mut self, schema: &Value, hint: &str) -> Outcome<Held> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err("the schema nests too deep, or refers to itself".to_owned());
        }
        let (inner, nullable) = without_null(schema);
        let held = match inner.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.referred(&inner, reference, hint),
            None => self.kind(&inner, hint),
        };
        self.nesting -= 1;
        held.map(|held| Held { nillable: held.nillable || nullable, ..held })
    }

    /// A reference to something with parts becomes a type of its own, which may hold itself.
    fn referred(&mut self, schema: &Value, reference: &str, hint: &str) -> Outcome<Held> {
        let target = self.resolve(schema)?.clone();
        let (inner, nullable) = without_null(&target);
        if !has_parts(&inner) {
            return self.kind(&inner, hint).map(|held| Held { nillable: held.nillable || nullable, ..held });
        }
        if let Some(name) = self.references.get(reference) {
            return Ok(Held { what: What::Ref(TypeRef::Own(name.clone())), nillable: nullable });
        }
        let wanted = inner.get("title").and_then(Value::as_str).unwrap_or_else(|| last_segment(reference));
        let is_plain =
            is_object(&inner) && !["anyOf", "oneOf", "allOf"].iter().any(|key| inner.get(*key).is_some());
        let name = self.named(wanted, Some(reference), &|own, name| {
            if is_plain {
                return own.object(&inner, name);
            }
            Ok(match own.kind(&inner, name)?.what {
                What::Inline(tag) => tag,
                What::Ref(other) => compound::alias(other),
            })
        })?;
        Ok(Held { what: What::Ref(TypeRef::Own(name)), nillable: nullable })
    }

    fn kind(&mut self, schema: &Value, hint: &str) -> Outcome<Held> {
        let exact = |what| Ok(Held { what, nillable: false });
        if let Some(values) = enumerated(schema) {
            return exact(scalar::enumeration(&values)?);
        }
        if let Some(branches) = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(*key)?.as_array()) {
            return exact(self.alternatives(branches, hint)?);
        }
        if let Some(branches) = schema.get("allOf").and_then(Value::as_array) {
            return match self.merged(schema, branches)? {
                Some(merged) => self.held(&merged, hint),
                None => Ok(anything()),
            };
        }
        if is_object(schema) {
            let is_named = schema.get("properties").is_some() || schema.get("title").is_some();
            if !is_named {
                return exact(What::Inline(self.object(schema, hint)?));
            }
            let wanted = schema.get("title").and_then(Value::as_str).unwrap_or(hint);
            let name = self.named(wanted, None, &|own, name| own.object(schema, name))?;
            return exact(What::Ref(TypeRef::Own(name)));
        }
        if is_list(schema) {
            return exact(What::Inline(self.list(schema, hint)?));
        }
        match schema.get("type") {
            Some(Value::String(kind)) if kind == "null" => exact(What::Inline(compound::nothing())),
            Some(Value::String(kind)) => exact(scalar::scalar(kind, schema)?),
            Some(Value::Array(kinds)) if scalar::is_decimal(kinds) => {
                exact(What::Ref(TypeRef::Xs("decimal")))
            }
            Some(Value::Array(kinds)) => {
                let branches: Vec<_> = kinds.iter().map(|kind| with_type(schema, kind)).collect();
                exact(self.alternatives(&branches, hint)?)
            }
            _ => Ok(anything()),
        }
    }

    /// Makes a named type, or finds that there is one of that name and content.
    fn named(
        &mut self,
        wanted: &str,
        reference: Option<&str>,
        make: &dyn Fn(&mut Self, &str) -> Outcome<Tag>,
    ) -> Outcome<String> {
        let base = type_name(wanted);
        for count in 1..1000 {
            let name = if count == 1 { base.clone() } else { format!("{base}{count}") };
            let known = self.types.len();
            // Reserved, so that what it holds gets other names, and may hold it.
            let before = self.types.get(&name).cloned();
            if before.is_none() {
                self.types.insert(name.clone(), Tag::new("complexType"));
            }
            if let Some(reference) = reference {
                self.references.insert(reference.to_owned(), name.clone());
            }
            let tag = make(self, &name)?.with("name", &name).named_first();
            match before {
                None => {
                    self.types.insert(name.clone(), tag);
                    return Ok(name);
                }
                Some(before) if before == tag => return Ok(name),
                // Another type has the name. What was made meanwhile may refer to it.
                Some(_) => self.types.truncate(known),
            }
        }
        Err(format!("too many types are called {base:?}"))
    }

    fn resolve<'v>(&self, mut schema: &'v Value) -> Outcome<&'v Value>
    where
        's: 'v,
    {
        for _ in 0..MAX_NESTING {
            let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { return Ok(schema) };
            let target = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            schema = target.ok_or_else(|| format!("the reference {reference:?} leads nowhere"))?;
        }
        Err("a reference refers to itself".to_owned())
    }
}

/// A property: its element, with how often it may be there.
fn member(name: &str, held: Held) -> Tag {
    let encoded = encode_name(name);
    let mut tag = Tag::new("element").with("name", &encoded);
    if encoded != name {
        tag = tag.annotated("key", name);
    }
    if held.nillable {
        tag = tag.with("nillable", "true");
    }
    tag.holding(held.what)
}

fn anything() -> Held {
    Held { what: What::Ref(TypeRef::Xs("anyType")), nillable: true }
}

/// `schema` without the possibility of `null`, and whether there was one.
fn without_null(schema: &Value) -> (Cow<'_, Value>, bool) {
    let (mut without, nullable) = without_one_null(schema);
    if nullable {
        // One in another.
        while let (Cow::Owned(inner), true) = without_one_null(&without) {
            without = Cow::Owned(inner);
        }
    }
    (without, nullable)
}

fn without_one_null(schema: &Value) -> (Cow<'_, Value>, bool) {
    let Some(members) = schema.as_object() else { return (Cow::Borrowed(schema), false) };
    let is_null = |branch: &Value| branch.get("type") == Some(&Value::from("null"));
    if let Some(kinds) =
        members.get("type").and_then(Value::as_array).filter(|kinds| kinds.contains(&"null".into()))
    {
        let rest: Vec<_> = kinds.iter().filter(|kind| *kind != "null").cloned().collect();
        let kind = match rest.as_slice() {
            [] => "null".into(),
            [one] => one.clone(),
            _ => Value::Array(rest),
        };
        return (Cow::Owned(with_type(schema, &kind)), true);
    }
    for key in ["anyOf", "oneOf"] {
        let Some(branches) = members.get(key).and_then(Value::as_array) else { continue };
        if !branches.iter().any(is_null) {
            continue;
        }
        let rest: Vec<_> = branches.iter().filter(|branch| !is_null(branch)).cloned().collect();
        let mut without: Map<String, Value> = members.clone();
        without.remove(key);
        match rest.as_slice() {
            [] => return (Cow::Owned(serde_json::json!({"type": "null"})), true),
            [Value::Object(one)] => without.extend(one.clone()),
            _ => {
                without.insert(key.to_owned(), Value::Array(rest));
            }
        }
        return (Cow::Owned(Value::Object(without)), true);
    }
    if let Some(values) =
        members.get("enum").and_then(Value::as_array).filter(|values| values.contains(&Value::Null))
    {
        let rest: Vec<_> = values.iter().filter(|value| !value.is_null()).cloned().collect();
        let mut without = members.clone();
        match rest.is_empty() {
            true => return (Cow::Owned(serde_json::json!({"type": "null"})), true),
            false => {
                without.insert("enum".to_owned(), Value::Array(rest));
            }
        }
        return (Cow::Owned(Value::Object(without)), true);
    }
    (Cow::Borrowed(schema), false)
}

fn with_type(schema: &Value, kind: &Value) -> Value {
    let mut copy = schema.clone();
    if let Some(members) = copy.as_object_mut() {
        members.insert("type".to_owned(), kind.clone());
    }
    copy
}

fn enumerated(schema: &Value) -> Option<Vec<Value>> {
    match schema.get("const") {
        Some(value) => Some(vec![value.clone()]),
        None => schema.get("enum")?.as_array().cloned(),
    }
}

fn is_object(schema: &Value) -> bool {
    let kind = schema.get("type");
    kind == Some(&Value::from("object"))
        || (kind.is_none()
            && (schema.get("properties").is_some() || schema.get("additionalProperties").is_some()))
}

fn is_list(schema: &Value) -> bool {
    schema.get("type") == Some(&Value::from("array"))
}

/// Whether values of `schema` are made of others.
fn has_parts(schema: &Value) -> bool {
    is_object(schema)
        || is_list(schema)
        || ["anyOf", "oneOf", "allOf"].iter().any(|key| schema.get(*key).is_some())
}

fn last_segment(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or(reference)
}

/// A type's name: letters and digits, each word with a capital.
fn type_name(text: &str) -> String {
    let name: String = text.split(|c: char| !c.is_alphanumeric() && c != '_').map(pascal).collect();
    encode_name(&name).into_owned()
}

fn pascal(word: &str) -> String {
    let mut rest = word.chars();
    match rest.next() {
        Some(first) => first.to_uppercase().chain(rest).collect(),
        None => String::new(),
    }
}
