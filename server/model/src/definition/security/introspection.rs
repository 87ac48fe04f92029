//! Tokens that their authorization server is asked about.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::oauth2::CredentialsIn;
use super::token::{TokenRules, address_faults};
use super::{is_keep, keep};
use crate::definition::ClientTls;
use crate::failure::Fault;
use crate::secret::SecretRef;

/// A token that the caller sends as `Authorization: Bearer …` (RFC 6750) and that its authorization server is
/// asked about (RFC 7662). While the server cannot be asked, tokens that nobody asked about lately get 503.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Oauth2Introspection {
    /// Where the authorization server answers.
    #[schemars(length(min = 1, max = 2_048), pattern(r"^https?://"))]
    pub url: String,
    /// TLS of `url` beyond the usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// The server's own identifier as a client there.
    #[schemars(length(min = 1, max = 1_000))]
    pub client_id: String,
    /// Its secret. May be left out of an `apply` document to keep the present one.
    #[serde(default = "keep", skip_serializing_if = "is_keep")]
    pub client_secret: SecretRef,
    /// Where its credentials are sent.
    #[serde(default, skip_serializing_if = "CredentialsIn::is_header")]
    pub credentials_in: CredentialsIn,
    /// How long a good answer counts, in seconds, and never beyond the token's end: a token that is revoked is
    /// accepted for so long. Each time anew when 0.
    #[serde(default = "default_cache", skip_serializing_if = "is_default_cache")]
    #[schemars(range(max = 86_400), extend("default" = 60))]
    pub cache_s: u32,
    /// How long the answer counts that a token is no good, in seconds.
    #[serde(default = "default_refused", skip_serializing_if = "is_default_refused")]
    #[schemars(range(max = 86_400), extend("default" = 10))]
    pub refused_cache_s: u32,
    /// Most answers that a worker remembers; then those that were not needed for longest are forgotten.
    #[serde(default = "default_entries", skip_serializing_if = "is_default_entries")]
    #[schemars(range(max = 1_000_000), extend("default" = 10_000))]
    pub cache_entries: u32,
    /// How long a question may take, in milliseconds.
    #[serde(default = "default_deadline", skip_serializing_if = "is_default_deadline")]
    #[schemars(range(min = 1, max = 60_000), extend("default" = 5_000))]
    pub deadline_ms: u64,
    /// Most questions at a time of one worker; others wait, within the deadline.
    #[serde(default = "default_concurrency", skip_serializing_if = "is_default_concurrency")]
    #[schemars(range(min = 1, max = 1_000), extend("default" = 32))]
    pub max_concurrency: u32,
    /// Largest answer, in bytes.
    #[serde(default = "default_size", skip_serializing_if = "is_default_size")]
    #[schemars(range(min = 1, max = 4_194_304), extend("default" = 65_536))]
    pub max_answer_bytes: u64,
    /// What the authorization server must say of the token.
    #[serde(flatten)]
    pub rules: TokenRules,
}

impl Oauth2Introspection {
    pub(in crate::definition) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        address_faults("/url", &self.url, &mut faults);
        if let Some(tls) = &self.tls {
            tls.faults(&mut faults);
        }
        self.rules.faults(&mut faults);
        faults
    }

    pub(super) fn texts(&self) -> Vec<&str> {
        self.tls.iter().flat_map(ClientTls::texts).collect()
    }

    pub(super) fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        let own = ("client_secret", &self.client_secret);
        std::iter::once(own).chain(self.tls.iter().flat_map(ClientTls::secrets)).collect()
    }

    pub(super) fn secrets_mut(&mut self) -> Vec<(&'static str, &mut SecretRef)> {
        let own = ("client_secret", &mut self.client_secret);
        std::iter::once(own).chain(self.tls.iter_mut().flat_map(ClientTls::secrets_mut)).collect()
    }
}

fn default_cache() -> u32 {
    60
}

fn is_default_cache(seconds: &u32) -> bool {
    *seconds == default_cache()
}

fn default_refused() -> u32 {
    10
}

fn is_default_refused(seconds: &u32) -> bool {
    *seconds == default_refused()
}

fn default_entries() -> u32 {
    10_000
}

fn is_default_entries(entries: &u32) -> bool {
    *entries == default_entries()
}

fn default_deadline() -> u64 {
    5_000
}

fn is_default_deadline(milliseconds: &u64) -> bool {
    *milliseconds == default_deadline()
}

fn default_concurrency() -> u32 {
    32
}

fn is_default_concurrency(questions: &u32) -> bool {
    *questions == default_concurrency()
}

fn default_size() -> u64 {
    65_536
}

fn is_default_size(bytes: &u64) -> bool {
    *bytes == default_size()
}
