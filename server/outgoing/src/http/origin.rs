//! Where a system is: scheme, host and port.

use std::fmt;

use http::HeaderValue;
use http::uri::{Authority, Scheme};
use rustls_pki_types::ServerName;
use url::{Host, Url};

use crate::blueprint::OpenError;

/// An origin (RFC 9110, section 4.3.1).
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// `http` or `https`.
    pub(crate) scheme: Scheme,
    /// The host as a resolver or a socket wants it: no brackets around an IPv6 address.
    pub(crate) host: String,
    /// The port, whether it was given or not.
    pub(crate) port: u16,
    /// Host and port as a URI has them; the port only where it is not the scheme's own.
    pub(crate) authority: Authority,
    /// The same as the Host field.
    pub(crate) host_field: HeaderValue,
}

impl Origin {
    /// The origin of `url`.
    pub(crate) fn of(url: &Url) -> Result<Self, String> {
        let scheme = match url.scheme() {
            "http" => Scheme::HTTP,
            "https" => Scheme::HTTPS,
            other => return Err(format!("{other} is not spoken here")),
        };
        let host = match url.host() {
            None => return Err("it names no host".to_owned()),
            Some(Host::Domain(domain)) => domain.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
        };
        let port = url.port_or_known_default().ok_or("it names no port")?;
        let shown = url.host_str().unwrap_or_default();
        let authority = match url.port() {
            Some(port) => format!("{shown}:{port}"),
            None => shown.to_owned(),
        };
        let host_field = HeaderValue::from_str(&authority).map_err(|error| error.to_string())?;
        let authority = Authority::try_from(authority).map_err(|error| error.to_string())?;
        Ok(Self { scheme, host, port, authority, host_field })
    }

    /// As [`Origin::of`], of a definition's field.
    pub(crate) fn parse(field: &'static str, text: &str) -> Result<(Self, Url), OpenError> {
        let url = Url::parse(text).map_err(|error| OpenError::field(field, error.to_string()))?;
        let origin = Self::of(&url).map_err(|detail| OpenError::field(field, detail))?;
        Ok((origin, url))
    }

    /// Whether connections are encrypted.
    pub(crate) fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Whether both are the same scheme, host and port.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.host.eq_ignore_ascii_case(&other.host) && self.port == other.port
    }

    /// What the certificate must be made out to.
    pub(crate) fn server_name(&self) -> Result<ServerName<'static>, String> {
        ServerName::try_from(self.host.clone()).map_err(|error| format!("{}: {error}", self.host))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}
