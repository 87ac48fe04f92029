//! Record locks (POSIX fcntl, F_SETLK): one process of a host holds a file, and the kernel frees it the
//! moment that process dies, however it dies.
//!
//! Not flock and not open-file-description locks: those are inherited by children that a service forks,
//! which would keep a dead worker's lock. The price is a trap: closing *any* descriptor of the file frees
//! the process's lock, so a file that is locked here must never be opened elsewhere in the same process.
//! A registry of the files this process holds keeps this crate from doing so itself.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// Device and inode of every file that this process holds locked.
static HELD: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

fn held_files() -> MutexGuard<'static, BTreeSet<(u64, u64)>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a lock could not be asked for.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file cannot be opened or made.
    #[error("the lock file {} cannot be opened", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file system refuses record locks.
    #[error("the lock file {} cannot be locked", path.display())]
    Lock {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
}

/// A record lock on a whole file, held until dropped or until the process ends.
#[derive(Debug)]
pub struct RecordLock {
    /// `None` only while it is being dropped.
    file: Option<File>,
    path: PathBuf,
    identity: (u64, u64),
}

impl RecordLock {
    /// Takes the lock on `path`, making the file (0600) if it is not there; `None` when another process, or
    /// another `RecordLock` of this one, has it. Does not wait.
    ///
    /// # Errors
    /// The file cannot be opened or locked at all.
    pub fn try_acquire(path: &Path) -> Result<Option<Self>, LockError> {
        // Held across open and close: opening a file this process has locked, and closing it, frees it.
        let mut held = held_files();
        if identity_at(path).is_some_and(|identity| held.contains(&identity)) {
            return Ok(None);
        }
        let opened = |source| LockError::Open { path: path.to_owned(), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(opened)?;
        let identity = identity_of(&file).map_err(opened)?;
        match set_lock(&file) {
            Ok(()) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => return Ok(None),
            Err(source) => return Err(LockError::Lock { path: path.to_owned(), source }),
        }
        held.insert(identity);
        crate::fork_safety::register(&file);
        Ok(Some(Self { file: Some(file), path: path.to_owned(), identity }))
    }

    /// Whether the lock still protects its path: the file is still the one at that path, and the kernel
    /// still counts this process as its holder (or lets it be so again).
    #[must_use]
    pub fn held(&self) -> bool {
        let locked = |file| set_lock(file).is_ok();
        identity_at(&self.path) == Some(self.identity) && self.file.as_ref().is_some_and(locked)
    }

    /// The locked file, to write into it.
    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }
}

impl Drop for RecordLock {
    fn drop(&mut self) {
        // Closed before the registry lets go: a lock taken in between would be freed by this close.
        let mut held = held_files();
        drop(self.file.take());
        held.remove(&self.identity);
    }
}

/// The process that holds a record lock on `path`; `None` when nobody does. Says so of this process too.
pub(crate) fn holder(path: &Path) -> Option<u32> {
    let held = held_files();
    if identity_at(path).is_some_and(|identity| held.contains(&identity)) {
        return Some(std::process::id());
    }
    let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    let mut wanted = whole_file();
    fcntl(&file, FcntlArg::F_GETLK(&mut wanted)).ok()?;
    let free = libc::c_int::from(wanted.l_type) == libc::F_UNLCK;
    if free { None } else { u32::try_from(wanted.l_pid).ok().filter(|pid| *pid > 0) }
}

fn set_lock(file: &File) -> Result<(), Errno> {
    fcntl(file, FcntlArg::F_SETLK(&whole_file())).map(|_| ())
}

/// An exclusive lock from the first byte to whatever the end will be.
fn whole_file() -> libc::flock {
    libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn identity_at(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|status| (status.dev(), status.ino()))
}

fn identity_of(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|status| (status.dev(), status.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_lock_once_and_can_take_it_again_after_giving_it_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("singleton.lock");
        let lock = RecordLock::try_acquire(&path).unwrap().unwrap();
        assert!(RecordLock::try_acquire(&path).unwrap().is_none());
        assert!(lock.held());
        assert_eq!(holder(&path), Some(std::process::id()));
        drop(lock);
        assert_eq!(holder(&path), None);
        assert!(RecordLock::try_acquire(&path).unwrap().is_some());
    }

    #[test]
    fn a_lock_whose_file_was_replaced_is_no_longer_held() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("singleton.lock");
        let lock = RecordLock::try_acquire(&path).unwrap().unwrap();
        std::fs::rename(&path, directory.path().join("moved")).unwrap();
        assert!(!lock.held());
        std::fs::write(&path, "").unwrap();
        assert!(!lock.held());
    }

    #[test]
    fn a_lock_that_cannot_be_made_says_which_file() {
        let error = RecordLock::try_acquire(Path::new("/nonexistent/lock")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/lock"));
    }
}
