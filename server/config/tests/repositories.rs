//! The two repositories as their callers and the ordinary `git` see them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests fail by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

use crosstie_config::document::render_entry;
use crosstie_config::repository::{
    ClusterCommit, ClusterRepository, CommitId, ConfigRepository, RepositoryError, file_path,
};
use crosstie_model::Revision;
use serde_json::json;

/// Runs `git` in `directory`, with a user's configuration that would change everything if it were obeyed.
fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "Person")
        .env("GIT_AUTHOR_EMAIL", "person@example.org")
        .env("GIT_COMMITTER_NAME", "Person")
        .env("GIT_COMMITTER_EMAIL", "person@example.org")
        .output()
        .expect("git is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    text.trim_end().to_owned()
}

fn write(directory: &Path, path: &str, content: &str) {
    let file = directory.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
}

/// A row that defines, changes or removes one of ten channels.
fn row(revision: u64) -> ClusterCommit {
    let name = format!("demo.{}:rest:/x/{{id}}", revision % 10);
    let body = json!({"type": "rest", "path": format!("/x/{revision}"), "service": "demo"});
    let content = (!revision.is_multiple_of(7)).then(|| render_entry("channel", &name, &body));
    ClusterCommit {
        revision: Revision(revision),
        author: format!("ada {}", revision % 3),
        time_us: 1_700_000_000_000_000 + i64::try_from(revision).unwrap() * 1_500_000,
        message: format!("Change {name}"),
        files: vec![(file_path("channel", &name), content)],
    }
}

fn rows(range: std::ops::RangeInclusive<u64>) -> Vec<ClusterCommit> {
    range.map(row).collect()
}

mod config {
    use super::*;

    fn repository() -> (tempfile::TempDir, ConfigRepository) {
        let directory = tempfile::tempdir().unwrap();
        let repository = ConfigRepository::open(directory.path()).unwrap();
        (directory, repository)
    }

    #[test]
    fn every_change_is_a_commit_that_git_reads() {
        let (directory, repository) = repository();
        let at = directory.path();
        assert!(!repository.is_dirty().unwrap());
        write(at, "server.toml", "a = 1\r\n");
        write(at, "user/crm.toml", "b = 2\n");
        write(at, "server.toml~", "an editor's copy");
        write(at, "cluster/channel/x.yaml", "another repository");
        assert!(repository.is_dirty().unwrap());
        let first = repository.commit_all("Ada Lovelace", "Begin").unwrap().unwrap();
        assert!(!repository.is_dirty().unwrap());
        assert_eq!(repository.commit_all("ada", "Nothing").unwrap(), None);
        write(at, "server.toml", "a = 2\r\n");
        fs::remove_file(at.join("user/crm.toml")).unwrap();
        let second = repository.commit_all("bob", "Change\n\nBecause.").unwrap().unwrap();

        assert_eq!(git(at, &["rev-parse", "HEAD"]), second.to_string());
        assert_eq!(git(at, &["log", "--format=%an|%s", "main"]), "bob|Change\nAda Lovelace|Begin");
        assert_eq!(
            git(at, &["show", "--format=", "--name-status", "HEAD"]),
            "M\tserver.toml\nD\tuser/crm.toml"
        );
        assert_eq!(git(at, &["status", "--porcelain"]), "");
        assert_eq!(git(at, &["fsck", "--strict", "--no-dangling"]), "");
        let log = repository.log(10).unwrap();
        assert_eq!(log.len(), 2);
        assert_eq!((log[0].author.as_str(), log[0].message.as_str()), ("bob", "Change\n\nBecause."));
        assert_eq!(repository.log(1).unwrap()[0].id, second);
        assert!(repository.diff(second).unwrap().contains("-a = 1\r\n+a = 2\r\n"));
        assert!(repository.diff(first).unwrap().contains("+b = 2"));
        assert_eq!(repository.file_at(first, "server.toml").unwrap().unwrap(), b"a = 1\r\n");
        assert_eq!(repository.file_at(second, "user/crm.toml").unwrap(), None);
        assert_eq!(repository.find(&first.short()).unwrap(), first);
        for nonsense in ["", "abc", "HEAD", "main", "0000000", ":/Begin", "--all"] {
            assert!(matches!(repository.find(nonsense), Err(RepositoryError::NoSuchCommit(_))), "{nonsense}");
        }
    }

