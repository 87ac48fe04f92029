//! The interpreter's own thread: it starts CPython, so it is Python's main thread, and then does what needs
//! the interpreter but belongs to no call, above all unloading.
//!
//! A unit's last handle is dropped wherever the last call on it ends, mostly on the reactor. That thread must
//! never wait for the interpreter, so it only sends the unit's namespace here. A full garbage collection
//! stops all handlers for milliseconds; here it runs once per burst of unloads instead of once per unload. What
//! the burst left free goes back to the system then: loading and unloading happen on many threads, and glibc
//! keeps an arena per thread with whatever that thread once needed.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use pyo3::intern;
use pyo3::prelude::*;

/// After how many unloads a collection runs although more may follow at once.
const UNLOADS_PER_COLLECTION: u32 = 16;

/// How long nothing must be unloaded before what was is collected.
const QUIET: Duration = Duration::from_millis(300);

/// Something to do on the interpreter's thread.
pub(crate) enum Chore {
    /// Take a namespace of modules out of the interpreter.
    Unload(Py<PyAny>),
}

static CHORES: OnceLock<Sender<Chore>> = OnceLock::new();

/// Hands `chore` to the interpreter's thread. Without one nothing was ever loaded.
pub(crate) fn send(chore: Chore) {
    if let Some(chores) = CHORES.get() {
        // The thread lives as long as the process.
        let _ = chores.send(chore);
    }
}

/// Makes `chores` the way to the thread that will call [`run`].
pub(crate) fn open(chores: Sender<Chore>) {
    let _ = CHORES.set(chores);
}

/// Does chores for as long as the process lives.
pub(crate) fn run(chores: &Receiver<Chore>) {
    let mut unloaded = 0u32;
    loop {
        let received = if unloaded == 0 {
            chores.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            chores.recv_timeout(QUIET)
        };
        match received {
            Ok(Chore::Unload(namespace)) => {
                Python::attach(|py| unload(py, namespace));
                unloaded += 1;
                if unloaded >= UNLOADS_PER_COLLECTION {
                    clean_up();
                    unloaded = 0;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                clean_up();
                unloaded = 0;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn unload(py: Python<'_>, namespace: Py<PyAny>) {
    if let Err(error) = namespace.bind(py).call_method0(intern!(py, "unload")) {
        tracing::warn!(%error, "a unit could not be unloaded cleanly");
    }
}

/// Collects what was unloaded and gives the memory back; the second without holding up the interpreter.
fn clean_up() {
    Python::attach(collect);
    return_free_memory();
}

/// Collects cycles: a class is always part of one.
fn collect(py: Python<'_>) {
    let collected =
        py.import(intern!(py, "gc")).and_then(|gc| gc.call_method0(intern!(py, "collect")).map(drop));
    if let Err(error) = collected {
        tracing::warn!(%error, "garbage could not be collected");
    }
}

/// Returns what is free in all arenas. Takes about a millisecond; other allocators than glibc's do it by
/// themselves.
fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "the standard library has no way to ask for it")]
        // SAFETY: takes no pointer, touches only free memory, and locks each arena while it is at it; any
        // thread may call it at any time.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}
