//! Objects and references of one repository: what both repositories build on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use git2::build::TreeUpdateBuilder;
use git2::{Commit, ErrorCode, FileMode, ObjectType, Oid, Repository, Tree};

use super::layout::{self, Layout, Leftovers};
use super::message::CommitText;
use super::process::Turn;
use super::{RepositoryError, Result};

/// How long a reference's lock file that somebody's `git` may hold is waited for, in steps of 10 ms. Git
/// holds one for microseconds, so after this it belongs to a process that died.
const LOCK_STEPS: u32 = 50;

/// An opened repository.
pub(super) struct Store {
    pub(super) git: Repository,
    pub(super) root: PathBuf,
    turn: Arc<Turn>,
}

/// Where a repository's history comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum History {
    /// It was there.
    Kept,
    /// There was none, or none that could be read.
    New,
}

/// A change of one path in a tree.
pub(super) enum Update {
    /// The path holds this blob.
    Put(Oid, FileMode),
    /// The path is gone.
    Remove,
}

impl Store {
    /// Opens the repository of `directory`. The first opening in a process removes leftovers and reads the
    /// newest state that `reference` names as a whole: a repository that lost objects is set aside and begun
    /// anew. Then `finish` completes what was begun; it runs with the turn held and learns whether the
    /// history is new.
    pub(super) fn open(
        directory: &Path,
        layout: &Layout,
        reference: &str,
        finish: impl FnOnce(&Self, History) -> Result<()>,
    ) -> Result<Self> {
        let turn = Turn::of(directory);
        let mut in_order = turn.wait();
        let root = directory.to_owned();
        if *in_order && root.join(".git").exists() {
            let git = layout::open(directory, layout, Leftovers::Keep)?;
            return Ok(Self { git, root, turn: Arc::clone(&turn) });
        }
        let mut history = if root.join(".git/HEAD").exists() { History::Kept } else { History::New };
        let git = layout::open(directory, layout, Leftovers::Remove)?;
        let mut store = Self { git, root, turn: Arc::clone(&turn) };
        if let Err(error) = store.check_newest(reference) {
            tracing::warn!(directory = %directory.display(), %error, "the git repository is damaged");
            layout::set_aside(directory)?;
            layout::create(directory, layout)?;
            store.git = layout::open(directory, layout, Leftovers::Keep)?;
            history = History::New;
        }
        finish(&store, history)?;
        *in_order = true;
        drop(in_order);
        Ok(store)
    }

