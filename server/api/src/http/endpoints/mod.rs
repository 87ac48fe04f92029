//! The endpoints, one file per group: each declares its part of the table and the functions behind it.

pub(crate) mod account;
pub(crate) mod certificate;
pub(crate) mod configuration;
pub(crate) mod definition;
pub(crate) mod deployment;
pub(crate) mod member;
pub(crate) mod message;
pub(crate) mod server;
pub(crate) mod service;
