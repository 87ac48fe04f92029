//! Reading JSON Schemas for people: what a setting must be, which keys exist, which one was probably meant.
//!
//! The validator says whether a document is right. What it says of a wrong one is made for programs ("not
//! valid under any of the schemas listed"), so faults are told in the words of [`describe`], which the
//! reference pages use as well. The schemas are those schemars derives: references into `$defs`, enumerations
//! as `oneOf` of constants, options as `anyOf` with null.

use std::sync::LazyLock;

use crosstie_model::definition::DefinitionName;
use crosstie_model::names::MAX_NAME_BYTES;
use crosstie_model::{Fault, UnitName};
use serde_json::{Map, Value};

use crate::tree::{escape, unescape};

/// How alike two keys must be (Jaro-Winkler, 0 to 1) for one to be offered in place of the other.
const ALIKE: f64 = 0.8;

/// How many references are followed before a schema counts as circular.
const MAX_REFERENCES: usize = 16;

/// `schema` with references followed and the null of an option left out. Keys beside a reference (a
/// description, a default) stay with the place that refers and are not part of the result.
#[must_use]
pub fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let mut schema = schema;
    for _ in 0..MAX_REFERENCES {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            match reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer)) {
                Some(target) => schema = target,
                None => return schema,
            }
        } else if let Some(only) = only_alternative(schema) {
            schema = only;
        } else {
            return schema;
        }
    }
    schema
}

/// The other alternative of an `anyOf` that allows null.
fn only_alternative(schema: &Value) -> Option<&Value> {
    let alternatives = schema.get("anyOf")?.as_array()?;
    let mut others = alternatives.iter().filter(|alternative| !is_null(alternative));
    match (others.next(), others.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

fn is_null(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("null")
}

/// The constants of an enumeration with the description of each; empty for any other schema.
#[must_use]
pub fn constants(schema: &Value) -> Vec<(&Value, Option<&str>)> {
    if let Some(constant) = schema.get("const") {
        return vec![(constant, schema.get("description").and_then(Value::as_str))];
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values.iter().map(|value| (value, None)).collect();
    }
    let Some(alternatives) = schema.get("oneOf").and_then(Value::as_array) else { return Vec::new() };
    let listed: Vec<_> = alternatives.iter().map(constants).collect();
    if listed.iter().any(Vec::is_empty) { Vec::new() } else { listed.into_iter().flatten().collect() }
}

/// What a value of `schema` must be, such as "a whole number, 0 to 64".
#[must_use]
pub fn describe(root: &Value, schema: &Value) -> String {
    let schema = resolve(root, schema);
    let constants = constants(schema);
    if !constants.is_empty() {
        let texts: Vec<_> = constants.iter().map(|(value, _)| plain(value)).collect();
        return if let [only] = texts.as_slice() {
            only.clone()
        } else {
            format!("one of {}", texts.join(", "))
        };
    }
    if let Some(alternatives) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array)
    {
        let texts: Vec<_> = alternatives
            .iter()
            .filter(|alternative| !is_null(alternative))
            .map(|alternative| describe(root, alternative))
            .collect();
        return texts.join(", or ");
    }
    match primary_type(schema) {
        Some("integer") => format!("a whole number{}", range(schema)),
        Some("number") => format!("a number{}", range(schema)),
        Some("boolean") => "true or false".to_owned(),
        Some("string") => describe_text(schema),
        Some("array") => match schema.get("items") {
            Some(items) => format!("a list, each item {}", describe(root, items)),
            None => "a list".to_owned(),
        },
        Some("object") => describe_object(root, schema),
        _ => "anything".to_owned(),
    }
}

/// The schema's type; of several, the first that is not null.
fn primary_type(schema: &Value) -> Option<&str> {
    match schema.get("type")? {
        Value::String(name) => Some(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        _ => None,
    }
}

fn range(schema: &Value) -> String {
    let bound = |key: &str| schema.get(key).filter(|value| value.is_number()).map(plain);
    match (bound("minimum"), bound("maximum")) {
        (Some(least), Some(most)) => format!(", {least} to {most}"),
        (Some(least), None) => format!(", at least {least}"),
        (None, Some(most)) => format!(", at most {most}"),
        (None, None) => String::new(),
    }
}

/// The patterns of names, which say more in words.
static NAMES: LazyLock<[(Value, String); 2]> = LazyLock::new(|| {
    let pattern = |schema: schemars::Schema| schema.get("pattern").cloned().unwrap_or_default();
    let word = format!("a name: at most {MAX_NAME_BYTES} letters, digits, `.`, `_` and `-`");
    let definition = format!(
        "the name of a definition: at most {MAX_NAME_BYTES} visible ASCII characters except quotes and `\\`"
    );
    [
        (pattern(schemars::schema_for!(UnitName)), word),
        (pattern(schemars::schema_for!(DefinitionName)), definition),
    ]
});

fn describe_text(schema: &Value) -> String {
    let named = NAMES.iter().find(|(pattern, _)| Some(pattern) == schema.get("pattern"));
    if let Some((_, words)) = named {
        return words.clone();
    }
    let length = |key: &str| schema.get(key).and_then(Value::as_u64);
    let mut text = match (length("minLength"), length("maxLength")) {
        (Some(least), Some(most)) => format!("a text of {least} to {most} characters"),
        (None, Some(most)) => format!("a text of at most {most} characters"),
        (Some(1), None) => "a text that is not empty".to_owned(),
        (Some(least), None) => format!("a text of at least {least} characters"),
        (None, None) => "a text".to_owned(),
    };
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        text.push_str(&format!(" that matches `{pattern}`"));
    }
    text
}

fn describe_object(root: &Value, schema: &Value) -> String {
    let required: Vec<_> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().map(plain).collect();
    if !required.is_empty() {
        return format!("a table with {}", required.join(", "));
    }
    match schema.get("additionalProperties") {
        Some(values @ Value::Object(_)) => format!("a table of names, each {}", describe(root, values)),
        _ => "a table".to_owned(),
    }
}

/// The properties of a schema, in the order of their declaration.
pub fn properties<'a>(root: &'a Value, schema: &'a Value) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let properties = resolve(root, schema).get("properties").and_then(Value::as_object);
    properties.into_iter().flatten().map(|(key, schema)| (key.as_str(), schema))
}

