//! What the repositories of a long-lived process leave in its memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use crosstie_config::repository::{ClusterCommit, ClusterRepository, PACK_AFTER, file_path};
use crosstie_model::Revision;

/// Threads that are there for blocking work; each has memory of the allocator's to itself.
const THREADS: u64 = 4;

/// Revisions until a pack is due: each leaves a commit, two trees and a file.
const PER_PACK: u64 = PACK_AFTER as u64 / 4;

/// Most that the threads after the first may add, in KiB. One that keeps what its pack took adds as much alone.
const LIMIT_KIB: u64 = 1_800;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
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
    let mut repository = ClusterRepository::open(directory).unwrap();
    let revisions: Vec<u64> = (round * PER_PACK + 1..=(round + 1) * PER_PACK).collect();
    for batch in revisions.chunks(100) {
        repository.append(&batch.iter().copied().map(row).collect::<Vec<_>>()).unwrap();
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
    for (round, thread) in (0..).zip(&threads) {
        thread.send((directory.path().to_owned(), round)).unwrap();
        ended.recv().unwrap();
        if round == 0 {
            after_first = resident_kib();
        }
    }
    let growth = resident_kib().saturating_sub(after_first);
    println!("{growth} KiB more after {THREADS} packs than after one");
    assert!(growth < LIMIT_KIB, "{growth} KiB more after {THREADS} packs than after one");
}
