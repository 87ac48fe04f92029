//! TLS of connections to external systems.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::definition::security::{is_keep, keep};
use crate::failure::Fault;
use crate::secret::SecretRef;

/// How the other end of a TLS connection is verified, and what is shown to it. The other end's certificate is
/// always verified: what it needs to be trusted is its authority here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// The certificate authorities that are trusted, instead of the operating system's: PEM text, or
    /// `file:PATH` on each server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1_000_000))]
    pub ca: Option<String>,
    /// The client certificate with its chain: PEM text, or `file:PATH` on each server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100_000))]
    pub certificate: Option<String>,
    /// The private key of the client certificate (PEM). May be left out of an `apply` document to keep the
    /// present one.
    #[serde(default = "keep", skip_serializing_if = "is_keep")]
    pub key: SecretRef,
    /// The name the other end's certificate must be made out to, where that is not the address's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
}

impl ClientTls {
    pub(in crate::definition) fn faults(&self, faults: &mut Vec<Fault>) {
        if self.certificate.is_none() && !is_keep(&self.key) {
            faults.push(super::fault("/tls/key", "is the key of no certificate: tls/certificate is missing"));
        }
    }

    /// The values of fields that hold text or `file:PATH`.
    pub(in crate::definition) fn texts(&self) -> impl Iterator<Item = &str> {
        [&self.ca, &self.certificate].into_iter().flatten().map(String::as_str)
    }

    pub(in crate::definition) fn secrets(&self) -> Option<(&'static str, &SecretRef)> {
        self.certificate.is_some().then_some(("tls/key", &self.key))
    }

    pub(in crate::definition) fn secrets_mut(&mut self) -> Option<(&'static str, &mut SecretRef)> {
        self.certificate.is_some().then_some(("tls/key", &mut self.key))
    }
}