/// The documentation of a schema, as written in the source; empty without one.
#[must_use]
pub fn description(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

/// A JSON value as people write it: texts without quotes.
#[must_use]
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The schema of what `pointer` names inside a document of schema `root`.
#[must_use]
pub fn at<'a>(root: &'a Value, pointer: &str) -> Option<&'a Value> {
    let mut schema = resolve(root, root);
    for token in pointer.split('/').skip(1) {
        let token = unescape(token);
        let property = schema.get("properties").and_then(|properties| properties.get(&token));
        let next = property
            .or_else(|| schema.get("items"))
            .or_else(|| schema.get("additionalProperties").filter(|schema| schema.is_object()))?;
        schema = resolve(root, next);
    }
    Some(schema)
}

/// Takes every key that the schema does not know out of `value`; a fault for each, with its own pointer and
/// the key that was probably meant.
pub fn take_unknown_keys(root: &Value, value: &mut Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    take_unknown(root, root, value, &mut String::new(), &mut faults);
    faults
}

fn take_unknown(root: &Value, schema: &Value, value: &mut Value, at: &mut String, faults: &mut Vec<Fault>) {
    let schema = alternative_for(root, resolve(root, schema), value);
    match value {
        Value::Object(members) => {
            take_unknown_members(root, schema, members, at, faults);
        }
        Value::Array(items) => {
            let Some(item_schema) = schema.get("items") else { return };
            for (index, item) in items.iter_mut().enumerate() {
                descend(&index.to_string(), at, |at| take_unknown(root, item_schema, item, at, faults));
            }
        }
        _ => {}
    }
}

fn take_unknown_members(
    root: &Value,
    schema: &Value,
    members: &mut Map<String, Value>,
    at: &mut String,
    faults: &mut Vec<Fault>,
) {
    let empty = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let others = schema.get("additionalProperties");
    if others == Some(&Value::Bool(false)) {
        let unknown: Vec<String> =
            members.keys().filter(|key| !properties.contains_key(*key)).cloned().collect();
        for key in unknown {
            members.shift_remove(&key);
            let known = properties.keys().map(String::as_str);
            let detail = format!("unknown key{}", did_you_mean(&key, known));
            faults.push(Fault { pointer: format!("{at}/{}", escape(&key)), detail });
        }
    }
    for (key, member) in members.iter_mut() {
        let Some(member_schema) = properties.get(key).or(others).filter(|schema| schema.is_object()) else {
            continue;
        };
        descend(&escape(key), at, |at| take_unknown(root, member_schema, member, at, faults));
    }
}

/// Of several alternatives, the first that takes values of this JSON type.
fn alternative_for<'a>(root: &'a Value, schema: &'a Value, value: &Value) -> &'a Value {
    let Some(alternatives) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array)
    else {
        return schema;
    };
    let wanted = json_type(value);
    alternatives
        .iter()
        .map(|alternative| resolve(root, alternative))
        .find(|alternative| primary_type(alternative) == Some(wanted))
        .unwrap_or(schema)
}

fn json_type(value: &Value) -> &'static str {
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

/// Runs `work` with `token` added to the pointer.
fn descend(token: &str, at: &mut String, work: impl FnOnce(&mut String)) {
    let length = at.len();
    at.push('/');
    at.push_str(token);
    work(at);
    at.truncate(length);
}

