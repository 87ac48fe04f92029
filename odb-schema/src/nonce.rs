//! What may be used once, over all servers: nonces of credentials. A unique row each; forgotten when what they
//! belong to is too old anyway.

use async_trait::async_trait;
use crosstie_model::names::Digest;
use crosstie_model::ports::{Nonces, NoncesUnreachable};

use crate::error::OdbError;
use crate::handle::{Odb, run};

/// For how long a nonce is remembered beyond its time, by the database's clock, which may be another than the
/// servers'.
pub(crate) const REMEMBERED_BEYOND: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// The nonces that were used, in the ODB.
#[derive(Debug, Clone)]
pub struct OdbNonces {
    odb: Odb,
}

impl OdbNonces {
    /// The nonces in `odb`.
    #[must_use]
    pub fn new(odb: Odb) -> Self {
        Self { odb }
    }
}

impl Odb {
    /// Notes what may be used once; says whether it was not there before. `until` is in seconds since
    /// 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    /// The database is away.
    pub async fn use_nonce(&self, nonce: &Digest, until: i64) -> Result<bool, OdbError> {
        let digest = nonce.to_string();
        let until = until.saturating_mul(1_000_000);
        match run!(self, Write, nonce::use_once(&digest, until)) {
            Ok(()) => Ok(true),
            Err(OdbError::Exists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Nonces for OdbNonces {
    async fn is_new(&self, definition: &str, nonce: &str, until: i64) -> Result<bool, NoncesUnreachable> {
        // Hashed, so that a row is small whatever the sender chose. Names of definitions hold no line break.
        let digest = Digest::of(format!("{definition}\n{nonce}").as_bytes());
        self.odb.use_nonce(&digest, until).await.map_err(|error| {
            tracing::warn!(%error, "the store of nonces did not answer");
            NoncesUnreachable
        })
    }
}
