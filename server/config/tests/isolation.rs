//! Nothing in a user's git configuration changes a hash, hides a file or keeps a repository from opening.
//!
//! libgit2 finds that configuration by the process's environment, so the test starts itself with another home.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crosstie_config::repository::{ClusterCommit, ClusterRepository, ConfigRepository};
use crosstie_model::Revision;

const DIRECTORY: &str = "CROSSTIE_ISOLATION_DIRECTORY";

/// Writes both repositories and the hashes of their newest states. Run as a child.
#[test]
fn writer() {
    let Some(root) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let content = "line\r\n$Id$\r\n";
    let mut cluster = ClusterRepository::open(&root.join("cluster")).unwrap();
    let files = vec![("channel/a.yaml".to_owned(), Some(content.to_owned()))];
    let (author, message) = ("ada".to_owned(), "Grüße".to_owned());
    cluster.append(&[ClusterCommit { revision: Revision(1), author, time_us: 0, message, files }]).unwrap();
    assert_eq!(fs::read_to_string(root.join("cluster/channel/a.yaml")).unwrap(), content);

    let config = ConfigRepository::open(&root.join("config")).unwrap();
    fs::write(root.join("config/server.toml"), content).unwrap();
    fs::write(root.join("config/hidden.toml"), "x").unwrap();
    let first = config.commit_all("ada", "One").unwrap().unwrap();
    assert_eq!(config.file_at(first, "server.toml").unwrap().unwrap(), content.as_bytes());
    assert!(config.file_at(first, "hidden.toml").unwrap().is_some());
    fs::remove_file(root.join("config/hidden.toml")).unwrap();
    fs::write(root.join("config/server.toml"), "other").unwrap();
    let second = config.commit_all("ada", "Two").unwrap().unwrap();
    config.restore(first, "ada", "Back").unwrap();
    assert_eq!(fs::read_to_string(root.join("config/server.toml")).unwrap(), content);
    assert!(config.diff(second).unwrap().starts_with("diff --git a/hidden.toml b/hidden.toml"));
    fs::write(root.join("hash"), cluster.head().unwrap().unwrap().to_string()).unwrap();
}

/// The cluster's hash as written in a home directory that holds `files`.
fn hash_at_home_with(files: &[(&str, &str)]) -> String {
    let root = tempfile::tempdir().unwrap();
    let home = root.path().join("home");
    for (path, content) in files {
        let file = home.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--test-threads=1"])
        .env(DIRECTORY, root.path())
        .env("HOME", &home)
        .env("XDG_CONFIG_HOME", home.join(".config"))
        .status()
        .unwrap();
    assert!(status.success());
    assert_clean(&root.path().join("cluster"), &home);
    assert_clean(&root.path().join("config"), &home);
    fs::read_to_string(root.path().join("hash")).unwrap()
}

/// `git status` of somebody with that very home finds nothing to complain about, unless their configuration
/// is broken for git as well.
fn assert_clean(directory: &Path, home: &Path) {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(["status", "--porcelain"])
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home.join(".config"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let broken = String::from_utf8_lossy(&output.stderr).contains("bad config");
    assert!(broken || (output.status.success() && text.is_empty()), "{text}");
}

#[test]
fn a_users_configuration_changes_nothing() {
    let plain = hash_at_home_with(&[(".gitconfig", "")]);
    assert_eq!(plain, "27c04c55966076070910f9c519b65b0ed73ecb38");
    let hostile = "[core]\n\tautocrlf = true\n\teol = crlf\n\tsafecrlf = true\n\texcludesFile = ~/ignore\n\
                   \tattributesFile = ~/attributes\n\tbare = true\n\thooksPath = ~/hooks\n\
                   [i18n]\n\tcommitEncoding = latin1\n[commit]\n\tgpgsign = true\n[user]\n\tname = Mallory\n\
                   [init]\n\tdefaultBranch = trunk\n\ttemplateDir = ~/template\n\
                   [diff]\n\tnoprefix = true\n\tmnemonicPrefix = true\n[extensions]\n\tunheardOf = 1\n";
    let hash = hash_at_home_with(&[
        (".gitconfig", hostile),
        ("ignore", "*.toml\n*.yaml\n"),
        (".config/git/ignore", "*\n"),
        ("attributes", "* text eol=crlf ident\n"),
        (".config/git/attributes", "* text eol=crlf ident\n"),
    ]);
    assert_eq!(hash, plain);
    assert_eq!(hash_at_home_with(&[(".gitconfig", "[core\nbroken")]), plain);
}
