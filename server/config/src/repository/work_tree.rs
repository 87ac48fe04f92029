//! The files of a work tree, read once: what is checked is then exactly what is committed, whatever an editor
//! writes in between.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{RepositoryError, Result};

/// Most files of a configuration.
const MAX_FILES: u64 = 10_000;

/// Largest file of a configuration, in bytes.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Most bytes of all files together.
const MAX_TOTAL_BYTES: u64 = 64 * 1024 * 1024;

/// How deep directories are followed.
const MAX_DEPTH: usize = 16;

/// The files of a work tree at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkTree {
    pub(super) files: BTreeMap<String, WorkFile>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WorkFile {
    pub(super) kind: FileKind,
    pub(super) content: Vec<u8>,
}

/// What git tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Plain,
    Executable,
    Link,
}

impl WorkTree {
    /// The content of the file at `path`, such as `server.toml`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).filter(|file| file.kind != FileKind::Link).map(|file| file.content.as_slice())
    }

    /// The paths of all files, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Reads the files below `root` that `is_ignored` does not pass over. Repositories of their own and what
    /// is neither file, link nor directory are no part of it.
    pub(super) fn read(root: &Path, is_ignored: &dyn Fn(&str, bool) -> bool) -> Result<Self> {
        let mut reader = Reader { root, is_ignored, files: BTreeMap::new(), bytes: 0 };
        reader.directory(root, "", 0)?;
        Ok(Self { files: reader.files })
    }
}

struct Reader<'a> {
    root: &'a Path,
    is_ignored: &'a dyn Fn(&str, bool) -> bool,
    files: BTreeMap<String, WorkFile>,
    bytes: u64,
}

impl Reader<'_> {
    fn directory(&mut self, directory: &Path, prefix: &str, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(self.too_large(directory.to_owned(), "the depth", MAX_DEPTH as u64));
        }
        let failed = || RepositoryError::file("read", directory);
        for entry in fs::read_dir(directory).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name();
            let path = entry.path();
            let Some(name) = name.to_str() else {
                return Err(RepositoryError::BadPath(path.to_string_lossy().into_owned()));
            };
            if name.to_ascii_lowercase().starts_with(".git") && name != ".gitignore" {
                continue;
            }
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            let inside = format!("{prefix}{name}");
            if (self.is_ignored)(&inside, metadata.is_dir()) {
                continue;
            }
            if metadata.is_dir() {
                if !path.join(".git").exists() {
                    self.directory(&path, &format!("{inside}/"), depth + 1)?;
                }
            } else if metadata.is_symlink() || metadata.is_file() {
                self.file(path, inside, &metadata)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: PathBuf, inside: String, metadata: &fs::Metadata) -> Result<()> {
        let failed = || RepositoryError::file("read", &path);
        let (kind, content) = if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(failed())?;
            (FileKind::Link, target.as_os_str().as_bytes().to_vec())
        } else {
            let mut content = Vec::new();
            let file = fs::File::open(&path).map_err(failed())?;
            file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(failed())?;
            let executable = metadata.permissions().mode() & 0o100 != 0;
            (if executable { FileKind::Executable } else { FileKind::Plain }, content)
        };
        let length = content.len() as u64;
        self.bytes += length;
        if length > MAX_FILE_BYTES {
            return Err(self.too_large(path, "the size in bytes", MAX_FILE_BYTES));
        }
        if self.bytes > MAX_TOTAL_BYTES {
            return Err(self.too_large(self.root.to_owned(), "the size in bytes", MAX_TOTAL_BYTES));
        }
        self.files.insert(inside, WorkFile { kind, content });
        if self.files.len() as u64 > MAX_FILES {
            return Err(self.too_large(self.root.to_owned(), "the number of files", MAX_FILES));
        }
        Ok(())
    }

    fn too_large(&self, path: PathBuf, what: &'static str, limit: u64) -> RepositoryError {
        RepositoryError::TooLarge { path, what, limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_configuration_are_read() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir_all(at("user/deep")).unwrap();
        fs::create_dir_all(at("cluster/.git")).unwrap();
        fs::create_dir_all(at(".git")).unwrap();
        for file in [
            "server.toml",
            "user/a.toml",
            "user/deep/b",
            "cluster/x",
            ".git/config",
            "ignored~",
            ".gitignore",
        ] {
            fs::write(at(file), file).unwrap();
        }
        fs::set_permissions(at("user/deep/b"), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink("server.toml", at("link")).unwrap();
        let tree = WorkTree::read(root.path(), &|path, _| path.ends_with('~')).unwrap();
        assert_eq!(
            tree.paths().collect::<Vec<_>>(),
            [".gitignore", "link", "server.toml", "user/a.toml", "user/deep/b"]
        );
        assert_eq!(tree.get("user/a.toml"), Some(b"user/a.toml".as_slice()));
        assert_eq!(tree.get("link"), None);
        assert_eq!(tree.files["user/deep/b"].kind, FileKind::Executable);
    }

    #[test]
    fn a_file_too_large_for_a_configuration_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("big"), vec![0; 4 * 1024 * 1024 + 1]).unwrap();
        let error = WorkTree::read(root.path(), &|_, _| false).unwrap_err();
        assert!(error.to_string().contains("more than 4194304"), "{error}");
    }
}
