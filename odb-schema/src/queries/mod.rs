//! The queries, written once. Each backend's module compiles this folder for itself (`#[path]`), so that
//! `super::super::Handle` and the few functions beside it (`now`, `conflict_target`, `lock_…`) are that
//! backend's and everything here is ordinary, typed code.
//!
//! Each function runs inside the one transaction that the handle opened for the call.

pub(crate) mod account;
pub(crate) mod attempt;
pub(crate) mod authority;
pub(crate) mod certificate;
pub(crate) mod change;
pub(crate) mod data;
pub(crate) mod deployment;
pub(crate) mod leader;
pub(crate) mod lease;
pub(crate) mod member;
pub(crate) mod nonce;
pub(crate) mod report;
pub(crate) mod revision;
pub(crate) mod schema;
