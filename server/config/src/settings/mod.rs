//! `server.toml`: read, checked as a whole, and only then made into [`ServerSettings`].
//!
//! Four checks follow each other and all their faults are reported together: TOML syntax, unknown keys, the
//! JSON Schema derived from the settings' types, and what a schema cannot say (`rules`). Reading a file
//! costs a millisecond and happens at start, on SIGHUP and when the file changed.

mod restart;
mod rules;
mod template;

use std::path::Path;
use std::sync::LazyLock;

use crosstie_model::Fault;
use crosstie_model::schema::Schema;
use crosstie_model::settings::ServerSettings;
use serde_json::Value;

pub use restart::changed_at_start_only;
pub use template::{default_of, template, toml_value};

use crate::fault::LocatedFault;
use crate::shape;
use crate::tree::{Node, toml, unescape};

/// Where a server's directory holds its settings.
pub const SETTINGS_FILE: &str = "config/server.toml";

/// Reads and checks `config/server.toml` of a server's directory.
///
/// # Errors
/// Every fault of the file, in the order of lines; or the one that it cannot be read.
pub fn load(directory: &Path) -> Result<ServerSettings, Vec<LocatedFault>> {
    let file = directory.join(SETTINGS_FILE);
    let text = read(&file).map_err(|fault| vec![fault])?;
    parse(&text, &file)
}

/// Checks `text`, which `file` names in faults, and makes settings of it.
///
/// # Errors
/// Every fault, in the order of lines.
pub fn parse(text: &str, file: &Path) -> Result<ServerSettings, Vec<LocatedFault>> {
    let tree = toml::parse(text).map_err(|faults| {
        let located = |fault: crate::tree::SyntaxFault| LocatedFault::new(file, fault.line, "", fault.detail);
        faults.into_iter().map(located).collect::<Vec<_>>()
    })?;
    let mut value = tree.to_value();
    let mut faults = shape::take_unknown_keys(schema_value(), &mut value);
    faults.extend(schema_faults(&value));
    for fault in rules::faults(&value) {
        if faults.iter().all(|known| known.pointer != fault.pointer) {
            faults.push(fault);
        }
    }
    if !faults.is_empty() {
        return Err(located(&tree, file, faults));
    }
    let settings = serde_json::from_value(value)
        .map_err(|error| vec![LocatedFault::new(file, 1, "", error.to_string())])?;
    Ok(settings)
}

/// The JSON Schema of `server.toml`, from which checks, template and reference page are made.
#[must_use]
pub fn schema_value() -> &'static Value {
    &SCHEMA.0
}

static SCHEMA: LazyLock<(Value, Result<Schema, String>)> = LazyLock::new(|| {
    let mut source = schemars::schema_for!(ServerSettings).to_value();
    bound_integers(&mut source);
    let compiled = Schema::compile(source.clone()).map_err(|error| error.to_string());
    (source, compiled)
});

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

fn schema_faults(value: &Value) -> Vec<Fault> {
    match &SCHEMA.1 {
        Ok(schema) => shape::in_plain_words(schema.source(), value, schema.faults(value)),
        Err(error) => vec![Fault { pointer: String::new(), detail: error.clone() }],
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
fn dotted(pointer: &str) -> String {
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

    const SMALLEST: &str = "[server]\nname = \"one\"\n[management]\naddress = \"127.0.0.1:17110\"\n";

    fn faults(text: &str) -> Vec<String> {
        parse(text, Path::new("server.toml")).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let settings = parse(SMALLEST, Path::new("server.toml")).unwrap();
        assert_eq!(settings.server.drain_s, 30);
        assert_eq!(settings.python.handler_threads, 32);
        assert!(settings.security.require_security);
    }

    #[test]
    fn every_fault_is_reported_at_once_with_line_and_key() {
        let text = "[server]\nname = \"a b\"\nworkers = 65\nhttp = \"localhost\"\ndrian_s = 5\n\
                    [http]\nmax_headers = \"many\"\ntrusted_proxies = [\"10.0.0.0/8\", \"10.0.0.0/99\"]\n\
                    compression = \"yes\"\nmax_connections = 99999999999\n\
                    [log]\nlevel = \"loud\"\n[pyhton]\nqueue = 1\n";
        let found = faults(text);
        let expected = [
            "server.toml:1: \"management\" is a required property",
            "server.toml:2: server.name: must be a name: at most 190 letters, digits",
            "server.toml:3: server.workers: must be a whole number, 0 to 64",
            "server.toml:4: server.http: must be an address and port",
            "server.toml:5: server.drian_s: unknown key; did you mean \"drain_s\"?",
            "server.toml:7: http.max_headers: must be a whole number, 10 to 1000",
            "server.toml:8: http.trusted_proxies[1]: must be a network",
            "server.toml:9: http.compression: must be true or false",
            "server.toml:10: http.max_connections: must be a whole number, 1 to 1000000",
            "server.toml:12: log.level: must be one of trace, debug, info, warn, error",
            "server.toml:13: pyhton: unknown key; did you mean \"python\"?",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}\n{expected}");
        }
    }

    #[test]
    fn every_integer_is_bounded_by_its_type() {
        let text = format!("{SMALLEST}[http]\nmax_body_bytes = -1\n");
        assert!(faults(&text)[0].contains("http.max_body_bytes: must be a whole number, at least 0"));
    }

    #[test]
    fn a_file_that_is_no_text_is_refused_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("config")).unwrap();
        let file = directory.path().join(SETTINGS_FILE);
        assert!(load(directory.path()).unwrap_err()[0].detail.contains("cannot be read"));
        std::fs::write(&file, b"a = 1\nb = \"\xff\"\n").unwrap();
        let found = load(directory.path()).unwrap_err();
        assert_eq!((found[0].line, found[0].detail.as_str()), (2, "the file is not UTF-8 text"));
        std::fs::write(&file, vec![b'#'; toml::MAX_FILE_BYTES + 1]).unwrap();
        assert!(load(directory.path()).unwrap_err()[0].detail.contains("larger"));
        std::fs::write(&file, SMALLEST).unwrap();
        assert_eq!(load(directory.path()).unwrap().server.name.as_str(), "one");
    }

    #[test]
    fn keys_are_named_as_toml_writes_them() {
        assert_eq!(dotted("/http/trusted_proxies/0"), "http.trusted_proxies[0]");
        assert_eq!(dotted("/a b/c"), "\"a b\".c");
        assert_eq!(dotted(""), "");
    }
}
