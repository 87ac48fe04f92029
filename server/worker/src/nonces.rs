//! Nonces of credentials, asked for from the reactor that serves traffic and noted by the one that the ODB's
//! connections belong to.

use async_trait::async_trait;
use crosstie_model::ports::{Nonces, NoncesUnreachable};
use crosstie_odb::{Odb, OdbNonces};
use tokio::runtime::Handle;

/// The nonces in the ODB, for any reactor.
#[derive(Debug)]
pub(crate) struct SharedNonces {
    nonces: OdbNonces,
    control: Handle,
}

impl SharedNonces {
    /// The nonces in `odb`, whose connections `control` drives.
    pub(crate) fn new(odb: Odb, control: Handle) -> Self {
        Self { nonces: OdbNonces::new(odb), control }
    }
}

#[async_trait]
impl Nonces for SharedNonces {
    async fn is_new(&self, definition: &str, nonce: &str, until: i64) -> Result<bool, NoncesUnreachable> {
        let (nonces, definition, nonce) = (self.nonces.clone(), definition.to_owned(), nonce.to_owned());
        let asked = self.control.spawn(async move { nonces.is_new(&definition, &nonce, until).await });
        asked.await.unwrap_or(Err(NoncesUnreachable))
    }
}
