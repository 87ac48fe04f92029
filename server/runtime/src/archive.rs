//! Directories as artifacts: a deterministic tar archive, made and read in memory under limits.
//!
//! Owned here because only runtimes look inside an artifact. Packing is called by whoever turns files into a
//! deployment (pickup watcher, command line), unpacking by a runtime that loads one. Equal trees give equal
//! bytes and so equal digests: entries are sorted, times and owners are zero. Unpacking never touches the
//! file system, so a hostile path can do no harm even before it is refused. Costs one copy of each file.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use crosstie_model::limits::MAX_ARTIFACT_BYTES;
use tar::{Archive, Builder, EntryType, Header};

/// Most files one archive holds.
pub const MAX_FILES: usize = 10_000;

/// How deep directories of an archive may nest.
pub const MAX_DEPTH: usize = 32;

/// Longest path inside an archive, in bytes.
pub const MAX_PATH_BYTES: usize = 512;

/// Names that are never part of an artifact: caches, and what editors and version control leave behind.
const LEFT_OUT: [&str; 2] = ["__pycache__", "node_modules"];

/// Why a directory could not be packed, or bytes are no acceptable archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file or directory could not be read.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The bytes are no tar archive.
    #[error("not a readable tar archive")]
    Malformed(#[source] io::Error),
    /// A path that is absolute, climbs upwards, is too long, too deep or not UTF-8.
    #[error("the path {0:?} is not allowed in an archive")]
    Path(String),
    /// A link, device or other entry that is neither file nor directory.
    #[error("{0:?} is neither a file nor a directory; links are not allowed")]
    Kind(String),
    /// Two entries share a path.
    #[error("{0:?} is in the archive twice")]
    Duplicate(String),
    /// More than [`MAX_FILES`] files.
    #[error("more than {MAX_FILES} files")]
    TooMany,
    /// The contents together exceed the limit.
    #[error("the files have more than {0} bytes together")]
    TooLarge(u64),
}

/// The files of an unpacked archive by their path, with `/` between its parts.
pub type Files = BTreeMap<String, Bytes>;

/// Packs the regular files below `directory`, at most `max_bytes` together. Hidden files, byte code and
/// caches are left out; a symbolic link is an error, as what it points to may change unseen.
///
/// # Errors
/// Whatever keeps the directory from being packed whole.
pub fn pack(directory: &Path, max_bytes: u64) -> Result<Bytes, ArchiveError> {
    let mut found = BTreeMap::new();
    collect(directory, "", 1, &mut found)?;
    let mut files = Files::new();
    let mut total = 0u64;
    for (name, path) in found {
        let failed = |source| ArchiveError::Read { path: path.clone(), source };
        let file = fs::File::open(&path).map_err(failed)?;
        let mut content = Vec::new();
        // One byte more than is left tells a file that is too large, even one that is still growing.
        let left = max_bytes.saturating_sub(total);
        let read = file.take(left.saturating_add(1)).read_to_end(&mut content).map_err(failed)?;
        total = total.saturating_add(read as u64);
        if total > max_bytes {
            return Err(ArchiveError::TooLarge(max_bytes));
        }
        files.insert(name, content.into());
    }
    build(&files)
}

/// The archive of `files`.
///
/// # Errors
/// A path that is not allowed in an archive.
pub fn build(files: &Files) -> Result<Bytes, ArchiveError> {
    let mut builder = Builder::new(Vec::new());
    for (path, content) in files {
        check_path(path)?;
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content.as_ref()).map_err(ArchiveError::Malformed)?;
    }
    builder.into_inner().map(Bytes::from).map_err(ArchiveError::Malformed)
}

/// The regular files of `archive`.
///
/// # Errors
/// The bytes are no archive, or one that breaks a limit of this module.
pub fn unpack(archive: &[u8]) -> Result<Files, ArchiveError> {
    let mut files = Files::new();
    let mut total = 0u64;
    for entry in Archive::new(archive).entries().map_err(ArchiveError::Malformed)? {
        let mut entry = entry.map_err(ArchiveError::Malformed)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let kind = entry.header().entry_type();
        if kind == EntryType::Directory {
            check_path(name.trim_end_matches('/'))?;
            continue;
        }
        if kind != EntryType::Regular {
            return Err(ArchiveError::Kind(name));
        }
        check_path(&name)?;
        if files.len() >= MAX_FILES {
            return Err(ArchiveError::TooMany);
        }
        total = total.saturating_add(entry.size());
        if total > MAX_ARTIFACT_BYTES as u64 {
            return Err(ArchiveError::TooLarge(MAX_ARTIFACT_BYTES as u64));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).map_err(ArchiveError::Malformed)?;
        if files.insert(name.clone(), content.into()).is_some() {
            return Err(ArchiveError::Duplicate(name));
        }
    }
    Ok(files)
}

