//! `docs/reference/server-toml.md` and `docs/reference/definitions.md` are what the schemas say: each test
//! fails when the committed page differs. `CROSSTIE_WRITE_REFERENCE=1` writes the pages anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crosstie_config::settings::{default_of, schema_value, toml_value};
use crosstie_config::shape::{constants, describe, description, plain, properties, resolve};
use crosstie_model::definition::shapes;
use crosstie_model::{Definition, DefinitionId, DefinitionKind};
use serde_json::{Map, Value, json};

/// Compares `page` with the committed file `name`, or writes it.
fn check(name: &str, page: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference").join(name);
    if std::env::var_os("CROSSTIE_WRITE_REFERENCE").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, page).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == page,
        "docs/reference/{name} is not what the schemas say; write it anew with \
         `CROSSTIE_WRITE_REFERENCE=1 cargo test -p crosstie-config --test reference`"
    );
}

/// Text for a cell of a table: one line, bars escaped.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// What a value must be, with patterns as code.
fn type_cell(root: &Value, schema: &Value) -> String {
    cell(&describe(root, schema))
}

/// One line per constant of an enumeration that explains its constants.
fn explained(root: &Value, key: &str, schema: &Value) -> String {
    let constants = constants(resolve(root, schema));
    if !constants.iter().any(|(_, text)| text.is_some()) {
        return String::new();
    }
    let mut text = format!("\n`{key}`:\n\n");
    for (value, meaning) in constants {
        let _ = writeln!(text, "- `{}`: {}", plain(value), cell(meaning.unwrap_or_default()));
    }
    text
}

fn server_toml() -> String {
    let root = schema_value();
    let mut page = String::from(
        "# server.toml\n\n\
         <!-- Generated from the settings' types; see server/config/tests/reference.rs. -->\n\n\
         Every setting of `DIR/server1/config/server.toml`. How the file is changed, checked and rolled back is\n\
         in [Configuration](../configuration.md). Unknown keys are errors. A setting without a default must be\n\
         given; one whose default is empty may be left out.\n",
    );
    for (section, schema) in properties(root, root) {
        let _ = write!(page, "\n## [{section}]\n\n{}\n\n", description(schema));
        page.push_str("| setting | must be | default | |\n|---|---|---|---|\n");
        let mut more = String::new();
        for (key, setting) in properties(root, schema) {
            let default = match default_of(section, key) {
                None if is_optional(setting) => String::new(),
                None => "none: required".to_owned(),
                Some(Value::Null) => String::new(),
                Some(default) => format!("`{}`", toml_value(&default)),
            };
            let (must, text) = (type_cell(root, setting), cell(description(setting)));
            let _ = writeln!(page, "| `{key}` | {must} | {default} | {text} |");
            more.push_str(&explained(root, key, setting));
        }
        page.push_str(&more);
    }
    page
}

fn is_optional(setting: &Value) -> bool {
    let takes_null = |schema: &Value| match schema.get("type") {
        Some(Value::Array(types)) => types.iter().any(|name| name == "null"),
        Some(name) => name == "null",
        None => false,
    };
    let alternatives = setting.get("anyOf").and_then(Value::as_array);
    takes_null(setting) || alternatives.is_some_and(|alternatives| alternatives.iter().any(takes_null))
}

fn definitions() -> String {
    let mut page = String::from(
        "# Definitions\n\n\
         <!-- Generated from the definitions' types; see server/config/tests/reference.rs. -->\n\n\
         Every kind of definition, as `crosstie apply` reads and `crosstie export` writes it. The form of a\n\
         document is in [Configuration](../configuration.md#definitions). Unknown keys are errors.\n",
    );
    let mut inner = Vec::new();
    for (kind, tag, root) in shapes() {
        let title = tag.map_or_else(|| kind.to_string(), |tag| format!("{kind}, type {tag}"));
        let _ = write!(page, "\n## {title}\n\n{}\n\n", description(root));
        page.push_str(&fields(root, root, |key, field| default_in(kind, tag, root, key, field)));
        nested(root, root, &mut inner);
    }
    for (name, root, schema) in inner {
        let _ = write!(page, "\n## Inside: {name}\n\n{}\n\n", description(schema));
        page.push_str(&fields(root, schema, |_, field| field.get("default").cloned()));
    }
    page
}

/// Texts that are defaults of some field; [`default_in`] finds which.
const DEFAULT_TEXTS: [&str; 2] = ["crosstie", "X-API-Key"];

