//! What a request presents to be let in.

use std::time::SystemTime;

use http::HeaderMap;
use rustls_pki_types::CertificateDer;

/// What a request presents. Costs nothing to make: each type of credentials looks at its own part alone.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'r> {
    /// Its header fields.
    pub headers: &'r HeaderMap,
    /// Its decoded query parameters, in order.
    pub query: &'r [(String, String)],
    /// The certificate shown on its connection.
    pub certificate: ShownCertificate<'r>,
    /// When it came.
    pub now: SystemTime,
}

/// The certificate a client showed.
#[derive(Debug, Clone, Copy)]
pub enum ShownCertificate<'r> {
    /// None, or a connection without TLS.
    None,
    /// This chain, the client's own certificate first, whose key the client proved in the handshake.
    Direct(&'r [CertificateDer<'static>]),
    /// The one that a load balancer of the cluster describes in the header fields `X-SSL-Client-…`: say so
    /// only of a connection whose other end showed a load balancer's certificate.
    ToldByLoadBalancer,
}

impl<'r> Presented<'r> {
    /// What a request presents that comes now, with no certificate shown.
    #[must_use]
    pub fn now(headers: &'r HeaderMap, query: &'r [(String, String)]) -> Self {
        Self { headers, query, certificate: ShownCertificate::None, now: SystemTime::now() }
    }

    /// The same with what is known of the client's certificate.
    #[must_use]
    pub fn with_certificate(mut self, certificate: ShownCertificate<'r>) -> Self {
        self.certificate = certificate;
        self
    }
}
