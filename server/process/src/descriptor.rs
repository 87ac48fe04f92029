//! Descriptors that stand for other processes, and descriptors taken from them: how the load balancer's agent
//! follows an HAProxy that is not its child, and takes up the sockets that HAProxy listens on.

#![expect(unsafe_code, reason = "pidfd_getfd has no safe binding")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;

use crate::pidfile::{checked, open_process};

/// A descriptor that becomes readable when the process `pid` ends; it stands for that process alone, however
/// its number is used later (pidfd_open(2)).
///
/// # Errors
/// There is no such process.
pub fn of_process(pid: u32) -> io::Result<OwnedFd> {
    open_process(checked(pid)?).map_err(io::Error::from)
}

/// A copy of descriptor `number` of the process that `process` stands for (pidfd_getfd(2)): the same open
/// file, closed on exec here.
///
/// # Errors
/// The process is gone or has no such descriptor, or may not be looked into: that takes what attaching a
/// debugger takes, so the same user or root, and no kernel setting against it.
pub fn take(process: impl AsFd, number: i32) -> io::Result<OwnedFd> {
    let process = process.as_fd().as_raw_fd();
    // SAFETY: takes three integers and gives a new descriptor or an error.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process, number, 0) };
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_descriptor_is_taken_from_a_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let process = of_process(std::process::id()).unwrap();
        let taken = TcpListener::from(take(&process, listener.as_raw_fd()).unwrap());
        drop(listener);
        assert_eq!(taken.local_addr().unwrap(), address);
        assert!(std::net::TcpStream::connect(address).is_ok());
        assert!(take(&process, 1_000_000).is_err());
        assert!(of_process(0).is_err());
    }
}
