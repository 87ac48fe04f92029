//! TLS as listeners and internal clients use it: handshakes between the configurations this crate makes,
//! over memory, with certificates of a real authority.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "functions that only tests call report a failure by panicking, as the tests do"
)]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use crosstie_security::authority::{self, AuthorityError, IssuedCertificate};
use crosstie_security::certificate::{CertificateError, Reloaded};
use crosstie_security::identity::{ComponentKind, Identity, IdentityError};
use crosstie_security::tls::{self, ALPN_HTTP, ClientAuthentication, ClientIdentity};
use crosstie_security::{CertificateAuthority, ClusterKey, ReloadingCertificate, write_private};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use time::{Duration, OffsetDateTime};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct Server {
    directory: tempfile::TempDir,
    authority: CertificateAuthority,
    certificate: Arc<ReloadingCertificate>,
}

impl Server {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::create("test").unwrap();
        let issued = authority.issue_server("server1", &["localhost"], &[LOOPBACK]).unwrap();
        let (chain, key) = (directory.path().join("server.pem"), directory.path().join("server.key"));
        issued.save(&chain, &key).unwrap();
        let certificate = ReloadingCertificate::load(chain, key).unwrap();
        Self { directory, authority, certificate }
    }

    fn renew(&self) -> IssuedCertificate {
        let issued = self.authority.issue_server("server1", &["localhost"], &[LOOPBACK]).unwrap();
        issued.save(&self.path("server.pem"), &self.path("server.key")).unwrap();
        issued
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn roots(&self) -> Arc<RootCertStore> {
        tls::roots(self.authority.certificate_pem().as_bytes()).unwrap()
    }

    fn config(&self, clients: &ClientAuthentication) -> Arc<ServerConfig> {
        tls::server_config(Arc::clone(&self.certificate), ALPN_HTTP, clients).unwrap()
    }

    fn client(&self, identity: Option<&IssuedCertificate>) -> Arc<ClientConfig> {
        let identity = identity.map(|issued| ClientIdentity {
            chain_pem: issued.certificate_pem.as_bytes(),
            key_pem: &issued.key_pem,
        });
        tls::client_config(self.roots(), identity.as_ref(), ALPN_HTTP).unwrap()
    }
}

struct Connected {
    client: ClientConnection,
    server: ServerConnection,
}

/// Runs a handshake to its end over memory.
fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: &str,
) -> Result<Connected, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connected =
        Connected { client: ClientConnection::new(client, name)?, server: ServerConnection::new(server)? };
    for _ in 0..10 {
        connected.pump()?;
    }
    assert!(!connected.client.is_handshaking() && !connected.server.is_handshaking());
    Ok(connected)
}

impl Connected {
    fn pump(&mut self) -> Result<(), rustls::Error> {
        let mut wire = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut wire).unwrap();
        }
        feed(&mut wire, |bytes| self.server.read_tls(bytes).map(|_| ()))?;
        self.server.process_new_packets()?;
        let mut wire = Vec::new();
        while self.server.wants_write() {
            self.server.write_tls(&mut wire).unwrap();
        }
        feed(&mut wire, |bytes| self.client.read_tls(bytes).map(|_| ()))?;
        self.client.process_new_packets()?;
        Ok(())
    }

    fn server_answers(&mut self, text: &str) {
        self.server.writer().write_all(text.as_bytes()).unwrap();
        self.pump().unwrap();
        let mut received = vec![0; text.len()];
        self.client.reader().read_exact(&mut received).unwrap();
        assert_eq!(received, text.as_bytes());
    }

    fn certificate_seen(&self) -> CertificateDer<'static> {
        self.client.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

fn feed(
    wire: &mut Vec<u8>,
    mut read: impl FnMut(&mut dyn Read) -> std::io::Result<()>,
) -> Result<(), rustls::Error> {
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        read(&mut rest).unwrap();
    }
    Ok(())
}

fn leaf(issued: &IssuedCertificate) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()
}

