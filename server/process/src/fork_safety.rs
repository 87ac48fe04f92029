//! Forks of user code: a child that a service forks must not keep the worker's connections open nor touch
//! what the worker shares.
//!
//! `install` registers a handler that runs in every forked child (`os.fork`, a `multiprocessing` fork
//! context; not `posix_spawn` or `vfork`, which end in exec). There it
//! - closes the descriptors that the worker held when it was installed, those registered later, and every
//!   connection accepted on one of its ports, so that a client sees its connection end when the worker
//!   ends it;
//! - puts private, zeroed memory in the place of the shared segment, so that host code which the child may
//!   fall back into counts for nobody and cannot give back a permit twice.
//!
//! Descriptors that the service itself opened (pipes, its own sockets) stay. Costs a child one walk over its
//! descriptors; costs the worker nothing.

#![expect(unsafe_code, reason = "a fork handler may only make plain system calls")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::shm::Segment;

/// Descriptors that can be registered: those with numbers below this. A worker's own are opened first and
/// have low ones.
const REGISTERED: usize = 4_096;
const PORTS: usize = 16;

/// What each registered descriptor refers to; 0 for none. A number that was closed and given out anew
/// refers to something else then and is left alone.
static HOST: [AtomicU64; REGISTERED] = [const { AtomicU64::new(0) }; REGISTERED];
/// Local ports of the worker's listeners.
static LISTENING: [AtomicU32; PORTS] = [const { AtomicU32::new(0) }; PORTS];
static SEGMENT: AtomicPtr<libc::c_void> = AtomicPtr::new(ptr::null_mut());
static SEGMENT_LENGTH: AtomicUsize = AtomicUsize::new(0);
static INSTALLED: AtomicBool = AtomicBool::new(false);
static FORKED: AtomicBool = AtomicBool::new(false);

/// Protects this worker from children that its services fork. Everything open now except standard input and
/// output counts as the worker's own, so this is called when its runtimes stand and before user code runs.
///
/// # Errors
/// The list of open descriptors cannot be read, or there is no memory for the handler.
pub fn install(segment: &Segment) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok());
        if let Some(fd) = number.filter(|fd| *fd > libc::STDERR_FILENO) {
            register_number(fd);
        }
    }
    let (start, length) = segment.extent();
    SEGMENT_LENGTH.store(length, Ordering::Release);
    SEGMENT.store(start, Ordering::Release);
    if INSTALLED.swap(true, Ordering::AcqRel) {
        return Ok(());
    }
    // SAFETY: the handler is a plain function that makes only async-signal-safe calls.
    match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Counts `descriptor` among the worker's own: forked children close it.
pub fn register(descriptor: impl AsFd) {
    register_number(descriptor.as_fd().as_raw_fd());
}

/// Whether this process is a child forked from a worker by user code: host calls make no sense in it.
#[must_use]
pub fn is_forked_child() -> bool {
    FORKED.load(Ordering::Relaxed)
}

fn register_number(fd: RawFd) {
    let place = usize::try_from(fd).ok().and_then(|number| HOST.get(number));
    if let (Some(place), Some(identity)) = (place, identity(fd)) {
        place.store(identity, Ordering::Release);
    }
    if is_listening(fd)
        && let Some(port) = local_port(fd)
    {
        let known = |slot: &&AtomicU32| slot.load(Ordering::Acquire) == port;
        if !LISTENING.iter().any(|slot| known(&slot)) {
            let free = LISTENING
                .iter()
                .find(|slot| slot.compare_exchange(0, port, Ordering::AcqRel, Ordering::Relaxed).is_ok());
            debug_assert!(free.is_some(), "a server has fewer than {PORTS} listeners");
        }
    }
}

/// Device and inode in one number; `None` when the descriptor is not open. Async-signal-safe.
fn identity(fd: RawFd) -> Option<u64> {
    // SAFETY: a zeroed stat is valid, and fstat only writes to it.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `status` outlives the call; a bad descriptor is an error, not a fault.
    let failed = unsafe { libc::fstat(fd, &raw mut status) } != 0;
    (!failed).then(|| (status.st_ino ^ status.st_dev.rotate_left(32)) | 1 << 63)
}

fn is_listening(fd: RawFd) -> bool {
    let mut listening: libc::c_int = 0;
    let mut length = SOCKLEN_INT;
    // SAFETY: value and length outlive the call, and the length is the value's.
    let failed = unsafe {
        let value = (&raw mut listening).cast();
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, value, &raw mut length)
    } != 0;
    !failed && listening != 0
}

const SOCKLEN_INT: libc::socklen_t = 4;
/// `struct sockaddr_storage` (RFC 3493, section 3.10) has this size everywhere.
const SOCKLEN_STORAGE: libc::socklen_t = 128;