/// Finds the files below `directory`, whose path inside the archive is `prefix`.
fn collect(
    directory: &Path,
    prefix: &str,
    depth: usize,
    found: &mut BTreeMap<String, PathBuf>,
) -> Result<(), ArchiveError> {
    if depth > MAX_DEPTH {
        return Err(ArchiveError::Path(prefix.to_owned()));
    }
    let failed = |source| ArchiveError::Read { path: directory.to_owned(), source };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            return Err(ArchiveError::Path(entry.file_name().to_string_lossy().into_owned()));
        };
        if is_left_out(&name) {
            continue;
        }
        let inside = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            collect(&path, &inside, depth + 1, found)?;
        } else if kind.is_file() {
            check_path(&inside)?;
            if found.len() >= MAX_FILES {
                return Err(ArchiveError::TooMany);
            }
            found.insert(inside, path);
        } else {
            return Err(ArchiveError::Kind(inside));
        }
    }
    Ok(())
}

fn is_left_out(name: &str) -> bool {
    name.starts_with('.') || name.ends_with('~') || name.ends_with(".pyc") || LEFT_OUT.contains(&name)
}

fn check_path(path: &str) -> Result<(), ArchiveError> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let depth = path.split('/').count();
    let clean = path.split('/').all(plain)
        && !path.contains(['\\', '\0', char::REPLACEMENT_CHARACTER])
        && path.len() <= MAX_PATH_BYTES
        && depth <= MAX_DEPTH;
    if clean { Ok(()) } else { Err(ArchiveError::Path(path.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("sub/__pycache__")).unwrap();
        fs::write(directory.path().join("__init__.py"), "X = 1\n").unwrap();
        fs::write(directory.path().join("sub/a.py"), "Y = 2\n").unwrap();
        fs::write(directory.path().join("sub/__pycache__/a.pyc"), "junk").unwrap();
        fs::write(directory.path().join(".hidden"), "junk").unwrap();
        directory
    }

    fn raw(path: &str, kind: EntryType) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(&[0; 1024]);
        bytes
    }

    #[test]
    fn equal_trees_have_equal_archives() {
        let (one, two) = (tree(), tree());
        let packed = pack(one.path(), 1000).unwrap();
        assert_eq!(packed, pack(two.path(), 1000).unwrap());
        let files = unpack(&packed).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["__init__.py", "sub/a.py"]);
        assert_eq!(files["sub/a.py"], "Y = 2\n");
        assert_eq!(build(&files).unwrap(), packed);
    }

    #[test]
    fn a_link_is_refused() {
        let directory = tree();
        symlink("/etc/passwd", directory.path().join("link.py")).unwrap();
        assert!(matches!(pack(directory.path(), 1000), Err(ArchiveError::Kind(name)) if name == "link.py"));
        assert!(matches!(unpack(&raw("a", EntryType::Symlink)), Err(ArchiveError::Kind(_))));
        assert!(matches!(unpack(&raw("a", EntryType::Char)), Err(ArchiveError::Kind(_))));
    }

    #[test]
    fn a_path_that_leaves_the_archive_is_refused() {
        for path in ["../a", "/etc/passwd", "a/../../b", "a//b", "./a", "a\\b", "x/.."] {
            let refused = unpack(&raw(path, EntryType::Regular));
            assert!(matches!(refused, Err(ArchiveError::Path(_))), "{path}: {refused:?}");
        }
        assert!(matches!(unpack(&raw("../d", EntryType::Directory)), Err(ArchiveError::Path(_))));
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let directory = tree();
        assert!(matches!(pack(directory.path(), 11), Err(ArchiveError::TooLarge(11))));
        let deep = directory.path().join(vec!["d"; MAX_DEPTH + 1].join("/"));
        fs::create_dir_all(&deep).unwrap();
        assert!(matches!(pack(directory.path(), 1000), Err(ArchiveError::Path(_))));
    }

    #[test]
    fn bytes_that_are_no_archive_are_refused() {
        assert!(matches!(unpack(&[7; 2000]), Err(ArchiveError::Malformed(_))));
        assert!(unpack(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_file_twice_is_refused() {
        let mut twice = raw("a", EntryType::Regular);
        twice.truncate(512);
        twice.extend_from_slice(&raw("a", EntryType::Regular));
        assert!(matches!(unpack(&twice), Err(ArchiveError::Duplicate(_))));
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2048)) {
            let _ = unpack(&bytes);
        }
    }
}
