//! `[bus]`: how servers tell each other of changes.

use std::fmt;
use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// `[bus]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BusSection {
    /// The RabbitMQ broker over which servers tell each other of changes: `amqps://USER@HOST[:PORT][/VHOST]`,
    /// or `amqp://` for one on this machine. Empty: no broker; changes of other servers are then found by
    /// comparing, every two seconds. Certificates are those of `[security]`.
    pub url: String,
    /// `env:NAME` or `file:PATH` of the password of the user in `url`.
    pub password: Option<String>,
    /// The exchange that all servers of the cluster share.
    pub exchange: String,
}

impl Default for BusSection {
    fn default() -> Self {
        Self { url: String::new(), password: None, exchange: "crosstie".into() }
    }
}

/// The port of AMQP over TLS (IANA `amqps`).
const TLS_PORT: u16 = 5671;
/// The port of AMQP in plain (IANA `amqp`).
const PLAIN_PORT: u16 = 5672;
/// The virtual host RabbitMQ makes for everybody.
const DEFAULT_VHOST: &str = "/";

/// A broker's address. Holds no password.
#[derive(Clone, PartialEq, Eq)]
pub struct BusUrl {
    /// Whether the connection is TLS.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// The virtual host.
    pub vhost: String,
}

/// Why a text is no address of a broker. None repeats the text: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BusUrlError {
    /// Not a URL of the right kind.
    #[error("must be amqps://USER@HOST[:PORT][/VHOST]")]
    Form,
    /// The password stands in it.
    #[error("must hold no password; set bus.password to env:NAME or file:PATH")]
    Password,
    /// Plain text to another machine.
    #[error("amqp:// is for this machine alone; use amqps://")]
    Plain,
}

impl BusUrl {
    /// Reads `text`. Without a path the virtual host is `/`; one with a slash is percent-encoded.
    ///
    /// # Errors
    /// [`BusUrlError`].
    pub fn parse(text: &str) -> Result<Self, BusUrlError> {
        let url = Url::parse(text).map_err(|_| BusUrlError::Form)?;
        let tls = match url.scheme() {
            "amqps" => true,
            "amqp" => false,
            _ => return Err(BusUrlError::Form),
        };
        if url.password().is_some() {
            return Err(BusUrlError::Password);
        }
        let host = match url.host().ok_or(BusUrlError::Form)? {
            Host::Domain(name) => decode(name)?,
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let user = decode(url.username())?;
        let vhost = decode(url.path().strip_prefix('/').unwrap_or_default())?;
        let is_whole = url.query().is_none() && url.fragment().is_none();
        // AMQP's short strings end at 255 bytes.
        let fits = [&host, &user, &vhost].iter().all(|part| part.len() <= 255);
        if user.is_empty() || host.is_empty() || !is_whole || !fits {
            return Err(BusUrlError::Form);
        }
        if !tls && !is_loopback(&host) {
            return Err(BusUrlError::Plain);
        }
        let port = url.port().unwrap_or(if tls { TLS_PORT } else { PLAIN_PORT });
        let vhost = if vhost.is_empty() { DEFAULT_VHOST.to_owned() } else { vhost };
        Ok(Self { tls, host, port, user, vhost })
    }
}

fn decode(text: &str) -> Result<String, BusUrlError> {
    percent_decode_str(text).decode_utf8().map(Into::into).map_err(|_| BusUrlError::Form)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        write!(f, "{scheme}://")?;
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            write!(f, "{}", self.host)?;
        }
        write!(f, ":{}", self.port)
    }
}

impl fmt::Debug for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BusUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_url_names_host_user_and_virtual_host() {
        let full = BusUrl::parse("amqps://cross%40tie@broker.example:5999/our%2Fhost").unwrap();
        assert_eq!((full.host.as_str(), full.port, full.tls), ("broker.example", 5999, true));
        assert_eq!((full.user.as_str(), full.vhost.as_str()), ("cross@tie", "our/host"));
        let short = BusUrl::parse("amqps://u@broker").unwrap();
        assert_eq!((short.port, short.vhost.as_str()), (5671, "/"));
        let plain = BusUrl::parse("amqp://u@[::1]/x").unwrap();
        assert_eq!((plain.host.as_str(), plain.port, plain.vhost.as_str()), ("::1", 5672, "x"));
        assert_eq!(plain.to_string(), "amqp://[::1]:5672");
    }

    #[test]
    fn plain_text_stays_on_this_machine() {
        for host in ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"] {
            assert!(BusUrl::parse(&format!("amqp://u@{host}")).is_ok(), "{host}");
        }
        for host in ["10.0.0.1", "broker", "localhost.example", "127.0.0.1.example"] {
            assert_eq!(BusUrl::parse(&format!("amqp://u@{host}")), Err(BusUrlError::Plain), "{host}");
        }
    }

    #[test]
    fn passwords_and_other_forms_are_refused_without_being_repeated() {
        let found = BusUrl::parse("amqps://u:hunter2@broker").unwrap_err();
        assert_eq!(found, BusUrlError::Password);
        assert!(!found.to_string().contains("hunter2"));
        for text in
            ["", "broker", "http://u@h", "amqps://broker", "amqps://u@", "amqps://u@h?x=1", "amqps:u@h"]
        {
            assert_eq!(BusUrl::parse(text), Err(BusUrlError::Form), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(amqps?://)?\\PC{0,80}") {
            if let Ok(url) = BusUrl::parse(&text) {
                prop_assert!(!url.user.is_empty() && !url.host.is_empty());
                prop_assert!(url.tls || is_loopback(&url.host));
            }
        }
    }
}
