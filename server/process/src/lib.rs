//! Processes: the supervisor and its workers, what they share and how they speak.
//!
//! Layer 1. `supervisor` runs in the parent, `worker` is how a child takes over what it inherits, and the
//! rest is used by both: `control` (frames on a socketpair), `shm` (one memory segment per server), `lock`
//! (the singleton's record lock), `fault` and `fork_safety` (signals and forks of user code), `scratch`
//! (checks in a throw-away process), `pidfile` (finding and signalling a running supervisor), `ending` (telling
//! a process that was just killed from one that runs), `files` (what only the kernel knows of a file),
//! `privilege` (the service user that root drops to), `adopt` (giving that user what root made) and `program`
//! (what an upgrade runs).

pub mod adopt;
mod clock;
pub mod control;
pub mod descriptor;
pub mod ending;
pub mod fault;
pub mod files;
pub mod fork_safety;
mod inheritance;
pub mod lock;
pub mod pidfile;
pub mod privilege;
pub mod program;
pub mod scratch;
pub mod shm;
pub mod supervisor;
pub mod worker;
