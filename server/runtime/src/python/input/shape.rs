//! What a schema says about the types inside, reduced to what turning text into values needs.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// References followed before a schema counts as a circle.
const MAX_REFERENCES: u8 = 16;

/// A declared type, as far as text is concerned.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// True or false.
    Boolean,
    /// A list.
    Array(Box<Shape>),
    /// An object with known members.
    Object(Vec<(String, Shape)>),
    /// The first that text fits.
    Union(Vec<Shape>),
    /// A shape of its own name.
    Reference(String),
    /// Text, or whatever text may stand for: nothing to convert.
    Text,
    /// Null.
    Null,
}

/// The shapes of one schema.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    root: Option<Shape>,
    definitions: HashMap<String, Shape>,
}

impl Shapes {
    /// The shapes in `schema`.
    pub(super) fn of(schema: &Value) -> Self {
        let definitions = schema.get("$defs").and_then(Value::as_object);
        Self {
            root: Some(shape_of(schema)),
            definitions: definitions
                .into_iter()
                .flatten()
                .map(|(name, schema)| (name.clone(), shape_of(schema)))
                .collect(),
        }
    }

    /// The members of the input, if it is an object.
    pub(super) fn members(&self) -> Option<&[(String, Shape)]> {
        match self.resolve(self.root.as_ref()?) {
            Shape::Object(members) => Some(members),
            _ => None,
        }
    }

    /// Named texts as an object, by their declared types; a repeated name is a list.
    pub(super) fn of_text(&self, fields: &[(String, String)]) -> Map<String, Value> {
        let members = self.members().unwrap_or_default();
        let mut document = Map::new();
        for (name, text) in fields {
            let shape = members.iter().find(|(known, _)| known == name).map(|(_, shape)| self.resolve(shape));
            match (shape, document.get_mut(name)) {
                (Some(shape), known) if self.item_of(shape).is_some() => {
                    let item = self.item_of(shape).unwrap_or(&Shape::Text);
                    let value = self.coerce_text(item, text);
                    match known {
                        Some(Value::Array(items)) => items.push(value),
                        _ => {
                            document.insert(name.clone(), Value::Array(vec![value]));
                        }
                    }
                }
                (shape, None) => {
                    let value = self.coerce_text(shape.unwrap_or(&Shape::Text), text);
                    document.insert(name.clone(), value);
                }
                (_, Some(Value::Array(items))) => items.push(Value::String(text.clone())),
                (_, Some(first)) => *first = Value::Array(vec![first.take(), Value::String(text.clone())]),
            }
        }
        document
    }

    /// `text` as the declared type, or as it is when it does not fit: validation then says so.
    pub(super) fn coerce_text(&self, shape: &Shape, text: &str) -> Value {
        self.fit(shape, text).unwrap_or_else(|| Value::String(text.to_owned()))
    }

    /// A document made of text, by the declared types all the way down.
    pub(super) fn coerced(&self, value: Value) -> Value {
        match &self.root {
            Some(root) => self.coerce(root, value),
            None => value,
        }
    }

    fn coerce(&self, shape: &Shape, value: Value) -> Value {
        match (self.resolve(shape), value) {
            (Shape::Array(inner), Value::Array(items)) => {
                items.into_iter().map(|item| self.coerce(inner, item)).collect()
            }
            (Shape::Array(inner), single) if !single.is_null() => {
                Value::Array(vec![self.coerce(inner, single)])
            }
            (Shape::Object(members), Value::Object(document)) => {
                let coerced = document.into_iter().map(|(name, value)| {
                    match members.iter().find(|(known, _)| *known == name) {
                        Some((_, shape)) => {
                            let value = self.coerce(shape, value);
                            (name, value)
                        }
                        None => (name, value),
                    }
                });
                Value::Object(coerced.collect())
            }
            (Shape::Union(choices), value @ (Value::Array(_) | Value::Object(_))) => {
                let fits = |shape: &&Shape| {
                    matches!(
                        (self.resolve(shape), &value),
                        (Shape::Array(_), Value::Array(_)) | (Shape::Object(_), Value::Object(_))
                    )
                };
                match choices.iter().find(fits) {
                    Some(choice) => self.coerce(choice, value),
                    None => value,
                }
            }
            (shape, Value::String(text)) => self.coerce_text(shape, &text),
            (_, value) => value,
        }
    }

