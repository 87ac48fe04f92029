//! TLS configurations of listeners and of internal clients: rustls over ring, TLS 1.2 and 1.3.
//!
//! The cryptography provider is passed to every configuration explicitly. rustls can also hold one for the
//! whole process; two libraries that each install their own then disagree at run time, so nothing here
//! relies on it.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use crosstie_model::secret::SecretValue;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::certificate::ReloadingCertificate;
use crate::identity::{ComponentKind, Identity};
use crate::private_file::{PrivateFileError, read_public};
use crate::revoked::Revoked;

/// ALPN of a listener that speaks both versions of HTTP (RFC 7301, RFC 9113 section 3.2), best first.
pub const ALPN_HTTP: &[&[u8]] = &[b"h2", b"http/1.1"];
/// ALPN of one that speaks HTTP/1.1 alone.
pub const ALPN_HTTP1: &[&[u8]] = &[b"http/1.1"];
/// Where distributions keep the certificate authorities everybody trusts.
const SYSTEM_ROOTS: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Whether clients of a listener show a certificate.
#[derive(Debug, Clone)]
pub enum ClientAuthentication {
    /// They are not asked.
    None,
    /// They may: one that is shown must be signed by one of these, and who shows none is still let in to
    /// present other credentials.
    Optional(Arc<RootCertStore>),
    /// They must show one signed by one of these.
    Required(Arc<RootCertStore>),
    /// They must show one signed by one of these that names a component of this kind and is not revoked. Each
    /// connection is verified anew: no session is taken up again.
    RequiredOf(Arc<RootCertStore>, ComponentKind, Revoked),
}

/// A client's own certificate.
#[derive(Debug)]
pub struct ClientIdentity<'a> {
    /// The chain (PEM).
    pub chain_pem: &'a [u8],
    /// Its private key (PEM).
    pub key_pem: &'a SecretValue,
}

/// Why a TLS configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// No certificate authority could be read.
    #[error("no certificate authority could be read: {0}")]
    Roots(String),
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// A certificate or key cannot be used.
    #[error("the client certificate cannot be used: {0}")]
    Identity(String),
    /// The verifier could not be made.
    #[error("client certificates cannot be verified: {0}")]
    Verifier(#[source] VerifierBuilderError),
    /// rustls refused the combination.
    #[error("TLS cannot be configured: {0}")]
    Configuration(#[source] rustls::Error),
}

/// The cryptography every configuration of this process uses: ring.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    Arc::clone(&PROVIDER)
}

/// Certificate authorities from PEM text; one that rustls cannot use is an error, not left out.
///
/// # Errors
/// [`TlsError::Roots`], also when there is none.
pub fn roots(pem: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| TlsError::Roots(error.to_string()))?;
        store.add(certificate).map_err(|error| TlsError::Roots(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(TlsError::Roots("there is no certificate".to_owned()));
    }
    Ok(Arc::new(store))
}

/// Certificate authorities from a PEM file, such as the environment's `tls/ca.pem`.
///
/// # Errors
/// As for [`roots`], or the file cannot be read.
pub fn roots_from_file(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    roots(&read_public(path)?)
}

/// The authorities the operating system trusts, for connections to the outside. Ones that rustls cannot use
/// are left out, as every browser does.
///
/// # Errors
/// The system has no bundle in a known place.
pub fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    let named = std::env::var_os("SSL_CERT_FILE").map(std::path::PathBuf::from);
    let known = SYSTEM_ROOTS.iter().map(std::path::PathBuf::from);
    let mut store = RootCertStore::empty();
    for path in named.into_iter().chain(known) {
        let Ok(content) = read_public(&path) else { continue };
        store.add_parsable_certificates(CertificateDer::pem_slice_iter(&content).flatten());
        if !store.is_empty() {
            return Ok(Arc::new(store));
        }
    }
    Err(TlsError::Roots("the system has no bundle of them in a known place".to_owned()))
}

