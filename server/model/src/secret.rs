//! Secrets by reference. Definitions, audit rows and YAML hold `{ref, version}`; the sealed bytes live in the
//! ODB beside them, one row per version, so that a rollback finds the old one.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a secret's value is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SecretRef {
    /// Sealed in the ODB.
    Stored {
        /// The secret's name; by default that of the definition and field it belongs to
        /// (`security/crm.clients/password`).
        r#ref: String,
        /// Which version of it.
        version: u32,
    },
    /// `env:NAME` or `file:PATH`, read by each server for itself when it builds a snapshot; or, in an
    /// `apply` document only, the value itself, which is sealed before anything is stored.
    Text(String),
}

impl SecretRef {
    /// What kind of reference this is.
    #[must_use]
    pub fn source(&self) -> SecretSource<'_> {
        match self {
            Self::Stored { r#ref, version } => SecretSource::Stored { name: r#ref, version: *version },
            Self::Text(text) => match text.split_once(':') {
                Some(("env", name)) => SecretSource::Environment(name),
                Some(("file", path)) => SecretSource::File(path),
                _ => SecretSource::Plain(text),
            },
        }
    }
}

/// A decoded [`SecretRef`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SecretSource<'a> {
    /// A version sealed in the ODB.
    Stored {
        /// The secret's name.
        name: &'a str,
        /// Its version.
        version: u32,
    },
    /// An environment variable of the server.
    Environment(&'a str),
    /// A file on the server; surrounding white space is not part of the secret.
    File(&'a str),
    /// The value itself: only ever in an `apply` document on its way in.
    Plain(&'a str),
}

impl fmt::Debug for SecretSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored { name, version } => write!(f, "Stored({name}@{version})"),
            Self::Environment(name) => write!(f, "Environment({name})"),
            Self::File(path) => write!(f, "File({path})"),
            Self::Plain(_) => f.write_str("Plain(…)"),
        }
    }
}

/// A secret's value in memory. Never printed, never serialized; overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Box<[u8]>);

impl SecretValue {
    /// Takes over `value`.
    #[must_use]
    pub fn new(value: impl Into<Box<[u8]>>) -> Self {
        Self(value.into())
    }

    /// The value, for the one comparison or call that needs it.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for SecretValue {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the compiler from leaving out writes nobody reads.
        std::hint::black_box(&self.0);
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}
