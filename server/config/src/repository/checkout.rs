//! Work files: written beside their place and renamed, behind a note that survives the process.
//!
//! The note (`.git/crosstie-checkout`, the tree the work files show) is written before the reference moves and
//! removed when the files are done, so that whoever opens the repository next can finish.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid, TreeWalkMode, TreeWalkResult};

use super::layout::PREPARE;
use super::store::Store;
use super::{RepositoryError, Result};

/// The note's name in `.git`.
const NOTE: &str = "crosstie-checkout";

/// The mode of a symbolic link in a tree.
pub(super) const LINK: i32 = 0o120_000;

/// The mode of an executable file in a tree.
pub(super) const EXECUTABLE: i32 = 0o100_755;

/// What work files are to be brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// What differs from this tree, which the work files show; people's other files are left alone.
    Since(Oid),
    /// Everything, whatever the work files show now.
    Everything,
    /// Everything, for this commit; void unless it became the newest.
    Restore(Oid),
    /// No files, only the index, for this commit; void unless it became the newest.
    Index(Oid),
}

impl Store {
    /// Notes that a checkout begins.
    pub(super) fn begin_checkout(&self, extent: Extent) -> Result<()> {
        let text = match extent {
            Extent::Since(tree) => tree.to_string(),
            Extent::Everything => "everything".to_owned(),
            Extent::Restore(commit) => format!("restore {commit}"),
            Extent::Index(commit) => format!("index {commit}"),
        };
        let note = self.note();
        let new = self.git.path().join(format!("{NOTE}.new"));
        fs::write(&new, text).map_err(RepositoryError::file("written", &new))?;
        fs::rename(&new, &note).map_err(RepositoryError::file("written", &note))
    }

    /// Removes the note of a checkout that is done or was never needed.
    pub(super) fn end_checkout(&self) -> Result<()> {
        let note = self.note();
        match fs::remove_file(&note) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(RepositoryError::file("removed", &note)(error))
            }
            _ => Ok(()),
        }
    }

    /// The checkout that was begun and not ended.
    pub(super) fn unfinished_checkout(&self) -> Option<Extent> {
        let text = fs::read_to_string(self.note()).ok()?;
        let (what, id) = text.trim().split_once(' ').unwrap_or(("", text.trim()));
        let Ok(id) = Oid::from_str(id) else { return Some(Extent::Everything) };
        Some(match what {
            "restore" => Extent::Restore(id),
            "index" => Extent::Index(id),
            _ => Extent::Since(id),
        })
    }

    fn note(&self) -> PathBuf {
        self.git.path().join(NOTE)
    }

    /// Makes the work files show `tree`, then the index.
    /// Of everything, `present` are the files that go when the tree does not have them.
    pub(super) fn check_out(&self, tree: Oid, extent: Extent, present: &[String]) -> Result<()> {
        match extent {
            Extent::Since(base) if self.git.find_tree(base).is_ok() => self.check_out_changes(base, tree)?,
            _ => self.check_out_everything(tree, present)?,
        }
        self.sync_index(tree);
        self.end_checkout()
    }

    fn check_out_changes(&self, base: Oid, tree: Oid) -> Result<()> {
        let failed = || RepositoryError::git("compare two trees");
        let (base, tree) = (self.tree(base)?, self.tree(tree)?);
        let diff = self.git.diff_tree_to_tree(Some(&base), Some(&tree), None).map_err(failed())?;
        for delta in diff.deltas() {
            let (old, new) = (delta.old_file(), delta.new_file());
            match (new.exists(), new.path_bytes().map(text_of), old.path_bytes().map(text_of)) {
                (true, Some(path), _) => self.write_file(&path?, new.id(), i32::from(new.mode()))?,
                (false, _, Some(path)) => self.remove_file(&path?)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes every file of `tree` that differs and removes those of `present` that it does not have.
    fn check_out_everything(&self, tree: Oid, present: &[String]) -> Result<()> {
        let wanted = self.files_of(tree)?;
        for path in present.iter().filter(|path| !wanted.contains_key(*path)) {
            self.remove_file(path)?;
        }
        for (path, (id, mode)) in wanted {
            self.write_file(&path, id, mode)?;
        }
        Ok(())
    }

    /// Every file of a tree with its blob and mode.
    pub(super) fn files_of(&self, tree: Oid) -> Result<BTreeMap<String, (Oid, i32)>> {
        let mut files = BTreeMap::new();
        let walk = |directory: &str, entry: &git2::TreeEntry<'_>| {
            if let (Some(ObjectType::Blob), Ok(name)) =
                (entry.kind(), std::str::from_utf8(entry.name_bytes()))
            {
                files.insert(format!("{directory}{name}"), (entry.id(), entry.filemode()));
            }
            TreeWalkResult::Ok
        };
        self.tree(tree)?.walk(TreeWalkMode::PreOrder, walk).map_err(RepositoryError::git("read a tree"))?;
        Ok(files)
    }

    /// Writes one work file whole or not at all; one that is right already is left alone.
    fn write_file(&self, path: &str, blob: Oid, mode: i32) -> Result<()> {
        super::path::check(path)?;
        let target = self.root.join(path);
        let content = self.blob(blob)?;
        if mode != LINK && is_already(&target, &content, mode) {
            return Ok(());
        }
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(RepositoryError::file("created", parent))?;
        }
        let prepare = self.git.path().join(PREPARE);
        fs::create_dir_all(&prepare).map_err(RepositoryError::file("created", &prepare))?;
        let new = prepare.join(blob.to_string());
        let written = if mode == LINK { make_link(&new, &content) } else { write_new(&new, &content, mode) };
        written.and_then(|()| fs::rename(&new, &target)).map_err(RepositoryError::file("written", &target))
    }

    /// Removes one work file and the directories it leaves empty.
    fn remove_file(&self, path: &str) -> Result<()> {
        super::path::check(path)?;
        let target = self.root.join(path);
        match fs::remove_file(&target) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Err(RepositoryError::file("removed", &target)(error));
            }
            _ => {}
        }
        let above = target.ancestors().skip(1).take_while(|directory| *directory != self.root);
        for directory in above {
            if fs::remove_dir(directory).is_err() {
                break;
            }
        }
        Ok(())
    }
}

fn text_of(path: &[u8]) -> Result<String> {
    String::from_utf8(path.to_vec())
        .map_err(|error| RepositoryError::BadPath(String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

fn is_already(target: &Path, content: &[u8], mode: i32) -> bool {
    let Ok(metadata) = fs::symlink_metadata(target) else { return false };
    let executable = metadata.permissions().mode() & 0o100 != 0;
    metadata.is_file()
        && metadata.len() == content.len() as u64
        && executable == (mode == EXECUTABLE)
        && fs::read(target).is_ok_and(|present| present == content)
}

fn make_link(new: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    match fs::remove_file(new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(content), new)
}

fn write_new(new: &Path, content: &[u8], mode: i32) -> std::io::Result<()> {
    let permissions = if mode == EXECUTABLE { 0o700 } else { 0o600 };
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(permissions).open(new)?;
    file.write_all(content)?;
    file.set_permissions(fs::Permissions::from_mode(permissions))
}