    #[test]
    fn what_was_checked_is_what_is_committed() {
        let (directory, repository) = repository();
        write(directory.path(), "server.toml", "checked");
        let files = repository.work_tree().unwrap();
        write(directory.path(), "server.toml", "written in between");
        let commit = repository.commit(&files, "ada", "x").unwrap().unwrap();
        assert_eq!(repository.file_at(commit, "server.toml").unwrap().unwrap(), b"checked");
        assert!(repository.is_dirty().unwrap());
        assert!(repository.uncommitted().unwrap().contains("+written in between"));
    }

    #[test]
    fn restoring_brings_files_back_and_loses_nothing() {
        let (directory, repository) = repository();
        let at = directory.path();
        write(at, "server.toml", "one");
        write(at, "user/a.toml", "a");
        let first = repository.commit_all("ada", "One").unwrap().unwrap();
        write(at, "server.toml", "two");
        write(at, "user/b/c.toml", "c");
        fs::remove_file(at.join("user/a.toml")).unwrap();
        repository.commit_all("ada", "Two").unwrap().unwrap();
        write(at, "server.toml", "never committed");

        let restored = repository.restore(first, "bob", "Roll back").unwrap();
        assert_eq!(fs::read_to_string(at.join("server.toml")).unwrap(), "one");
        assert_eq!(fs::read_to_string(at.join("user/a.toml")).unwrap(), "a");
        assert!(!at.join("user/b").exists());
        assert!(!repository.is_dirty().unwrap());
        assert_eq!(repository.log(10).unwrap().len(), 3);
        let kept = restored.set_aside.unwrap();
        assert_eq!(repository.file_at(kept, "server.toml").unwrap().unwrap(), b"never committed");
        assert_eq!(git(at, &["rev-parse", &format!("set-aside/{}", kept.short())]), kept.to_string());
        assert_eq!(git(at, &["status", "--porcelain"]), "");
        assert_eq!(git(at, &["fsck", "--strict", "--no-dangling"]), "");
        let again = repository.restore(restored.commit, "bob", "Again").unwrap();
        assert_eq!(again.set_aside, None);
    }

    #[test]
    fn people_may_use_git_beside_it() {
        let (directory, repository) = repository();
        let at = directory.path();
        write(at, "server.toml", "one");
        repository.commit_all("ada", "One").unwrap();
        write(at, "server.toml", "two");
        let accepted = repository.accepted().unwrap();
        git(at, &["commit", "-q", "-a", "-m", "By hand"]);
        assert!(repository.is_dirty().unwrap(), "nobody checked it yet");
        assert_eq!(repository.accepted().unwrap(), accepted);
        let by_hand = repository.commit_all("ada", "Accept").unwrap();
        assert_eq!(repository.accepted().unwrap(), by_hand);
        assert!(!repository.is_dirty().unwrap());
        assert_eq!(repository.commit_all("ada", "Accept").unwrap(), None);
        assert_eq!(repository.log(1).unwrap()[0].author, "Person");
        git(at, &["gc", "-q"]);
        git(at, &["switch", "-q", "-c", "trial"]);
        write(at, "server.toml", "three");
        write(at, "staged.toml", "x");
        git(at, &["add", "staged.toml"]);
        let commit = repository.commit_all("ada", "Three").unwrap().unwrap();
        assert_eq!(git(at, &["rev-parse", "trial"]), commit.to_string());
        git(at, &["checkout", "-q", "--detach"]);
        write(at, "server.toml", "four");
        let commit = repository.commit_all("ada", "Four").unwrap().unwrap();
        assert_eq!(git(at, &["rev-parse", "HEAD"]), commit.to_string());
        assert_eq!(git(at, &["status", "--porcelain"]), "");
        let ignored = ".gitignore";
        write(at, ignored, "secret*\nserver.toml\n");
        write(at, "secret.toml", "x");
        repository.commit_all("ada", "Ignore").unwrap().unwrap();
        assert_eq!(git(at, &["ls-files"]), ".gitignore\nserver.toml\nstaged.toml");
    }

