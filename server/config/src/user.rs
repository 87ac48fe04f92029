//! Users' own configuration: `config/user/*.toml`, read by services as `self.config["FILE"]["SECTION"]["KEY"]`.
//!
//! The content is the user's; only syntax, size and names are checked. Dates arrive as texts.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::fault::LocatedFault;
use crate::settings::read;
use crate::tree::toml;

/// Where a server's directory holds its users' files.
pub const USER_DIRECTORY: &str = "config/user";

/// Most files that are read.
const MAX_FILES: usize = 1_000;

/// Reads every `*.toml` of `directory`, the [`USER_DIRECTORY`] of a server's directory: an object with one member per file, named
/// after it without `.toml`. Without the directory the object is empty. Hidden files, directories and files
/// of other types are passed over.
///
/// # Errors
/// Every fault of every file.
pub fn load(directory: &Path) -> Result<Value, Vec<LocatedFault>> {
    let mut files = Map::new();
    let mut faults = Vec::new();
    for (name, path) in list(directory).map_err(|fault| vec![fault])? {
        match read(&path).map_err(|fault| vec![fault]).and_then(|text| parse(&text, &path)) {
            Ok(value) => drop(files.insert(name, value)),
            Err(more) => faults.extend(more),
        }
    }
    if faults.is_empty() { Ok(Value::Object(files)) } else { Err(faults) }
}

fn parse(text: &str, file: &Path) -> Result<Value, Vec<LocatedFault>> {
    let tree = toml::parse(text).map_err(|faults| {
        let located = |fault: crate::tree::SyntaxFault| LocatedFault::new(file, fault.line, "", fault.detail);
        faults.into_iter().map(located).collect::<Vec<_>>()
    })?;
    Ok(tree.to_value())
}

/// The files to read with their names, sorted.
fn list(directory: &Path) -> Result<Vec<(String, PathBuf)>, LocatedFault> {
    let fault =
        |error: std::io::Error| LocatedFault::new(directory, 1, "", format!("cannot be read: {error}"));
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fault(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(fault)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(stem) = name.strip_suffix(".toml") else { continue };
        if stem.is_empty() || stem.starts_with('.') || !path.is_file() {
            continue;
        }
        found.push((stem.to_owned(), path));
        if found.len() > MAX_FILES {
            return Err(LocatedFault::new(directory, 1, "", format!("holds more than {MAX_FILES} files")));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_file_is_a_member() {
        let server = tempfile::tempdir().unwrap();
        let user = server.path().join(USER_DIRECTORY);
        assert_eq!(load(&user).unwrap(), json!({}));
        fs::create_dir_all(user.join("sub.toml")).unwrap();
        fs::write(user.join("crm.toml"), "[api]\nlimit = 5\nsince = 2024-01-01T00:00:00Z\n").unwrap();
        fs::write(user.join("mail.toml"), "from = \"a@b\"\n").unwrap();
        fs::write(user.join(".hidden.toml"), "x = ").unwrap();
        fs::write(user.join("notes.txt"), "x = ").unwrap();
        assert_eq!(
            load(&user).unwrap(),
            json!({"crm": {"api": {"limit": 5, "since": "2024-01-01T00:00:00Z"}}, "mail": {"from": "a@b"}})
        );
    }

    #[test]
    fn faults_of_all_files_are_reported() {
        let server = tempfile::tempdir().unwrap();
        let user = server.path().join(USER_DIRECTORY);
        fs::create_dir_all(&user).unwrap();
        fs::write(user.join("a.toml"), "x = 1\nx = 2\n").unwrap();
        fs::write(user.join("b.toml"), b"\xff").unwrap();
        let faults = load(&user).unwrap_err();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert_eq!(faults[0].line, 2);
    }
}
