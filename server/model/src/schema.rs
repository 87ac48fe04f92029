//! One compiled JSON Schema (2020-12): how declared input, definitions and settings are all checked, each
//! reporting every fault with its pointer.

mod large;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use crate::failure::Fault;

/// How many faults one check reports; a large wrong document would otherwise make a larger answer.
pub const MAX_FAULTS: usize = 100;

/// A compiled schema. Compiling costs tens of microseconds to milliseconds and happens off the hot path;
/// checking a small valid document costs well under a microsecond.
#[derive(Debug)]
pub struct Schema {
    source: Value,
    validator: Validator,
}

/// A document that is no valid schema.
#[derive(Debug, thiserror::Error)]
#[error("not a valid JSON Schema: {0}")]
pub struct SchemaError(String);

impl Schema {
    /// Compiles `source`. References are resolved inside the document only; nothing is fetched.
    ///
    /// # Errors
    /// The document is not a schema, or refers outside itself.
    pub fn compile(source: Value) -> Result<Self, SchemaError> {
        let validator = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(&source)
            .map_err(|error| SchemaError(error.to_string()))?;
        Ok(Self { source, validator })
    }

    /// The schema as it was given.
    #[must_use]
    pub fn source(&self) -> &Value {
        &self.source
    }

    /// Every fault of `value`, at most [`MAX_FAULTS`]; empty when it is valid. Of a value that is so large that its
    /// faults would take many times its size, those at the beginnings of its arrays, or that there are some.
    #[must_use]
    pub fn faults(&self, value: &Value) -> Vec<Fault> {
        if self.validator.is_valid(value) {
            return Vec::new();
        }
        if !large::is_large(value) {
            return all(self.validator.iter_errors(value), Seen::Whole);
        }
        let faults =
            large::shortened(value).map(|short| all(self.validator.iter_errors(&short), Seen::Beginning));
        match faults {
            Some(faults) if !faults.is_empty() => faults,
            _ => vec![Fault { pointer: String::new(), detail: UNTOLD.to_owned() }],
        }
    }
}

/// How much of a value is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Whole,
    /// The beginnings of its arrays: what was cut off is not missing.
    Beginning,
}

/// What is said of a value that is too large to look for its faults.
const UNTOLD: &str = "the value does not fit, and is too large for its faults to be told";

/// What `errors` say, as faults.
fn all<'v>(errors: impl Iterator<Item = ValidationError<'v>>, seen: Seen) -> Vec<Fault> {
    let mut faults = Vec::new();
    for error in errors {
        if faults.len() >= MAX_FAULTS {
            break;
        }
        tell(&error, seen, &mut faults);
    }
    faults.truncate(MAX_FAULTS);
    faults
}

/// Whether an error says that there is too little of something.
fn is_about_length(error: &ValidationError<'_>) -> bool {
    matches!(
        error.kind(),
        ValidationErrorKind::MinItems { .. }
            | ValidationErrorKind::MinProperties { .. }
            | ValidationErrorKind::Contains
    )
}

/// Adds what `error` says to `faults`, each fault at the place that is to be mended: a missing or unknown
/// member's is its own, not that of the object around it, and what fits none of several choices is told by the
/// faults of the choice that was most likely meant.
fn tell(error: &ValidationError<'_>, seen: Seen, faults: &mut Vec<Fault>) {
    let place = error.instance_path().as_str();
    match error.kind() {
        _ if seen == Seen::Beginning && is_about_length(error) => {}
        ValidationErrorKind::Required { property: Value::String(name) } => {
            faults.push(Fault { pointer: member(place, name), detail: "is required".to_owned() });
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let unknown = |name: &String| Fault {
                pointer: member(place, name),
                detail: "is not known here".to_owned(),
            };
            faults.extend(unexpected.iter().take(MAX_FAULTS).map(unknown));
        }
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            match likeliest(place, context) {
                Some(choice) => choice.iter().for_each(|error| tell(error, seen, faults)),
                None => faults.push(Fault { pointer: place.to_owned(), detail: no_choice(context) }),
            }
        }
        _ => faults
            .push(Fault { pointer: place.to_owned(), detail: error.masked_with("the value").to_string() }),
    }
}

