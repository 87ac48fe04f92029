//! `server.toml`: its format, its rules, its template, and which settings wait for a restart.

mod format;
mod restart;
mod rules;
mod template;

use std::path::Path;
use std::sync::LazyLock;

use crosstie_model::settings::ServerSettings;
use serde_json::Value;

pub(crate) use format::read;
pub use format::{Format, Rules, dotted};
pub use restart::changed_at_start_only;
pub use template::{default_of, template, template_of, toml_value};

use crate::fault::LocatedFault;

/// Where a server's directory holds its settings.
pub const SETTINGS_FILE: &str = "config/server.toml";

static FORMAT: LazyLock<Format> = LazyLock::new(|| Format::of::<ServerSettings>(rules::faults));

/// Reads and checks `config/server.toml` of a server's directory.
///
/// # Errors
/// Every fault of the file, in the order of lines; or the one that it cannot be read.
pub fn load(directory: &Path) -> Result<ServerSettings, Vec<LocatedFault>> {
    FORMAT.load(&directory.join(SETTINGS_FILE))
}

/// Checks `text`, which `file` names in faults, and makes settings of it.
///
/// # Errors
/// Every fault, in the order of lines.
pub fn parse(text: &str, file: &Path) -> Result<ServerSettings, Vec<LocatedFault>> {
    FORMAT.parse(text, file)
}

/// The JSON Schema of `server.toml`, from which checks, template and reference page are made.
#[must_use]
pub fn schema_value() -> &'static Value {
    FORMAT.schema()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::toml;

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
            "server.toml:1: management: is required",
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
}
