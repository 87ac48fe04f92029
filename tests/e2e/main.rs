//! What Crosstie promises its users, tried on the real binary, and what its source promises its maintainers.
//!
//! One test binary: linking is what end-to-end tests cost most. Each module is one promise's topic.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests report by panicking, and their functions beside `#[test]` ones are tests too"
)]
#![allow(clippy::too_many_lines, reason = "a scenario is read from its first step to its last")]

mod amqp;
mod bus;
mod cluster;
mod command;
mod crashes;
mod credentials;
mod definitions;
mod docs;
mod documentation;
mod garbage;
mod hostile;
mod hot_deploy;
mod layering;
mod links;
mod members;
mod messages;
mod odb;
mod outgoing;
mod outgoing_soap;
mod passthrough;
mod quickstart;
mod service_user;
mod settings;
mod soap;
mod sql;
mod transform;
mod upgrade;
mod workers;

/// How much a test does: `full` in `make soak`, `short` (about a twentieth) in `make test`.
pub(crate) fn volume(full: u64, short: u64) -> u64 {
    if std::env::var_os("CROSSTIE_SOAK").is_some() { full } else { short }
}