/// `; did you mean "…"?` with the known word most like `word`, or the words there are when few, or nothing.
#[must_use]
pub fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let folded = word.to_lowercase().replace('-', "_");
    let best = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(&folded, candidate), *candidate))
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    match best {
        Some((likeness, candidate)) if likeness >= ALIKE => format!("; did you mean {candidate:?}?"),
        _ if known.is_empty() || known.len() > 20 => String::new(),
        _ => format!("; there are {}", known.join(", ")),
    }
}

/// `faults` of a checked document in the words of [`describe`] where that says more: wrong types, ranges,
/// patterns and enumerations. Faults of a whole table or list (something missing, too few) stay as they are.
#[must_use]
pub fn in_plain_words(root: &Value, document: &Value, faults: Vec<Fault>) -> Vec<Fault> {
    let mut told: Vec<Fault> = Vec::with_capacity(faults.len());
    for mut fault in faults {
        if let (Some(schema), Some(value)) = (at(root, &fault.pointer), document.pointer(&fault.pointer)) {
            let same_type = primary_type(schema) == Some(json_type(value));
            if !(same_type && (value.is_object() || value.is_array())) {
                fault.detail = format!("must be {}", describe(root, schema));
                if let Some(hint) = boolean_hint(schema, value) {
                    fault.detail.push_str(hint);
                }
            }
        }
        if !told.contains(&fault) {
            told.push(fault);
        }
    }
    told
}

/// People who know YAML 1.1 write `yes`.
fn boolean_hint(schema: &Value, value: &Value) -> Option<&'static str> {
    let text = value.as_str()?.to_ascii_lowercase();
    let looks_boolean = matches!(text.as_str(), "yes" | "no" | "on" | "off" | "y" | "n" | "true" | "false");
    (primary_type(schema) == Some("boolean") && looks_boolean)
        .then_some("; yes, no, on, off and quoted words are texts")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({
            "type": "object", "additionalProperties": false, "required": ["name"],
            "properties": {
                "name": {"type": "string", "minLength": 1},
                "level": {"$ref": "#/$defs/Level", "description": "x"},
                "limits": {"anyOf": [{"$ref": "#/$defs/Limits"}, {"type": "null"}]},
                "rules": {"type": "array", "items": {"$ref": "#/$defs/Limits"}},
                "free": {"type": "object", "additionalProperties": {"type": ["integer", "null"], "minimum": 1}},
                "on": {"type": "boolean"}
            },
            "$defs": {
                "Level": {"oneOf": [{"const": "low", "type": "string", "description": "d"}, {"const": "high"}]},
                "Limits": {"type": "object", "additionalProperties": false,
                           "properties": {"max_requests": {"type": "integer", "minimum": 1, "maximum": 9}}}
            }
        })
    }

    #[test]
    fn unknown_keys_are_found_at_any_depth_with_a_guess() {
        let root = schema();
        let mut value = json!({"nmae": 1, "limits": {"max-requests": 1, "max_requests": 2},
                               "rules": [{}, {"zzz": 1}], "free": {"anything": 1}});
        let faults = take_unknown_keys(&root, &mut value);
        let texts: Vec<_> = faults.iter().map(|f| format!("{}: {}", f.pointer, f.detail)).collect();
        assert_eq!(
            texts,
            [
                "/nmae: unknown key; did you mean \"name\"?",
                "/limits/max-requests: unknown key; did you mean \"max_requests\"?",
                "/rules/1/zzz: unknown key; there are max_requests"
            ]
        );
        assert_eq!(value, json!({"limits": {"max_requests": 2}, "rules": [{}, {}], "free": {"anything": 1}}));
    }

    #[test]
    fn values_are_described_in_plain_words() {
        let root = schema();
        let said = |pointer: &str| describe(&root, at(&root, pointer).unwrap());
        assert_eq!(said("/name"), "a text that is not empty");
        assert_eq!(said("/level"), "one of low, high");
        assert_eq!(said("/limits/max_requests"), "a whole number, 1 to 9");
        assert_eq!(said("/rules/0/max_requests"), "a whole number, 1 to 9");
        assert_eq!(said("/free/x"), "a whole number, at least 1");
        assert_eq!(said("/on"), "true or false");
        assert!(at(&root, "/nowhere/at/all").is_none());
    }

    #[test]
    fn a_yes_where_a_boolean_belongs_is_explained() {
        let root = schema();
        let document = json!({"on": "yes"});
        let fault = Fault { pointer: "/on".into(), detail: "not of type boolean".into() };
        let told = in_plain_words(&root, &document, vec![fault.clone(), fault]);
        assert_eq!(told.len(), 1);
        assert!(told[0].detail.starts_with("must be true or false; yes, no"), "{told:?}");
    }

    #[test]
    fn a_circular_reference_ends() {
        let root = json!({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}});
        assert_eq!(describe(&root, &root), "anything");
    }
}