/// The choice that whoever wrote the value most likely meant: one whose JSON type the value has; of several,
/// one whose fixed members (a tag such as `kind: "card"`) are right; of those the one with the fewest faults.
fn likeliest<'e>(
    place: &str,
    choices: &'e [Vec<ValidationError<'static>>],
) -> Option<&'e Vec<ValidationError<'static>>> {
    let is_of_type = |choice: &&Vec<ValidationError<'_>>| {
        let other_type = |error: &ValidationError<'_>| {
            matches!(error.kind(), ValidationErrorKind::Type { .. })
                && error.instance_path().as_str() == place
        };
        !choice.iter().any(other_type)
    };
    let contradictions = |choice: &Vec<ValidationError<'_>>| {
        let contradicts = |error: &&ValidationError<'_>| {
            let fixed = matches!(
                error.kind(),
                ValidationErrorKind::Constant { .. } | ValidationErrorKind::Enum { .. }
            );
            fixed && error.instance_path().as_str() != place
        };
        choice.iter().filter(contradicts).count()
    };
    choices.iter().filter(is_of_type).min_by_key(|choice| (contradictions(choice), choice.len()))
}

/// What to say of a value whose JSON type none of the choices has.
fn no_choice(choices: &[Vec<ValidationError<'static>>]) -> String {
    let mut names: Vec<String> = Vec::new();
    for error in choices.iter().flatten() {
        let types = match error.kind() {
            ValidationErrorKind::Type { kind: TypeKind::Single(one) } => vec![one.to_string()],
            ValidationErrorKind::Type { kind: TypeKind::Multiple(several) } => {
                several.into_iter().map(|one| one.to_string()).collect()
            }
            _ => Vec::new(),
        };
        names.extend(types.into_iter().map(|name| format!("{name:?}")));
    }
    names.dedup();
    format!("the value is not of types {}", names.join(", "))
}

/// The JSON Pointer (RFC 6901) of the member `name` of the object at `parent`.
fn member(parent: &str, name: &str) -> String {
    format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_fault_is_listed_with_its_pointer() {
        let schema = Schema::compile(json!({
            "type": "object",
            "properties": {
                "name": {"type": "string"}, "age": {"type": "integer"},
                "born": {"type": "string", "format": "date"}
            },
            "required": ["name"], "additionalProperties": false
        }))
        .unwrap();
        let faults = schema.faults(&json!({"age": "x", "born": "yesterday", "extra": 1}));
        let mut pointers: Vec<_> = faults.iter().map(|f| f.pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/age", "/born", "/extra", "/name"]);
        assert!(schema.faults(&json!({"name": "Ada", "age": 36})).is_empty());
    }

    #[test]
    fn a_missing_member_is_pointed_at_itself() {
        let schema = Schema::compile(json!({
            "properties": {"lines": {"items": {"required": ["a/b~c"]}}}, "additionalProperties": false
        }))
        .unwrap();
        let told = schema.faults(&json!({"lines": [{}], "x/y": 1}));
        let expected = [("/x~1y", "is not known here"), ("/lines/0/a~1b~0c", "is required")];
        assert_eq!(told.len(), 2, "{told:?}");
        for (pointer, detail) in expected {
            assert!(told.contains(&Fault { pointer: pointer.into(), detail: detail.into() }), "{told:?}");
        }
    }

    #[test]
    fn a_fault_inside_a_choice_is_told_where_it_is() {
        let schema = Schema::compile(json!({
            "properties": {
                "inner": {"anyOf": [{"$ref": "#/$defs/Inner"}, {"type": "null"}]},
                "pay": {"anyOf": [{"$ref": "#/$defs/Card"}, {"$ref": "#/$defs/Cash"}, {"type": "null"}]},
                "kind": {"anyOf": [{"enum": ["a"]}, {"type": "null"}]},
                "plain": {"anyOf": [{"type": "integer"}, {"type": ["string", "null"]}]}
            },
            "$defs": {
                "Inner": {"type": "object", "required": ["d"], "properties": {
                    "d": {"type": "string"}, "n": {"type": "integer", "minimum": 1},
                    "deeper": {"anyOf": [{"$ref": "#/$defs/Inner"}, {"type": "null"}]}}},
                "Card": {"type": "object", "required": ["kind", "number"], "properties": {
                    "kind": {"const": "card"}, "number": {"type": "string"}}},
                "Cash": {"type": "object", "required": ["kind", "amount", "currency"], "properties": {
                    "kind": {"const": "cash"}, "amount": {"type": "integer"}}}
            }
        }))
        .unwrap();
        let told = |value: Value| -> Vec<String> {
            let mut told: Vec<_> =
                schema.faults(&value).iter().map(|f| format!("{} {}", f.pointer, f.detail)).collect();
            told.sort();
            told
        };
        assert_eq!(
            told(json!({"inner": {"n": 0, "deeper": {"d": 1}}})),
            [
                "/inner/d is required",
                "/inner/deeper/d the value is not of type \"string\"",
                "/inner/n the value is less than the minimum of 1"
            ]
        );
        assert_eq!(told(json!({"inner": 7})), ["/inner the value is not of types \"object\", \"null\""]);
        // The tag says which was meant, though the other choice has fewer faults.
        assert_eq!(
            told(json!({"pay": {"kind": "cash", "number": "1", "amount": "x"}})),
            ["/pay/amount the value is not of type \"integer\"", "/pay/currency is required"]
        );
        assert_eq!(told(json!({"kind": "b"})), ["/kind the value is not one of \"a\""]);
        assert_eq!(
            told(json!({"plain": 1.5})),
            ["/plain the value is not of types \"integer\", \"null\", \"string\""]
        );
    }

    #[test]
    fn the_faults_of_choices_are_bounded() {
        let schema =
            Schema::compile(json!({"anyOf": [{"items": {"type": "string"}}, {"type": "null"}]})).unwrap();
        assert_eq!(schema.faults(&Value::Array(vec![json!(1); 1_000])).len(), MAX_FAULTS);
    }

    #[test]
    fn of_a_large_value_the_faults_at_its_beginning_are_told() {
        let schema = Schema::compile(json!({
            "type": "object", "required": ["id"],
            "properties": {
                "id": {"type": "integer"},
                "rows": {"anyOf": [{"type": "array", "minItems": 60, "items": {"type": "string"}}, {"type": "null"}]}
            },
            "additionalProperties": {"type": "array", "items": {"type": "integer"}}
        }))
        .unwrap();
        let told = |value: Value| -> Vec<String> {
            schema.faults(&value).iter().map(|f| format!("{} {}", f.pointer, f.detail)).collect()
        };
        let wrong = told(json!({"rows": vec![1; 1_000_000]}));
        assert_eq!(wrong.len(), 51, "{wrong:?}");
        for fault in ["/id is required", "/rows/0 the value is not of type \"string\""] {
            assert!(wrong.iter().any(|told| told == fault), "{fault} is missing in {wrong:?}");
        }
        // Wrong where nobody looks.
        let mut rows = vec![json!("x"); 1_000_000];
        rows.push(json!(1));
        assert_eq!(told(json!({"id": 1, "rows": rows})), [format!(" {UNTOLD}")]);
        let long = "n".repeat(5_000_000);
        let wrong = told(json!({"id": "x", long: vec!["x"; 1_000_000]}));
        assert_eq!(wrong, ["/id the value is not of type \"integer\""]);
    }

    #[test]
    fn a_schema_that_refers_outside_itself_is_refused() {
        assert!(Schema::compile(json!({"$ref": "http://127.0.0.1:1/x.json"})).is_err());
    }
}
