//! What a request presents to be let in.

use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderMap;

use super::client_certificate::ClientChain;
use super::wss::ShownUsernameToken;

/// What a request presents. Costs nothing to make: each type of credentials looks at its own part alone.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'r> {
    /// Its header fields.
    pub headers: &'r HeaderMap,
    /// Its decoded query parameters, in order.
    pub query: &'r [(String, String)],
    /// The certificate shown on its connection.
    pub certificate: ShownCertificate<'r>,
    /// The username token in its SOAP message; `None` for requests of other kinds, and before a message was read.
    pub username_token: Option<&'r dyn ShownUsernameToken>,
    /// When it came.
    pub now: SystemTime,
}

/// The certificate a client showed.
#[derive(Debug, Clone, Copy)]
pub enum ShownCertificate<'r> {
    /// None, or a connection without TLS.
    None,
    /// This one, whose key the client proved in the handshake.
    Direct(&'r ClientChain),
    /// The one that a load balancer of the cluster describes in the header fields `X-SSL-Client-…`: say so
    /// only of a connection whose other end showed a load balancer's certificate.
    ToldByLoadBalancer,
}

impl<'r> Presented<'r> {
    /// What a request presents that comes now, with no certificate shown.
    #[must_use]
    pub fn now(headers: &'r HeaderMap, query: &'r [(String, String)]) -> Self {
        let certificate = ShownCertificate::None;
        Self { headers, query, certificate, username_token: None, now: SystemTime::now() }
    }

    /// The same with what is known of the client's certificate.
    #[must_use]
    pub fn with_certificate(mut self, certificate: ShownCertificate<'r>) -> Self {
        self.certificate = certificate;
        self
    }

    /// The same with what its SOAP message holds of a username token.
    #[must_use]
    pub fn with_username_token(mut self, token: &'r dyn ShownUsernameToken) -> Self {
        self.username_token = Some(token);
        self
    }

    /// When it came, in seconds since 1970.
    pub(super) fn unix_seconds(&self) -> i64 {
        let since = self.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }
}
