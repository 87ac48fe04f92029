//! `config`: `server.toml` and its siblings, with the history of every accepted change.
//!
//! People may commit by hand, so the newest commit is not always the accepted one:
//! `refs/crosstie/accepted` is.

use std::path::Path;

use git2::{FileMode, Oid};

use super::checkout::Extent;
use super::history::LogEntry;
use super::layout::{BRANCH, Durability, Layout};
use super::message::CommitText;
use super::pack::Packing;
use super::store::{Store, Update, now};
use super::work_tree::{FileKind, WorkTree};
use super::{CommitId, RepositoryError, Result};

/// The other repository, and what editors leave lying around.
const EXCLUDE: &str =
    "/.git-damaged-*/\n/.git-new-*/\n/cluster/\n*~\n.*.sw?\n.#*\n#*#\n*.tmp\n*.orig\n4913\n";

static LAYOUT: Layout = Layout { durability: Durability::Synced, exclude: EXCLUDE };

/// The state that was last checked and put in force.
const ACCEPTED: &str = "refs/crosstie/accepted";

/// The repository of a server's own configuration.
pub struct ConfigRepository {
    store: Store,
}

/// What [`ConfigRepository::restore`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The commit that brought the old state back.
    pub commit: CommitId,
    /// A commit of the changes that were not committed when it began, kept on the branch
    /// `set-aside/HASH`; `None` when there were none.
    pub set_aside: Option<CommitId>,
}

impl ConfigRepository {
    /// Opens the repository of `directory` (`DIR/server1/config`), making it if need be, and finishes what a
    /// killed process began. The caller holds the singleton lock.
    ///
    /// # Errors
    /// The directory cannot be read or written, or belongs to another user.
    pub fn open(directory: &Path) -> Result<Self> {
        let finish = |store: &Store, _| match (store.unfinished_checkout(), store.target("HEAD")?) {
            (None, _) => Ok(()),
            (Some(Extent::Restore(commit)), Some(head)) if commit == head => check_out(store, head),
            (Some(Extent::Index(commit)), Some(head)) if commit == head => {
                store.sync_index(head_tree(store)?);
                store.end_checkout()
            }
            // Killed before the reference moved: nothing was promised to anybody.
            (Some(_), _) => store.end_checkout(),
        };
        Ok(Self { store: Store::open(directory, &LAYOUT, "HEAD", finish)? })
    }

