//! TLS client certificates: verified against the definition's own authorities, whoever asked for them.
//!
//! A listener asks for certificates of all authorities that its channels trust together; a load balancer asks
//! for those of its own. So what either let through is verified again here, by the authorities and the
//! revocation lists of the one definition, and then compared with whom it wants. That costs a signature or
//! two, about 100 µs; what a certificate proved is remembered for a minute, after which a request costs one
//! hash of what was shown.

mod names;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosstie_model::definition::ClientCertificate;
use crosstie_model::message::{Certificate, Principal};
use crosstie_model::refusal::RefusalReason;
use http::{HeaderMap, HeaderName};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::authenticator::Verdict;
use super::denial::Denial;
use super::expiring::{Digest, Expiring};
use super::material::{CredentialError, Material};
use super::presented::{Presented, ShownCertificate};
use crate::tls::{self, provider};
use names::{WantedName, WantedSan};

/// How long is believed what a certificate proved, in seconds: an authority higher up, or a revocation list,
/// may come to its end meanwhile.
const BELIEVED_FOR: i64 = 60;
/// How many certificates are remembered by each definition.
const REMEMBERED: usize = 4_096;
/// How a load balancer says that it verified a certificate.
const TOLD_VERDICT: HeaderName = HeaderName::from_static("x-ssl-client-verify");
/// How it says which: DER in base64.
const TOLD_CERTIFICATE: HeaderName = HeaderName::from_static("x-ssl-client-cert");
/// RFC 9110, section 15.5.2: a 401 must carry a challenge. No scheme is registered for certificates, so it
/// says what is missing.
const CHALLENGE: &str = "ClientCertificate realm=\"crosstie\"";

/// A certificate that a client showed in a handshake, with those between it and its authority.
#[derive(Debug, Clone)]
pub struct ClientChain {
    certificates: Vec<CertificateDer<'static>>,
    digest: Digest,
}

impl ClientChain {
    /// The chain as the handshake has it, the client's own certificate first; `None` when there is none.
    #[must_use]
    pub fn new(certificates: &[CertificateDer<'_>]) -> Option<Self> {
        let first = certificates.first()?;
        let certificates = certificates.iter().map(|one| one.clone().into_owned()).collect();
        Some(Self { certificates, digest: Sha256::digest(first).into() })
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct ClientCertificateCheck {
    authorities: Arc<RootCertStore>,
    verifier: Arc<dyn ClientCertVerifier>,
    wanted: Wanted,
    /// What the principals of this definition have in common.
    template: Principal,
    known: Mutex<Expiring<Arc<Principal>>>,
}

/// Which of the certificates that the authorities issued are let in.
#[derive(Debug)]
struct Wanted {
    subjects: Vec<WantedName>,
    issuers: Vec<WantedName>,
    sans: Vec<WantedSan>,
    fingerprints: Vec<String>,
}

impl ClientCertificateCheck {
    pub(super) fn new(
        body: &ClientCertificate,
        material: &Material,
        template: Principal,
    ) -> Result<Self, CredentialError> {
        let authorities = tls::roots(material.text(&body.ca))
            .map_err(|source| CredentialError::Tls { field: "ca", source })?;
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&authorities), provider());
        if let Some(crl) = &body.crl {
            // Who revokes authorities would take them out of `ca`.
            builder = builder
                .with_crls(revocation_lists(material.text(crl))?)
                .only_check_end_entity_revocation()
                .enforce_revocation_expiration();
        }
        let verifier = builder.build().map_err(|error| CredentialError::field("crl", error.to_string()))?;
        Ok(Self {
            authorities,
            verifier,
            wanted: Wanted::new(body),
            template,
            known: Mutex::new(Expiring::new(REMEMBERED)),
        })
    }

    /// The authorities whose certificates a listener must ask for.
    pub(super) fn authorities(&self) -> &Arc<RootCertStore> {
        &self.authorities
    }

    pub(super) fn authenticate(&self, presented: &Presented<'_>) -> Verdict {
        let now = presented.unix_seconds();
        match presented.certificate {
            ShownCertificate::None => Err(RefusalReason::Missing),
            ShownCertificate::Direct(chain) => self
                .known(&chain.digest, now)
                .map_or_else(|| self.look_at(&chain.digest, &chain.certificates, now), Ok),
            ShownCertificate::ToldByLoadBalancer => self.look_at_told(presented.headers, now),
        }
        .map_err(|reason| match reason {
            RefusalReason::Unavailable => Denial::unavailable(None),
            reason => Denial::unauthorized(reason, CHALLENGE),
        })
    }

    fn look_at_told(&self, headers: &HeaderMap, now: i64) -> Result<Arc<Principal>, RefusalReason> {
        let told = told(headers)?;
        let digest = Sha256::digest(told).into();
        if let Some(principal) = self.known(&digest, now) {
            return Ok(principal);
        }
        let der = STANDARD.decode(told).map_err(|_| RefusalReason::Malformed)?;
        self.look_at(&digest, &[CertificateDer::from(der)], now)
    }

    fn known(&self, digest: &Digest, now: i64) -> Option<Arc<Principal>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(digest, now)
    }