/// The default of a definition's field: the value that writing the definition leaves out.
fn default_in(
    kind: DefinitionKind,
    tag: Option<&str>,
    root: &Value,
    key: &str,
    beside: &Value,
) -> Option<Value> {
    let field = resolve(root, beside);
    let named = beside.get("default").cloned();
    let candidates: Vec<Value> = match field.get("type").and_then(Value::as_str) {
        _ if !constants(field).is_empty() => {
            constants(field).into_iter().map(|(value, _)| value.clone()).collect()
        }
        Some("boolean") => vec![true.into(), false.into()],
        Some("integer") if field.get("maximum").and_then(Value::as_u64).is_some_and(|most| most <= 1000) => {
            (1..=1000).map(Value::from).collect()
        }
        Some("string") => DEFAULT_TEXTS.map(Value::from).to_vec(),
        _ => Vec::new(),
    };
    named.into_iter().chain(candidates).find(|candidate| {
        let mut body = smallest(tag, root);
        body.insert(key.to_owned(), candidate.clone());
        let id = DefinitionId { kind, name: "x".parse().unwrap() };
        let definition = Definition::from_value(id, Value::Object(body));
        definition.is_ok_and(|definition| definition.to_value().unwrap().get(key).is_none())
    })
}

/// The smallest definition of a shape.
fn smallest(tag: Option<&str>, root: &Value) -> Map<String, Value> {
    let sample = |key: &str| match key {
        "path" => json!("/x"),
        "address" | "token_url" | "url" => json!("https://x"),
        "methods" => json!({"x": "x"}),
        "entries" => json!({}),
        "engine" => json!("postgresql"),
        _ => json!("x"),
    };
    let mut body: Map<String, Value> =
        required(root).into_iter().map(|key| (key.to_owned(), sample(key))).collect();
    if let Some(tag) = tag {
        body.insert("type".into(), tag.into());
    }
    // What a database must have depends on its engine, which a schema cannot say.
    let beyond: &[&str] = if tag == Some("sql") { &["host", "username"] } else { &[] };
    body.extend(beyond.iter().map(|key| ((*key).to_owned(), json!("x"))));
    body
}

fn required(schema: &Value) -> Vec<&str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn fields(root: &Value, schema: &Value, default_of: impl Fn(&str, &Value) -> Option<Value>) -> String {
    let mut rows = String::from("| field | must be | default | |\n|---|---|---|---|\n");
    let mut more = String::new();
    if let Some(tag) = schema.pointer("/properties/type/const") {
        let _ = writeln!(
            rows,
            "| `type` | {} | none: required | Which sort of definition this is. |",
            plain(tag)
        );
    }
    for (key, field) in
        properties(root, schema).filter(|(key, field)| *key != "type" || field.get("const").is_none())
    {
        let default = if required(schema).contains(&key) {
            "none: required".to_owned()
        } else {
            match default_of(key, field) {
                None | Some(Value::Null) => String::new(),
                Some(default) => format!("`{}`", plain(&default)),
            }
        };
        let (must, text) = (type_cell(root, field), cell(description(field)));
        let _ = writeln!(rows, "| `{key}` | {must} | {default} | {text} |");
        more.push_str(&explained(root, key, field));
    }
    rows + &more
}

/// The tables inside a schema that have fields of their own, each once.
fn nested<'a>(root: &'a Value, schema: &'a Value, found: &mut Vec<(&'a str, &'a Value, &'a Value)>) {
    for (key, field) in properties(root, schema) {
        let field = resolve(root, field);
        let inner = field.get("items").map_or(field, |items| resolve(root, items));
        if inner.get("properties").is_some() && !found.iter().any(|(_, _, known)| *known == inner) {
            found.push((key, root, inner));
            nested(root, inner, found);
        }
    }
}

#[test]
fn the_page_of_server_toml_is_up_to_date() {
    check("server-toml.md", &server_toml());
}

#[test]
fn the_page_of_definitions_is_up_to_date() {
    check("definitions.md", &definitions());
}

#[test]
fn everything_is_documented() {
    let root = schema_value();
    for (section, schema) in properties(root, root) {
        assert!(!description(schema).is_empty(), "{section}");
        for (key, setting) in properties(root, schema) {
            assert!(!description(setting).is_empty(), "{section}.{key}");
        }
    }
    for (kind, _, root) in shapes() {
        assert!(!description(root).is_empty(), "{kind}");
        for (key, field) in properties(root, root).filter(|(key, _)| *key != "type") {
            assert!(!description(field).is_empty(), "{kind}.{key}");
        }
    }
}
