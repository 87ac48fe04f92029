//! Client certificates for mysql_async. That driver makes its own TLS configuration with the process's
//! provider, finds keys of PKCS #1 alone in text, and calls whatever is not text such a key: others come out of
//! it with the wrong label.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, KeyProvider, ring};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer};
use rustls::sign::SigningKey;

/// Makes the process's TLS provider one that takes keys with a wrong label.
pub(super) fn accept_mislabelled() {
    let provider = CryptoProvider { key_provider: &AnyLabel, ..ring::default_provider() };
    // Fails when there is one already: of ours, or of the ODB's, which does the same.
    let _ = provider.install_default();
}

/// Whether the process's provider takes `key` from the driver.
pub(super) fn takes(key: &PrivateKeyDer<'static>) -> bool {
    let mislabelled = PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(key.secret_der().to_vec()));
    CryptoProvider::get_default()
        .is_some_and(|provider| provider.key_provider.load_private_key(mislabelled).is_ok())
}

/// Loads a key whatever kind it says it is.
#[derive(Debug)]
struct AnyLabel;

impl KeyProvider for AnyLabel {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        let ring = ring::default_provider().key_provider;
        let bytes = key.secret_der().to_vec();
        let labels = [PrivateKeyDer::Pkcs8(bytes.clone().into()), PrivateKeyDer::Sec1(bytes.into())];
        let as_it_says = ring.load_private_key(key);
        labels.into_iter().fold(as_it_says, |found, label| match found {
            Ok(found) => Ok(found),
            Err(error) => ring.load_private_key(label).map_err(|_| error),
        })
    }
}
