//! The cluster's certificate authority: signs requests of components, whose keys stay where they were made,
//! and knows what it signed.
//!
//! Its key lies in the ODB, sealed with the cluster key; it is opened for one signature and forgotten.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use crosstie_model::{Event, Revision};
use crosstie_odb::{CertificateRow, Change, ChangeSet, NewCertificate, OdbError};
use crosstie_security::CertificateAuthority;
use crosstie_security::authority::{self, AuthorityError, Description, RENEW_BEFORE, Subject};
use crosstie_security::identity::ComponentKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Intent, OperationError, Operations, Refusal};
use crate::access::Caller;
use crate::clock::timestamp;

/// The gauge of all components' certificates.
const COMPONENT_METRIC: &str = "crosstie_component_certificate_expiry_seconds";

/// How long the ODB may take when metrics are asked for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most names and addresses of one certificate.
pub(super) const MAX_ALTERNATIVES: usize = 64;

/// A certificate that is asked for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateOrder {
    /// What its holder is: `server`, `client`, `load_balancer`, `broker` or `database`.
    pub kind: String,
    /// The holder's name.
    pub name: String,
    /// A request (PKCS #10, PEM), signed with the key that the certificate is for.
    pub request: String,
    /// DNS names it is reached under.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub names: Vec<String>,
    /// IP addresses it is reached under.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = 64))]
    pub addresses: Vec<IpAddr>,
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct IssuedCertificateView {
    /// The certificate (PEM).
    pub certificate: String,
    /// The authority's certificate (PEM).
    pub ca: String,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of it, hexadecimal.
    pub fingerprint: String,
    /// When it ends (RFC 3339).
    pub expires: String,
}

/// A certificate on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CertificateView {
    /// What its holder is.
    pub kind: String,
    /// The holder's name.
    pub name: String,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of it, hexadecimal.
    pub fingerprint: String,
    /// On whose behalf it was issued.
    pub author: String,
    /// When it was issued (RFC 3339).
    pub issued: String,
    /// When it ends (RFC 3339).
    pub expires: String,
    /// Whether it is the holder's newest and ends within 90 days: it should be renewed.
    pub renew: bool,
    /// Whether it was revoked and is worth nothing any more.
    pub revoked: bool,
}

/// The authority's certificate, which everybody may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AuthorityView {
    /// The certificate (PEM).
    pub ca: String,
    /// SHA-256 of it, hexadecimal: compare it with what you know from elsewhere before you trust it.
    pub fingerprint: String,
}

impl Operations {
    /// Signs a component's request and records the certificate.
    ///
    /// # Errors
    /// The request cannot be used, or no certificate can hold a name in it; the ODB is away.
    pub async fn issue_certificate(
        &self,
        caller: &Caller,
        order: CertificateOrder,
    ) -> Result<IssuedCertificateView, OperationError> {
        let kind: ComponentKind =
            order.kind.parse().map_err(|error| OperationError::Invalid(format!("{error}")))?;
        let CertificateOrder { name, request, names, addresses, .. } = order;
        let subject = Subject { kind, name, names, addresses };
        let authority = self.authority().await?;
        let (certificate, description) = sign(&authority, &request, &subject)?;
        self.odb().record_certificate(&record_of(&description, &caller.name)).await?;
        let (name, serial) = (&subject.name, &description.serial);
        tracing::info!(author = caller.name, %kind, name, serial, "certificate issued");
        Ok(IssuedCertificateView {
            certificate,
            ca: authority.certificate_pem().to_owned(),
            serial: description.serial,
            fingerprint: description.fingerprint,
            expires: description.expires.format(&Rfc3339).unwrap_or_default(),
        })
    }

    /// The certificates on record, by kind, name and end.
    ///
    /// # Errors
    /// The ODB is away.
    pub async fn certificates(&self) -> Result<Vec<CertificateView>, OperationError> {
        let rows = self.odb().certificates().await?;
        let soon = OffsetDateTime::now_utc() + RENEW_BEFORE;
        let soon_us = i64::try_from(soon.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX);
        let newest = newest_by_holder(&rows);
        let renew = |row: &CertificateRow| {
            let is_newest = newest.values().any(|newest| newest.serial == row.certificate.serial);
            is_newest && row.certificate.expires_us < soon_us
        };
        Ok(rows.iter().map(|row| view(row, renew(row))).collect())
    }

    /// Makes the certificate with this serial number worthless: nobody who shows it is let in by a management
    /// API, nor by servers that are for load balancers alone. `own` is the one the caller shows.
    ///
    /// # Errors
    /// It is not on record, or the caller's own; the revision is another than the caller looked at; the ODB is
    /// away.
    pub async fn revoke_certificate(
        &self,
        mut intent: Intent,
        own: Option<&str>,
        serial: &str,
    ) -> Result<(Revision, CertificateView), OperationError> {
        let serial = serial.to_ascii_lowercase();
        if own == Some(serial.as_str()) {
            let reason =
                "it is the certificate that this call was made with: let another administrator revoke it";
            return Err(OperationError::Refused(Refusal::new(reason)));
        }
        let rows = self.odb().certificates().await?;
        let found = rows.into_iter().find(|row| row.certificate.serial == serial);
        let row = found.ok_or_else(|| OperationError::NotFound(format!("certificate {serial}")))?;
        if intent.message.is_empty() {
            let (kind, name) = (&row.certificate.kind, &row.certificate.name);
            intent.message = format!("Revoke the certificate of {kind} {name}");
        }
        let revision = self.revoke(intent, [serial]).await?;
        Ok((revision, view(&CertificateRow { revoked: true, ..row }, false)))
    }

