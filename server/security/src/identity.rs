//! Who a certificate of the environment's authority belongs to.
//!
//! The identity is a URI among the certificate's subject alternative names, `crosstie://KIND/NAME`, as SPIFFE
//! does it; the common name is only for people. It means something in a certificate the authority signed,
//! which the TLS handshake has checked by the time anybody asks.

use std::fmt;
use std::str::FromStr;

use crosstie_model::UnitName;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const SCHEME: &str = "crosstie://";

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ComponentKind {
    /// A server.
    Server,
    /// A program that uses the management API: the command line tool, the console.
    Client,
    /// A load balancer in front of the servers.
    LoadBalancer,
    /// A message broker that carries the bus.
    Broker,
    /// The operational database's server.
    Database,
}

impl ComponentKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Server, Self::Client, Self::LoadBalancer, Self::Broker, Self::Database];

    /// The kind's word in certificates, the API and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::LoadBalancer => "load_balancer",
            Self::Broker => "broker",
            Self::Database => "database",
        }
    }
}

impl fmt::Display for ComponentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no kind of component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind {0:?}; there are server, client, load_balancer, broker, database")]
pub struct UnknownKind(String);

impl FromStr for ComponentKind {
    type Err = UnknownKind;
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// The holder of a component certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// What it is.
    pub kind: ComponentKind,
    /// Its name.
    pub name: UnitName,
}

/// Why a certificate says nothing about its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is not X.509 in DER.
    #[error("the certificate cannot be read")]
    NotACertificate,
    /// It names no component, or several.
    #[error("the certificate does not name one component of this environment")]
    NoIdentity,
}

impl Identity {
    /// The identity in `certificate` (DER), which must have been verified before.
    ///
    /// # Errors
    /// [`IdentityError`] unless exactly one component is named.
    pub fn of(certificate: &[u8]) -> Result<Self, IdentityError> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| IdentityError::NotACertificate)?;
        let names = parsed.subject_alternative_name().map_err(|_| IdentityError::NotACertificate)?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let mut ours = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(SCHEME),
            _ => None,
        });
        match (ours.next().and_then(parse), ours.next()) {
            (Some(identity), None) => Ok(identity),
            _ => Err(IdentityError::NoIdentity),
        }
    }
}

fn parse(text: &str) -> Option<Identity> {
    let (kind, name) = text.split_once('/')?;
    Some(Identity { kind: kind.parse().ok()?, name: UnitName::new(name).ok()? })
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_its_text() {
        let identity = Identity { kind: ComponentKind::Server, name: UnitName::new("server1").unwrap() };
        assert_eq!(identity.to_string(), "crosstie://server/server1");
        assert_eq!(parse("server/server1"), Some(identity));
        for kind in ComponentKind::ALL {
            let identity = Identity { kind, name: UnitName::new("a").unwrap() };
            assert_eq!(parse(&format!("{kind}/a")), Some(identity));
        }
        for bad in ["server", "server/", "server/a/b", "root/a", "server/../a", ""] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn garbage_is_no_certificate() {
        assert_eq!(Identity::of(b"garbage"), Err(IdentityError::NotACertificate));
    }
}
