//! `config/cluster`: every revision of the definitions as one commit.
//!
//! A commit is a pure function of its audit row and its parent, so all servers of a cluster hold equal
//! hashes, whichever of them wrote a revision and whenever it was replayed. What counts is
//! `refs/crosstie/cluster`; the branch `main` and the files follow it for people to read, and whatever they
//! do to those is put right by the next revision.

use std::collections::BTreeMap;
use std::path::Path;

use crosstie_model::Revision;
use git2::{FileMode, Oid};

use super::checkout::Extent;
use super::history::LogEntry;
use super::layout::{self, BRANCH, Durability, Layout};
use super::message::{CommitText, revision_of, with_revision};
use super::pack::Packing;
use super::store::{History, Store, Update};
use super::{CommitId, RepositoryError, Result};

/// The history itself.
const TRUTH: &str = "refs/crosstie/cluster";

static LAYOUT: Layout =
    Layout { durability: Durability::Unsynced, exclude: "/.git-damaged-*/\n/.git-new-*/\n*~\n.*.sw?\n.#*\n" };

/// One audit row as a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterCommit {
    /// The revision the row made.
    pub revision: Revision,
    /// Who did it.
    pub author: String,
    /// When, in microseconds since 1970.
    pub time_us: i64,
    /// What they said.
    pub message: String,
    /// What it changed: paths ([`super::file_path`]) with their new content, or `None` for a file
    /// that is gone. Of a path given twice the last counts.
    pub files: Vec<(String, Option<String>)>,
}

/// The repository of the cluster's definitions.
pub struct ClusterRepository {
    store: Store,
}

impl ClusterRepository {
    /// Opens the repository of `directory` (`DIR/server1/config/cluster`), making it if need be, and finishes
    /// what a killed process began. The caller holds the singleton lock. One that lost objects (a power
    /// failure) is set aside and begun anew at revision 0, for the caller to replay.
    ///
    /// # Errors
    /// The directory cannot be read or written, or belongs to another user.
    pub fn open(directory: &Path) -> Result<Self> {
        let finish = |store: &Store, history| {
            if history == History::New {
                // Whatever files are here belong to a history that is gone.
                store.begin_checkout(Extent::Everything)?;
            }
            follow(store)
        };
        Ok(Self { store: Store::open(directory, &LAYOUT, TRUTH, finish)? })
    }

