//! Signed tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::token::{TokenRules, address_faults};
use super::{is_keep, keep};
use crate::definition::ClientTls;
use crate::failure::Fault;
use crate::secret::{SecretRef, SecretSource};

/// The length of the shortest hash, which a secret must have at least (RFC 7518, section 3.2), in bytes.
const SHORTEST_SECRET: usize = 32;

/// A signed token (JWT, RFC 7519) that the caller sends as `Authorization: Bearer …` (RFC 6750). Its keys come
/// from exactly one of `jwks_url`, `public_keys` and `secret`. It must have an end (`exp`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Jwt {
    /// Where the issuer publishes its keys (JWKS, RFC 7517). Fetched when the first token comes, and again when
    /// one names a key that is not among them, as after a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2_048))]
    pub jwks_url: Option<String>,
    /// TLS of `jwks_url` beyond the usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// The issuer's public keys: PEM text of keys or certificates, a JWK or a JWKS; or `file:PATH` on each
    /// server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1_000_000))]
    pub public_keys: Option<String>,
    /// The secret shared with the issuer, for HS256, HS384 and HS512: the bytes themselves, as many as the
    /// hash has at least (32, 48, 64), or a JWK or JWKS of type `oct`. May be left out of an `apply` document
    /// to keep the present one.
    #[serde(default = "keep", skip_serializing_if = "is_keep")]
    pub secret: SecretRef,
    /// The algorithms that are accepted; all that fit the key, or the one its JWK names, when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub algorithms: Vec<JwtAlgorithm>,
    /// How old fetched keys may become before they are fetched again while they go on being used, in seconds.
    #[serde(default = "default_refresh", skip_serializing_if = "is_default_refresh")]
    #[schemars(range(min = 1, max = 86_400), extend("default" = 300))]
    pub refresh_s: u32,
    /// How old they may become at all when they cannot be fetched, in seconds: after that tokens get 503.
    #[serde(default = "default_keep", skip_serializing_if = "is_default_keep")]
    #[schemars(range(min = 1, max = 604_800), extend("default" = 3_600))]
    pub keep_s: u32,
    /// How long fetching keys may take, in milliseconds.
    #[serde(default = "default_deadline", skip_serializing_if = "is_default_deadline")]
    #[schemars(range(min = 1, max = 60_000), extend("default" = 5_000))]
    pub deadline_ms: u64,
    /// Largest JWKS, in bytes.
    #[serde(default = "default_size", skip_serializing_if = "is_default_size")]
    #[schemars(range(min = 1, max = 4_194_304), extend("default" = 262_144))]
    pub max_jwks_bytes: u64,
    /// What the token must say.
    #[serde(flatten)]
    pub rules: TokenRules,
}

/// How a token is signed (RFC 7518, section 3.1; RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum JwtAlgorithm {
    /// RSA, PKCS#1 v1.5, SHA-256.
    RS256,
    /// RSA, PKCS#1 v1.5, SHA-384.
    RS384,
    /// RSA, PKCS#1 v1.5, SHA-512.
    RS512,
    /// RSA, PSS, SHA-256.
    PS256,
    /// RSA, PSS, SHA-384.
    PS384,
    /// RSA, PSS, SHA-512.
    PS512,
    /// ECDSA on P-256, SHA-256.
    ES256,
    /// ECDSA on P-384, SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
    /// HMAC, SHA-256.
    HS256,
    /// HMAC, SHA-384.
    HS384,
    /// HMAC, SHA-512.
    HS512,
}

impl JwtAlgorithm {
    /// Whether its key is a secret that the issuer shares.
    #[must_use]
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

impl Jwt {
    /// Whether its key is the secret.
    fn has_secret(&self) -> bool {
        self.jwks_url.is_none() && self.public_keys.is_none()
    }

    pub(in crate::definition) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |pointer: &str, detail: &str| {
            faults.push(Fault { pointer: pointer.to_owned(), detail: detail.to_owned() });
        };
        if self.jwks_url.is_some() && self.public_keys.is_some() {
            fault("/public_keys", "there is jwks_url already; keys come from one place");
        }
        if !self.has_secret() && !is_keep(&self.secret) {
            fault("/secret", "there are public keys already; keys come from one place");
        }
        // Only what is written out can be told before it is stored; a key that nobody can use would keep every
        // later change from being applied.
        if let (true, SecretSource::Plain(text)) = (self.has_secret(), self.secret.source())
            && !is_keep(&self.secret)
            && text.len() < SHORTEST_SECRET
        {
            fault("/secret", "has less than 32 bytes, which HS256 needs at least");
        }
        if self.tls.is_some() && self.jwks_url.is_none() {
            fault("/tls", "belongs to jwks_url, which is missing");
        }
        for (index, algorithm) in self.algorithms.iter().enumerate() {
            if algorithm.is_symmetric() != self.has_secret() {
                let keys = if self.has_secret() { "a secret" } else { "public keys" };
                fault(&format!("/algorithms/{index}"), &format!("does not go with {keys}"));
            }
        }
        if let Some(url) = &self.jwks_url {
            address_faults("/jwks_url", url, &mut faults);
        }
        if let Some(tls) = &self.tls {
            tls.faults(&mut faults);
        }
        self.rules.faults(&mut faults);
        faults
    }

    pub(super) fn texts(&self) -> Vec<&str> {
        let tls = self.tls.iter().flat_map(ClientTls::texts);
        self.public_keys.as_deref().into_iter().chain(tls).collect()
    }

    pub(super) fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        let own = self.has_secret().then_some(("secret", &self.secret));
        own.into_iter().chain(self.tls.iter().flat_map(ClientTls::secrets)).collect()
    }

    pub(super) fn secrets_mut(&mut self) -> Vec<(&'static str, &mut SecretRef)> {
        let own = self.has_secret().then_some(("secret", &mut self.secret));
        own.into_iter().chain(self.tls.iter_mut().flat_map(ClientTls::secrets_mut)).collect()
    }
}

fn default_refresh() -> u32 {
    300
}

fn is_default_refresh(seconds: &u32) -> bool {
    *seconds == default_refresh()
}

fn default_keep() -> u32 {
    3_600
}

fn is_default_keep(seconds: &u32) -> bool {
    *seconds == default_keep()
}

fn default_deadline() -> u64 {
    5_000
}

fn is_default_deadline(milliseconds: &u64) -> bool {
    *milliseconds == default_deadline()
}

fn default_size() -> u64 {
    262_144
}

fn is_default_size(bytes: &u64) -> bool {
    *bytes == default_size()
}
