//! Fault signals: a worker that dies of SIGSEGV, SIGBUS, SIGILL, SIGFPE or SIGABRT says first which of its
//! threads did it.
//!
//! The handler marks the blame slot of the thread it runs on, notes the signal in the worker's slot,
//! restores the default and raises the signal again, so that the process dies of it as it would have (core
//! dump included). Nothing else is safe there. Costs nothing until a fault.

#![expect(unsafe_code, reason = "signal handlers and alternate stacks are set through libc")]

use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crate::shm::{FAULTED, Segment};

/// The signals whose deaths may be a service's doing.
pub(crate) const FAULT_SIGNALS: [libc::c_int; 5] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT];

/// Room for the handler; the kernel's own frame (AVX-512 registers included) takes up to 4 KiB of it.
const STACK_BYTES: usize = 64 * 1024;

thread_local! {
    /// The blame slot of this thread. Constant and without a destructor: reading it allocates nothing.
    static SLOT: Cell<*const AtomicU64> = const { Cell::new(ptr::null()) };
}

/// Where the process notes the signal it dies of.
static OWN_FAULT: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());

/// Installs the handler for this process, a worker attached to `segment`.
///
/// # Errors
/// The kernel refuses a handler; that does not happen for these signals.
pub fn install(segment: &Segment) -> io::Result<()> {
    if let Some(worker) = segment.own_worker() {
        OWN_FAULT.store(ptr::from_ref(&worker.fault).cast_mut(), Ordering::Release);
    }
    ensure_stack();
    for signal in FAULT_SIGNALS {
        // SAFETY: a zeroed sigaction is a valid one (no flags, empty mask, default handler).
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_fault as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_ONSTACK;
        // SAFETY: `action` is initialised and outlives the call; the handler is async-signal-safe.
        if unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn on_fault(signal: libc::c_int) {
    let slot = SLOT.with(Cell::get);
    // SAFETY: the pointer is null or was made from a `&'static AtomicU64` by this thread.
    if let Some(slot) = unsafe { slot.as_ref() } {
        slot.fetch_or(FAULTED, Ordering::SeqCst);
    }
    // SAFETY: the pointer is null or was made from a `&'static AtomicU32`.
    if let Some(fault) = unsafe { OWN_FAULT.load(Ordering::Acquire).as_ref() } {
        fault.store(signal.unsigned_abs(), Ordering::SeqCst);
    }
    // SAFETY: both functions are async-signal-safe. The raised signal stays pending until this handler
    // returns and then meets the default action, which ends the process.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// A thread whose faults are marked in its blame slot, until this is dropped (on the same thread).
pub(crate) struct WatchedThread {
    previous: *const AtomicU64,
    _stays_on_its_thread: PhantomData<*const ()>,
}

/// Marks faults of the calling thread in `slot` from now on.
pub(crate) fn watch_thread(slot: &'static AtomicU64) -> WatchedThread {
    ensure_stack();
    WatchedThread { previous: SLOT.replace(slot), _stays_on_its_thread: PhantomData }
}

impl Drop for WatchedThread {
    fn drop(&mut self) {
        SLOT.set(self.previous);
    }
}

/// An alternate signal stack, taken away from its thread before it is freed.
struct SignalStack {
    _memory: Box<[u8]>,
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        let none = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: disabling takes no memory; the thread that set the stack is the one that drops it.
        unsafe { libc::sigaltstack(&raw const none, ptr::null_mut()) };
    }
}

/// Gives the calling thread an alternate stack unless it has one: a handler for a stack that overflowed
/// cannot run on it. Threads made by std have one already.
fn ensure_stack() {
    thread_local! {
        static STACK: Cell<Option<SignalStack>> = const { Cell::new(None) };
    }
    let mut current = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: asks only; `current` outlives the call.
    let asked = unsafe { libc::sigaltstack(ptr::null(), &raw mut current) };
    if asked != 0 || current.ss_flags & libc::SS_DISABLE == 0 {
        return;
    }
    let mut memory = vec![0u8; STACK_BYTES].into_boxed_slice();
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
    // SAFETY: the memory lives in this thread's `STACK` until the thread ends, and is disabled before.
    if unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) } == 0 {
        STACK.set(Some(SignalStack { _memory: memory }));
    }
}