    /// The newest commit; `None` before the first.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn head(&self) -> Result<Option<CommitId>> {
        Ok(self.head_id()?.map(CommitId))
    }

    /// The commit that was last accepted; not the newest one while a commit made by hand waits to be checked
    /// or was refused.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn accepted(&self) -> Result<Option<CommitId>> {
        Ok(self.store.target(ACCEPTED)?.map(CommitId))
    }

    fn accepted_tree(&self) -> Result<Oid> {
        match self.store.target(ACCEPTED)? {
            Some(accepted) => Ok(self.store.tree_of(accepted)?.id()),
            None => self.store.empty_tree(),
        }
    }

    fn accept(&self, commit: Oid) -> Result<()> {
        let present = self.store.target(ACCEPTED)?;
        if present == Some(commit) { Ok(()) } else { self.store.move_reference(ACCEPTED, present, commit) }
    }

    fn head_id(&self) -> Result<Option<Oid>> {
        self.store.target("HEAD")
    }

    fn head_tree(&self) -> Result<Oid> {
        head_tree(&self.store)
    }

    /// The files as they are now, committed or not, without those `.gitignore` names and what editors leave.
    /// Check them, then [`ConfigRepository::commit`] these and no newer ones.
    ///
    /// # Errors
    /// A file cannot be read, is too large, or has a name that is no text.
    pub fn work_tree(&self) -> Result<WorkTree> {
        work_tree(&self.store)
    }

    /// Commits `files` as the next accepted state. Files that somebody committed by hand are accepted with
    /// that commit. `None` when they are the accepted state already.
    ///
    /// # Errors
    /// The repository cannot be written, or somebody moved its branch at the same moment.
    pub fn commit(&self, files: &WorkTree, author: &str, message: &str) -> Result<Option<CommitId>> {
        let _turn = self.store.turn();
        self.commit_in_turn(files, author, message)
    }

    fn commit_in_turn(&self, files: &WorkTree, author: &str, message: &str) -> Result<Option<CommitId>> {
        let head = self.head_id()?;
        let tree = self.tree_from(files)?;
        if let Some(head) = head
            && tree == self.head_tree()?
        {
            let is_news = tree != self.accepted_tree()?;
            self.accept(head)?;
            return Ok(is_news.then_some(CommitId(head)));
        }
        let id = self.write_commit(tree, head, author, message)?;
        self.store.begin_checkout(Extent::Index(id))?;
        self.move_head(head, id)?;
        self.store.sync_index(tree);
        self.store.end_checkout()?;
        self.accept(id)?;
        Ok(Some(CommitId(id)))
    }

    /// [`ConfigRepository::work_tree`] and [`ConfigRepository::commit`] in one turn: files that another writer of
    /// this process committed meanwhile are not taken back.
    ///
    /// # Errors
    /// As those.
    pub fn commit_all(&self, author: &str, message: &str) -> Result<Option<CommitId>> {
        let _turn = self.store.turn();
        self.commit_in_turn(&self.work_tree()?, author, message)
    }

    /// Whether files differ from the accepted state, committed by hand or not.
    ///
    /// # Errors
    /// As [`ConfigRepository::work_tree`].
    pub fn is_dirty(&self) -> Result<bool> {
        Ok(self.tree_from(&self.work_tree()?)? != self.accepted_tree()?)
    }

    /// What the files differ in from the accepted state, as a patch.
    ///
    /// # Errors
    /// As [`ConfigRepository::work_tree`].
    pub fn uncommitted(&self) -> Result<String> {
        self.store.diff(Some(self.accepted_tree()?), self.tree_from(&self.work_tree()?)?)
    }

    /// The newest `limit` commits, newest first.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn log(&self, limit: usize) -> Result<Vec<LogEntry>> {
        self.store.log(self.head_id()?, limit)
    }

    /// What a commit changed, as a patch.
    ///
    /// # Errors
    /// There is no such commit.
    pub fn diff(&self, commit: CommitId) -> Result<String> {
        self.store.diff_of_commit(commit.0)
    }

    /// A file as a commit has it.
    ///
    /// # Errors
    /// There is no such commit.
    pub fn file_at(&self, commit: CommitId, path: &str) -> Result<Option<Vec<u8>>> {
        self.store.file_at(commit.0, path)
    }

    /// The commit whose hash begins with `text`, at least 4 digits.
    ///
    /// # Errors
    /// None does, or several do.
    pub fn find(&self, text: &str) -> Result<CommitId> {
        self.store.find(text).map(CommitId)
    }

    /// Brings back the files of `commit` by a new commit on top; history is never cut. Changes that were not
    /// committed are kept on a branch of their own. Check [`ConfigRepository::file_at`] of the commit first.
    ///
    /// # Errors
    /// There is no such commit, or the repository or a file cannot be written.
    pub fn restore(&self, commit: CommitId, author: &str, message: &str) -> Result<Restored> {
        let _turn = self.store.turn();
        let tree = self.store.tree_of(commit.0)?.id();
        let head = self.head_id()?;
        let set_aside = self.set_aside_changes(head, author)?;
        let id = self.write_commit(tree, head, author, message)?;
        self.store.begin_checkout(Extent::Restore(id))?;
        self.move_head(head, id)?;
        check_out(&self.store, id)?;
        self.accept(id)?;
        Ok(Restored { commit: CommitId(id), set_aside })
    }

    /// Packs loose objects when there are more than [`super::PACK_AFTER`]; returns whether there were. Cheap
    /// to call now and then.
    ///
    /// # Errors
    /// The repository cannot be written.
    pub fn pack(&self) -> Result<bool> {
        let _turn = self.store.turn();
        self.store.pack(Packing::WhenDue)
    }

    /// Packs loose objects however few there are.
    ///
    /// # Errors
    /// The repository cannot be written.
    pub fn pack_now(&self) -> Result<bool> {
        let _turn = self.store.turn();
        self.store.pack(Packing::Now)
    }

    fn set_aside_changes(&self, head: Option<Oid>, author: &str) -> Result<Option<CommitId>> {
        let tree = self.tree_from(&self.work_tree()?)?;
        if tree == self.head_tree()? {
            return Ok(None);
        }
        let id = self.write_commit(tree, head, author, "Keep changes that were not committed")?;
        let reference = format!("refs/heads/set-aside/{}", CommitId(id).short());
        let present = self.store.target(&reference)?;
        if present != Some(id) {
            self.store.move_reference(&reference, present, id)?;
        }
        Ok(Some(CommitId(id)))
    }

    fn write_commit(&self, tree: Oid, parent: Option<Oid>, author: &str, message: &str) -> Result<Oid> {
        self.store.write_commit(&CommitText { tree, parent, author, seconds: now(), message })
    }

    fn tree_from(&self, files: &WorkTree) -> Result<Oid> {
        let mut updates = Vec::with_capacity(files.files.len());
        for (path, file) in &files.files {
            let mode = match file.kind {
                FileKind::Plain => FileMode::Blob,
                FileKind::Executable => FileMode::BlobExecutable,
                FileKind::Link => FileMode::Link,
            };
            updates.push((path.as_str(), Update::Put(self.store.write_blob(&file.content)?, mode)));
        }
        self.store.updated_tree(self.store.empty_tree()?, updates)
    }

    /// Moves the branch that HEAD names, which is a person's own when they chose one, or HEAD itself when it
    /// names none.
    fn move_head(&self, old: Option<Oid>, new: Oid) -> Result<()> {
        let failed = || RepositoryError::git("read HEAD");
        let head = self.store.git.find_reference("HEAD").map_err(failed())?;
        match head.symbolic_target_bytes().map(String::from_utf8_lossy) {
            Some(branch) => self.store.move_reference(&branch, old, new),
            None if old.is_some() => {
                self.store.git.set_head_detached(new).map_err(RepositoryError::git("move HEAD"))
            }
            None => self.store.move_reference(BRANCH, old, new),
        }
    }
}

fn head_tree(store: &Store) -> Result<Oid> {
    match store.target("HEAD")? {
        Some(head) => Ok(store.tree_of(head)?.id()),
        None => store.empty_tree(),
    }
}

/// The files as they are; what is committed stays part of it even where `.gitignore` names it.
fn work_tree(store: &Store) -> Result<WorkTree> {
    let tracked = store.files_of(head_tree(store)?)?;
    let is_tracked = |path: &str, is_directory: bool| {
        let below = format!("{path}/");
        let next = || tracked.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below));
        if is_directory { next() } else { tracked.contains_key(path) }
    };
    let is_ignored = |path: &str, is_directory: bool| {
        let asked = if is_directory { format!("{path}/") } else { path.to_owned() };
        !is_tracked(path, is_directory) && store.git.is_path_ignored(Path::new(&asked)).unwrap_or(false)
    };
    WorkTree::read(&store.root, &is_ignored)
}

/// Makes all files those of `commit`.
fn check_out(store: &Store, commit: Oid) -> Result<()> {
    let present: Vec<String> = work_tree(store)?.files.into_keys().collect();
    store.check_out(store.tree_of(commit)?.id(), Extent::Everything, &present)
}
