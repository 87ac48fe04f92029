//! Certificates of components that are worth nothing any more, though they have not ended.
//!
//! The list is short, part of every snapshot, and read from an atomic pointer: looking one up costs next to
//! nothing while there is none, which is nearly always.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Serial numbers of revoked certificates, as they are known at this moment. Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct Revoked {
    serials: Arc<ArcSwap<BTreeSet<String>>>,
}

impl Revoked {
    /// Takes up a newer list.
    pub fn replace(&self, serials: &BTreeSet<String>) {
        if self.serials.load().as_ref() != serials {
            self.serials.store(Arc::new(serials.clone()));
        }
    }

    /// Whether the certificate with this serial number, in hexadecimal, is revoked.
    #[must_use]
    pub fn contains(&self, serial: &str) -> bool {
        self.serials.load().contains(serial)
    }

    /// Whether `certificate` (DER) is revoked; one that cannot be read counts as such while any is.
    #[must_use]
    pub fn holds(&self, certificate: &[u8]) -> bool {
        let serials = self.serials.load();
        !serials.is_empty() && serial_of(certificate).is_none_or(|serial| serials.contains(&serial))
    }
}

/// The serial number of `certificate` (DER), in hexadecimal as the authority records it.
#[must_use]
pub fn serial_of(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(hex::encode(parsed.raw_serial()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{CertificateAuthority, describe};
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    #[test]
    fn a_certificate_is_known_by_its_serial_number() {
        let authority = CertificateAuthority::create("test").unwrap();
        let [one, two] = ["one", "two"].map(|name| authority.issue_client(name).unwrap().certificate_pem);
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let serial = describe(&one).unwrap().serial;
        assert_eq!(serial_of(&der(&one)).as_deref(), Some(serial.as_str()));

        let (revoked, elsewhere) = (Revoked::default(), Revoked::default());
        let shared = revoked.clone();
        assert!(!revoked.holds(&der(&one)) && !revoked.holds(b"garbage"));
        shared.replace(&[serial.clone()].into());
        assert!(revoked.contains(&serial) && revoked.holds(&der(&one)) && revoked.holds(b"garbage"));
        assert!(!revoked.holds(&der(&two)) && !elsewhere.holds(&der(&one)));
    }
}
