//! Why there is no connection to the broker.

use std::io;
use std::time::Duration;

use rustls::Error as TlsError;

/// Why there is no connection to the broker. None holds a password.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The password or the certificate could not be read.
    #[error("the credentials cannot be used: {0}")]
    Secrets(String),
    /// The host is not one that a certificate can name.
    #[error("{0} cannot be the host of a certificate")]
    Host(String),
    /// Nobody answers there.
    #[error("the broker at {address} cannot be reached: {source}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// TLS failed: the broker's certificate, or no TLS there at all.
    #[error("the broker at {address} is not trusted: {reason}")]
    Untrusted {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// The broker did not accept this server's certificate, or seems not to have.
    #[error("the broker at {address} {reason}")]
    Refused {
        /// Where.
        address: String,
        /// The alert it sent, if that arrived.
        reason: String,
    },
    /// It did not answer in time.
    #[error("the broker at {address} did not answer within {} ({step})", shown(*limit))]
    TimedOut {
        /// Where.
        address: String,
        /// What was waited for.
        step: &'static str,
        /// How long.
        limit: Duration,
    },
    /// The protocol failed, or the connection ended.
    #[error("the broker at {address}: {step}: {reason}")]
    Broken {
        /// Where.
        address: String,
        /// What was tried.
        step: &'static str,
        /// What came of it.
        reason: String,
        /// The library's error.
        #[source]
        source: Option<Box<lapin::Error>>,
    },
}

impl BrokerError {
    /// What went wrong in the TLS handshake with `address`.
    pub(crate) fn of_handshake(address: &str, error: &io::Error) -> Self {
        let address = address.to_owned();
        match alert_of(error) {
            Some(TlsError::AlertReceived(alert)) => Self::Refused { address, reason: refusal(*alert) },
            Some(TlsError::InvalidMessage(_)) => {
                Self::Untrusted { address, reason: "it does not speak TLS there".to_owned() }
            }
            Some(other) => Self::Untrusted { address, reason: other.to_string() },
            None => Self::Broken { address, step: "TLS", reason: error.to_string(), source: None },
        }
    }

    /// What went wrong in the login. TLS 1.3 brings a refusal of the client's certificate only here, and when
    /// the broker closes its socket at once the alert may get lost.
    pub(crate) fn of_login(address: &str, tls: bool, error: lapin::Error) -> Self {
        if let lapin::ErrorKind::IOError(io) = error.kind() {
            let cut =
                [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::UnexpectedEof];
            let reason = match alert_of(io) {
                Some(TlsError::AlertReceived(alert)) => Some(refusal(*alert)),
                None if tls && cut.contains(&io.kind()) => Some(CUT.to_owned()),
                _ => None,
            };
            if let Some(reason) = reason {
                return Self::Refused { address: address.to_owned(), reason };
            }
        }
        Self::of_amqp(address, "login", error)
    }

    /// What went wrong in AMQP.
    #[must_use]
    pub fn of_amqp(address: &str, step: &'static str, error: lapin::Error) -> Self {
        let address = address.to_owned();
        let reason = match error.kind() {
            lapin::ErrorKind::ProtocolError(refusal) => refusal.get_message().to_string(),
            lapin::ErrorKind::IOError(io) => io.to_string(),
            _ => error.to_string(),
        };
        Self::Broken { address, step, reason, source: Some(Box::new(error)) }
    }

    /// The broker said something that makes no sense here.
    #[must_use]
    pub fn broken(address: &str, step: &'static str, reason: &str) -> Self {
        Self::Broken { address: address.to_owned(), step, reason: reason.to_owned(), source: None }
    }
}

/// A limit as people say it.
fn shown(limit: Duration) -> String {
    if limit.subsec_millis() == 0 {
        format!("{} s", limit.as_secs())
    } else {
        format!("{} ms", limit.as_millis())
    }
}

const CUT: &str =
    "cut the connection before the login; it may not accept this server's certificate (its log says why)";

fn refusal(alert: rustls::AlertDescription) -> String {
    format!("refused this server's certificate: TLS alert {alert:?}")
}

fn alert_of(error: &io::Error) -> Option<&TlsError> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}
