//! The examples of `docs/configuration.md` are right.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use crosstie_config::{document, settings, user};

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");

/// The fenced blocks of a language, each with the line before its fence.
fn blocks(language: &str) -> Vec<(String, String)> {
    let guide = fs::read_to_string(GUIDE).unwrap();
    let mut found = Vec::new();
    let mut lines = guide.lines();
    let mut before = String::new();
    while let Some(line) = lines.next() {
        if line == format!("```{language}") {
            let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            found.push((before.clone(), block.join("\n") + "\n"));
        }
        before = line.to_owned();
    }
    found
}

#[test]
fn settings_in_the_guide_are_valid() {
    let blocks = blocks("toml");
    assert_eq!(blocks.len(), 2);
    for (before, text) in blocks {
        if before == "<!-- user -->" {
            let server = tempfile::tempdir().unwrap();
            fs::create_dir_all(server.path().join("config/user")).unwrap();
            fs::write(server.path().join("config/user/partner.toml"), text).unwrap();
            assert_eq!(
                user::load(&server.path().join(user::USER_DIRECTORY)).unwrap()["partner"]["api"]["page_size"],
                100
            );
        } else {
            settings::parse(&text, Path::new(GUIDE)).unwrap_or_else(|faults| panic!("{faults:#?}"));
        }
    }
}

#[test]
fn definitions_in_the_guide_are_valid() {
    let blocks = blocks("yaml");
    assert!(!blocks.is_empty());
    for (_, text) in blocks {
        let found = document::parse(&[(PathBuf::from(GUIDE), text)]).all_sound();
        assert!(!found.unwrap_or_else(|faults| panic!("{faults:#?}")).is_empty());
    }
}

#[test]
fn faults_in_the_guide_are_the_ones_reported() {
    let text = "[server]\nname = \"a\"\nworkers = 65\n\ndrian_s = 5\n[management]\naddress = \"127.0.0.1:1\"\n\
                [odb]\npassword = \"x\"\n";
    let faults = settings::parse(text, Path::new("config/server.toml")).unwrap_err();
    let reported: Vec<_> = faults.iter().map(|fault| format!("{fault}\n")).collect();
    assert_eq!(blocks("text")[0].1, reported.concat());
}