    /// Revokes the certificates of the server `name`, which is no member any more.
    pub(super) async fn revoke_certificates_of(
        &self,
        caller: &Caller,
        name: &str,
    ) -> Result<(), OperationError> {
        let rows = self.odb().certificates().await?.into_iter();
        let is_its = |row: &CertificateRow| {
            let certificate = &row.certificate;
            !row.revoked && certificate.kind == ComponentKind::Server.as_str() && certificate.name == name
        };
        let serials: Vec<_> = rows.filter(is_its).map(|row| row.certificate.serial).collect();
        if !serials.is_empty() {
            let (author, message) = (caller.name.clone(), format!("{name} left the cluster"));
            self.revoke(Intent { author, message, expected: None }, serials).await?;
        }
        Ok(())
    }

    async fn revoke(
        &self,
        intent: Intent,
        serials: impl IntoIterator<Item = String>,
    ) -> Result<Revision, OperationError> {
        let changes: Vec<_> = serials.into_iter().map(|serial| Change::Revoke { serial }).collect();
        let Intent { author, message, expected } = intent;
        tracing::info!(author, message, ?changes, "certificates are revoked");
        match self.odb().change(&ChangeSet { author, message, expected, changes }).await {
            Ok(revision) => {
                self.host().publish(Event::RevisionChanged { revision });
                Ok(revision)
            }
            Err(OdbError::Conflict { expected, found }) => Err(OperationError::Outdated { expected, found }),
            Err(error) => Err(error.into()),
        }
    }

    /// When the newest certificate of each component on record ends, in Prometheus text form: those of load
    /// balancers, brokers and databases too, wherever they run. Empty while the ODB is away.
    pub async fn certificate_metrics(&self) -> String {
        let rows = tokio::time::timeout(PATIENCE, self.odb().certificates()).await;
        let Ok(Ok(rows)) = rows else { return String::new() };
        let newest = newest_by_holder(&rows);
        if newest.is_empty() {
            return String::new();
        }
        let mut text = format!(
            "# HELP {COMPONENT_METRIC} When the newest certificate of a component ends, in seconds since 1970.\n\
             # TYPE {COMPONENT_METRIC} gauge\n"
        );
        for ((kind, name), certificate) in newest {
            let seconds = certificate.expires_us / 1_000_000;
            let _ = writeln!(text, "{COMPONENT_METRIC}{{kind=\"{kind}\",name=\"{name}\"}} {seconds}");
        }
        text
    }

    /// The authority's certificate.
    ///
    /// # Errors
    /// There is none; the ODB is away.
    pub async fn authority_certificate(&self) -> Result<AuthorityView, OperationError> {
        let row = self.odb().ca().await?.ok_or_else(no_authority)?;
        let fingerprint = authority::fingerprint(&row.certificate_pem).map_err(operation_error)?;
        Ok(AuthorityView { ca: row.certificate_pem, fingerprint })
    }

    /// The authority with its key.
    pub(super) async fn authority(&self) -> Result<CertificateAuthority, OperationError> {
        let row = self.odb().ca().await?.ok_or_else(no_authority)?;
        CertificateAuthority::open_sealed(&row.certificate_pem, &row.sealed_key, self.cluster_key())
            .map_err(operation_error)
    }
}

/// The certificate of each holder that ends last, by kind and name; revoked ones do not count.
fn newest_by_holder(rows: &[CertificateRow]) -> BTreeMap<(&str, &str), &NewCertificate> {
    // Rows of one holder are in the order of their ends: the last counts.
    let valid = rows.iter().filter(|row| !row.revoked).map(|row| &row.certificate);
    valid.map(|it| ((it.kind.as_str(), it.name.as_str()), it)).collect()
}

/// Signs `request` for `subject`.
pub(super) fn sign(
    authority: &CertificateAuthority,
    request: &str,
    subject: &Subject,
) -> Result<(String, Description), OperationError> {
    if subject.names.len() + subject.addresses.len() > MAX_ALTERNATIVES {
        let text = format!("a certificate has at most {MAX_ALTERNATIVES} names and addresses");
        return Err(OperationError::Invalid(text));
    }
    let pem = authority.sign(request, subject).map_err(operation_error)?;
    let description = authority::describe(&pem).map_err(operation_error)?;
    Ok((pem, description))
}

/// What is kept of a certificate.
pub(super) fn record_of(description: &Description, author: &str) -> NewCertificate {
    let microseconds = description.expires.unix_timestamp_nanos() / 1_000;
    NewCertificate {
        serial: description.serial.clone(),
        kind: description.subject.kind.to_string(),
        name: description.subject.name.clone(),
        fingerprint: description.fingerprint.clone(),
        author: author.to_owned(),
        expires_us: i64::try_from(microseconds).unwrap_or(i64::MAX),
    }
}

fn view(row: &CertificateRow, renew: bool) -> CertificateView {
    let certificate = row.certificate.clone();
    CertificateView {
        kind: certificate.kind,
        name: certificate.name,
        serial: certificate.serial,
        fingerprint: certificate.fingerprint,
        author: certificate.author,
        issued: timestamp(row.issued_us),
        expires: timestamp(certificate.expires_us),
        renew,
        revoked: row.revoked,
    }
}

fn no_authority() -> OperationError {
    OperationError::Refused(Refusal::new("the operational database holds no certificate authority"))
}

/// Whose fault it is: the caller's for what a certificate cannot hold, ours for the authority itself.
fn operation_error(error: AuthorityError) -> OperationError {
    match error {
        AuthorityError::Request(_) | AuthorityError::Sign { .. } | AuthorityError::Name { .. } => {
            OperationError::Invalid(error.to_string())
        }
        other => OperationError::Secret(Box::new(other)),
    }
}
