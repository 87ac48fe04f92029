//! The cluster's certificate authority: signs requests of components, whose keys stay where they were made,
//! and knows what it signed.
//!
//! Its key lies in the ODB, sealed with the cluster key; it is opened for one signature and forgotten.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use crosstie_odb::{CertificateRow, NewCertificate};
use crosstie_security::CertificateAuthority;
use crosstie_security::authority::{self, AuthorityError, Description, RENEW_BEFORE, Subject};
use crosstie_security::identity::ComponentKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{OperationError, Operations, Refusal};
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
        let mut views = Vec::with_capacity(rows.len());
        let mut following = rows.iter().skip(1);
        for row in &rows {
            // Rows of one holder are in the order of their ends.
            let holder = |row: &CertificateRow| (row.certificate.kind.clone(), row.certificate.name.clone());
            let newest = following.next().is_none_or(|next| holder(next) != holder(row));
            views.push(view(row, newest && row.certificate.expires_us < soon_us));
        }
        Ok(views)
    }

    /// When the newest certificate of each component on record ends, in Prometheus text form: those of load
    /// balancers, brokers and databases too, wherever they run. Empty while the ODB is away.
    pub async fn certificate_metrics(&self) -> String {
        let rows = tokio::time::timeout(PATIENCE, self.odb().certificates()).await;
        let Ok(Ok(rows)) = rows else { return String::new() };
        // Rows of one holder are in the order of their ends: the last counts.
        let newest: BTreeMap<_, _> = rows
            .into_iter()
            .map(|row| ((row.certificate.kind, row.certificate.name), row.certificate.expires_us))
            .collect();
        if newest.is_empty() {
            return String::new();
        }
        let mut text = format!(
            "# HELP {COMPONENT_METRIC} When the newest certificate of a component ends, in seconds since 1970.\n\
             # TYPE {COMPONENT_METRIC} gauge\n"
        );
        for ((kind, name), expires_us) in newest {
            let seconds = expires_us / 1_000_000;
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
