//! Objects, lists, maps.

use serde_json::{Map, Value};

use super::tag::{Tag, TypeRef};
use super::{Held, Outcome, Translation, What, anything, is_list, is_object, member, pascal, without_null};
use crate::convert::ENTRIES;

/// A complex type that holds `members` in their order.
pub(super) fn sequence(members: Vec<Tag>) -> Tag {
    let sequence = members.into_iter().fold(Tag::new("sequence"), Tag::child);
    Tag::new("complexType").child(sequence)
}

/// What holds nothing and is `null`.
pub(super) fn nothing() -> Tag {
    sequence(Vec::new()).annotated("shape", "value")
}

/// What holds any elements.
pub(super) fn any_content() -> Tag {
    let any = Tag::new("any").with("minOccurs", "0").with("maxOccurs", "unbounded");
    sequence(vec![any.with("namespace", "##any").with("processContents", "lax")])
}

/// What holds one value of any type.
pub(super) fn any_result() -> Tag {
    let result = Tag::new("element").with("name", "result").with("minOccurs", "0").with("nillable", "true");
    sequence(vec![result.naming("type", TypeRef::Xs("anyType"))]).annotated("shape", "value")
}

/// Another name of a type.
pub(super) fn alias(of: TypeRef) -> Tag {
    let value = Tag::new("element").with("name", "value").naming("type", of);
    sequence(vec![value]).annotated("shape", "value")
}

impl<'s> Translation<'_, 's> {
    /// The type of an object, without its name.
    pub(super) fn object(&mut self, schema: &Value, name: &str) -> Outcome<Tag> {
        let none = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let mut members = Vec::new();
        for (key, property) in properties {
            if key == ENTRIES {
                return Err(format!("a property cannot be called {ENTRIES:?}"));
            }
            let required = schema.get("required").and_then(Value::as_array);
            let is_required = required.is_some_and(|names| names.iter().any(|name| name == key));
            members.push(self.property(key, property, is_required, &format!("{name}{}", pascal(key)))?);
        }
        let additional = match schema.get("additionalProperties") {
            Some(Value::Bool(false)) => None,
            Some(schema) => Some(schema.clone()),
            // An object of which nothing is said is one of any keys.
            None => properties.is_empty().then(|| Value::Bool(true)),
        };
        let is_map = additional.is_some();
        if let Some(additional) = additional {
            members.push(self.entries(&additional, properties, name)?);
        }
        let tag = sequence(members).documented(schema.get("description").and_then(Value::as_str));
        Ok(if is_map { tag.annotated("shape", "map") } else { tag })
    }

    fn property(&mut self, key: &str, schema: &Value, is_required: bool, hint: &str) -> Outcome<Tag> {
        let documentation = schema.get("description").and_then(Value::as_str);
        let (inner, nullable) = without_null(schema);
        let is_repeated = !nullable
            && is_list(&inner)
            && inner.get("prefixItems").is_none()
            && (is_required || inner.get("default").is_some_and(|d| d.as_array().is_some_and(Vec::is_empty)));
        let tag = if is_repeated {
            let (min, max) = bounds(&inner);
            let min = if is_required { min } else { 0 };
            repeated(member(key, self.item(&inner, hint)?), min, max)
        } else {
            let tag = member(key, self.held(schema, hint)?);
            if is_required { tag } else { tag.with("minOccurs", "0") }
        };
        Ok(tag.documented(documentation))
    }

    /// How one item of a list is held.
    fn item(&mut self, list: &Value, hint: &str) -> Outcome<Held> {
        match list.get("items") {
            Some(items) => self.held(items, hint),
            None => Ok(anything()),
        }
    }

    /// A list as an element that holds its items.
    pub(super) fn list(&mut self, schema: &Value, hint: &str) -> Outcome<Tag> {
        if let Some(items) = schema.get("prefixItems").and_then(Value::as_array) {
            let mut members = Vec::new();
            for (index, item) in items.iter().enumerate() {
                let name = format!("item{}", index + 1);
                members.push(member(&name, self.held(item, &format!("{hint}{}", pascal(&name)))?));
            }
            return Ok(sequence(members).annotated("shape", "tuple"));
        }
        let (min, max) = bounds(schema);
        let item = member("item", self.item(schema, &format!("{hint}Item"))?);
        Ok(sequence(vec![repeated(item, min, max)]).annotated("shape", "value"))
    }

    /// The entries of a map.
    fn entries(&mut self, values: &Value, beside: &Map<String, Value>, hint: &str) -> Outcome<Tag> {
        let mut name = "entry".to_owned();
        while beside.contains_key(&name) {
            name.push('_');
        }
        let held = match values {
            Value::Bool(_) => anything(),
            schema => self.held(schema, &format!("{hint}Value"))?,
        };
        let key = Tag::new("element").with("name", "key").naming("type", TypeRef::Xs("string"));
        let entry = Tag::new("element").with("name", &name).annotated("key", ENTRIES);
        let entry = entry.holding(What::Inline(sequence(vec![key, member("value", held)])));
        Ok(repeated(entry, 0, None))
    }

    /// One object of all that `branches` and `schema` itself ask for; `None` when they are not all objects.
    pub(super) fn merged(&mut self, schema: &Value, branches: &[Value]) -> Outcome<Option<Value>> {
        if let [one] = branches
            && schema.get("properties").is_none()
        {
            return Ok(Some(one.clone()));
        }
        let mut merged = Map::new();
        let mut properties = Map::new();
        let mut required = Vec::new();
        for branch in branches.iter().chain(std::iter::once(schema)) {
            let branch = self.resolve(branch)?;
            if branch.get("allOf").is_none() && !is_object(branch) {
                return Ok(None);
            }
            properties
                .extend(branch.get("properties").and_then(Value::as_object).cloned().unwrap_or_default());
            required.extend(branch.get("required").and_then(Value::as_array).cloned().unwrap_or_default());
            for key in ["title", "description", "additionalProperties"] {
                if let Some(value) = branch.get(key) {
                    merged.insert(key.to_owned(), value.clone());
                }
            }
        }
        merged.insert("type".to_owned(), "object".into());
        merged.insert("properties".to_owned(), Value::Object(properties));
        merged.insert("required".to_owned(), Value::Array(required));
        Ok(Some(Value::Object(merged)))
    }
}

fn bounds(list: &Value) -> (u64, Option<u64>) {
    let bound = |key| list.get(key).and_then(Value::as_u64);
    (bound("minItems").unwrap_or(0), bound("maxItems"))
}

fn repeated(tag: Tag, min: u64, max: Option<u64>) -> Tag {
    let max = max.map_or_else(|| "unbounded".to_owned(), |max| max.to_string());
    tag.with("minOccurs", &min.to_string()).with("maxOccurs", &max)
}
