//! The environment's certificate authority: one self-signed P-256 certificate that vouches for every
//! component, so that internal TLS needs nothing configured.
//!
//! Used when an environment is made, a component joins or a certificate is renewed; a signature costs well
//! under a millisecond. Certificates start an hour before they are made, as clocks of different hosts
//! disagree.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crosstie_model::UnitName;
pub use crosstie_model::certificate::RENEW_BEFORE;
use crosstie_model::names::NameError;
use crosstie_model::secret::SecretValue;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::cluster_key::{ClusterKey, ClusterKeyError, Purpose};
use crate::identity::{ComponentKind, Identity};
use crate::private_file::{PrivateFileError, read_private, read_public, write_private, write_public};

/// How long the authority lives.
const AUTHORITY_LIFE: Duration = Duration::days(3650);
/// How long a component's certificate lives: two years, as nobody is forced to renew one every few weeks,
/// and a forgotten environment must not live for ever.
const COMPONENT_LIFE: Duration = Duration::days(730);
/// By how much certificates are backdated.
const CLOCK_SKEW: Duration = Duration::hours(1);
/// Longest common name (RFC 5280, appendix A: ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// Why the authority could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A key could not be generated.
    #[error("a key could not be generated: {0}")]
    Generate(#[source] rcgen::Error),
    /// A certificate could not be signed.
    #[error("the certificate of {name} could not be signed: {source}")]
    Sign {
        /// Whose.
        name: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The kernel gave no random bytes.
    #[error("no random bytes for a serial number: {0}")]
    Random(#[source] getrandom::Error),
    /// A request for a certificate cannot be read, or is not signed with its own key.
    #[error("the request for a certificate cannot be used: {0}")]
    Request(#[source] rcgen::Error),
    /// The authority's certificate or key cannot be read.
    #[error("the certificate authority cannot be read: {0}")]
    Parse(#[source] rcgen::Error),
    /// A certificate cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Certificate(String),
    /// The certificate and the key do not belong together, or it is no authority's.
    #[error("the certificate is not that of an authority with this key")]
    Mismatch,
    /// A component's name breaks the rules of names.
    #[error("{name:?} cannot name a component: {source}")]
    Name {
        /// The name.
        name: String,
        /// Which rule.
        #[source]
        source: NameError,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The key could not be sealed or opened.
    #[error(transparent)]
    Sealed(#[from] ClusterKeyError),
}

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What it is.
    pub kind: ComponentKind,
    /// Its name.
    pub name: String,
    /// DNS names it is reached under.
    pub names: Vec<String>,
    /// Addresses it is reached under.
    pub addresses: Vec<IpAddr>,
}

impl Subject {
    /// The server `name`, which listens on `addresses` and is also called from its own host.
    #[must_use]
    pub fn server(name: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self::listening(ComponentKind::Server, name, addresses)
    }

    /// The component `name`, which listens on `addresses` and is also called from its own host.
    #[must_use]
    pub fn listening(kind: ComponentKind, name: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut reached = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        for address in addresses {
            if !address.is_unspecified() && !reached.contains(&address) {
                reached.push(address);
            }
        }
        let names = vec!["localhost".to_owned(), name.to_owned()];
        Self { kind, name: name.to_owned(), names, addresses: reached }
    }

    /// The client `name`, which nobody calls.
    #[must_use]
    pub fn client(name: &str) -> Self {
        let name = name.to_owned();
        Self { kind: ComponentKind::Client, name, names: Vec::new(), addresses: Vec::new() }
    }
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// Whom it is for: the identity, and the names and addresses beside it.
    pub subject: Subject,
    /// SHA-256 of it, 64 hexadecimal digits.
    pub fingerprint: String,
    /// When it ends.
    pub expires: OffsetDateTime,
}

/// A certificate and its key, as they are written to files.
#[derive(Debug)]
pub struct IssuedCertificate {
    /// The certificate (PEM).
    pub certificate_pem: String,
    /// Its private key (PKCS #8, PEM).
    pub key_pem: SecretValue,
}

impl IssuedCertificate {
    /// Writes both: the certificate 0644, the key 0600. The key goes first, so that whoever notices the
    /// certificate finds the key that belongs to it.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, certificate: &Path, key: &Path) -> Result<(), AuthorityError> {
        write_private(key, self.key_pem.expose())?;
        Ok(write_public(certificate, self.certificate_pem.as_bytes())?)
    }
}

/// The authority with its private key.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
}

impl CertificateAuthority {
    /// Makes an authority for the environment called `environment`.
    ///
    /// # Errors
    /// No key could be generated.
    pub fn create(environment: &str) -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(&format!("{environment} CA"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = OffsetDateTime::now_utc();
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + AUTHORITY_LIFE;
        let key = generate_key()?;
        let signed = params.self_signed(&key).map_err(|source| sign_error(environment, source))?;
        let (certificate_pem, certificate) = (signed.pem(), signed.der().clone());
        Ok(Self { issuer: Issuer::new(params, key), certificate_pem, certificate })
    }

    /// Takes up an authority from its certificate and key (PEM).
    ///
    /// # Errors
    /// Either cannot be read, or they do not belong together.
    pub fn load(certificate_pem: &str, key_pem: &SecretValue) -> Result<Self, AuthorityError> {
        let text = std::str::from_utf8(key_pem.expose()).map_err(|_| AuthorityError::Mismatch)?;
        let key = KeyPair::from_pem(text).map_err(AuthorityError::Parse)?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| AuthorityError::Certificate(error.to_string()))?;
        let (_, parsed) = parse(&certificate)?;
        if !parsed.is_ca() || parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(AuthorityError::Mismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(AuthorityError::Parse)?;
        Ok(Self { issuer, certificate_pem: certificate_pem.to_owned(), certificate })
    }

    /// Reads `ca.pem` and `ca.key` in `directory`.
    ///
    /// # Errors
    /// As for [`CertificateAuthority::load`], or a file cannot be read.
    pub fn open(directory: &Path) -> Result<Self, AuthorityError> {
        let certificate = read_public(&directory.join("ca.pem"))?;
        let certificate = String::from_utf8(certificate)
            .map_err(|_| AuthorityError::Certificate("it is not text".to_owned()))?;
        Self::load(&certificate, &read_private(&directory.join("ca.key"))?)
    }

    /// Writes `ca.pem` (0644) and `ca.key` (0600) into `directory`.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), AuthorityError> {
        write_private(&directory.join("ca.key"), self.key_pem().expose())?;
        Ok(write_public(&directory.join("ca.pem"), self.certificate_pem.as_bytes())?)
    }

    /// The authority's certificate (PEM), which everybody may have.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's private key (PKCS #8, PEM).
    #[must_use]
    pub fn key_pem(&self) -> SecretValue {
        SecretValue::new(self.issuer.key().serialize_pem().into_bytes())
    }

    /// The private key sealed with the cluster key, for the ODB. Opens as nothing but an authority's key.
    ///
    /// # Errors
    /// No random bytes.
    pub fn seal_key(&self, cluster_key: &ClusterKey) -> Result<Vec<u8>, AuthorityError> {
        Ok(cluster_key.seal_for(Purpose::AuthorityKey, &self.fingerprint(), 1, &self.key_pem())?)
    }

    /// Takes up an authority from its certificate and what [`CertificateAuthority::seal_key`] made.
    ///
    /// # Errors
    /// Another cluster key, another certificate, or either cannot be read.
    pub fn open_sealed(
        certificate_pem: &str,
        sealed_key: &[u8],
        cluster_key: &ClusterKey,
    ) -> Result<Self, AuthorityError> {
        let fingerprint = fingerprint(certificate_pem)?;
        let key = cluster_key.open_for(Purpose::AuthorityKey, &fingerprint, 1, sealed_key)?;
        Self::load(certificate_pem, &key)
    }

    /// SHA-256 of the certificate, 64 hexadecimal digits: what a joining server compares.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(&self.certificate))
    }

    /// A certificate for the server `name`, reachable under `names` and `addresses`. It may also be used as
    /// a client, since servers call each other's management API and the load balancer.
    ///
    /// # Errors
    /// A name no certificate can hold.
    pub fn issue_server(
        &self,
        name: &str,
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<IssuedCertificate, AuthorityError> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        self.issue(&Subject {
            kind: ComponentKind::Server,
            name: name.to_owned(),
            names,
            addresses: addresses.to_vec(),
        })
    }

    /// A certificate for the client `name`, which can be no server.
    ///
    /// # Errors
    /// A name no certificate can hold.
    pub fn issue_client(&self, name: &str) -> Result<IssuedCertificate, AuthorityError> {
        self.issue(&Subject::client(name))
    }

    /// A certificate for any component, with a key made here.
    ///
    /// # Errors
    /// A name no certificate can hold.
    pub fn issue(&self, subject: &Subject) -> Result<IssuedCertificate, AuthorityError> {
        let key = generate_key()?;
        let params = self.params_of(subject)?;
        let signed =
            params.signed_by(&key, &self.issuer).map_err(|source| sign_error(&subject.name, source))?;
        let key_pem = SecretValue::new(key.serialize_pem().into_bytes());
        Ok(IssuedCertificate { certificate_pem: signed.pem(), key_pem })
    }

    /// A certificate for a component that made its key itself: its request (PKCS #10, PEM) proves that it has
    /// it. Nothing else in the request counts; `subject` alone says what the certificate holds.
    ///
    /// # Errors
    /// The request cannot be read or is not signed with its key; a name no certificate can hold.
    pub fn sign(&self, request_pem: &str, subject: &Subject) -> Result<String, AuthorityError> {
        let mut request =
            CertificateSigningRequestParams::from_pem(request_pem).map_err(AuthorityError::Request)?;
        request.params = self.params_of(subject)?;
        let signed = request.signed_by(&self.issuer).map_err(|source| sign_error(&subject.name, source))?;
        Ok(signed.pem())
    }

    fn params_of(&self, subject: &Subject) -> Result<CertificateParams, AuthorityError> {
        let Subject { kind, name, names, addresses } = subject;
        let component =
            UnitName::new(name).map_err(|source| AuthorityError::Name { name: name.clone(), source })?;
        let mut alternatives = Vec::with_capacity(names.len() + addresses.len() + 1);
        for dns_name in names {
            let dns_name = dns_name.as_str().try_into().map_err(|source| sign_error(name, source))?;
            alternatives.push(SanType::DnsName(dns_name));
        }
        alternatives.extend(addresses.iter().copied().map(SanType::IpAddress));
        let identity = Identity { kind: *kind, name: component }.to_string();
        let uri = identity.as_str().try_into().map_err(|source| sign_error(name, source))?;
        alternatives.push(SanType::URI(uri));
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(name);
        params.subject_alt_names = alternatives;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages_of(*kind);
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial_number()?);
        let now = OffsetDateTime::now_utc();
        params.not_before = now - CLOCK_SKEW;
        params.not_after = (now + COMPONENT_LIFE).min(expiry_of(&self.certificate)?);
        Ok(params)
    }
}

/// What a component may do with its certificate. A client can be no server, and the database calls nobody.
/// The load balancer also serves: HTTPS for the public until an own certificate is put there, and its
/// statistics. Nodes of a broker call each other.
fn usages_of(kind: ComponentKind) -> Vec<ExtendedKeyUsagePurpose> {
    let (serves, calls) = (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
    match kind {
        ComponentKind::Server | ComponentKind::LoadBalancer | ComponentKind::Broker => vec![serves, calls],
        ComponentKind::Database => vec![serves],
        ComponentKind::Client => vec![calls],
    }
}

/// 127 random bits (RFC 5280, section 4.1.2.2: positive, at most 20 octets): a renewed certificate is told
/// from the one before even when the key stays.
fn serial_number() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(AuthorityError::Random)?;
    if let Some(first) = bytes.first_mut() {
        // A leading zero bit keeps the number positive, a leading one bit below it keeps its length.
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

/// A new private key (PKCS #8, PEM) and a request (PKCS #10, PEM) for a certificate of it. The key stays where
/// it is made.
///
/// # Errors
/// No key could be generated.
pub fn request(name: &str) -> Result<CertificateRequest, AuthorityError> {
    let key = generate_key()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(name);
    let request = params.serialize_request(&key).map_err(|source| sign_error(name, source))?;
    let request_pem = request.pem().map_err(|source| sign_error(name, source))?;
    Ok(CertificateRequest { request_pem, key_pem: SecretValue::new(key.serialize_pem().into_bytes()) })
}

/// What a component sends to get a certificate, and the key it keeps.
#[derive(Debug)]
pub struct CertificateRequest {
    /// The request (PKCS #10, PEM).
    pub request_pem: String,
    /// The private key (PKCS #8, PEM).
    pub key_pem: SecretValue,
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority")
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

/// SHA-256 of the first certificate in `certificate_pem`, 64 hexadecimal digits.
///
/// # Errors
/// There is no certificate in it.
pub fn fingerprint(certificate_pem: &str) -> Result<String, AuthorityError> {
    Ok(hex::encode(Sha256::digest(first_certificate(certificate_pem)?)))
}

/// When the first certificate in `certificate_pem` ends.
///
/// # Errors
/// There is no certificate in it.
pub fn expires_at(certificate_pem: &str) -> Result<OffsetDateTime, AuthorityError> {
    expiry_of(&first_certificate(certificate_pem)?)
}

/// Whether a component's certificate has less than 90 days left at `now` and should be issued anew.
///
/// # Errors
/// There is no certificate in it.
pub fn needs_renewal(certificate_pem: &str, now: OffsetDateTime) -> Result<bool, AuthorityError> {
    Ok(expires_at(certificate_pem)? - now < RENEW_BEFORE)
}

/// What the first certificate in `certificate_pem` says; nothing of it is verified.
///
/// # Errors
/// There is no certificate in it, or it names no component.
pub fn describe(certificate_pem: &str) -> Result<Description, AuthorityError> {
    let certificate = first_certificate(certificate_pem)?;
    let identity =
        Identity::of(&certificate).map_err(|error| AuthorityError::Certificate(error.to_string()))?;
    let (_, parsed) = parse(&certificate)?;
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    let alternatives = parsed.subject_alternative_name().ok().flatten();
    for name in alternatives.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default() {
        match name {
            GeneralName::DNSName(name) => names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => addresses.extend(ip_address(bytes)),
            _ => {}
        }
    }
    Ok(Description {
        serial: hex::encode(parsed.raw_serial()),
        subject: Subject { kind: identity.kind, name: identity.name.to_string(), names, addresses },
        fingerprint: hex::encode(Sha256::digest(&certificate)),
        expires: parsed.validity().not_after.to_datetime(),
    })
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
    v4.or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}

fn first_certificate(pem: &str) -> Result<CertificateDer<'static>, AuthorityError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| AuthorityError::Certificate(error.to_string()))
}

pub(crate) fn expiry_of(certificate: &[u8]) -> Result<OffsetDateTime, AuthorityError> {
    Ok(parse(certificate)?.1.validity().not_after.to_datetime())
}

fn parse(certificate: &[u8]) -> Result<(&[u8], X509Certificate<'_>), AuthorityError> {
    X509Certificate::from_der(certificate).map_err(|error| AuthorityError::Certificate(error.to_string()))
}

fn sign_error(name: &str, source: rcgen::Error) -> AuthorityError {
    AuthorityError::Sign { name: name.to_owned(), source }
}

fn generate_key() -> Result<KeyPair, AuthorityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Generate)
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Crosstie");
    let common_name: String = common_name.chars().take(MAX_COMMON_NAME).collect();
    name.push(DnType::CommonName, common_name);
    name
}