/// The configuration of a listener.
///
/// # Errors
/// The client verifier could not be made.
pub fn server_config(
    certificate: Arc<ReloadingCertificate>,
    alpn: &[&[u8]],
    clients: &ClientAuthentication,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Configuration)?;
    let verifier = |roots: &Arc<RootCertStore>| {
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider())
    };
    let builder = match clients {
        ClientAuthentication::None => builder.with_no_client_auth(),
        ClientAuthentication::Optional(roots) => builder.with_client_cert_verifier(
            verifier(roots).allow_unauthenticated().build().map_err(TlsError::Verifier)?,
        ),
        ClientAuthentication::Required(roots) => {
            builder.with_client_cert_verifier(verifier(roots).build().map_err(TlsError::Verifier)?)
        }
        ClientAuthentication::RequiredOf(roots, kind, revoked) => {
            let signed = verifier(roots).build().map_err(TlsError::Verifier)?;
            let of_kind = OfKind { signed, kind: *kind, revoked: revoked.clone() };
            builder.with_client_cert_verifier(Arc::new(of_kind))
        }
    };
    let mut config = builder.with_cert_resolver(certificate);
    if matches!(clients, ClientAuthentication::RequiredOf(..)) {
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The TLS of a listener whose clients may be asked for a certificate, by authorities that change while it
/// listens. Each set of them is one configuration, so that a session that began under other authorities is
/// not taken up again.
#[derive(Debug)]
pub struct ListenerTls {
    certificate: Arc<ReloadingCertificate>,
    alpn: &'static [&'static [u8]],
    current: ArcSwap<Asking>,
}

/// A configuration, and whose certificates it asks for.
#[derive(Debug)]
struct Asking {
    authorities: Option<Arc<RootCertStore>>,
    config: Arc<ServerConfig>,
}

impl ListenerTls {
    /// A listener that asks for no certificates yet.
    ///
    /// # Errors
    /// rustls refused.
    pub fn new(
        certificate: Arc<ReloadingCertificate>,
        alpn: &'static [&'static [u8]],
    ) -> Result<Arc<Self>, TlsError> {
        let config = server_config(Arc::clone(&certificate), alpn, &ClientAuthentication::None)?;
        let current = ArcSwap::from_pointee(Asking { authorities: None, config });
        Ok(Arc::new(Self { certificate, alpn, current }))
    }

    /// The configuration that asks for certificates of `authorities`, or for none. Who shows none is let in;
    /// who shows one of another authority is not. Made when the authorities are others than the last time.
    ///
    /// # Errors
    /// rustls refused.
    pub fn asking_for(
        &self,
        authorities: Option<&Arc<RootCertStore>>,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let current = self.current.load();
        let same = match (&current.authorities, authorities) {
            (None, None) => true,
            (Some(known), Some(wanted)) => Arc::ptr_eq(known, wanted) || known.roots == wanted.roots,
            _ => false,
        };
        if same {
            return Ok(Arc::clone(&current.config));
        }
        let clients = match authorities {
            None => ClientAuthentication::None,
            Some(authorities) => ClientAuthentication::Optional(Arc::clone(authorities)),
        };
        let config = server_config(Arc::clone(&self.certificate), self.alpn, &clients)?;
        self.current
            .store(Arc::new(Asking { authorities: authorities.cloned(), config: Arc::clone(&config) }));
        Ok(config)
    }
}

/// All authorities of several definitions together, each once; `None` when there are none.
#[must_use]
pub fn all_of(stores: &[Arc<RootCertStore>]) -> Option<Arc<RootCertStore>> {
    let mut all = RootCertStore::empty();
    for root in stores.iter().flat_map(|store| &store.roots) {
        if !all.roots.contains(root) {
            all.roots.push(root.clone());
        }
    }
    (!all.is_empty()).then(|| Arc::new(all))
}

/// Lets in components of one kind. A signature of the authority alone is not enough.
#[derive(Debug)]
struct OfKind {
    signed: Arc<dyn ClientCertVerifier>,
    kind: ComponentKind,
    revoked: Revoked,
}

impl ClientCertVerifier for OfKind {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.signed.verify_client_cert(certificate, intermediates, now)?;
        if self.revoked.holds(certificate) {
            return Err(CertificateError::Revoked.into());
        }
        match Identity::of(certificate) {
            Ok(identity) if identity.kind == self.kind => Ok(verified),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// The configuration of a client that trusts `roots` alone and, if it has one, shows its own certificate.
///
/// # Errors
/// The identity cannot be used.
pub fn client_config(
    roots: Arc<RootCertStore>,
    identity: Option<&ClientIdentity<'_>>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots, provider()).build().map_err(TlsError::Verifier)?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Configuration)?
        .with_webpki_verifier(verifier);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = CertificateDer::pem_slice_iter(identity.chain_pem)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| TlsError::Identity(error.to_string()))?;
            // The parser's error is left out: it may quote what it read.
            let key = PrivateKeyDer::from_pem_slice(identity.key_pem.expose())
                .map_err(|_| TlsError::Identity("its key cannot be read".to_owned()))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| TlsError::Identity(error.to_string()))?
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}