    /// The newest revision that is committed; 0 before the first.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn head_revision(&self) -> Result<Revision> {
        match self.store.target(TRUTH)? {
            Some(head) => self.revision(head),
            None => Ok(Revision(0)),
        }
    }

    /// The newest commit.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn head(&self) -> Result<Option<CommitId>> {
        Ok(self.store.target(TRUTH)?.map(CommitId))
    }

    fn revision(&self, commit: Oid) -> Result<Revision> {
        let commit = self.store.commit(commit)?;
        let message = String::from_utf8_lossy(commit.message_bytes());
        Ok(revision_of(&message).unwrap_or_default())
    }

    /// Begins an empty repository at a revision that is not the first, because the rows before it are gone:
    /// `base` holds every file there is at it. A pure function of the row and of that state, so servers that
    /// begin at the same row hold equal hashes.
    ///
    /// # Errors
    /// There is a history already, or it cannot be written.
    pub fn begin_at(&mut self, base: &ClusterCommit) -> Result<()> {
        let _turn = self.store.turn();
        if self.store.target(TRUTH)?.is_some() {
            return Err(RepositoryError::OutOfOrder { head: self.head_revision()?, found: base.revision });
        }
        let commit = self.write(None, base)?;
        self.store.begin_checkout(Extent::Everything)?;
        self.store.move_reference(TRUTH, None, commit)?;
        follow(&self.store)
    }

    /// Appends `commits`, which follow each other and the newest one without a gap; those already here are
    /// passed over, so that a replay may begin anywhere. Returns the newest revision. The files are brought up
    /// to date once, at the end: replay in batches.
    ///
    /// # Errors
    /// A revision is missing or a path is none; then nothing is appended. Files that cannot be written are
    /// logged and tried again at the next revision.
    pub fn append(&mut self, commits: &[ClusterCommit]) -> Result<Revision> {
        let _turn = self.store.turn();
        let before = self.store.target(TRUTH)?;
        let mut revision = self.head_revision()?;
        let mut head = before;
        for commit in commits {
            if commit.revision <= revision {
                continue;
            }
            if commit.revision.0 != revision.0.saturating_add(1) {
                return Err(RepositoryError::OutOfOrder { head: revision, found: commit.revision });
            }
            head = Some(self.write(head, commit)?);
            revision = commit.revision;
        }
        if let (Some(new), true) = (head, head != before) {
            if self.store.unfinished_checkout().is_none() {
                self.store.begin_checkout(Extent::Since(self.tree_of(before)?))?;
            }
            self.store.move_reference(TRUTH, before, new)?;
        }
        follow(&self.store)?;
        Ok(revision)
    }

    /// Whether the newest commit is the one `row` makes: false when the ODB was replaced or restored to
    /// another history, and [`ClusterRepository::begin_anew`] is due.
    ///
    /// # Errors
    /// The repository cannot be read or written.
    pub fn continues(&self, row: &ClusterCommit) -> Result<bool> {
        let Some(head) = self.store.target(TRUTH)? else { return Ok(false) };
        let parent = self.store.commit(head)?.parent_id(0).ok();
        if parent.is_none() && row.revision > Revision(1) {
            // A beginning that holds more than its row says.
            return Ok(self.revision(head)? == row.revision);
        }
        Ok(self.write(parent, row)? == head)
    }

    /// Keeps the present history on a branch `set-aside/HASH` and begins again at revision 0.
    ///
    /// # Errors
    /// The repository cannot be written.
    pub fn begin_anew(&mut self) -> Result<()> {
        let _turn = self.store.turn();
        let Some(head) = self.store.target(TRUTH)? else { return Ok(()) };
        keep(&self.store, head)?;
        self.store.begin_checkout(Extent::Everything)?;
        for reference in [TRUTH, BRANCH] {
            let failed = || RepositoryError::git("remove a reference");
            if self.store.target(reference)?.is_some() {
                let mut found = self.store.git.find_reference(reference).map_err(failed())?;
                found.delete().map_err(failed())?;
            }
        }
        Ok(())
    }

    /// The newest `limit` commits, newest first.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn log(&self, limit: usize) -> Result<Vec<LogEntry>> {
        self.store.log(self.store.target(TRUTH)?, limit)
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

    /// Packs loose objects when there are more than [`super::PACK_AFTER`]; returns whether there were. Cheap
    /// to call now and then.
    ///
    /// # Errors
    /// The repository cannot be written.
    pub fn pack(&mut self) -> Result<bool> {
        let _turn = self.store.turn();
        self.store.pack(Packing::WhenDue)
    }

    /// Packs loose objects however few there are.
    ///
    /// # Errors
    /// The repository cannot be written.
    pub fn pack_now(&mut self) -> Result<bool> {
        let _turn = self.store.turn();
        self.store.pack(Packing::Now)
    }

    /// Writes the commit that `row` makes on top of `parent`.
    fn write(&self, parent: Option<Oid>, row: &ClusterCommit) -> Result<Oid> {
        let last: BTreeMap<&str, Option<&str>> =
            row.files.iter().map(|(path, content)| (path.as_str(), content.as_deref())).collect();
        let mut updates = Vec::with_capacity(last.len());
        for (path, content) in last {
            let update = match content {
                Some(content) => Update::Put(self.store.write_blob(content.as_bytes())?, FileMode::Blob),
                None => Update::Remove,
            };
            updates.push((path, update));
        }
        let tree = self.store.updated_tree(self.tree_of(parent)?, updates)?;
        let message = with_revision(&row.message, row.revision);
        let seconds = row.time_us.div_euclid(1_000_000);
        self.store.write_commit(&CommitText { tree, parent, author: &row.author, seconds, message: &message })
    }

    fn tree_of(&self, commit: Option<Oid>) -> Result<Oid> {
        match commit {
            Some(commit) => Ok(self.store.tree_of(commit)?.id()),
            None => self.store.empty_tree(),
        }
    }
}

/// Brings branch, HEAD and files to where the truth is. Somebody's own commits on the branch are kept under
/// another name.
fn follow(store: &Store) -> Result<()> {
    let Some(head) = store.target(TRUTH)? else { return Ok(()) };
    let branch = store.target(BRANCH)?;
    if branch != Some(head) {
        if let Some(other) = branch
            && !store.git.graph_descendant_of(head, other).unwrap_or(false)
        {
            keep(store, other)?;
        }
        store.move_reference(BRANCH, branch, head)?;
    }
    let at = store.git.find_reference("HEAD").ok();
    if at.and_then(|at| at.symbolic_target_bytes().map(<[u8]>::to_vec)).as_deref() != Some(BRANCH.as_bytes())
    {
        store.git.set_head(BRANCH).map_err(RepositoryError::git("move HEAD"))?;
    }
    if let Some(extent) = store.unfinished_checkout()
        && let Err(error) = check_out(store, head, extent)
    {
        tracing::warn!(%error, "the files of config/cluster are not up to date");
    }
    Ok(())
}

/// Keeps `commit` on a branch of its own.
fn keep(store: &Store, commit: Oid) -> Result<()> {
    let reference = format!("refs/heads/set-aside/{}", CommitId(commit).short());
    match store.target(&reference)? {
        Some(_) => Ok(()),
        None => store.move_reference(&reference, None, commit),
    }
}

fn check_out(store: &Store, head: Oid, extent: Extent) -> Result<()> {
    let present = if matches!(extent, Extent::Since(_)) { Vec::new() } else { written_files(&store.root) };
    store.check_out(store.tree_of(head)?.id(), extent, &present)
}

/// What looks like files this repository wrote: `KIND/NAME.yaml`.
fn written_files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for kind in layout::directories(root) {
        let Some(kind_name) = kind.file_name().and_then(|name| name.to_str()) else { continue };
        if kind_name.starts_with('.') {
            continue;
        }
        for (path, _) in layout::files(&kind) {
            if let Some(name) =
                path.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".yaml"))
            {
                found.push(format!("{kind_name}/{name}"));
            }
        }
    }
    found
}
