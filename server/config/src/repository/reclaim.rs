//! Gives memory that packing took back to the system.
//!
//! The allocator of glibc has an arena per thread, up to eight per core, and keeps in each what its threads
//! once needed. A pack takes megabytes for a moment, in whichever thread does blocking work just then, so a
//! server that is redeployed for weeks would end up with the memory of one pack in every arena.

/// Returns what is free in all arenas. Costs milliseconds, so it is for what happens once per some hundred
/// revisions. Other allocators than glibc's return memory by themselves.
pub(super) fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "the standard library has no way to ask for it")]
        // SAFETY: takes no pointer, touches only free memory, and locks each arena while it is at it; any
        // thread may call it at any time.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}
