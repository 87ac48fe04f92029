//! The cluster's state at a revision: the current one as a snapshot, earlier ones from the audit.

use crosstie_model::names::{Digest, Revision, UnitName};
use crosstie_model::{Definition, Snapshot};
use serde_json::Value;

use crate::deployment::document;
use crate::error::OdbError;
use crate::handle::{Odb, run};

/// One change of the configuration: who made what of it, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// The revision it made.
    pub revision: Revision,
    /// When: µs since 1970 UTC, by the database's clock.
    pub time_us: i64,
    /// Who.
    pub author: String,
    /// Why.
    pub message: String,
    /// What changed, in the order of the ids.
    pub changes: Vec<AuditChange>,
}

/// What one change made of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditChange {
    /// `KIND/NAME` of a definition, `deployment/UNIT`, or `certificate/SERIAL`.
    pub id: String,
    /// The definition's body, or `{digest, kind, services, active}` of the active deployment (and `library`,
    /// the digest of the shared library it was checked with), or `{revoked}` of a certificate; `None` when
    /// there was none.
    pub before: Option<Value>,
    /// The same afterwards; `None` when it was removed.
    pub after: Option<Value>,
}

/// What the cluster's state was at an earlier revision, as far as it can be had again.
#[derive(Debug, Clone, PartialEq)]
pub struct PastState {
    /// Definitions, deployments with their manifests as they are stored now, and sealed secrets. Revoked
    /// certificates are today's.
    pub snapshot: Snapshot,
    /// Deployments that were active then and are no longer kept.
    pub missing: Vec<(UnitName, Digest)>,
}

impl PastState {
    /// Every object of that state as the audit names and shows it: `KIND/NAME` and `deployment/UNIT`.
    ///
    /// # Errors
    /// A definition cannot be written as JSON.
    pub fn documents(&self) -> Result<Vec<(String, Value)>, OdbError> {
        let mut documents = Vec::new();
        for (id, body) in &self.snapshot.definitions {
            let definition = Definition { id: id.clone(), body: body.clone() };
            let value = definition.to_value().map_err(|error| OdbError::stored(id, error))?;
            documents.push((id.to_string(), value));
        }
        for (unit, active) in &self.snapshot.units {
            let (digest, kind) = (active.digest.to_string(), active.kind.as_str());
            documents.push((format!("deployment/{unit}"), document(&digest, kind, &active.manifest)));
        }
        Ok(documents)
    }
}

impl Odb {
    /// The current revision. One small query: what the 2 s comparison asks.
    ///
    /// # Errors
    /// The database is away.
    pub async fn revision(&self) -> Result<Revision, OdbError> {
        run!(self, Single, revision::revision())
    }

    /// Everything the cluster serves now, in one consistent read.
    ///
    /// # Errors
    /// The database is away, or a row cannot be read.
    pub async fn snapshot(&self) -> Result<Snapshot, OdbError> {
        run!(self, Read, revision::snapshot())
    }

    /// The changes after the revision `after`, oldest first, at most `limit` of them.
    ///
    /// # Errors
    /// The database is away.
    pub async fn audit(&self, after: Revision, limit: u32) -> Result<Vec<AuditEntry>, OdbError> {
        run!(self, Read, revision::audit(after, limit))
    }

    /// What the cluster's state was at `revision`, by taking back the changes made since. Costs one read of
    /// the current state and of those changes.
    ///
    /// # Errors
    /// [`OdbError::NotFound`] for a revision that never was; the database is away.
    pub async fn state_at(&self, revision: Revision) -> Result<PastState, OdbError> {
        run!(self, Read, revision::state_at(revision))
    }

    /// The database's clock: µs since 1970 UTC.
    ///
    /// # Errors
    /// The database is away.
    pub async fn clock_us(&self) -> Result<i64, OdbError> {
        run!(self, Single, revision::clock_us())
    }
}
