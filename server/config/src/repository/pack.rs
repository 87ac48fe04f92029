//! Packing: a commit per revision leaves four or five loose objects, each a file of its own.

use std::fs;
use std::path::{Path, PathBuf};

use git2::Oid;

use super::layout::{directories, files};
use super::store::Store;
use super::{RepositoryError, Result, reclaim};

/// Loose objects from which packing is due.
pub const PACK_AFTER: usize = 2_000;

/// Packs from which all of them become one.
const MERGE_AFTER: usize = 20;

/// Whether to pack now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// Only with more than [`PACK_AFTER`] loose objects. Counting them costs a millisecond.
    WhenDue,
    /// In any case.
    Now,
}

impl Store {
    /// Moves loose objects into a pack, and merges packs when there are many. Nothing is dropped, referred to
    /// or not, so that a person's own work is safe; a process killed in between leaves objects stored twice.
    /// Returns whether anything was packed. Costs some 10 ms per 1,000 objects.
    pub(super) fn pack(&self, when: Packing) -> Result<bool> {
        let objects = self.git.path().join("objects");
        let loose = loose_objects(&objects);
        if loose.is_empty() || (when == Packing::WhenDue && loose.len() < PACK_AFTER) {
            return Ok(false);
        }
        let packed = self.pack_loose(&objects, loose);
        reclaim::return_free_memory();
        packed.map(|()| true)
    }

    fn pack_loose(&self, objects: &Path, loose: Vec<(Oid, PathBuf)>) -> Result<()> {
        let packs = packs(objects);
        if packs.len() >= MERGE_AFTER {
            let mut all = Vec::new();
            let odb = self.git.odb().map_err(RepositoryError::git("list its objects"))?;
            odb.foreach(|id| {
                all.push(*id);
                true
            })
            .map_err(RepositoryError::git("list its objects"))?;
            let new = self.write_pack(objects, &all)?;
            remove_packs(&packs, &new)?;
        } else {
            let ids: Vec<Oid> = loose.iter().map(|(id, _)| *id).collect();
            self.write_pack(objects, &ids)?;
        }
        for (_, path) in &loose {
            fs::remove_file(path).map_err(RepositoryError::file("removed", path))?;
            if let Some(fan) = path.parent() {
                // Fails, rightly, while other objects are in it.
                drop(fs::remove_dir(fan));
            }
        }
        let odb = self.git.odb().map_err(RepositoryError::git("open its objects"))?;
        odb.refresh().map_err(RepositoryError::git("open its objects"))
    }

    /// Writes one pack with these objects; returns the name of its files without their endings.
    fn write_pack(&self, objects: &Path, ids: &[Oid]) -> Result<String> {
        let failed = || RepositoryError::git("write a pack");
        let mut builder = self.git.packbuilder().map_err(failed())?;
        builder.set_threads(1);
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        for id in sorted {
            builder.insert_object(id, None).map_err(failed())?;
        }
        builder.write(&objects.join("pack"), 0o444).map_err(failed())?;
        let name = builder.name().map_err(failed())?.unwrap_or_default();
        Ok(format!("pack-{name}"))
    }
}

/// Loose objects with their files.
fn loose_objects(objects: &Path) -> Vec<(Oid, PathBuf)> {
    let mut found = Vec::new();
    for fan in directories(objects) {
        let Some(start) = fan.file_name().and_then(|name| name.to_str()).filter(|name| name.len() == 2)
        else {
            continue;
        };
        for (path, _) in files(&fan) {
            let rest = path.file_name().and_then(|name| name.to_str()).filter(|name| name.len() == 38);
            if let Some(id) = rest.and_then(|rest| Oid::from_str(&format!("{start}{rest}")).ok()) {
                found.push((id, path));
            }
        }
    }
    found
}

/// The packs that nobody asked to keep, by the names of their index files.
fn packs(objects: &Path) -> Vec<PathBuf> {
    let indexes = files(&objects.join("pack")).into_iter().map(|(path, _)| path);
    indexes
        .filter(|path| path.extension().is_some_and(|ending| ending == "idx"))
        .filter(|path| !path.with_extension("keep").exists())
        .collect()
}

/// Removes packs whose objects are all in the pack `new`: the index first, so that no pack is ever listed
/// whose content is gone.
fn remove_packs(packs: &[PathBuf], new: &str) -> Result<()> {
    for index in packs.iter().filter(|index| index.file_stem().is_some_and(|stem| stem != new)) {
        for ending in ["idx", "rev", "bitmap", "mtimes", "pack"] {
            let path = index.with_extension(ending);
            if path.exists() {
                fs::remove_file(&path).map_err(RepositoryError::file("removed", &path))?;
            }
        }
    }
    Ok(())
}
