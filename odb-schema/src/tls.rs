//! TLS towards a database server: which roots are trusted, and the client's own certificate. The server's
//! certificate is always verified for the host name it is reached by.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, KeyProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer};
use rustls::sign::SigningKey;
use rustls::{ClientConfig, RootCertStore};

use crate::error::OdbError;
use crate::options::Identity;

/// What the files of a link hold.
pub(crate) struct Material {
    /// The only trusted roots.
    pub(crate) roots: Vec<CertificateDer<'static>>,
    /// What the client shows, if anything.
    pub(crate) identity: Option<Shown>,
}

/// A client's certificate.
pub(crate) struct Shown {
    /// The chain.
    chain: Vec<CertificateDer<'static>>,
    /// The same, PEM.
    pub(crate) chain_pem: Vec<u8>,
    /// Its key.
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Material {
    /// Reads the roots of `ca` (or the system's) and `identity`.
    pub(crate) fn read(ca: Option<&Path>, identity: Option<&Identity>) -> Result<Self, OdbError> {
        let own = |identity: &Identity| {
            let key = PrivateKeyDer::from_pem_file(&identity.key)
                .map_err(|error| OdbError::Options(format!("{}: {error}", identity.key.display())))?;
            let (chain, chain_pem) = certificates(&identity.certificate)?;
            Ok::<_, OdbError>(Shown { chain, chain_pem, key })
        };
        Ok(Self { roots: roots(ca)?, identity: identity.map(own).transpose()? })
    }

    /// A configuration that trusts the roots and shows the identity.
    pub(crate) fn client_config(self) -> Result<ClientConfig, OdbError> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(self.roots);
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(refused)?
            .with_root_certificates(store);
        match self.identity {
            Some(Shown { chain, key, .. }) => builder.with_client_auth_cert(chain, key).map_err(refused),
            None => Ok(builder.with_no_client_auth()),
        }
    }
}

fn refused(error: rustls::Error) -> OdbError {
    OdbError::Options(format!("TLS cannot be set up: {error}"))
}

/// The trusted roots: those of `ca`, or those of the system's that can be used.
fn roots(ca: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, OdbError> {
    let mut roots = match ca {
        Some(path) => certificates(path)?.0,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.retain(|root| RootCertStore::empty().add(root.clone()).is_ok());
    if roots.is_empty() {
        let place = ca.map_or_else(|| "the system".to_owned(), |path| path.display().to_string());
        return Err(OdbError::Options(format!("{place} has no CA certificate")));
    }
    Ok(roots)
}

/// The certificates of a file, and its text.
fn certificates(path: &Path) -> Result<(Vec<CertificateDer<'static>>, Vec<u8>), OdbError> {
    let failed = |error: &dyn std::fmt::Display| OdbError::Options(format!("{}: {error}", path.display()));
    let text = std::fs::read(path).map_err(|error| failed(&error))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates.map_err(|error| failed(&error))? {
        empty if empty.is_empty() => Err(failed(&"it has no certificate")),
        found => Ok((found, text)),
    }
}

/// Makes the process's TLS provider, which is what mysql_async uses, one that takes the keys it is handed.
/// That driver finds RSA keys of PKCS #1 only, and calls whatever is not text such a key: our elliptic-curve
/// keys come out of it with the wrong label.
pub(crate) fn accept_mislabelled_keys() {
    let provider = CryptoProvider { key_provider: &AnyLabel, ..ring::default_provider() };
    // Fails when there is one already: ours from an earlier handle, or somebody else's.
    let _ = provider.install_default();
}

/// Whether the process's provider takes `key` from mysql_async.
pub(crate) fn takes(key: &PrivateKeyDer<'static>) -> bool {
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
