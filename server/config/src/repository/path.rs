//! Paths inside a repository: what git allows, and where `config/cluster` keeps what.

use sha2::{Digest as _, Sha256};

use super::{RepositoryError, Result};

/// Longest file name, in bytes, below the 255 of Linux file systems.
const MAX_FILE_NAME: usize = 200;

/// The file of a definition (or, with the kind `deployment`, of a unit's active deployment) in
/// `config/cluster`: `KIND/NAME.yaml`, with everything but letters, digits and `. _ - + = @ ,`
/// percent-encoded. A name too long for a file ends in `~` and a digest of all of it.
#[must_use]
pub fn file_path(kind: &str, name: &str) -> String {
    format!("{}/{}.yaml", file_name(kind), file_name(name))
}

fn file_name(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-+=@,".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    if encoded.len() > MAX_FILE_NAME {
        let digest = Sha256::digest(name.as_bytes());
        encoded.truncate(MAX_FILE_NAME - 17);
        encoded.push('~');
        digest.iter().take(8).for_each(|byte| encoded.push_str(&format!("{byte:02x}")));
    }
    encoded
}

/// Checks that `path` names a file below the repository's directory on every file system git knows.
///
/// # Errors
/// It is empty or absolute, has an empty, `.`, `..` or `.git`-like component, or a character no path has.
pub(super) fn check(path: &str) -> Result<()> {
    let bad_component = |component: &str| {
        let folded = component.to_ascii_lowercase();
        component.is_empty()
            || matches!(component, "." | "..")
            || (folded.starts_with(".git") && component != ".gitignore")
            || folded.starts_with("git~")
            || component.len() > 255
    };
    let bad_character = |c: char| c == '\\' || c.is_control();
    if path.contains(bad_character) || path.split('/').any(bad_component) {
        return Err(RepositoryError::BadPath(path.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(name: &str) -> String {
        file_path("channel", name)
    }

    #[test]
    fn every_definition_has_its_own_file() {
        assert_eq!(path_of("crm.customer.get"), "channel/crm.customer.get.yaml");
        assert_eq!(path_of("demo:rest:/hello/{name}"), "channel/demo%3Arest%3A%2Fhello%2F%7Bname%7D.yaml");
        assert_ne!(path_of("a%2Fb"), path_of("a/b"));
        let long = "/".repeat(189);
        let (one, other) = (path_of(&format!("a{long}")), path_of(&format!("b{long}")));
        assert!(one.len() < 255 && one != other && one.contains('~'), "{one}");
        for path in [one, other, path_of("a/../b"), path_of("con")] {
            check(&path).unwrap();
        }
    }

    #[test]
    fn no_path_leaves_the_repository() {
        for path in [
            "",
            "/a",
            "a//b",
            "../a",
            "a/..",
            "./a",
            ".git/config",
            "a/.GIT/x",
            "git~1",
            ".gitmodules",
            "a\\b",
            "a\nb",
            "a/",
        ] {
            assert!(check(path).is_err(), "{path:?}");
        }
        check("server.toml").unwrap();
        check(".gitignore").unwrap();
        check("user/größe.toml").unwrap();
    }
}
