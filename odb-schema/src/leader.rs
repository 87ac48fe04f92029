//! Who leads the cluster, and what the leader writes. Each write is one transaction that first sees, under the lease row's
//! lock, that the caller still is the leader: one that was paused meanwhile and wakes changes no row.

use std::time::Duration;

use crate::error::OdbError;
use crate::handle::{Odb, run};
use crate::lease::Lease;

/// The lease whose holder leads the cluster.
pub const LEADER_LEASE: &str = "leader";

/// How a process of `server` names itself as the holder of [`LEADER_LEASE`]: `life` tells it from its successors.
#[must_use]
pub fn leader_holder(server: &str, life: &str) -> String {
    format!("{server}/{life}")
}

/// What the leader may do with the lease it took. Cheap.
#[derive(Debug, Clone, Copy)]
pub struct Leader<'a> {
    odb: &'a Odb,
    lease: &'a Lease,
}

/// How long what was used up is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Rows of the audit; `None` for ever. A rollback reaches back as far, and so do the secrets it needs.
    pub audit: Option<Duration>,
}

/// How much of what was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Run-time data that lapsed.
    pub data: usize,
    /// Nonces that nobody could use again anyway.
    pub nonces: usize,
    /// Access tokens that expired.
    pub tokens: usize,
    /// Tokens for joining that expired.
    pub join_tokens: usize,
    /// Records of certificates that ended.
    pub certificates: usize,
    /// Rows of the audit beyond the retention.
    pub audit: usize,
    /// Versions of secrets that nothing refers to any more.
    pub secrets: usize,
}

impl Purged {
    /// Whether nothing was there to remove.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl Odb {
    /// The server that leads the cluster now, by the database's clock; `None` between two leaders.
    ///
    /// # Errors
    /// The database is away.
    pub async fn leader(&self) -> Result<Option<String>, OdbError> {
        let holder = run!(self, Single, lease::holder(LEADER_LEASE))?;
        Ok(holder.map(|holder| holder.split('/').next().unwrap_or_default().to_owned()))
    }

    /// What the holder of `lease` may do.
    #[must_use]
    pub fn as_leader<'a>(&'a self, lease: &'a Lease) -> Leader<'a> {
        Leader { odb: self, lease }
    }
}

impl Leader<'_> {
    /// Marks servers whose last heartbeat is older than `lapse` as dead and gives their names.
    ///
    /// # Errors
    /// [`OdbError::Deposed`] when the lease is no longer this one: nothing is changed then. The database is
    /// away.
    pub async fn mark_lapsed(&self, lapse: Duration) -> Result<Vec<String>, OdbError> {
        let Self { odb, lease } = self;
        run!(odb, Write, leader::mark_lapsed(lease, lapse))
    }

    /// Removes what has expired. A secret's version goes only when no definition and no row of the audit that
    /// is kept refers to it.
    ///
    /// # Errors
    /// As for [`Leader::mark_lapsed`].
    pub async fn purge(&self, retention: &Retention) -> Result<Purged, OdbError> {
        let Self { odb, lease } = self;
        run!(odb, Write, leader::purge(lease, retention))
    }
}
