//! Which settings are read at start only, so that a changed one waits for a restart and is reported.

use crosstie_model::settings::ServerSettings;
use serde_json::Value;

/// Settings read when the server starts. Each one's documentation says "Read at start."; a test compares.
const AT_START_ONLY: [&str; 10] = [
    "/server/workers",
    "/server/http",
    "/server/https",
    "/server/backlog",
    "/server/user",
    "/http/front",
    "/management/address",
    "/odb/url",
    "/security/ca",
    "/security/cluster_key",
];

/// The keys (`server.http`) in which `new` differs from `old` and that take effect only when the server is
/// started again. Everything else is taken over by reloading.
#[must_use]
pub fn changed_at_start_only(old: &ServerSettings, new: &ServerSettings) -> Vec<String> {
    let (Ok(old), Ok(new)) = (serde_json::to_value(old), serde_json::to_value(new)) else {
        return Vec::new();
    };
    let value = |settings: &Value, pointer: &str| settings.pointer(pointer).cloned().unwrap_or_default();
    let differing = AT_START_ONLY.iter().filter(|pointer| value(&old, pointer) != value(&new, pointer));
    differing.map(|pointer| super::dotted(pointer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{parse, schema_value};
    use crate::shape;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn the_list_is_what_the_documentation_says() {
        let root = schema_value();
        let mut documented = BTreeSet::new();
        for (section, schema) in root["properties"].as_object().unwrap() {
            for (key, setting) in shape::resolve(root, schema)["properties"].as_object().unwrap() {
                if setting["description"].as_str().unwrap().contains("Read at start.") {
                    documented.insert(format!("/{section}/{key}"));
                }
            }
        }
        assert_eq!(documented, AT_START_ONLY.iter().map(ToString::to_string).collect());
    }

    #[test]
    fn only_settings_that_wait_for_a_restart_are_named() {
        let base = "server.name = \"a\"\nmanagement.address = \"127.0.0.1:1\"\n";
        let old = parse(base, Path::new("s")).unwrap();
        let more =
            format!("{base}server.http = \"127.0.0.1:2\"\nserver.drain_s = 9\nodb.url = \"sqlite:x\"\n");
        let new = parse(&more, Path::new("s")).unwrap();
        assert_eq!(changed_at_start_only(&old, &new), ["server.http", "odb.url"]);
        assert!(changed_at_start_only(&new, &new).is_empty());
    }
}
