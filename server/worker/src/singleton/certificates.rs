//! Notices replaced certificate files and tells the workers.
//!
//! The files are read here first: only a chain and key that fit together are announced, so a half-copied pair
//! never reaches a listener. Every worker then reads them itself; no connection is lost by it.

use std::path::PathBuf;

use crosstie_model::Event;
use crosstie_model::settings::SecuritySection;
use crosstie_security::ReloadingCertificate;

use crate::outbox::Outbox;
use crate::watch::DirectoryWatch;

/// Watches the directory of the certificate until cancelled.
pub(super) async fn watch(directory: PathBuf, settings: SecuritySection, outbox: Outbox) {
    let chain = directory.join(&settings.certificate);
    let key = directory.join(&settings.key);
    let Some(parent) = chain.parent() else { return };
    let mut watch = DirectoryWatch::new(parent);
    let Ok(certificate) = ReloadingCertificate::load(chain.clone(), key.clone())
        .inspect_err(|error| tracing::error!(%error, "the certificate cannot be read"))
    else {
        return;
    };
    loop {
        watch.changed().await;
        match certificate.reload() {
            Ok(crosstie_security::certificate::Reloaded::Replaced) => {
                tracing::info!(file = %chain.display(), expires = %certificate.expires(), "new certificate");
                outbox.event(Event::CertificatesChanged);
            }
            Ok(crosstie_security::certificate::Reloaded::Unchanged) => {}
            Err(error) => {
                tracing::error!(%error, "replaced certificate files cannot be used; the old ones stay")
            }
        }
    }
}
