//! The operational database: definitions, deployments, audit, users, servers, leases and run-time data, on
//! SQLite, PostgreSQL or MariaDB/MySQL.
//!
//! [`Odb`] is the one handle. Its methods are grouped by topic, one file each, beside the plain rows they
//! give; the queries behind them are written once under `queries/` and compiled once per backend, and what
//! differs between backends is one file each under `backend/`. The hot path never comes here.

#![expect(clippy::duplicate_mod, reason = "the queries are written once and compiled once per backend")]

mod account;
mod attempt;
mod authority;
mod backend;
mod certificate;
mod change;
mod data;
mod decode;
mod deployment;
mod error;
mod handle;
mod leader;
mod lease;
mod member;
mod nonce;
mod options;
mod pool;
mod report;
mod revision;
mod schema;
mod tables;
mod tls;

pub use account::{NewToken, Role, TokenRow, User};
pub use attempt::{AttemptOutcome, AttemptRow, NewAttempt, PickupRow};
pub use authority::AuthorityRow;
pub use certificate::{Admission, CertificateRow, JoinTokenRow, NewCertificate, NewJoinToken};
pub use change::{Change, ChangeSet};
pub use data::{MAX_DATA_KEY_BYTES, MAX_DATA_VALUE_BYTES, OdbDataStore};
pub use deployment::DeploymentRow;
pub use error::OdbError;
pub use handle::Odb;
pub use leader::{LEADER_LEASE, Leader, Purged, Retention, leader_holder};
pub use lease::Lease;
pub use member::{Heartbeat, MemberRow, MemberState, NewMember, Wanted};
pub use nonce::OdbNonces;
pub use options::OdbOptions;
pub use report::{ReportRow, ReportState};
pub use revision::{AuditChange, AuditEntry, PastState};
pub use schema::SchemaStatus;