#[test]
fn a_client_that_trusts_the_authority_reaches_the_server_by_name_and_address() {
    let server = Server::new();
    for name in ["localhost", "127.0.0.1"] {
        let connected =
            handshake(server.client(None), server.config(&ClientAuthentication::None), name).unwrap();
        assert_eq!(connected.client.alpn_protocol(), Some(b"h2".as_slice()));
        assert_eq!(connected.client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    }
    let wrong =
        handshake(server.client(None), server.config(&ClientAuthentication::None), "elsewhere.example");
    assert!(matches!(wrong, Err(rustls::Error::InvalidCertificate(_))));
}

#[test]
fn a_server_of_another_authority_is_refused() {
    let (server, stranger) = (Server::new(), Server::new());
    let result = handshake(server.client(None), stranger.config(&ClientAuthentication::None), "localhost");
    assert!(matches!(result, Err(rustls::Error::InvalidCertificate(_))));
}

#[test]
fn a_clients_certificate_is_checked_against_the_authority_and_names_its_holder() {
    let server = Server::new();
    let clients = ClientAuthentication::Optional(server.roots());
    let known = server.authority.issue_client("cli").unwrap();
    let connected = handshake(server.client(Some(&known)), server.config(&clients), "localhost").unwrap();
    let shown = &connected.server.peer_certificates().unwrap()[0];
    let identity = Identity::of(shown).unwrap();
    assert_eq!((identity.kind, identity.name.as_str()), (ComponentKind::Client, "cli"));

    let nobody = handshake(server.client(None), server.config(&clients), "localhost").unwrap();
    assert!(nobody.server.peer_certificates().is_none(), "other credentials may follow");

    let forged = CertificateAuthority::create("test").unwrap().issue_client("cli").unwrap();
    assert!(handshake(server.client(Some(&forged)), server.config(&clients), "localhost").is_err());
}

#[test]
fn a_required_client_certificate_cannot_be_left_out() {
    let server = Server::new();
    let clients = ClientAuthentication::Required(server.roots());
    assert!(handshake(server.client(None), server.config(&clients), "localhost").is_err());
    let known = server.authority.issue_client("cli").unwrap();
    assert!(handshake(server.client(Some(&known)), server.config(&clients), "localhost").is_ok());
}

#[test]
fn a_client_certificate_serves_no_traffic_and_a_server_certificate_may_call() {
    let server = Server::new();
    let as_client = server.authority.issue_server("server2", &["localhost"], &[]).unwrap();
    let clients = ClientAuthentication::Required(server.roots());
    let connected = handshake(server.client(Some(&as_client)), server.config(&clients), "localhost").unwrap();
    let identity = Identity::of(&connected.server.peer_certificates().unwrap()[0]).unwrap();
    assert_eq!(identity.kind, ComponentKind::Server);

    let client = server.authority.issue_client("cli").unwrap();
    client.save(&server.path("server.pem"), &server.path("server.key")).unwrap();
    server.certificate.reload().unwrap();
    assert!(handshake(server.client(None), server.config(&ClientAuthentication::None), "localhost").is_err());
}

#[test]
fn a_reload_gives_new_handshakes_the_new_certificate_and_breaks_no_connection() {
    let server = Server::new();
    let config = server.config(&ClientAuthentication::None);
    let mut before = handshake(server.client(None), Arc::clone(&config), "localhost").unwrap();
    let old = before.certificate_seen();
    assert_eq!(server.certificate.reload().unwrap(), Reloaded::Unchanged);

    let renewed = server.renew();
    assert_eq!(server.certificate.reload().unwrap(), Reloaded::Replaced);
    before.server_answers("still here");
    let after = handshake(server.client(None), config, "localhost").unwrap();
    assert_eq!(after.certificate_seen(), leaf(&renewed));
    assert_ne!(after.certificate_seen(), old);
}

#[test]
fn broken_files_leave_the_old_certificate_in_use() {
    let server = Server::new();
    let config = server.config(&ClientAuthentication::None);
    let old = handshake(server.client(None), Arc::clone(&config), "localhost").unwrap().certificate_seen();

    // Only the key was replaced so far.
    let other = server.authority.issue_server("server1", &["localhost"], &[]).unwrap();
    write_private(&server.path("server.key"), other.key_pem.expose()).unwrap();
    assert!(matches!(server.certificate.reload(), Err(CertificateError::Pair { .. })));
    std::fs::write(server.path("server.pem"), "").unwrap();
    assert!(matches!(server.certificate.reload(), Err(CertificateError::Chain { .. })));
    std::fs::remove_file(server.path("server.pem")).unwrap();
    assert!(matches!(server.certificate.reload(), Err(CertificateError::File(_))));

    assert_eq!(handshake(server.client(None), config, "localhost").unwrap().certificate_seen(), old);
}

#[test]
fn an_expired_certificate_is_not_used() {
    let server = Server::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = OffsetDateTime::now_utc() - Duration::hours(1);
    std::fs::write(server.path("server.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    write_private(&server.path("server.key"), key.serialize_pem().as_bytes()).unwrap();
    assert!(matches!(server.certificate.reload(), Err(CertificateError::Expired { .. })));
    let fresh = ReloadingCertificate::load(server.path("server.pem"), server.path("server.key"));
    assert!(matches!(fresh, Err(CertificateError::Expired { .. })));
    assert!(server.certificate.expires() > OffsetDateTime::now_utc());
}

#[test]
fn a_key_others_can_read_is_not_served_with() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::new();
    let key = server.path("server.key");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(server.certificate.reload(), Err(CertificateError::File(_))));
}

#[test]
fn an_authority_survives_its_files_and_its_sealing() {
    let directory = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::create("test").unwrap();
    authority.save(directory.path()).unwrap();
    let opened = CertificateAuthority::open(directory.path()).unwrap();
    assert_eq!(opened.fingerprint(), authority.fingerprint());
    assert_eq!(authority::fingerprint(authority.certificate_pem()).unwrap(), authority.fingerprint());

    let key = ClusterKey::generate().unwrap();
    let sealed = authority.seal_key(&key).unwrap();
    let unsealed = CertificateAuthority::open_sealed(authority.certificate_pem(), &sealed, &key).unwrap();
    let roots = tls::roots(authority.certificate_pem().as_bytes()).unwrap();
    let issued = unsealed.issue_server("server1", &["localhost"], &[]).unwrap();
    let (chain, private) = (directory.path().join("s.pem"), directory.path().join("s.key"));
    issued.save(&chain, &private).unwrap();
    let certificate = ReloadingCertificate::load(chain, private).unwrap();
    let server = tls::server_config(certificate, ALPN_HTTP, &ClientAuthentication::None).unwrap();
    handshake(tls::client_config(roots, None, ALPN_HTTP).unwrap(), server, "localhost").unwrap();

    let stranger = CertificateAuthority::create("test").unwrap();
    assert!(CertificateAuthority::open_sealed(stranger.certificate_pem(), &sealed, &key).is_err());
    let mixed = CertificateAuthority::load(authority.certificate_pem(), &stranger.key_pem());
    assert!(matches!(mixed, Err(AuthorityError::Mismatch)));
    let no_authority = CertificateAuthority::load(&issued.certificate_pem, &issued.key_pem);
    assert!(matches!(no_authority, Err(AuthorityError::Mismatch)));
}

#[test]
fn certificates_live_two_years_and_ask_for_renewal_in_the_last_three_months() {
    let authority = CertificateAuthority::create("test").unwrap();
    let issued = authority.issue_client("cli").unwrap();
    let now = OffsetDateTime::now_utc();
    let left = authority::expires_at(&issued.certificate_pem).unwrap() - now;
    assert!(left > Duration::days(729) && left <= Duration::days(730));
    assert!(!authority::needs_renewal(&issued.certificate_pem, now).unwrap());
    assert!(authority::needs_renewal(&issued.certificate_pem, now + Duration::days(650)).unwrap());
}

#[test]
fn names_that_no_certificate_should_hold_are_refused() {
    let authority = CertificateAuthority::create("test").unwrap();
    for name in ["", "a/b", "-x", "two words", "ä"] {
        assert!(matches!(authority.issue_client(name), Err(AuthorityError::Name { .. })), "{name}");
    }
    assert!(authority.issue_client(&"long".repeat(40)).is_ok());
    assert!(authority.issue_server("s", &["nö.example"], &[]).is_err());
    assert_eq!(Identity::of(&leaf_of_authority(&authority)), Err(IdentityError::NoIdentity));
}

#[test]
fn a_request_is_signed_for_the_key_in_it_and_for_what_the_authority_says() {
    let authority = CertificateAuthority::create("test").unwrap();
    let request = authority::request("whoever").unwrap();
    let subject = authority::Subject::server("server2", [LOOPBACK, "10.0.0.2".parse().unwrap()]);
    let pem = authority.sign(&request.request_pem, &subject).unwrap();
    let described = authority::describe(&pem).unwrap();
    assert_eq!(described.subject, subject);
    assert_eq!(subject.names, ["localhost", "server2"]);
    assert_eq!(subject.addresses.len(), 3);
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = (directory.path().join("s.pem"), directory.path().join("s.key"));
    let issued = authority::IssuedCertificate { certificate_pem: pem, key_pem: request.key_pem };
    issued.save(&chain, &key).unwrap();
    assert!(ReloadingCertificate::load(chain, key).is_ok());

    let again = authority::describe(&authority.sign(&request.request_pem, &subject).unwrap()).unwrap();
    assert_ne!(again.serial, described.serial);
    for bad in ["", "garbage", authority.certificate_pem()] {
        let refused = authority.sign(bad, &subject);
        assert!(matches!(refused, Err(AuthorityError::Request(_))), "{refused:?}");
    }
}

fn leaf_of_authority(authority: &CertificateAuthority) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap()
}

#[test]
fn openssl_agrees_on_usages_and_names() {
    if !Path::new("/usr/bin/openssl").exists() {
        return;
    }
    let server = Server::new();
    server.authority.save(server.directory.path()).unwrap();
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new("/usr/bin/openssl")
            .args(arguments)
            .current_dir(server.directory.path())
            .output()
            .unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let verified =
        run(&["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "ca.pem", "server.pem"]);
    assert!(verified.contains("server.pem: OK"), "{verified}");
    let text = run(&["x509", "-in", "server.pem", "-noout", "-text"]);
    for expected in [
        "prime256v1",
        "Digital Signature",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "DNS:localhost",
        "IP Address:127.0.0.1",
        "URI:crosstie://server/server1",
        "CA:FALSE",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}
