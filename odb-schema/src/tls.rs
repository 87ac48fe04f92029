//! TLS towards a database server: which roots are trusted, and the client's own certificate. The server's
//! certificate is always verified for the host name it is reached by.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::error::OdbError;
use crate::options::Identity;

/// The trusted roots: those of `ca`, or the system's.
pub(crate) fn roots(ca: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, OdbError> {
    let roots = match ca {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    if roots.is_empty() {
        let place = ca.map_or_else(|| "the system".to_owned(), |path| path.display().to_string());
        return Err(OdbError::Options(format!("{place} has no CA certificate")));
    }
    Ok(roots)
}

/// A client configuration that trusts `ca` (or the system's roots) and shows `identity` when it has one.
pub(crate) fn client_config(
    ca: Option<&Path>,
    identity: Option<&Identity>,
) -> Result<ClientConfig, OdbError> {
    let refuse = |error: rustls::Error| OdbError::Options(format!("TLS cannot be set up: {error}"));
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots(ca)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refuse)?
        .with_root_certificates(store);
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_file(&identity.key)
        .map_err(|error| OdbError::Options(format!("{}: {error}", identity.key.display())))?;
    builder.with_client_auth_cert(certificates(&identity.certificate)?, key).map_err(refuse)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, OdbError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| OdbError::Options(format!("{}: {error}", path.display())))
}
