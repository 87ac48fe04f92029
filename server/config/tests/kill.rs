//! Processes killed at any moment while they write both repositories: whatever was acknowledged is there
//! afterwards, both are whole, and the cluster's hashes are those of a run nobody disturbed.
//!
//! The test starts itself as the process to kill. `CROSSTIE_KILLS` sets how often (25 otherwise).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crosstie_config::document::render_entry;
use crosstie_config::repository::{ClusterCommit, ClusterRepository, ConfigRepository, file_path};
use crosstie_model::Revision;
use serde_json::json;

const DIRECTORY: &str = "CROSSTIE_KILL_DIRECTORY";

fn row(revision: u64) -> ClusterCommit {
    let change = |offset: u64| {
        let name = format!("demo.{}", (revision * 7 + offset) % 40);
        let body = json!({"type": "rest", "path": format!("/{revision}/{offset}"), "service": "demo"});
        let content = (!(revision + offset).is_multiple_of(5)).then(|| render_entry("channel", &name, &body));
        (file_path("channel", &name), content)
    };
    ClusterCommit {
        revision: Revision(revision),
        author: "ada".into(),
        time_us: 1_700_000_000_000_000 + i64::try_from(revision).unwrap() * 1_000_000,
        message: format!("Change {revision}"),
        files: (0..3).map(change).collect(),
    }
}

/// The files of the newest revision, replayed without git.
fn expected_files(revision: u64) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for (path, content) in (1..=revision).flat_map(|revision| row(revision).files) {
        match content {
            Some(content) => drop(files.insert(path, content)),
            None => drop(files.remove(&path)),
        }
    }
    files
}

fn acknowledged(root: &Path, what: &str) -> u64 {
    fs::read_to_string(root.join(what)).map_or(0, |text| text.lines().count() as u64)
}

/// What survives a kill is checked, then both repositories are written until the next one. Run as a child.
#[test]
fn writer() {
    let Some(root) = std::env::var_os(DIRECTORY).map(std::path::PathBuf::from) else { return };
    check_config(&root);
    check_cluster(&root);
    println!("whole");
    std::io::stdout().flush().unwrap();
    let acknowledge = |what| File::options().append(true).create(true).open(root.join(what)).unwrap();
    let (mut commits, mut revisions) = (acknowledge("commits"), acknowledge("revisions"));
    let config = ConfigRepository::open(&root.join("config")).unwrap();
    let mut cluster = ClusterRepository::open(&root.join("config/cluster")).unwrap();
    for round in 0_u64.. {
        let next = cluster.head_revision().unwrap().0 + 1;
        let last = next + round % 3;
        cluster.append(&(next..=last).map(row).collect::<Vec<_>>()).unwrap();
        for revision in next..=last {
            writeln!(revisions, "{revision}").unwrap();
        }
        let text = format!("edit = {next}\n");
        fs::write(root.join("config/server.toml"), &text).unwrap();
        fs::write(root.join(format!("config/{}.toml", next % 5)), &text).unwrap();
        config.commit_all("ada", &text).unwrap().unwrap();
        writeln!(commits, "{next}").unwrap();
        if round % 4 == 3 {
            let target = config.log(3).unwrap().pop().unwrap();
            config.restore(target.id, "ada", "Back").unwrap();
            writeln!(commits, "back").unwrap();
        }
        if round % 5 == 4 {
            cluster.pack_now().unwrap();
            config.pack_now().unwrap();
        }
    }
}

fn check_config(root: &Path) {
    let at = root.join("config");
    let config = ConfigRepository::open(&at).unwrap();
    assert!(!at.join(".git-damaged-1").exists());
    let log = config.log(100_000).unwrap();
    assert!(log.len() as u64 >= acknowledged(root, "commits"), "acknowledged commits are missing");
    // A hand edit that was not committed yet may be there; after a commit everything is clean.
    config.commit_all("ada", "After a kill").unwrap();
    assert!(!config.is_dirty().unwrap());
    assert_eq!(git(&at, &["status", "--porcelain"]), "");
}

fn check_cluster(root: &Path) {
    let at = root.join("config/cluster");
    let cluster = ClusterRepository::open(&at).unwrap();
    assert!(!at.join(".git-damaged-1").exists());
    let revision = cluster.head_revision().unwrap().0;
    assert!(revision >= acknowledged(root, "revisions"), "acknowledged revisions are missing");
    for (path, content) in expected_files(revision) {
        assert_eq!(fs::read_to_string(at.join(&path)).unwrap(), content, "{path} at {revision}");
    }
    assert_eq!(git(&at, &["status", "--porcelain"]), "", "at {revision}");
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(directory).args(arguments).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn a_killed_writer_leaves_whole_repositories() {
    let kills: u64 = std::env::var("CROSSTIE_KILLS").map_or(25, |text| text.parse().unwrap());
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    println!("seed {seed}");
    let mut random = seed;
    let mut next = move |limit: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % limit
    };
    let root = tempfile::tempdir().unwrap();
    for kill in 0..=kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, root.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // One in four is killed while it still repairs what the one before it left.
        if kill == kills || next(4) != 0 {
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let whole = lines.map_while(Result::ok).any(|line| line.contains("whole"));
            assert!(whole, "kill {kill}: the repositories are not whole; {:?}", child.wait());
        }
        std::thread::sleep(Duration::from_micros(next(60_000)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let at = root.path().join("config/cluster");
    assert_eq!(git(&at, &["fsck", "--strict", "--full", "--no-dangling"]), "");
    assert_eq!(git(&root.path().join("config"), &["fsck", "--strict", "--full", "--no-dangling"]), "");
    let revision: u64 = git(&at, &["rev-list", "--count", "refs/crosstie/cluster"]).parse().unwrap();
    let undisturbed = tempfile::tempdir().unwrap();
    let mut clean = ClusterRepository::open(undisturbed.path()).unwrap();
    clean.append(&(1..=revision).map(row).collect::<Vec<_>>()).unwrap();
    let hash = clean.head().unwrap().unwrap().to_string();
    assert_eq!(git(&at, &["rev-parse", "refs/crosstie/cluster"]), hash);
    println!("{kills} kills, {revision} revisions");
}
