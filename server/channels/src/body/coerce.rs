//! Gives text the types a schema declares. XML knows only text; a service that declares `age: int` must
//! still get a number. Text that does not fit stays text, so that validation reports it where it stands.

use serde_json::{Map, Number, Value};

/// Bounds the walk through schemas that refer to themselves.
const MAX_STEPS: u8 = 64;

/// Coerces `value` by `schema` (JSON Schema 2020-12, as services declare their input).
pub(super) fn coerce(value: Value, schema: &Value) -> Value {
    Walk { root: schema }.value(value, schema, 0)
}

struct Walk<'s> {
    root: &'s Value,
}

impl<'s> Walk<'s> {
    fn value(&self, value: Value, schema: &'s Value, depth: u8) -> Value {
        let Some(schema) = self.resolve(schema) else { return value };
        if depth == MAX_STEPS {
            return value;
        }
        if let Some(choices) = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(key)?.as_array()) {
            return self.choose(value, choices, depth);
        }
        let types = declared_types(schema);
        if let (Value::String(text), Some(values)) = (&value, schema.get("enum").and_then(Value::as_array)) {
            return member_of(text, values).unwrap_or(value);
        }
        match value {
            Value::String(text) => self.text(text, &types, schema, depth),
            Value::Object(members) if types.contains(&"array") && !types.contains(&"object") => {
                Value::Array(vec![self.item(Value::Object(members), schema, depth)])
            }
            Value::Object(members) => Value::Object(self.members(members, schema, depth)),
            Value::Array(items) => {
                let fixed = schema.get("prefixItems").and_then(Value::as_array);
                let typed = items.into_iter().enumerate().map(|(at, item)| {
                    match fixed.and_then(|schemas| schemas.get(at)) {
                        Some(schema) => self.value(item, schema, depth + 1),
                        None => self.item(item, schema, depth),
                    }
                });
                Value::Array(typed.collect())
            }
            other => other,
        }
    }

    fn item(&self, value: Value, schema: &'s Value, depth: u8) -> Value {
        match schema.get("items") {
            Some(items) => self.value(value, items, depth + 1),
            None => value,
        }
    }

    fn members(&self, members: Map<String, Value>, schema: &'s Value, depth: u8) -> Map<String, Value> {
        let properties = schema.get("properties");
        let additional = schema.get("additionalProperties");
        members
            .into_iter()
            .map(|(name, value)| {
                match properties.and_then(|properties| properties.get(&name)).or(additional) {
                    Some(schema) => (name, self.value(value, schema, depth + 1)),
                    None => (name, value),
                }
            })
            .collect()
    }

    fn text(&self, text: String, types: &[&str], schema: &'s Value, depth: u8) -> Value {
        for kind in types {
            match *kind {
                "string" => return Value::String(text),
                "integer" => {
                    if let Ok(number) = text.trim().parse::<i64>() {
                        return number.into();
                    }
                }
                "number" => {
                    let number = text.trim().parse::<f64>().ok().and_then(Number::from_f64);
                    if let Ok(whole) = text.trim().parse::<i64>() {
                        return whole.into();
                    }
                    if let Some(number) = number {
                        return Value::Number(number);
                    }
                }
                "boolean" => match text.trim() {
                    "true" | "1" => return Value::Bool(true),
                    "false" | "0" => return Value::Bool(false),
                    _ => {}
                },
                "null" if text.is_empty() => return Value::Null,
                "object" if text.trim().is_empty() => return Value::Object(Map::new()),
                "array" if text.trim().is_empty() => return Value::Array(Vec::new()),
                "array" => return Value::Array(vec![self.item(Value::String(text), schema, depth)]),
                _ => {}
            }
        }
        Value::String(text)
    }

    /// The first choice under which the value changes its type, or already has it; text is the last resort.
    fn choose(&self, value: Value, choices: &'s [Value], depth: u8) -> Value {
        let fits = |value: &Value, choice: &'s Value| {
            let Some(choice) = self.resolve(choice) else { return false };
            if let Some(values) = choice.get("enum").and_then(Value::as_array) {
                return values.contains(value);
            }
            let kind = kind_of(value);
            declared_types(choice).iter().any(|t| *t == kind || (*t == "number" && kind == "integer"))
        };
        let (texts, others): (Vec<_>, Vec<_>) = choices
            .iter()
            .partition(|choice| self.resolve(choice).is_some_and(|c| declared_types(c).contains(&"string")));
        for choice in others.into_iter().chain(texts) {
            let coerced = self.value(value.clone(), choice, depth + 1);
            if fits(&coerced, choice) {
                return coerced;
            }
        }
        value
    }

    fn resolve(&self, mut schema: &'s Value) -> Option<&'s Value> {
        for _ in 0..MAX_STEPS {
            match schema.get("$ref").and_then(Value::as_str) {
                Some(reference) => schema = self.root.pointer(reference.strip_prefix('#')?)?,
                None => return Some(schema),
            }
        }
        None
    }
}

/// The value of an enumeration that reads like `text`.
fn member_of(text: &str, values: &[Value]) -> Option<Value> {
    let exact = values.iter().find(|value| value.as_str() == Some(text));
    exact.or_else(|| values.iter().find(|value| reads_like(value, text.trim()))).cloned()
}

fn reads_like(value: &Value, text: &str) -> bool {
    match value {
        Value::Number(number) => number.to_string() == text,
        Value::Bool(flag) => flag.to_string() == text,
        Value::Null => text.is_empty(),
        _ => false,
    }
}

fn declared_types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        // Text fits everything, so it is tried last.
        Some(Value::Array(several)) => {
            let mut types: Vec<_> = several.iter().filter_map(Value::as_str).collect();
            types.sort_by_key(|kind| *kind == "string");
            types
        }
        _ => Vec::new(),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_takes_the_declared_types() {
        let schema = json!({
            "type": "object",
            "properties": {
                "age": {"type": "integer"}, "ratio": {"type": "number"}, "on": {"type": "boolean"},
                "name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "integer"}},
                "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                "code": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                "address": {"$ref": "#/$defs/Address"},
                "list": {"type": "array", "items": {"$ref": "#/$defs/Address"}},
                "none": {"type": ["string", "null"]},
                "level": {"enum": [1, 2, "x"]},
                "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false}
            },
            "$defs": {"Address": {"type": "object", "properties": {"no": {"type": "integer"},
                "next": {"$ref": "#/$defs/Address"}}}}
        });
        let value = json!({"age": "36", "ratio": "1.5", "on": "true", "name": "7", "tags": "4", "limit": "",
            "code": "9", "address": {"no": "1", "next": {"no": "2"}}, "list": {"no": "3"}, "none": "",
            "level": "2", "pair": ["1", "2"], "extra": "1"});
        assert_eq!(
            coerce(value, &schema),
            json!({"age": 36, "ratio": 1.5, "on": true, "name": "7", "tags": [4], "limit": null,
                "code": 9, "address": {"no": 1, "next": {"no": 2}}, "list": [{"no": 3}], "none": null,
                "level": 2, "pair": [1, "2"], "extra": "1"})
        );
    }

    #[test]
    fn text_that_does_not_fit_stays_for_validation_to_report() {
        let schema = json!({"type": "object", "properties": {"age": {"type": "integer"}}});
        assert_eq!(coerce(json!({"age": "old"}), &schema), json!({"age": "old"}));
    }

    #[test]
    fn a_schema_that_only_refers_to_itself_ends() {
        let schema = json!({"$ref": "#"});
        assert_eq!(coerce(json!({"a": "1"}), &schema), json!({"a": "1"}));
    }
}
