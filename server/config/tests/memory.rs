//! What the repositories of a long-lived process leave in its memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use crosstie_config::repository::{ClusterCommit, ClusterRepository, PACK_AFTER, file_path};
use crosstie_model::Revision;

/// Threads that are there for blocking work; each has memory of the allocator's to itself.
const THREADS: u64 = 4;

/// A revision leaves a commit, two trees and a file.
const OBJECTS_PER_REVISION: u64 = 4;

fn figure_kib(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The row of a deployment.
fn row(revision: u64) -> ClusterCommit {
    ClusterCommit {
        revision: Revision(revision),
        author: "pickup".into(),
        time_us: 1_700_000_000_000_000 + i64::try_from(revision).unwrap() * 120_000,
        message: "Deploy version from version.py".into(),
        files: vec![(
            file_path("deployment", "version"),
            Some(format!("kind: deployment\nunit: version\ndigest: {revision:064x}\n")),
        )],
    }
}

/// Appends so many revisions that a pack is due, and packs.
fn fill_a_pack(directory: &Path, round: u64) {
    let each = u64::try_from(PACK_AFTER).unwrap() / OBJECTS_PER_REVISION;
    let mut repository = ClusterRepository::open(directory).unwrap();
    for revision in round * each + 1..=(round + 1) * each {
        repository.append(&[row(revision)]).unwrap();
    }
    assert!(repository.pack().unwrap());
}

#[test]
fn packing_in_any_thread_leaves_no_memory_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (done, ended) = mpsc::channel();
    let threads: Vec<mpsc::Sender<(PathBuf, u64)>> = (0..THREADS)
        .map(|_| {
            let (work, todo) = mpsc::channel::<(PathBuf, u64)>();
            let done = done.clone();
            thread::spawn(move || {
                for (directory, round) in todo {
                    fill_a_pack(&directory, round);
                    done.send(()).unwrap();
                }
            });
            work
        })
        .collect();
    let mut after_first = 0;
    for round in 0..10 {
        let thread = usize::try_from(round % THREADS).unwrap();
        threads[thread].send((directory.path().to_owned(), round)).unwrap();
        ended.recv().unwrap();
        if round == 0 {
            after_first = figure_kib("VmRSS");
        }
        println!("{round} rss {} peak {}", figure_kib("VmRSS"), figure_kib("VmHWM"));
    }
    let growth = figure_kib("VmRSS").saturating_sub(after_first);
    assert!(growth < 2_000, "{growth} KiB more");
}
