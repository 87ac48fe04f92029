//! One compiled JSON Schema (2020-12): how declared input, definitions and settings are all checked, each
//! reporting every fault with its pointer.

use jsonschema::Validator;
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

    /// Every fault of `value`, at most [`MAX_FAULTS`]; empty when it is valid.
    #[must_use]
    pub fn faults(&self, value: &Value) -> Vec<Fault> {
        if self.validator.is_valid(value) {
            return Vec::new();
        }
        self.validator
            .iter_errors(value)
            .take(MAX_FAULTS)
            .map(|error| Fault {
                pointer: error.instance_path().to_string(),
                detail: error.masked_with("the value").to_string(),
            })
            .collect()
    }
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
        assert_eq!(pointers, ["", "", "/age", "/born"]);
        assert!(schema.faults(&json!({"name": "Ada", "age": 36})).is_empty());
    }

    #[test]
    fn a_schema_that_refers_outside_itself_is_refused() {
        assert!(Schema::compile(json!({"$ref": "http://127.0.0.1:1/x.json"})).is_err());
    }
}
