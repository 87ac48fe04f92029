//! The message log: what channels and outgoings keep of their messages, for search and replay.
//!
//! Every worker appends to segments of its own in one directory per server; nobody appends to what another
//! process wrote, so that a writer that was killed harms no record but its last. The metadata of a message is
//! never dropped: when records come faster than the disk takes them, whoever is about to take a message waits
//! for room ([`MessageLog::has_room`]). Bodies that find no room in memory are dropped and counted.
//!
//! Recording moves one struct into a queue; encoding, masking and writing are the writer thread's work, which
//! writes what gathered in 50 ms. Searching reads the segments from the newest to the oldest, without an index:
//! that costs a second per some gigabytes, and the hot path nothing.

mod format;
mod log;
mod mask;
mod record;
mod search;
mod segment;
mod stored;
#[cfg(test)]
mod tests;

pub use log::MessageLog;
pub use record::{MessageRecord, Side};
pub use search::{Found, MessageQuery, messages, search};
pub use segment::{DIRECTORY, Limits, prune};
pub use stored::{StoredBody, StoredMessage, StoredPart};