    #[test]
    fn links_and_programs_survive() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let (directory, repository) = repository();
        let at = directory.path();
        write(at, "run.sh", "#!/bin/sh\n");
        fs::set_permissions(at.join("run.sh"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("/nonexistent", at.join("link")).unwrap();
        let first = repository.commit_all("ada", "One").unwrap().unwrap();
        fs::remove_file(at.join("link")).unwrap();
        fs::set_permissions(at.join("run.sh"), fs::Permissions::from_mode(0o600)).unwrap();
        repository.commit_all("ada", "Two").unwrap().unwrap();
        repository.restore(first, "ada", "Back").unwrap();
        assert_eq!(fs::read_link(at.join("link")).unwrap(), Path::new("/nonexistent"));
        assert_eq!(fs::metadata(at.join("run.sh")).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(git(at, &["status", "--porcelain"]), "");
    }

    #[test]
    fn writers_of_one_process_take_turns() {
        let (directory, first) = repository();
        let at = directory.path().to_owned();
        drop(first);
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let at = at.clone();
                std::thread::spawn(move || {
                    for round in 0..10 {
                        let repository = ConfigRepository::open(&at).unwrap();
                        write(&at, &format!("{writer}.toml"), &round.to_string());
                        repository.commit_all("ada", &format!("{writer} {round}")).unwrap();
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let repository = ConfigRepository::open(&at).unwrap();
        assert!(!repository.is_dirty().unwrap());
        assert!(repository.log(100).unwrap().len() >= 10);
    }
}

mod cluster {
    use super::*;

    fn repository() -> (tempfile::TempDir, ClusterRepository) {
        let directory = tempfile::tempdir().unwrap();
        let repository = ClusterRepository::open(directory.path()).unwrap();
        (directory, repository)
    }

    #[test]
    fn equal_rows_have_equal_hashes_however_they_arrive() {
        let (one, mut first) = repository();
        let (_two, mut second) = repository();
        assert_eq!(first.head_revision().unwrap(), Revision(0));
        for revision in 1..=40 {
            first.append(&rows(revision..=revision)).unwrap();
        }
        second.append(&rows(1..=25)).unwrap();
        assert_eq!(second.append(&rows(20..=40)).unwrap(), Revision(40));
        let head = first.head().unwrap().unwrap();
        assert_eq!(second.head().unwrap(), Some(head));
        assert_eq!(first.head_revision().unwrap(), Revision(40));
        assert_eq!(first.append(&rows(1..=40)).unwrap(), Revision(40));
        assert_eq!(first.append(&[]).unwrap(), Revision(40));
        assert_eq!(first.head().unwrap(), Some(head));

        assert_eq!(git(one.path(), &["rev-parse", "main"]), head.to_string());
        assert_eq!(git(one.path(), &["rev-list", "--count", "HEAD"]), "40");
        assert_eq!(git(one.path(), &["status", "--porcelain"]), "");
        assert_eq!(git(one.path(), &["fsck", "--strict", "--no-dangling"]), "");
        let log = first.log(2).unwrap();
        assert_eq!((log[0].revision, log[1].revision), (Some(Revision(40)), Some(Revision(39))));
        assert_eq!(log[0].author, "ada 1");
        assert!(first.diff(head).unwrap().contains("+    path: /x/40"));
    }

    #[test]
    fn the_hash_of_a_revision_never_changes_between_releases() {
        let (_directory, mut repository) = repository();
        repository.append(&rows(1..=10)).unwrap();
        let head = repository.head().unwrap().unwrap();
        assert_eq!(head.to_string(), "b8d08eea6ac7bbc451fa5628712bc2008c1bacee");
    }

    #[test]
    fn the_files_show_the_newest_revision() {
        let (directory, mut repository) = repository();
        let at = directory.path();
        repository.append(&rows(1..=3)).unwrap();
        let path = file_path("channel", "demo.3:rest:/x/{id}");
        let text = fs::read_to_string(at.join(&path)).unwrap();
        assert_eq!(
            text,
            "channel:\n  demo.3:rest:/x/{id}:\n    type: rest\n    path: /x/3\n    service: demo\n"
        );
        let mut gone = row(4);
        gone.files =
            (1..=3).map(|n| (file_path("channel", &format!("demo.{n}:rest:/x/{{id}}")), None)).collect();
        gone.files.push(("deployment/crm.yaml".into(), Some("first".into())));
        gone.files.push(("deployment/crm.yaml".into(), Some("last\n".into())));
        gone.files.push(("channel/never-was.yaml".into(), None));
        repository.append(&[gone]).unwrap();
        assert!(!at.join("channel").exists());
        assert_eq!(fs::read_to_string(at.join("deployment/crm.yaml")).unwrap(), "last\n");
        assert_eq!(git(at, &["ls-tree", "-r", "--name-only", "HEAD"]), "deployment/crm.yaml");
        assert_eq!(git(at, &["status", "--porcelain"]), "");
    }

    #[test]
    fn a_missing_revision_or_a_bad_path_appends_nothing() {
        let (_directory, mut repository) = repository();
        let error = repository.append(&[row(2)]).unwrap_err();
        assert!(
            matches!(error, RepositoryError::OutOfOrder { head: Revision(0), found: Revision(2) }),
            "{error}"
        );
        assert!(repository.append(&[row(1), row(3)]).is_err());
        let mut bad = row(2);
        bad.files = vec![("../outside".into(), Some(String::new()))];
        assert!(matches!(repository.append(&[row(1), bad]), Err(RepositoryError::BadPath(_))));
        assert_eq!(repository.head_revision().unwrap(), Revision(0));
    }

    #[test]
    fn a_persons_commits_and_edits_do_not_change_history() {
        let (directory, mut repository) = repository();
        let (_other, mut untouched) = super::cluster::repository();
        let at = directory.path();
        repository.append(&rows(1..=5)).unwrap();
        write(at, "notes.txt", "mine");
        write(at, &file_path("channel", "demo.1:rest:/x/{id}"), "edited");
        git(at, &["add", "notes.txt"]);
        git(at, &["commit", "-q", "-m", "Mine"]);
        let mine = git(at, &["rev-parse", "HEAD"]);
        git(at, &["switch", "-q", "-c", "elsewhere"]);
        repository.append(&rows(6..=12)).unwrap();
        untouched.append(&rows(1..=12)).unwrap();
        let head = repository.head().unwrap().unwrap();
        assert_eq!(Some(head), untouched.head().unwrap());
        assert_eq!(git(at, &["symbolic-ref", "HEAD"]), "refs/heads/main");
        assert_eq!(git(at, &["rev-parse", "main"]), head.to_string());
        let kept: CommitId = mine.parse().unwrap();
        assert_eq!(git(at, &["rev-parse", &format!("set-aside/{}", kept.short())]), mine);
        assert_eq!(fs::read_to_string(at.join("notes.txt")).unwrap(), "mine");
    }

    #[test]
    fn packing_keeps_everything() {
        let (directory, mut repository) = repository();
        let at = directory.path();
        for round in 0..25_u64 {
            repository.append(&rows(round * 4 + 1..=round * 4 + 4)).unwrap();
            assert!(repository.pack_now().unwrap());
            assert!(!repository.pack().unwrap());
        }
        let packs = fs::read_dir(at.join(".git/objects/pack")).unwrap().count();
        assert!(packs < 2 * 21, "{packs}");
        assert_eq!(git(at, &["fsck", "--strict", "--full", "--no-dangling"]), "");
        assert_eq!(git(at, &["rev-list", "--count", "HEAD"]), "100");
        assert!(!repository.pack_now().unwrap());
        repository.append(&rows(101..=101)).unwrap();
        assert_eq!(repository.log(200).unwrap().len(), 101);
    }

    #[test]
    fn a_replaced_database_is_noticed_and_begun_anew() {
        let (directory, mut repository) = repository();
        repository.append(&rows(1..=9)).unwrap();
        assert!(repository.continues(&row(9)).unwrap());
        let mut other = row(9);
        other.message = "Another history".into();
        assert!(!repository.continues(&other).unwrap());
        let before = repository.head().unwrap().unwrap();
        repository.begin_anew().unwrap();
        assert_eq!(repository.head_revision().unwrap(), Revision(0));
        repository.append(&[row(1)]).unwrap();
        let at = directory.path();
        assert_eq!(git(at, &["rev-parse", &format!("set-aside/{}", before.short())]), before.to_string());
        assert_eq!(git(at, &["rev-list", "--count", "main"]), "1");
        assert_eq!(fs::read_dir(at.join("channel")).unwrap().count(), 1);
        assert_eq!(git(at, &["status", "--porcelain"]), "");
    }

    #[test]
    fn a_history_may_begin_where_its_rows_do() {
        let (directory, mut repository) = repository();
        let (other_directory, mut other) = self::repository();
        let base = ClusterCommit {
            files: vec![("channel/a.yaml".into(), Some("a".into())), ("job/b.yaml".into(), Some("b".into()))],
            ..row(5)
        };
        for repository in [&mut repository, &mut other] {
            repository.begin_at(&base).unwrap();
            assert!(repository.continues(&row(5)).unwrap());
            assert_eq!(repository.append(&rows(5..=9)).unwrap(), Revision(9));
        }
        assert_eq!(repository.head().unwrap(), other.head().unwrap());
        assert!(repository.begin_at(&base).is_err());
        assert!(repository.continues(&row(9)).unwrap());
        let at = directory.path();
        assert_eq!(fs::read_to_string(at.join("job/b.yaml")).unwrap(), "b");
        assert_eq!(git(at, &["rev-list", "--count", "main"]), "5");
        assert_eq!(git(other_directory.path(), &["status", "--porcelain"]), "");
    }

    #[test]
    fn what_lost_objects_is_set_aside_and_replayed() {
        let root = tempfile::tempdir().unwrap();
        for (case, harm) in [damage_objects as fn(&Path), damage_head].iter().enumerate() {
            // Another path each time: an opening after the first trusts what the first one checked.
            let (before, after) =
                (root.path().join(format!("{case}-a")), root.path().join(format!("{case}-b")));
            let mut repository = ClusterRepository::open(&before).unwrap();
            repository.append(&rows(1..=9)).unwrap();
            let head = repository.head().unwrap();
            drop(repository);
            fs::rename(&before, &after).unwrap();
            harm(&after.join(".git"));
            write(&after, "channel/from-a-lost-history.yaml", "x");
            let mut repository = ClusterRepository::open(&after).unwrap();
            assert_eq!(repository.head_revision().unwrap(), Revision(0), "{case}");
            repository.append(&rows(1..=9)).unwrap();
            assert_eq!(repository.head().unwrap(), head);
            assert!(!after.join("channel/from-a-lost-history.yaml").exists());
            assert!(after.join(".git-damaged-1").exists());
            assert_eq!(git(&after, &["status", "--porcelain"]), "");
        }
    }

    /// A power failure: what was written last is empty.
    fn damage_objects(git: &Path) {
        for fan in fs::read_dir(git.join("objects")).unwrap().map(|entry| entry.unwrap().path()) {
            if fan.file_name().unwrap().len() == 2 {
                for object in fs::read_dir(fan).unwrap() {
                    let object = object.unwrap().path();
                    fs::remove_file(&object).unwrap();
                    fs::write(object, "").unwrap();
                }
            }
        }
    }

    fn damage_head(git: &Path) {
        fs::write(git.join("refs/crosstie/cluster"), "").unwrap();
    }

    #[test]
    fn files_that_cannot_be_written_are_written_later() {
        let (directory, mut repository) = repository();
        let at = directory.path();
        write(at, "channel", "a file where a directory belongs");
        repository.append(&rows(1..=3)).unwrap();
        assert_eq!(repository.head_revision().unwrap(), Revision(3));
        fs::remove_file(at.join("channel")).unwrap();
        repository.append(&rows(4..=4)).unwrap();
        assert_eq!(fs::read_dir(at.join("channel")).unwrap().count(), 4);
        assert_eq!(git(at, &["status", "--porcelain"]), "");
    }

    #[test]
    fn a_lock_left_by_somebody_elses_git_holds_nobody_up() {
        let (directory, mut repository) = repository();
        let at = directory.path();
        repository.append(&rows(1..=1)).unwrap();
        write(at, ".git/refs/heads/main.lock", "");
        write(at, ".git/index.lock", "");
        repository.append(&rows(2..=2)).unwrap();
        assert_eq!(git(at, &["rev-parse", "main"]), repository.head().unwrap().unwrap().to_string());
        assert!(at.join(".git/index.lock").exists(), "a young lock may belong to somebody alive");
    }

    #[test]
    fn ten_thousand_definitions_stay_quick() {
        let (_directory, mut repository) = repository();
        let mut all = row(1);
        all.files = (0..10_000)
            .map(|n| (file_path("channel", &format!("c{n}")), Some(format!("channel:\n  c{n}: {{}}\n"))))
            .collect();
        repository.append(&[all]).unwrap();
        let begin = std::time::Instant::now();
        for revision in 2..=6 {
            repository.append(&rows(revision..=revision)).unwrap();
        }
        println!("one revision among 10,000 definitions: {:?}", begin.elapsed() / 5);
    }
}