    /// Waits until nobody else in this process writes this repository.
    pub(super) fn turn(&self) -> MutexGuard<'_, bool> {
        self.turn.wait()
    }

    /// Reads the newest commit, all its trees, and that its blobs are there.
    fn check_newest(&self, reference: &str) -> Result<()> {
        let Some(head) = self.target(reference)? else { return Ok(()) };
        let tree = self.tree_of(head)?;
        let mut missing = None;
        tree.walk(git2::TreeWalkMode::PreOrder, |_, entry| {
            let readable = match entry.kind() {
                Some(ObjectType::Blob) => self.git.odb().and_then(|odb| odb.read_header(entry.id())).is_ok(),
                _ => true,
            };
            if readable {
                return git2::TreeWalkResult::Ok;
            }
            missing = Some(entry.id());
            git2::TreeWalkResult::Abort
        })
        .map_err(RepositoryError::git("read the newest tree"))?;
        match missing {
            Some(id) => self.blob(id).map(drop),
            None => Ok(()),
        }
    }

    /// The commit `reference` points to; `None` before the first one.
    pub(super) fn target(&self, reference: &str) -> Result<Option<Oid>> {
        match self.git.refname_to_id(reference) {
            Ok(id) => Ok(Some(id)),
            Err(error) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::UnbornBranch) => Ok(None),
            Err(error) => Err(RepositoryError::git("read a reference")(error)),
        }
    }

    /// Points `reference` to `new` if it still points to `old`.
    pub(super) fn move_reference(&self, reference: &str, old: Option<Oid>, new: Oid) -> Result<()> {
        let mut steps = 0;
        loop {
            let moved = match old {
                Some(old) => self.git.reference_matching(reference, new, true, old, ""),
                None => self.git.reference(reference, new, false, ""),
            };
            match moved {
                Ok(_) => return Ok(()),
                Err(error) if error.code() == ErrorCode::Locked && steps <= LOCK_STEPS => {
                    steps += 1;
                    if steps == LOCK_STEPS {
                        let lock = self.git.path().join(format!("{reference}.lock"));
                        tracing::warn!(file = %lock.display(), "a stale git lock was removed");
                        drop(std::fs::remove_file(lock));
                    }
                    sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(RepositoryError::git("move a reference")(error)),
            }
        }
    }

    pub(super) fn commit(&self, id: Oid) -> Result<Commit<'_>> {
        self.git.find_commit(id).map_err(RepositoryError::git("read a commit"))
    }

    pub(super) fn tree(&self, id: Oid) -> Result<Tree<'_>> {
        self.git.find_tree(id).map_err(RepositoryError::git("read a tree"))
    }

    pub(super) fn tree_of(&self, commit: Oid) -> Result<Tree<'_>> {
        self.commit(commit)?.tree().map_err(RepositoryError::git("read a tree"))
    }

    /// A blob's content.
    pub(super) fn blob(&self, id: Oid) -> Result<Vec<u8>> {
        let blob = self.git.find_blob(id).map_err(RepositoryError::git("read a file of a commit"))?;
        Ok(blob.content().to_vec())
    }

    /// Stores `content` as it is, through no filter.
    pub(super) fn write_blob(&self, content: &[u8]) -> Result<Oid> {
        self.write_object(ObjectType::Blob, content)
    }

    pub(super) fn write_object(&self, kind: ObjectType, content: &[u8]) -> Result<Oid> {
        let odb = self.git.odb().map_err(RepositoryError::git("open its objects"))?;
        odb.write(kind, content).map_err(RepositoryError::git("write an object"))
    }

    pub(super) fn write_commit(&self, commit: &CommitText<'_>) -> Result<Oid> {
        self.write_object(ObjectType::Commit, &commit.to_bytes())
    }

    pub(super) fn empty_tree(&self) -> Result<Oid> {
        self.write_object(ObjectType::Tree, b"")
    }

    /// The tree that `base` becomes by `updates`, each path once. Built without the index, so nothing a person
    /// staged gets in. Directories that become empty vanish.
    pub(super) fn updated_tree<'u>(
        &self,
        base: Oid,
        updates: impl IntoIterator<Item = (&'u str, Update)>,
    ) -> Result<Oid> {
        let base = self.tree(base)?;
        let mut builder = TreeUpdateBuilder::new();
        let mut changed = false;
        for (path, update) in updates {
            super::path::check(path)?;
            match update {
                Update::Put(blob, mode) => drop(builder.upsert(path, blob, mode)),
                // libgit2 fails on a path that is not there.
                Update::Remove if base.get_path(Path::new(path)).is_ok() => drop(builder.remove(path)),
                Update::Remove => continue,
            }
            changed = true;
        }
        if !changed {
            return Ok(base.id());
        }
        builder.create_updated(&self.git, &base).map_err(RepositoryError::git("write a tree"))
    }

    /// The commit whose hash begins with `text`.
    pub(super) fn find(&self, text: &str) -> Result<Oid> {
        let unknown = || RepositoryError::NoSuchCommit(text.to_owned());
        let is_hash = (4..=40).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hash {
            return Err(unknown());
        }
        self.git
            .find_commit_by_prefix(&text.to_ascii_lowercase())
            .map(|commit| commit.id())
            .map_err(|_| unknown())
    }

    /// Makes the index say what `tree` says, so that `git status` is clean. The index belongs to people: when
    /// it cannot be written, nothing of ours is lost, and the next commit tries again.
    pub(super) fn sync_index(&self, tree: Oid) {
        if let Err(first) = self.try_sync_index(tree) {
            let index = self.git.path().join("index");
            let lock = self.git.path().join("index.lock");
            let age = std::fs::metadata(&lock).and_then(|metadata| metadata.modified());
            let stale = age.is_ok_and(|since| {
                SystemTime::now().duration_since(since).is_ok_and(|age| age > Duration::from_secs(60))
            });
            if first.code() != ErrorCode::Locked {
                drop(std::fs::remove_file(&index));
            } else if stale {
                drop(std::fs::remove_file(&lock));
            }
            if let Err(error) = self.try_sync_index(tree) {
                tracing::debug!(%error, "git's index was not brought up to date");
            }
        }
    }

    fn try_sync_index(&self, tree: Oid) -> std::result::Result<(), git2::Error> {
        let tree = self.git.find_tree(tree)?;
        let mut index = self.git.index()?;
        index.read(false)?;
        index.read_tree(&tree)?;
        index.write()
    }
}

/// Seconds since 1970, now.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
