//! What people ask of a repository: its log, what a commit changed, a file as it was.

use std::path::Path;

use git2::{DiffFormat, DiffOptions, ErrorCode, ObjectType, Oid, Sort};
use serde::Serialize;
use time::OffsetDateTime;

use crosstie_model::Revision;

use super::message::{revision_of, without_revision};
use super::store::Store;
use super::{CommitId, RepositoryError, Result};

/// Most bytes of a difference; a longer one ends with a line that says so.
pub const MAX_DIFF_BYTES: usize = 4 * 1024 * 1024;

/// One commit in a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// Its hash.
    pub id: CommitId,
    /// Who did it.
    pub author: String,
    /// When, to the second.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// What they said, without a revision's line.
    pub message: String,
    /// The revision it stands for, in the cluster's repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
}

impl Store {
    /// The newest `limit` commits that lead to `head`, newest first, following first parents.
    pub(super) fn log(&self, head: Option<Oid>, limit: usize) -> Result<Vec<LogEntry>> {
        let Some(head) = head else { return Ok(Vec::new()) };
        let failed = || RepositoryError::git("read its history");
        let mut walk = self.git.revwalk().map_err(failed())?;
        walk.set_sorting(Sort::TOPOLOGICAL).map_err(failed())?;
        walk.simplify_first_parent().map_err(failed())?;
        walk.push(head).map_err(failed())?;
        let entries = walk.take(limit).map(|id| self.log_entry(id.map_err(failed())?));
        entries.collect()
    }

    fn log_entry(&self, id: Oid) -> Result<LogEntry> {
        let commit = self.commit(id)?;
        let message = String::from_utf8_lossy(commit.message_bytes()).into_owned();
        let author = String::from_utf8_lossy(commit.author().name_bytes()).into_owned();
        let time = OffsetDateTime::from_unix_timestamp(commit.time().seconds());
        Ok(LogEntry {
            id: CommitId(id),
            author,
            time: time.unwrap_or(OffsetDateTime::UNIX_EPOCH),
            revision: revision_of(&message),
            message: without_revision(&message).to_owned(),
        })
    }

    /// What a commit changed against its first parent, as a patch.
    pub(super) fn diff_of_commit(&self, id: Oid) -> Result<String> {
        let commit = self.commit(id)?;
        let before = match commit.parent_id(0) {
            Ok(parent) => Some(self.tree_of(parent)?.id()),
            Err(_) => None,
        };
        self.diff(before, commit.tree_id())
    }

    /// The difference of two trees as a patch.
    pub(super) fn diff(&self, before: Option<Oid>, after: Oid) -> Result<String> {
        let failed = || RepositoryError::git("compare two trees");
        let before = before.map(|id| self.tree(id)).transpose()?;
        let after = self.tree(after)?;
        let mut options = DiffOptions::new();
        let diff =
            self.git.diff_tree_to_tree(before.as_ref(), Some(&after), Some(&mut options)).map_err(failed())?;
        let mut patch = Vec::new();
        let mut cut = false;
        let printed = diff.print(DiffFormat::Patch, |_, _, line| {
            cut = patch.len() + line.content().len() > MAX_DIFF_BYTES;
            if cut {
                return false;
            }
            match line.origin() {
                '+' => patch.push(b'+'),
                '-' => patch.push(b'-'),
                ' ' => patch.push(b' '),
                _ => {}
            }
            patch.extend_from_slice(line.content());
            true
        });
        if cut {
            patch.extend_from_slice(b"\n(more left out)\n");
        } else {
            printed.map_err(failed())?;
        }
        Ok(String::from_utf8_lossy(&patch).into_owned())
    }

    /// A file as `commit` has it; `None` when it has none of that name.
    pub(super) fn file_at(&self, commit: Oid, path: &str) -> Result<Option<Vec<u8>>> {
        super::path::check(path)?;
        let tree = self.tree_of(commit)?;
        match tree.get_path(Path::new(path)) {
            Ok(entry) if entry.kind() == Some(ObjectType::Blob) => self.blob(entry.id()).map(Some),
            Ok(_) => Ok(None),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(RepositoryError::git("read a tree")(error)),
        }
    }
}
