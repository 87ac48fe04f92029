//! Files only their owner may touch: keys, tokens, the first password.
//!
//! A private file is never visible half-written or, however briefly, to others: it is made under a
//! temporary name with its final mode, synced, and renamed into place. Costs two fsyncs; nothing calls it
//! on a hot path.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crosstie_model::secret::SecretValue;

/// Mode of a private file: its owner reads and writes.
const FILE_MODE: u32 = 0o600;
/// Mode of a private directory.
const DIRECTORY_MODE: u32 = 0o700;
/// What must not be set on a key file somebody else made: any access of others, writing by the group. The
/// group may read, as Debian's `ssl-cert` group does.
const FORBIDDEN_BITS: u32 = 0o027;
/// Largest key file, in bytes; certificates chains and keys are a few KiB.
const MAX_BYTES: u64 = 1024 * 1024;
/// `O_NONBLOCK` of Linux: opening a named pipe must not wait for somebody who writes to it.
const NO_WAIT: i32 = 0o4000;

/// Why a private file could not be written or read. Never holds content.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// It could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("{path} is not a regular file")]
    NotAFile {
        /// Which file.
        path: PathBuf,
    },
    /// It is larger than any key.
    #[error("{path} has {size} bytes; at most {MAX_BYTES} are read")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// Others could read or change it.
    #[error("{path} has mode {mode:04o}, so others could read or change it; chmod 600 it")]
    TooOpen {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Writes `content` to `path` with mode 0600, atomically and durably: after a crash there is the old file or
/// the new one.
///
/// # Errors
/// [`PrivateFileError::Write`]; a file that was there is then unchanged.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), PrivateFileError> {
    write_with_mode(path, content, FILE_MODE)
}

/// As [`write_private`] for what everybody may read, such as a certificate: mode 0644.
///
/// # Errors
/// [`PrivateFileError::Write`]; a file that was there is then unchanged.
pub fn write_public(path: &Path, content: &[u8]) -> Result<(), PrivateFileError> {
    write_with_mode(path, content, 0o644)
}

fn write_with_mode(path: &Path, content: &[u8], mode: u32) -> Result<(), PrivateFileError> {
    let failed = |source| PrivateFileError::Write { path: path.to_owned(), source };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|error| failed(io::Error::other(error)))?;
    let temporary = directory.join(format!(".{}.{}.tmp", name.to_string_lossy(), hex::encode(random)));
    let written = create(&temporary, content, mode)
        .and_then(|()| std::fs::rename(&temporary, path))
        .and_then(|()| File::open(directory)?.sync_all());
    if written.is_err() {
        // The rename may have succeeded, so there may be nothing to remove.
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(failed)
}

fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The umask may have taken bits of a public file away; it cannot have added any.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes `path` and the directories above it that are missing, each with mode 0700; one that exists already
/// gets that mode, those above it are left alone.
///
/// # Errors
/// What the system said.
pub fn create_private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))
}

/// Reads a key file, refusing one that others could read or change.
///
/// # Errors
/// Why it cannot be trusted or read.
pub fn read_private(path: &Path) -> Result<SecretValue, PrivateFileError> {
    let (content, mode) = read_bounded(path)?;
    if mode & FORBIDDEN_BITS != 0 {
        return Err(PrivateFileError::TooOpen { path: path.to_owned(), mode });
    }
    Ok(content)
}

/// Reads a file that need not be private, with the same bounds.
///
/// # Errors
/// Why it cannot be read.
pub fn read_public(path: &Path) -> Result<Vec<u8>, PrivateFileError> {
    read_bounded(path).map(|(content, _)| content.expose().to_vec())
}

/// The content and the permission bits of a regular file.
pub(crate) fn read_bounded(path: &Path) -> Result<(SecretValue, u32), PrivateFileError> {
    let failed = |source| PrivateFileError::Read { path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).custom_flags(NO_WAIT).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(PrivateFileError::NotAFile { path: path.to_owned() });
    }
    let size = metadata.len();
    if size > MAX_BYTES {
        return Err(PrivateFileError::TooLarge { path: path.to_owned(), size });
    }
    let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0).saturating_add(1));
    file.take(MAX_BYTES).read_to_end(&mut content).map_err(failed)?;
    // Nothing of the buffer may be left behind: a boxed slice of another length would be a copy.
    let value = SecretValue::new(content.as_slice());
    content.fill(0);
    std::hint::black_box(&content);
    Ok((value, metadata.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_private_file_is_its_owners_alone_even_when_it_replaces_an_open_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.key");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(read_private(&path).unwrap().expose(), b"new");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_certificate_is_readable_by_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        write_public(&path, b"x").unwrap();
        assert_eq!(mode(&path), 0o644);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.key");
        write_private(&path, b"key").unwrap();
        for (bits, refused) in [(0o604, true), (0o620, true), (0o640, false), (0o400, false)] {
            std::fs::set_permissions(&path, Permissions::from_mode(bits)).unwrap();
            let result = read_private(&path);
            assert_eq!(matches!(result, Err(PrivateFileError::TooOpen { .. })), refused, "{bits:o}");
        }
    }

    #[test]
    fn only_regular_files_of_sane_size_are_read() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(read_public(directory.path()), Err(PrivateFileError::NotAFile { .. })));
        let large = directory.path().join("large");
        File::create(&large).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(matches!(read_public(&large), Err(PrivateFileError::TooLarge { .. })));
    }

    #[test]
    fn private_directories_are_made_with_their_parents() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        create_private_directory(&path).unwrap();
        assert_eq!((mode(&path), mode(&directory.path().join("a"))), (0o700, 0o700));
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("occupied");
        std::fs::create_dir(&path).unwrap();
        assert!(write_private(&path, b"x").is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
