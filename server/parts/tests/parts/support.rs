//! A certificate authority, a free address, and a part that is gone when the test is over.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use crosstie_model::secret::SecretValue;
use crosstie_parts::{Credentials, Part, PartPlan, PartTls, Reach, ServiceUser};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// A part under test; stopped when dropped, also by a test that panics.
pub(crate) struct Started<P: Part> {
    pub(crate) part: P,
}

impl<P: Part> Drop for Started<P> {
    fn drop(&mut self) {
        if let Err(error) = self.part.stop() {
            println!("{error}");
        }
    }
}

/// Makes a CA in `directory` and a certificate of it for the loopback addresses.
pub(crate) fn issue(directory: &Path) -> PartTls {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key_pair = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key_pair, &issuer).unwrap();
    let file = |name: &str, text: String| {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    PartTls {
        ca: file("ca.pem", issuer.pem()),
        certificate: file("part.pem", certificate.pem()),
        key: file("part.key", key_pair.serialize_pem()),
    }
}

/// An address that nobody listens on now.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The plan of a part in `directory` of the user `user`.
pub(crate) fn plan(directory: &Path, name: &str, user: &str) -> PartPlan {
    PartPlan {
        directory: directory.join(name),
        address: free_address(),
        tls: Some(issue(directory)),
        user: ServiceUser::for_part(user).unwrap(),
    }
}

/// Credentials with a password that needs quoting.
pub(crate) fn credentials() -> Credentials {
    Credentials {
        user: "crosstie".into(),
        password: SecretValue::new(b"it's \"$ecret\"; --".to_vec()),
        database: "crosstie".into(),
        reach: Reach::OneDatabase,
    }
}
