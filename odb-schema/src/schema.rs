//! Which migrations a database has, against those this release knows. Versions are fixed-width numbers
//! (`0001`), so they compare as text.

use std::time::Duration;

use diesel::backend::Backend;
use diesel::migration::MigrationSource;

use crate::error::OdbError;

/// How long one process waits for another that migrates.
pub(crate) const MIGRATION_WAIT: Duration = Duration::from_secs(300);

/// What became of a database's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaStatus {
    /// Nothing was ever applied.
    Missing {
        /// The newest migration of this release.
        known: String,
    },
    /// An older release made it; `migrate` brings it up to date.
    Older {
        /// The newest migration applied.
        found: String,
        /// The newest migration of this release.
        known: String,
    },
    /// It is this release's.
    Current {
        /// The newest migration applied.
        found: String,
    },
    /// A newer release migrated it; this one refuses to touch it.
    Newer {
        /// The newest migration applied.
        found: String,
        /// The newest migration of this release.
        known: String,
    },
}

impl SchemaStatus {
    /// Compares the newest migration applied with the newest known.
    pub(crate) fn of(applied: Option<String>, known: String) -> Self {
        match applied {
            None => Self::Missing { known },
            Some(found) if found < known => Self::Older { found, known },
            Some(found) if found > known => Self::Newer { found, known },
            Some(found) => Self::Current { found },
        }
    }
}

/// Refuses a schema that is not this release's.
pub(crate) fn require_current(applied: Option<String>, known: &str) -> Result<(), OdbError> {
    match SchemaStatus::of(applied, known.to_owned()) {
        SchemaStatus::Current { .. } => Ok(()),
        SchemaStatus::Missing { known } => Err(OdbError::SchemaOutdated { found: None, known }),
        SchemaStatus::Older { found, known } => Err(OdbError::SchemaOutdated { found: Some(found), known }),
        SchemaStatus::Newer { found, known } => Err(OdbError::SchemaNewer { found, known }),
    }
}

/// Whether there is something to apply.
///
/// # Errors
/// [`OdbError::SchemaNewer`].
pub(crate) fn is_behind(applied: Option<String>, known: String) -> Result<bool, OdbError> {
    match SchemaStatus::of(applied, known) {
        SchemaStatus::Current { .. } => Ok(false),
        SchemaStatus::Newer { found, known } => Err(OdbError::SchemaNewer { found, known }),
        SchemaStatus::Missing { .. } | SchemaStatus::Older { .. } => Ok(true),
    }
}

/// The version of the newest of `migrations`.
pub(crate) fn newest<B: Backend>(migrations: &impl MigrationSource<B>) -> Result<String, OdbError> {
    let all = migrations.migrations().map_err(|error| OdbError::Migration { reason: error.to_string() })?;
    all.iter()
        .map(|migration| migration.name().version().to_string())
        .max()
        .ok_or_else(|| OdbError::Migration { reason: "this release has no migrations".into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_schema_is_refused_and_an_older_one_too() {
        assert!(require_current(Some("0002".into()), "0002").is_ok());
        assert!(matches!(require_current(Some("0003".into()), "0002"), Err(OdbError::SchemaNewer { .. })));
        assert!(matches!(
            require_current(Some("0001".into()), "0002"),
            Err(OdbError::SchemaOutdated { found: Some(_), .. })
        ));
        assert!(matches!(require_current(None, "0002"), Err(OdbError::SchemaOutdated { found: None, .. })));
    }
}