    fn fit(&self, shape: &Shape, text: &str) -> Option<Value> {
        match self.resolve(shape) {
            Shape::Integer => match text.parse::<i64>() {
                Ok(number) => Some(number.into()),
                Err(_) => text.parse::<u64>().ok().map(Value::from),
            },
            Shape::Number => text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from),
            Shape::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(true.into()),
                "false" | "0" | "no" | "off" => Some(false.into()),
                _ => None,
            },
            Shape::Null => text.is_empty().then_some(Value::Null),
            Shape::Union(choices) => choices.iter().find_map(|choice| self.fit(choice, text)),
            Shape::Text => Some(Value::String(text.to_owned())),
            Shape::Array(_) | Shape::Object(_) | Shape::Reference(_) => None,
        }
    }

    /// What a list's items are; `None` when `shape` is no list.
    fn item_of<'a>(&'a self, shape: &'a Shape) -> Option<&'a Shape> {
        match self.resolve(shape) {
            Shape::Array(inner) => Some(inner),
            Shape::Union(choices) => choices.iter().find_map(|choice| match self.resolve(choice) {
                Shape::Array(inner) => Some(inner.as_ref()),
                _ => None,
            }),
            _ => None,
        }
    }

    fn resolve<'a>(&'a self, shape: &'a Shape) -> &'a Shape {
        let mut found = shape;
        for _ in 0..MAX_REFERENCES {
            let Shape::Reference(name) = found else { return found };
            match self.definitions.get(name) {
                Some(shape) => found = shape,
                None => break,
            }
        }
        &Shape::Text
    }
}

fn shape_of(schema: &Value) -> Shape {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        return Shape::Reference(reference.trim_start_matches("#/$defs/").to_owned());
    }
    if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
        return Shape::Union(choices.iter().map(shape_of).collect());
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let mut shapes: Vec<_> = values.iter().map(shape_of_value).collect();
        shapes.sort_by_key(|shape| *shape == Shape::Text);
        return Shape::Union(shapes);
    }
    match schema.get("type") {
        Some(Value::String(word)) => shape_of_type(word, schema),
        Some(Value::Array(words)) => {
            // Text fits text best: what is also text is not made a number.
            let shapes: Vec<_> =
                words.iter().filter_map(Value::as_str).map(|word| shape_of_type(word, schema)).collect();
            if shapes.contains(&Shape::Text) { Shape::Text } else { Shape::Union(shapes) }
        }
        _ => Shape::Text,
    }
}

fn shape_of_type(word: &str, schema: &Value) -> Shape {
    match word {
        "integer" => Shape::Integer,
        "number" => Shape::Number,
        "boolean" => Shape::Boolean,
        "null" => Shape::Null,
        "array" => Shape::Array(Box::new(schema.get("items").map_or(Shape::Text, shape_of))),
        "object" => {
            let members = schema.get("properties").and_then(Value::as_object);
            let members = members.into_iter().flatten();
            Shape::Object(members.map(|(name, schema)| (name.clone(), shape_of(schema))).collect())
        }
        _ => Shape::Text,
    }
}

/// Numbers among the values of an enumeration are to be found by their text.
fn shape_of_value(value: &Value) -> Shape {
    match value {
        Value::Number(number) if number.is_f64() => Shape::Number,
        Value::Number(_) => Shape::Integer,
        Value::Bool(_) => Shape::Boolean,
        _ => Shape::Text,
    }
}
