//! A commented `server.toml`: every setting with its documentation; those that differ from the default are
//! set, the others stand there as comments with their default.

use crosstie_model::settings::ServerSettings;
use serde_json::Value;

use super::schema_value;
use crate::shape::{description, properties};

/// Longest line of a comment, in characters.
const WIDTH: usize = 100;

/// What stands above the settings.
const HEAD: &str = "\
The settings of this server. A line that starts with # is a comment: a setting commented out has the
default shown. A wrong or unknown setting refuses the whole file and the server goes on with what it has.
This file is kept in git: `crosstie config log`, `crosstie config diff`, `crosstie config rollback`.
Definitions (channels, security …) are not here: `crosstie apply`, `crosstie export`.";

/// The text of a `server.toml` that reads back as `settings`.
#[must_use]
pub fn template(settings: &ServerSettings) -> String {
    template_of(schema_value(), HEAD, &serde_json::to_value(settings).unwrap_or_default())
}

/// The text of a settings file whose schema is `root` and that reads back as `values`; `head` stands above.
#[must_use]
pub fn template_of(root: &Value, head: &str, values: &Value) -> String {
    let mut text = String::new();
    comment(&mut text, head);
    for (section, schema) in properties(root, root) {
        text.push('\n');
        comment(&mut text, description(schema));
        text.push_str(&format!("[{section}]\n"));
        for (key, setting) in properties(root, schema) {
            let value = values.get(section).and_then(|values| values.get(key)).unwrap_or(&Value::Null);
            let default = default_in(root, section, key);
            text.push('\n');
            comment(&mut text, description(setting));
            text.push_str(&line(key, value, default.as_ref()));
        }
    }
    text
}

/// The setting's line: set when it differs from its default, a comment otherwise.
fn line(key: &str, value: &Value, default: Option<&Value>) -> String {
    match default {
        Some(default) if default == value && value.is_null() => format!("# {key} =\n"),
        Some(default) if default == value => format!("# {key} = {}\n", toml_value(value)),
        _ => format!("{key} = {}\n", toml_value(value)),
    }
}

/// The default of the setting `key` in `section`: its own, or that of its section; `None` where it must be given.
#[must_use]
pub fn default_of(section: &str, key: &str) -> Option<Value> {
    default_in(schema_value(), section, key)
}

fn default_in(root: &Value, section: &str, key: &str) -> Option<Value> {
    let schema = root.pointer(&format!("/properties/{section}"))?;
    let setting = properties(root, schema).find(|(name, _)| *name == key).map(|(_, setting)| setting)?;
    let own = setting.get("default");
    let of_section = root
        .pointer(&format!("/properties/{section}/default/{key}"))
        .or_else(|| root.pointer(&format!("/properties/{section}/default"))?.get(key));
    own.or(of_section).cloned()
}

/// `text` as comment lines, wrapped.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    if line.len() > 1 {
        out.push_str(&line);
        out.push('\n');
    }
}

/// A JSON value as TOML writes it on one line; nothing for null.
#[must_use]
pub fn toml_value(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(toml_value).collect();
            format!("[{}]", items.join(", "))
        }
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::parse;
    use proptest::prelude::*;
    use std::path::Path;

    fn settings(more: &str) -> ServerSettings {
        let text = format!("server.name = \"a\"\nmanagement.address = \"127.0.0.1:1\"\n{more}");
        parse(&text, Path::new("s")).unwrap()
    }

    #[test]
    fn the_template_reads_back_as_the_settings_it_was_made_of() {
        let more = "server.http = \"127.0.0.1:17010\"\nsecurity.require_security = false\n\
                    http.trusted_proxies = [\"10.0.0.0/8\"]\ntelemetry.otlp_sample = 0.5\n\
                    odb.password = \"env:A\"\nlog.format = \"text\"\n";
        for original in [settings(""), settings(more)] {
            let text = template(&original);
            assert_eq!(parse(&text, Path::new("s")).map_err(|f| format!("{f:#?}\n{text}")), Ok(original));
        }
    }

    #[test]
    fn every_setting_is_in_the_template_and_defaults_are_comments() {
        let text = template(&settings("server.workers = 3\n"));
        assert!(text.contains("\nworkers = 3\n"), "{text}");
        assert!(text.contains("\n# handler_threads = 32\n"), "{text}");
        assert!(text.contains("\n# http =\n"), "{text}");
        for (_, section) in properties(schema_value(), schema_value()) {
            for (key, _) in properties(schema_value(), section) {
                assert!(
                    text.contains(&format!("\n{key} =")) || text.contains(&format!("\n# {key} =")),
                    "{key}"
                );
            }
        }
    }

    #[test]
    fn uncommenting_a_default_changes_nothing() {
        let original = settings("");
        let set = |line: &str| match line.strip_prefix("# ").and_then(|rest| rest.split_once(" =")) {
            Some((key, value)) if !value.trim().is_empty() && !key.contains(' ') => format!("{key} ={value}"),
            _ => line.to_owned(),
        };
        let text = template(&original).lines().map(set).collect::<Vec<_>>().join("\n");
        assert!(text.contains("\nhandler_threads = 32\n"));
        assert_eq!(parse(&text, Path::new("s")).unwrap(), original);
    }

    proptest! {
        #[test]
        fn any_text_survives_the_template(url in "\\PC{1,40}", metrics in "(/[a-z]{1,8}){0,3}", drain in 1_u64..3600) {
            let mut original = settings("");
            original.odb.url = format!("sqlite:{url}");
            original.telemetry.metrics_path = metrics;
            original.server.drain_s = drain;
            prop_assume!(original.telemetry.metrics_path != "/openapi");
            let text = template(&original);
            prop_assert_eq!(parse(&text, Path::new("s")).unwrap(), original);
        }
    }
}
