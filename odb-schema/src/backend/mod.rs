//! The backends: one file each for how connections are opened and kept and the few expressions that differ.
//! Each compiles the queries of `queries/` for its own connection.

pub(crate) mod mysql;
pub(crate) mod postgres;
pub(crate) mod sqlite;
