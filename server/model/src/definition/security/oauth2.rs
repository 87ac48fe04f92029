//! Tokens that outgoings fetch for themselves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{is_keep, keep};
use crate::definition::outgoing::ClientTls;
use crate::failure::Fault;
use crate::secret::SecretRef;

/// The OAuth 2.0 client credentials grant (RFC 6749, section 4.4): outgoings fetch a token with it, keep it,
/// and fetch the next one before it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Oauth2ClientCredentials {
    /// Where tokens are fetched.
    #[schemars(length(min = 1, max = 2_048), pattern(r"^https?://"))]
    pub token_url: String,
    /// The client's identifier.
    #[schemars(length(min = 1, max = 1_000))]
    pub client_id: String,
    /// The client's secret. May be left out of an `apply` document to keep the present one.
    #[serde(default = "keep", skip_serializing_if = "is_keep")]
    pub client_secret: SecretRef,
    /// What the token is to allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(pattern(r"^[!#-\[\]-~]+$")))]
    pub scopes: Vec<String>,
    /// Whom the token is for, where the authorization server asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Where the client's credentials are sent.
    #[serde(default, skip_serializing_if = "CredentialsIn::is_header")]
    pub credentials_in: CredentialsIn,
    /// TLS of the authorization server beyond the usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
}

impl Oauth2ClientCredentials {
    pub(in crate::definition) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        match url::Url::parse(&self.token_url) {
            Ok(url) if url.host().is_some() && url.username().is_empty() && url.password().is_none() => {}
            _ => faults.push(Fault { pointer: "/token_url".into(), detail: "is no address".into() }),
        }
        if let Some(tls) = &self.tls {
            tls.faults(&mut faults);
        }
        faults
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

/// Where a client's credentials are sent (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialsIn {
    /// As HTTP Basic authentication, which every authorization server takes.
    #[default]
    Header,
    /// In the request's body.
    Body,
}

impl CredentialsIn {
    pub(super) fn is_header(&self) -> bool {
        *self == Self::Header
    }
}
