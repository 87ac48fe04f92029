//! Databases against real ones: PostgreSQL and MariaDB of the distribution, reached over TLS with both sides'
//! certificates verified, and files of SQLite.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

mod calls;
mod deadlines;
mod matrix;
mod pool;
mod recovery;
mod streams;
mod support;
mod tls;
mod transactions;
