//! Certificates that clients show in the TLS handshake.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::definition::RateRule;
use crate::failure::Fault;

/// A certificate that the client shows in the TLS handshake (RFC 8446, section 4.4.2), to the server or to its
/// load balancer. Of `subjects`, `sans`, `fingerprints` and `issuers`, each one that is given must match; with
/// none of them any certificate of `ca` does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClientCertificate {
    /// The authorities that issue the certificates: PEM text, or `file:PATH` on each server. Behind a load
    /// balancer that means the ones that sign clients' certificates themselves; to clients that connect to the
    /// server directly, an authority above those is enough.
    #[schemars(length(min = 1, max = 1_000_000))]
    pub ca: String,
    /// The lists of certificates that were taken back (RFC 5280): PEM text, or `file:PATH` on each server.
    /// There must then be one, not older than it says, of every authority that signs clients' certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 10_000_000))]
    pub crl: Option<String>,
    /// Who may come: the certificate's subject must be as one of these says. Each names attributes with their
    /// values, such as `{CN: shop, O: Acme}`; the subject may have others, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<DistinguishedName>,
    /// Other names of which the certificate must have one: `dns:shop.example`, `email:a@shop.example`,
    /// `uri:spiffe://shop.example/api`, `ip:192.0.2.1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(max = 2_048), pattern(r"^(dns|email|uri|ip):.")))]
    pub sans: Vec<String>,
    /// Certificates by the SHA-256 of all of it, in hexadecimal, with colons or without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(pattern(r"^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$")))]
    pub fingerprints: Vec<String>,
    /// Who must have issued it, where `ca` names several: as in `subjects`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<DistinguishedName>,
    /// Rate limits of all these certificates together over all channels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rate_limit: Vec<RateRule>,
}

/// Attributes of a distinguished name with their values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct DistinguishedName(#[schemars(extend("minProperties" = 1))] pub BTreeMap<String, String>);

/// Attributes of names, as RFC 4514, RFC 4519 and OpenSSL call them, each with its object identifier.
const ATTRIBUTES: [(&str, &str); 14] = [
    ("CN", "2.5.4.3"),
    ("SN", "2.5.4.4"),
    ("serialNumber", "2.5.4.5"),
    ("C", "2.5.4.6"),
    ("L", "2.5.4.7"),
    ("ST", "2.5.4.8"),
    ("STREET", "2.5.4.9"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("title", "2.5.4.12"),
    ("organizationIdentifier", "2.5.4.97"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("emailAddress", "1.2.840.113549.1.9.1"),
];

impl DistinguishedName {
    /// The attributes by object identifier. Names that no attribute has are left out; a definition has none.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((attribute_oid(name)?, value.as_str())))
    }
}

/// The object identifier of an attribute that is named by a short name, whatever its case, or by the
/// identifier itself.
fn attribute_oid(name: &str) -> Option<&str> {
    let is_oid = name.contains('.')
        && name.split('.').all(|arc| !arc.is_empty() && arc.bytes().all(|byte| byte.is_ascii_digit()));
    if is_oid {
        return Some(name);
    }
    ATTRIBUTES.iter().find(|(short, _)| short.eq_ignore_ascii_case(name)).map(|(_, oid)| *oid)
}

/// The short name of an attribute, if it has one.
#[must_use]
pub fn attribute_name(oid: &str) -> Option<&'static str> {
    ATTRIBUTES.iter().find(|(_, known)| *known == oid).map(|(short, _)| *short)
}

impl ClientCertificate {
    pub(in crate::definition) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (field, names) in [("subjects", &self.subjects), ("issuers", &self.issuers)] {
            for (index, name) in names.iter().enumerate() {
                for attribute in name.0.keys().filter(|attribute| attribute_oid(attribute).is_none()) {
                    let known: Vec<_> = ATTRIBUTES.iter().map(|(short, _)| *short).collect();
                    faults.push(Fault {
                        pointer: format!("/{field}/{index}/{attribute}"),
                        detail: format!("is no attribute; there are {}, and OIDs", known.join(", ")),
                    });
                }
            }
        }
        for (index, san) in self.sans.iter().enumerate() {
            if san.strip_prefix("ip:").is_some_and(|text| text.parse::<IpAddr>().is_err()) {
                faults.push(Fault { pointer: format!("/sans/{index}"), detail: "is no address".into() });
            }
        }
        faults
    }
}
