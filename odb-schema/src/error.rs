//! Why a call to the ODB failed. Callers tell apart what they can act on: a lost race, a missing row, a
//! database that is away; everything else is one variant with its source.

use crosstie_model::names::Revision;

/// Why a call to the ODB failed. No variant and no message holds a password or a secret.
#[derive(Debug, thiserror::Error)]
pub enum OdbError {
    /// The options cannot lead to a database: an unknown scheme, a bad parameter, an unreadable CA.
    #[error("the ODB's address is not usable: {0}")]
    Options(String),
    /// The database is away, or did not answer in time. A change that failed like this may or may not have
    /// been made; the revision tells.
    #[error("the ODB is not reachable: {reason}")]
    Unreachable {
        /// What was seen, in one line.
        reason: String,
    },
    /// Other writers kept the database busy for longer than a statement may take. Nothing was changed.
    #[error("the ODB is busy; nothing was changed")]
    Busy,
    /// The change was made for a revision that is no longer the current one. Nothing was changed.
    #[error("revision {expected} was expected but {found} is current; nothing was changed")]
    Conflict {
        /// The revision the change was made for.
        expected: Revision,
        /// The current one.
        found: Revision,
    },
    /// Something the call refers to is not there. Nothing was changed.
    #[error("there is no {what}")]
    NotFound {
        /// What was looked for, such as `channel/crm`.
        what: String,
    },
    /// Something the call would make is there already, with other content. Nothing was changed.
    #[error("{what} exists already")]
    Exists {
        /// What is there.
        what: String,
    },
    /// The caller leads the cluster no longer. Nothing was changed.
    #[error("the lease {lease} with number {fencing} is no longer held; nothing was changed")]
    Deposed {
        /// The lease.
        lease: String,
        /// The number it was held with.
        fencing: u64,
    },
    /// A value the ODB does not take. Nothing was changed.
    #[error("{what} is not valid: {detail}")]
    Invalid {
        /// Which value.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The database was migrated by a newer release than this one.
    #[error(
        "the ODB's schema is {found}, newer than {known}, the newest this release knows; upgrade crosstie"
    )]
    SchemaNewer {
        /// The newest migration applied.
        found: String,
        /// The newest migration known here.
        known: String,
    },
    /// The database has no schema yet, or an older one.
    #[error("the ODB's schema is {found}, older than {known}; run `crosstie odb migrate`", found = .found.as_deref().unwrap_or("missing"))]
    SchemaOutdated {
        /// The newest migration applied, if any.
        found: Option<String>,
        /// The newest migration known here.
        known: String,
    },
    /// A stored row that this release cannot read.
    #[error("the stored {what} cannot be read: {detail}")]
    Stored {
        /// Which row.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A migration failed.
    #[error("the ODB could not be migrated: {reason}")]
    Migration {
        /// Which migration and why.
        reason: String,
    },
    /// The database refused a statement for a reason that is none of the above.
    #[error("the ODB refused a statement: {0}")]
    Query(#[source] diesel::result::Error),
}

impl OdbError {
    /// Whether the database is away, so that the last good snapshot is all there is.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    pub(crate) fn unreachable(reason: impl ToString) -> Self {
        Self::Unreachable { reason: reason.to_string() }
    }

    pub(crate) fn not_found(what: impl ToString) -> Self {
        Self::NotFound { what: what.to_string() }
    }

    pub(crate) fn invalid(what: impl ToString, detail: impl ToString) -> Self {
        Self::Invalid { what: what.to_string(), detail: detail.to_string() }
    }

    pub(crate) fn stored(what: impl ToString, detail: impl ToString) -> Self {
        Self::Stored { what: what.to_string(), detail: detail.to_string() }
    }
}

impl From<diesel::result::Error> for OdbError {
    fn from(error: diesel::result::Error) -> Self {
        Self::Query(error)
    }
}
