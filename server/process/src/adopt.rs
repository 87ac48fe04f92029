//! Gives a directory with all that root left in it to the service user.
//!
//! The tree may be written by that user, who need not be honest: a link must not lead root out of the tree,
//! nor may a second name of somebody else's file be given away. Every step goes through a descriptor
//! (`openat` with `O_NOFOLLOW`), only what belongs to root changes hands, and of files only those that have
//! no other name. Costs two or three system calls per entry: some 20 ms for a virtual environment.

#![expect(
    unsafe_code,
    reason = "a descriptor's owner is changed through an empty path, which nix does not offer"
)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use crate::privilege::{PrivilegeError, ServiceUser};

/// Directories nested deeper than this are left alone; Python's packages reach about 20.
const DEEPEST: usize = 64;

/// Gives `directory` and everything in it that belongs to root to `user`. Links are given away themselves
/// and never followed; what belongs to others stays theirs. Gives how much changed hands.
///
/// # Errors
/// Something could not be given away; the rest was.
pub fn adopt(directory: &Path, user: &ServiceUser) -> Result<usize, PrivilegeError> {
    let mut adoption = Adoption { user, given: 0, failure: None };
    match CString::new(directory.as_os_str().as_bytes()) {
        Ok(name) => adoption.entry(None, &name, directory, 0),
        Err(error) => adoption.note(directory, error.into()),
    }
    match adoption.failure {
        None => Ok(adoption.given),
        Some((path, source)) => Err(PrivilegeError::Own { name: user.name().to_owned(), path, source }),
    }
}

struct Adoption<'a> {
    user: &'a ServiceUser,
    given: usize,
    /// The first thing that could not be given away.
    failure: Option<(PathBuf, io::Error)>,
}

impl Adoption<'_> {
    /// Takes care of `name` in the directory `parent`, and of what is in it.
    fn entry(&mut self, parent: Option<&OwnedFd>, name: &CStr, path: &Path, depth: usize) {
        if let Err(error) = self.try_entry(parent, name, path, depth)
            // Somebody removed it meanwhile.
            && error.kind() != io::ErrorKind::NotFound
        {
            self.note(path, error);
        }
    }

    fn note(&mut self, path: &Path, error: io::Error) {
        self.failure.get_or_insert_with(|| (path.to_owned(), error));
    }

    fn try_entry(
        &mut self,
        parent: Option<&OwnedFd>,
        name: &CStr,
        path: &Path,
        depth: usize,
    ) -> io::Result<()> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = match parent {
            Some(parent) => openat(parent, name, flags, Mode::empty())?,
            None => openat(nix::fcntl::AT_FDCWD, name, flags, Mode::empty())?,
        };
        let status = fstat(&found)?;
        if may_be_given(&status) {
            give(&found, self.user)?;
            self.given += 1;
        }
        if kind(&status) == SFlag::S_IFDIR && depth < DEEPEST {
            self.contents(&found, path, depth)?;
        }
        Ok(())
    }

    fn contents(&mut self, directory: &OwnedFd, path: &Path, depth: usize) -> io::Result<()> {
        // Leads to the very directory that was looked at: an O_PATH descriptor cannot be read itself.
        for entry in std::fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))? {
            let name = entry?.file_name();
            self.entry(Some(directory), &CString::new(name.as_bytes())?, &path.join(&name), depth + 1);
        }
        Ok(())
    }
}

/// Only root's things change hands. A file with a second name may be one from outside the tree; directories
/// have none.
fn may_be_given(status: &FileStat) -> bool {
    status.st_uid == 0 && (kind(status) == SFlag::S_IFDIR || status.st_nlink == 1)
}

fn kind(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits())
}

fn give(found: &OwnedFd, user: &ServiceUser) -> io::Result<()> {
    let (uid, gid) = (user.uid().as_raw(), user.gid().as_raw());
    // SAFETY: the path is a constant; the descriptor is open. With an empty path it is the descriptor's own
    // file that changes, whatever its name stands for by now.
    let result = unsafe { libc::fchownat(found.as_raw_fd(), c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
