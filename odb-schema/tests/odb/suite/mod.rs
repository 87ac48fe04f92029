//! The tests that hold on every backend. Each gets a fresh, migrated database.

pub(crate) mod account;
pub(crate) mod change;
pub(crate) mod cluster;
pub(crate) mod data;
pub(crate) mod deployment;
pub(crate) mod server;
