//! Configuration as files: `server.toml`, users' own TOML files, definitions in YAML, and the two git
//! repositories that keep their history.
//!
//! The texts are read into one located tree (`tree`), checked against the JSON Schemas of the model, and
//! every fault comes back with file, line and key ([`LocatedFault`]). The worker's singleton is the only
//! writer of the repositories; the command line parses and renders documents.

pub mod document;
mod fault;
pub mod repository;
pub mod settings;
pub mod shape;
mod tree;
pub mod user;

pub use fault::LocatedFault;
