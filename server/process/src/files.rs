//! What only the kernel knows of a file: whether somebody is still writing to it.

#![expect(unsafe_code, reason = "leases have no safe wrapper")]

use std::fs::File;
use std::os::fd::AsRawFd as _;

/// fcntl(2): which signal tells of a lease that must be given back. The libc crate does not name it.
const F_SETSIG: libc::c_int = 10;

/// Whether a process, this one included, has `file` open for writing. `file` must be open for reading alone.
///
/// Asks for a read lease (fcntl(2), F_SETLEASE), which the kernel refuses with EAGAIN while there is a
/// writer, and gives it back at once. Where leases are not to be had (another owner's file, a network file
/// system) the answer is no: the caller then depends on the file keeping still.
#[must_use]
pub fn is_open_for_writing(file: &File) -> bool {
    let fd = file.as_raw_fd();
    // A writer that opens the file during the lease makes the kernel signal its holder: by default with
    // SIGIO, which would end the process. SIGURG is ignored unless somebody handles it.
    // SAFETY: plain integers on a descriptor that `file` keeps open.
    let leased = unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG) == 0 && libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0
    };
    if !leased {
        return std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN);
    }
    // SAFETY: as above. A lease that cannot be given back ends when the descriptor is closed.
    unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_seen_until_it_closes_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert!(is_open_for_writing(&reader));
        drop(writer);
        assert!(!is_open_for_writing(&reader));
    }
}
