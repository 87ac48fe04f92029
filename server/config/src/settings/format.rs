//! A settings file in TOML of any program: checked as a whole and only then made into the program's types.
//!
//! Four checks follow each other and all their faults are reported together: TOML syntax, unknown keys, the
//! JSON Schema derived from the settings' types, and what a schema cannot say (the program's own rules).
//! Reading a file costs a millisecond and happens at start, on SIGHUP and when the file changed.

use std::path::Path;

use crosstie_model::Fault;
use crosstie_model::schema::Schema;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::fault::LocatedFault;
use crate::shape;
use crate::tree::{Node, toml, unescape};

/// Finds the broken rules of a document. It sees the unparsed document, so that it runs beside the schema's
/// checks and misses nothing because of a fault elsewhere; a value of the wrong type is the schema's to report.
pub type Rules = fn(&Value) -> Vec<Fault>;

/// What one kind of settings file must look like.
#[derive(Debug)]
pub struct Format {
    source: Value,
    compiled: Result<Schema, String>,
    rules: Rules,
}

impl Format {
    /// The format of files that hold a `T`.
    #[must_use]
    pub fn of<T: JsonSchema>(rules: Rules) -> Self {
        let mut source = schemars::schema_for!(T).to_value();
        bound_integers(&mut source);
        let compiled = Schema::compile(source.clone()).map_err(|error| error.to_string());
        Self { source, compiled, rules }
    }

    /// The JSON Schema, from which checks, template and reference page are made.
    #[must_use]
    pub fn schema(&self) -> &Value {
        &self.source
    }

    /// Reads and checks `file`.
    ///
    /// # Errors
    /// Every fault of the file, in the order of lines; or the one that it cannot be read.
    pub fn load<T: DeserializeOwned>(&self, file: &Path) -> Result<T, Vec<LocatedFault>> {
        let text = read(file).map_err(|fault| vec![fault])?;
        self.parse(&text, file)
    }

    /// Checks `text`, which `file` names in faults, and makes settings of it.
    ///
    /// # Errors
    /// Every fault, in the order of lines.
    pub fn parse<T: DeserializeOwned>(&self, text: &str, file: &Path) -> Result<T, Vec<LocatedFault>> {
        let tree = toml::parse(text).map_err(|faults| {
            let located =
                |fault: crate::tree::SyntaxFault| LocatedFault::new(file, fault.line, "", fault.detail);
            faults.into_iter().map(located).collect::<Vec<_>>()
        })?;
        let mut value = tree.to_value();
        let mut faults = shape::take_unknown_keys(&self.source, &mut value);
        faults.extend(self.schema_faults(&value));
        for fault in (self.rules)(&value) {
            if faults.iter().all(|known| known.pointer != fault.pointer) {
                faults.push(fault);
            }
        }
        if !faults.is_empty() {
            return Err(located(&tree, file, faults));
        }
        serde_json::from_value(value).map_err(|error| vec![LocatedFault::new(file, 1, "", error.to_string())])
    }

    fn schema_faults(&self, value: &Value) -> Vec<Fault> {
        match &self.compiled {
            Ok(schema) => shape::in_plain_words(schema.source(), value, schema.faults(value)),
            Err(error) => vec![Fault { pointer: String::new(), detail: error.clone() }],
        }
    }
}

/// Gives integers the range of their Rust type where none is declared, so that the schema finds every number
/// that does not fit and not serde only the first.
fn bound_integers(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let most = match members.get("format").and_then(Value::as_str) {
                Some("uint16") => Some(u64::from(u16::MAX)),
                Some("uint32") => Some(u64::from(u32::MAX)),
                _ => None,
            };
            if let (Some(most), false) = (most, members.contains_key("maximum")) {
                members.insert("maximum".into(), most.into());
            }
            members.values_mut().for_each(bound_integers);
        }
        Value::Array(items) => items.iter_mut().for_each(bound_integers),
        _ => {}
    }
}

fn located(tree: &Node, file: &Path, faults: Vec<Fault>) -> Vec<LocatedFault> {
    let mut located: Vec<_> = faults
        .into_iter()
        .map(|fault| {
            LocatedFault::new(file, tree.line_of(&fault.pointer), dotted(&fault.pointer), fault.detail)
        })
        .collect();
    located.sort();
    located
}

/// A JSON Pointer as a TOML key: `/http/trusted_proxies/0` is `http.trusted_proxies[0]`.
#[must_use]
pub fn dotted(pointer: &str) -> String {
    let mut key = String::new();
    for token in pointer.split('/').skip(1) {
        let token = unescape(token);
        if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit()) {
            key.push_str(&format!("[{token}]"));
            continue;
        }
        if !key.is_empty() {
            key.push('.');
        }
        let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if !token.is_empty() && token.chars().all(bare) {
            key.push_str(&token);
        } else {
            key.push_str(&format!("{token:?}"));
        }
    }
    key
}

/// Reads a text file of bounded size.
pub(crate) fn read(file: &Path) -> Result<String, LocatedFault> {
    use std::io::Read as _;
    let fault = |detail: String| LocatedFault::new(file, 1, "", detail);
    let opened = std::fs::File::open(file).map_err(|error| fault(format!("cannot be read: {error}")))?;
    let mut bytes = Vec::new();
    let limit = toml::MAX_FILE_BYTES;
    opened
        .take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fault(format!("cannot be read: {error}")))?;
    if bytes.len() > limit {
        return Err(fault(format!("the file is larger than {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        LocatedFault::new(file, line, "", "the file is not UTF-8 text")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_toml_writes_them() {
        assert_eq!(dotted("/http/trusted_proxies/0"), "http.trusted_proxies[0]");
        assert_eq!(dotted("/a b/c"), "\"a b\".c");
        assert_eq!(dotted(""), "");
    }
}
