//! Databases.
//!
//! [`Database`] is what services call. Below it: [`pool`] lends connections and cleans up behind calls;
//! [`link`] is what a connection can do, whatever the database; one module per database does it, with the
//! drivers' raw values, so that a value is converted once and no driver's idea of a type comes between. A
//! statement is taken apart by [`template`] and its result goes into a [`sink`].

mod convert;
mod database;
mod json;
mod link;
mod mariadb;
mod meter;
mod open;
mod pool;
mod postgres;
mod sink;
mod sqlite;
mod stream;
mod template;
mod temporal;
mod transaction;
mod words;

pub(crate) use database::Database;