    /// Verifies a certificate that is not known, and remembers it.
    fn look_at(
        &self,
        digest: &Digest,
        chain: &[CertificateDer<'_>],
        now: i64,
    ) -> Result<Arc<Principal>, RefusalReason> {
        let (own, between) = chain.split_first().ok_or(RefusalReason::Missing)?;
        let seconds = Duration::from_secs(u64::try_from(now).unwrap_or(0));
        self.verifier
            .verify_client_cert(own, between, UnixTime::since_unix_epoch(seconds))
            .map_err(|error| reason_of(&error).unwrap_or(RefusalReason::Untrusted))?;
        let (_, parsed) = X509Certificate::from_der(own).map_err(|_| RefusalReason::Malformed)?;
        let certificate = describe(&parsed, own);
        if !self.wanted.matches(&parsed, &certificate) {
            return Err(RefusalReason::Claims);
        }
        let end = certificate.not_after.unix_timestamp().min(now.saturating_add(BELIEVED_FOR));
        let mut principal = self.template.clone();
        principal.username = names::common_name(parsed.subject())
            .map(str::to_owned)
            .or_else(|| certificate.sans.first().cloned());
        principal.certificate = Some(certificate);
        let principal = Arc::new(principal);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(*digest, Arc::clone(&principal), end);
        Ok(principal)
    }
}

impl Wanted {
    fn new(body: &ClientCertificate) -> Self {
        let plain = |text: &String| text.replace(':', "").to_ascii_lowercase();
        Self {
            subjects: body.subjects.iter().map(WantedName::new).collect(),
            issuers: body.issuers.iter().map(WantedName::new).collect(),
            sans: body.sans.iter().map(|san| WantedSan::new(san)).collect(),
            fingerprints: body.fingerprints.iter().map(plain).collect(),
        }
    }

    /// Whether each list that says something has something that fits.
    fn matches(&self, parsed: &X509Certificate<'_>, certificate: &Certificate) -> bool {
        let name = |wanted: &[WantedName], name| {
            wanted.is_empty() || wanted.iter().any(|wanted| wanted.matches(name))
        };
        let has_san = |wanted: &WantedSan| certificate.sans.iter().any(|san| wanted.matches(san));
        name(&self.subjects, parsed.subject())
            && name(&self.issuers, parsed.issuer())
            && (self.sans.is_empty() || self.sans.iter().any(has_san))
            && (self.fingerprints.is_empty() || self.fingerprints.contains(&certificate.fingerprint))
    }
}

/// What a load balancer tells: exactly one verdict, and exactly one certificate, in base64.
fn told(headers: &HeaderMap) -> Result<&[u8], RefusalReason> {
    let only = |name: &HeaderName| {
        let mut fields = headers.get_all(name).iter();
        let first = fields.next();
        first.filter(|_| fields.next().is_none()).map(|field| field.as_bytes())
    };
    match only(&TOLD_VERDICT) {
        Some(b"SUCCESS") => only(&TOLD_CERTIFICATE).ok_or(RefusalReason::Malformed),
        _ => Err(RefusalReason::Missing),
    }
}

fn revocation_lists(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, CredentialError> {
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    match lists {
        Ok(lists) if lists.is_empty() => Err(CredentialError::field("crl", "there is no list")),
        Ok(lists) => Ok(lists),
        Err(error) => Err(CredentialError::field("crl", error.to_string())),
    }
}

fn describe(parsed: &X509Certificate<'_>, der: &[u8]) -> Certificate {
    let date = |time: &x509_parser::time::ASN1Time| {
        OffsetDateTime::from_unix_timestamp(time.timestamp()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    };
    Certificate {
        subject: names::text_of(parsed.subject()),
        issuer: names::text_of(parsed.issuer()),
        sans: names::sans_of(parsed),
        serial: hex::encode(parsed.raw_serial()),
        fingerprint: hex::encode(Sha256::digest(der)),
        not_before: date(&parsed.validity().not_before),
        not_after: date(&parsed.validity().not_after),
    }
}

/// Why a certificate was refused, if `error` is about one.
#[must_use]
pub fn reason_of(error: &rustls::Error) -> Option<RefusalReason> {
    let rustls::Error::InvalidCertificate(fault) = error else { return None };
    Some(match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => RefusalReason::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            RefusalReason::NotYetValid
        }
        CertificateError::Revoked => RefusalReason::Revoked,
        CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => RefusalReason::Unavailable,
        CertificateError::BadEncoding => RefusalReason::Malformed,
        CertificateError::BadSignature => RefusalReason::Wrong,
        _ => RefusalReason::Untrusted,
    })
}

#[cfg(test)]
mod tests;
