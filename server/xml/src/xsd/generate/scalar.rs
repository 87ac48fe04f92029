//! Scalars: numbers, text and what text stands for, enumerations.

use serde_json::{Number, Value};

use super::tag::{Tag, TypeRef};
use super::{Outcome, What};
use crate::chars::first_illegal;

/// How services declare a time in Python; JSON Schema's own `time` asks for a zone.
const TIME_PATTERN: &str = r"^\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?$";

/// Numbers that may come as text, so that no digit is lost, are decimals.
pub(super) fn is_decimal(kinds: &[Value]) -> bool {
    kinds.len() == 2 && kinds.contains(&"string".into()) && kinds.contains(&"number".into())
}

pub(super) fn scalar(kind: &str, schema: &Value) -> Outcome<What> {
    match kind {
        "boolean" => Ok(What::Ref(TypeRef::Xs("boolean"))),
        "number" => Ok(number(schema)),
        "integer" => Ok(integer(schema)),
        "string" => Ok(text(schema)),
        other => Err(format!("the type {other:?} is not known")),
    }
}

fn text(schema: &Value) -> What {
    let word = |key: &str| schema.get(key).and_then(Value::as_str);
    let by_form = match (word("format"), word("contentEncoding"), word("pattern")) {
        (_, Some("base64"), _) => Some("base64Binary"),
        (Some("date"), ..) => Some("date"),
        (Some("date-time"), ..) => Some("dateTime"),
        (Some("time"), ..) | (.., Some(TIME_PATTERN)) => Some("time"),
        (Some("duration"), ..) => Some("duration"),
        (Some("uri" | "iri"), ..) => Some("anyURI"),
        _ => None,
    };
    if let Some(name) = by_form {
        // Lengths speak of the text in JSON, which is not that in XML.
        return What::Ref(TypeRef::Xs(name));
    }
    let facets = [("minLength", "minLength"), ("maxLength", "maxLength")].map(|(key, facet)| {
        let length =
            schema.get(key).and_then(Value::as_u64).filter(|length| *length > 0 || facet == "maxLength");
        length.map(|length| (facet, length.to_string()))
    });
    restricted("string", facets.into_iter().flatten())
}

fn number(schema: &Value) -> What {
    let facet = |key: &str, facet: &'static str| match schema.get(key) {
        Some(Value::Number(bound)) => Some((facet, bound.to_string())),
        _ => None,
    };
    let facets = [
        facet("minimum", "minInclusive"),
        facet("exclusiveMinimum", "minExclusive"),
        facet("maximum", "maxInclusive"),
        facet("exclusiveMaximum", "maxExclusive"),
    ];
    restricted("double", facets.into_iter().flatten())
}

/// The smallest type that clients have a good counterpart of: `xs:integer` is text to many.
fn integer(schema: &Value) -> What {
    let bound = |key: &str| schema.get(key).and_then(Value::as_number).and_then(whole);
    let low = match (bound("minimum"), bound("exclusiveMinimum")) {
        (Some(least), Some(beyond)) => Some(least.max(beyond + 1)),
        (least, beyond) => least.or(beyond.map(|beyond| beyond + 1)),
    };
    let high = match (bound("maximum"), bound("exclusiveMaximum")) {
        (Some(most), Some(beyond)) => Some(most.min(beyond - 1)),
        (most, beyond) => most.or(beyond.map(|beyond| beyond - 1)),
    };
    let within = |from: i128, to: i128| {
        low.is_some_and(|low| (from..=to).contains(&low))
            && high.is_some_and(|high| (from..=to).contains(&high))
    };
    let (name, from, to) = if within(i32::MIN.into(), i32::MAX.into()) {
        ("int", i128::from(i32::MIN), i128::from(i32::MAX))
    } else if high.is_some_and(|high| high > i64::MAX.into()) {
        match low {
            Some(low) if low >= 0 => ("unsignedLong", 0, u64::MAX.into()),
            _ => ("integer", i128::MIN, i128::MAX),
        }
    } else {
        ("long", i64::MIN.into(), i64::MAX.into())
    };
    let low = low.filter(|low| *low > from).map(|low| ("minInclusive", low.to_string()));
    let high = high.filter(|high| *high < to).map(|high| ("maxInclusive", high.to_string()));
    restricted(name, low.into_iter().chain(high))
}

/// The integer that a bound is; one with a fraction is left to who checks the JSON.
fn whole(number: &Number) -> Option<i128> {
    match (number.as_i64(), number.as_u64()) {
        (Some(value), _) => Some(value.into()),
        (None, Some(value)) => Some(value.into()),
        (None, None) => number.as_f64()?.to_string().parse().ok(),
    }
}

fn restricted(base: &'static str, facets: impl Iterator<Item = (&'static str, String)>) -> What {
    let mut restriction = Tag::new("restriction").naming("base", TypeRef::Xs(base));
    for (facet, value) in facets {
        restriction = restriction.child(Tag::new(facet).with("value", &value));
    }
    match restriction.children.is_empty() {
        true => What::Ref(TypeRef::Xs(base)),
        false => What::Inline(Tag::new("simpleType").child(restriction)),
    }
}

/// One of `values`, none of which is `null`.
pub(super) fn enumeration(values: &[Value]) -> Outcome<What> {
    if values.iter().any(|value| value.is_array() || value.is_object()) {
        return Ok(What::Ref(TypeRef::Xs("anyType")));
    }
    let are_integers = !values.is_empty() && values.iter().all(|value| value.is_i64());
    let base = if are_integers { "long" } else { "string" };
    let mut restriction = Tag::new("restriction").naming("base", TypeRef::Xs(base));
    for value in values {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if first_illegal(&text).is_some() {
            return Err("a value of an enumeration holds a character that XML cannot hold".to_owned());
        }
        let one = Tag::new("enumeration").with("value", &text);
        let is_plain = are_integers || value.is_string();
        restriction =
            restriction.child(if is_plain { one } else { one.annotated("value", &value.to_string()) });
    }
    Ok(What::Inline(Tag::new("simpleType").child(restriction)))
}

/// Whether every value of `schema` is a scalar.
pub(super) fn is_scalar(schema: &Value) -> bool {
    let is_kind = |kind: &Value| matches!(kind.as_str(), Some("string" | "number" | "integer" | "boolean"));
    match (super::enumerated(schema), schema.get("type")) {
        (Some(values), _) => !values.iter().any(|value| value.is_array() || value.is_object()),
        (None, Some(Value::Array(kinds))) => kinds.iter().all(is_kind),
        (None, Some(kind)) => is_kind(kind),
        (None, None) => false,
    }
}

/// Whether any text is a value of `schema`, so that nothing after it would ever be tried.
pub(super) fn is_any_text(schema: &Value) -> bool {
    schema.get("type") == Some(&Value::from("string")) && super::enumerated(schema).is_none()
}