/// The local port of an internet socket; `None` for anything else. Async-signal-safe.
fn local_port(fd: RawFd) -> Option<u32> {
    // SAFETY: a zeroed address is a valid one of family "unspecified".
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = SOCKLEN_STORAGE;
    // SAFETY: address and length outlive the call, and the length is the address's.
    let failed = unsafe { libc::getsockname(fd, (&raw mut address).cast(), &raw mut length) } != 0;
    if failed {
        return None;
    }
    let family = libc::c_int::from(address.ss_family);
    let port = match family {
        // SAFETY: the family says that the storage holds this type, which is smaller and less aligned.
        libc::AF_INET => unsafe { (*(&raw const address).cast::<libc::sockaddr_in>()).sin_port },
        // SAFETY: as above.
        libc::AF_INET6 => unsafe { (*(&raw const address).cast::<libc::sockaddr_in6>()).sin6_port },
        _ => return None,
    };
    Some(u32::from(u16::from_be(port))).filter(|port| *port != 0)
}

/// Runs in the child, on its only thread. Allocates nothing and takes no lock.
extern "C" fn in_child() {
    FORKED.store(true, Ordering::Relaxed);
    hide_segment();
    close_host_descriptors();
}

fn hide_segment() {
    let start = SEGMENT.load(Ordering::Acquire);
    let length = SEGMENT_LENGTH.load(Ordering::Acquire);
    if start.is_null() || length == 0 {
        return;
    }
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: replaces exactly the segment's own mapping by memory of the same size and access that is
    // valid for the same type (all zeroes), so every reference into it stays good.
    unsafe { libc::mmap(start, length, access, flags, -1, 0) };
}

fn is_host(fd: RawFd) -> bool {
    let place = usize::try_from(fd).ok().and_then(|number| HOST.get(number));
    let registered = place.map_or(0, |place| place.load(Ordering::Acquire));
    if registered != 0 && identity(fd) == Some(registered) {
        return true;
    }
    local_port(fd).is_some_and(|port| LISTENING.iter().any(|slot| slot.load(Ordering::Acquire) == port))
}

/// Walks /proc/self/fd with getdents64: the C library's directory functions allocate.
fn close_host_descriptors() {
    const ENTRIES: usize = 4096;
    #[repr(align(8))]
    struct Buffer([u8; ENTRIES]);
    // SAFETY: the path is a constant C string.
    let directory = unsafe {
        libc::open(c"/proc/self/fd".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC)
    };
    if directory < 0 {
        return;
    }
    let mut buffer = Buffer([0; ENTRIES]);
    loop {
        // SAFETY: the buffer outlives the call and has the length given.
        let count = unsafe { libc::syscall(libc::SYS_getdents64, directory, buffer.0.as_mut_ptr(), ENTRIES) };
        let Some(entries) = usize::try_from(count).ok().and_then(|count| buffer.0.get(..count)) else {
            break;
        };
        if entries.is_empty() {
            break;
        }
        for fd in descriptor_numbers(entries) {
            if fd > libc::STDERR_FILENO && fd != directory && is_host(fd) {
                // SAFETY: the number is open in this child and belongs to the worker, whose code that
                // would use it does not run here.
                unsafe { libc::close(fd) };
            }
        }
    }
    // SAFETY: opened above.
    unsafe { libc::close(directory) };
}

/// The numbers among the names in a block of `struct linux_dirent64` (getdents64(2)).
fn descriptor_numbers(mut entries: &[u8]) -> impl Iterator<Item = RawFd> {
    const LENGTH_AT: usize = 16;
    const NAME_AT: usize = 19;
    std::iter::from_fn(move || {
        let length = entries.get(LENGTH_AT..).and_then(<[u8]>::first_chunk::<2>)?;
        let length = usize::from(u16::from_ne_bytes(*length)).max(NAME_AT);
        let name = entries.get(NAME_AT..length)?;
        entries = entries.get(length..)?;
        Some(parse_number(name))
    })
    .flatten()
}

fn parse_number(name: &[u8]) -> Option<RawFd> {
    let digits = name.split(|byte| *byte == 0).next().filter(|digits| !digits.is_empty())?;
    digits.iter().try_fold(0 as RawFd, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| RawFd::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &[u8]) -> Vec<u8> {
        let length = (19 + name.len() + 1).next_multiple_of(8);
        let mut bytes = vec![0; length];
        bytes[16..18].copy_from_slice(&u16::try_from(length).unwrap().to_ne_bytes());
        bytes[19..19 + name.len()].copy_from_slice(name);
        bytes
    }

    #[test]
    fn descriptor_numbers_are_read_and_dots_skipped() {
        let block = [entry(b"."), entry(b".."), entry(b"0"), entry(b"17"), entry(b"4095")].concat();
        assert_eq!(descriptor_numbers(&block).collect::<Vec<_>>(), [0, 17, 4095]);
    }

    #[test]
    fn a_descriptor_number_given_out_anew_is_not_the_registered_one() {
        let (first, second) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        assert_ne!(identity(first.as_raw_fd()), identity(second.as_raw_fd()));
        assert_eq!(identity(first.as_raw_fd()), identity(first.try_clone().unwrap().as_raw_fd()));
    }

    proptest! {
        #[test]
        fn any_block_is_read_without_a_panic(block in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = descriptor_numbers(&block).take(100).count();
        }
    }
}
