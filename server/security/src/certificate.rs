//! A server certificate that is replaced while connections go on.
//!
//! rustls asks for the certificate once per handshake; the answer is read from an atomic pointer. A reload
//! touches no established connection: those keep the keys they negotiated. A new file that is broken,
//! expired or does not fit its key changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

use crate::authority::expiry_of;
use crate::private_file::{PrivateFileError, read_private, read_public};
use crate::revoked::serial_of;
use crate::tls::provider;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The chain's file holds no certificate, or a broken one.
    #[error("{path} holds no usable certificate: {detail}")]
    Chain {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The key's file holds no private key, or a broken one.
    #[error("{path} holds no usable private key")]
    Key {
        /// Which file.
        path: PathBuf,
    },
    /// Key and certificate do not fit, or rustls cannot use them.
    #[error("the certificate {path} cannot be used: {source}")]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// It is over.
    #[error("the certificate {path} expired on {expired}")]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// When.
        expired: OffsetDateTime,
    },
}

/// What a reload found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// The files hold what was in use already.
    Unchanged,
    /// New handshakes get the new certificate from now on.
    Replaced,
}

#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    expires: OffsetDateTime,
}

/// The certificate chain and key in two files, reloaded on demand. Share one between all listeners.
#[derive(Debug)]
pub struct ReloadingCertificate {
    chain: PathBuf,
    key: PathBuf,
    current: ArcSwap<Loaded>,
}

impl ReloadingCertificate {
    /// Reads the chain (PEM, the server's own certificate first) and its key (PEM, readable by its owner
    /// alone).
    ///
    /// # Errors
    /// Why they cannot be used. An expired certificate is refused as well: no client would accept it.
    pub fn load(chain: PathBuf, key: PathBuf) -> Result<Arc<Self>, CertificateError> {
        let loaded = Self::read(&chain, &key)?;
        Ok(Arc::new(Self { chain, key, current: ArcSwap::from_pointee(loaded) }))
    }

    /// Reads the files again. Two small files: a few hundred microseconds, so not on the reactor's busiest
    /// moment but harmless there.
    ///
    /// # Errors
    /// Why the new files cannot be used; the old certificate then stays in use.
    pub fn reload(&self) -> Result<Reloaded, CertificateError> {
        let loaded = Self::read(&self.chain, &self.key)?;
        if self.current.load().key.cert == loaded.key.cert {
            return Ok(Reloaded::Unchanged);
        }
        self.current.store(Arc::new(loaded));
        Ok(Reloaded::Replaced)
    }

    /// When the certificate in use ends.
    #[must_use]
    pub fn expires(&self) -> OffsetDateTime {
        self.current.load().expires
    }

    /// The serial number of the certificate in use, in hexadecimal.
    #[must_use]
    pub fn serial(&self) -> String {
        let current = self.current.load();
        current.key.cert.first().and_then(|leaf| serial_of(leaf)).unwrap_or_default()
    }

    fn read(chain: &Path, key: &Path) -> Result<Loaded, CertificateError> {
        let content = read_public(chain)?;
        let broken = |detail: String| CertificateError::Chain { path: chain.to_owned(), detail };
        let certificates = CertificateDer::pem_slice_iter(&content)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| broken(error.to_string()))?;
        let leaf = certificates.first().ok_or_else(|| broken("there is none in it".to_owned()))?;
        let expires = expiry_of(leaf).map_err(|error| broken(error.to_string()))?;
        if expires <= OffsetDateTime::now_utc() {
            return Err(CertificateError::Expired { path: chain.to_owned(), expired: expires });
        }
        let private = PrivateKeyDer::from_pem_slice(read_private(key)?.expose())
            .map_err(|_| CertificateError::Key { path: key.to_owned() })?;
        let pair = CertifiedKey::from_der(certificates, private, &provider())
            .map_err(|source| CertificateError::Pair { path: chain.to_owned(), source })?;
        Ok(Loaded { key: Arc::new(pair), expires })
    }
}

impl ResolvesServerCert for ReloadingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().key))
    }
}
