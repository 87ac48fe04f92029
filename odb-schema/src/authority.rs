//! The cluster's certificate authority: its certificate, and its key as the cluster key encrypted it.

use crate::error::OdbError;
use crate::handle::{Odb, run};

/// The cluster's certificate authority.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorityRow {
    /// The private key, encrypted with the cluster key.
    pub sealed_key: Vec<u8>,
    /// The certificate (PEM).
    pub certificate_pem: String,
}

impl std::fmt::Debug for AuthorityRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthorityRow(…)")
    }
}

impl Odb {
    /// The cluster's certificate authority, once one was stored.
    ///
    /// # Errors
    /// The database is away.
    pub async fn ca(&self) -> Result<Option<AuthorityRow>, OdbError> {
        run!(self, Single, authority::authority())
    }

    /// Stores the cluster's certificate authority in place of the one before.
    ///
    /// # Errors
    /// The database is away.
    pub async fn put_ca(&self, sealed_key: &[u8], certificate_pem: &str) -> Result<(), OdbError> {
        run!(self, Write, authority::put_authority(sealed_key, certificate_pem))
    }
}
