//! A listener that is for one kind of component lets in no other, though the same authority signed them all.

#![allow(clippy::unwrap_used, reason = "tests report by panicking")]

use std::io;
use std::sync::Arc;

use crosstie_security::authority::{Subject, describe};
use crosstie_security::identity::ComponentKind;
use crosstie_security::tls::{self, ClientAuthentication, ClientIdentity};
use crosstie_security::{CertificateAuthority, ReloadingCertificate, Revoked};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

/// Carries the bytes of a handshake to and fro until both ends have what they want or one refuses.
fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> io::Result<()> {
    let name = ServerName::try_from("server1").unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let failed = |error: rustls::Error| io::Error::other(error);
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes)?;
        }
        while !bytes.is_empty() {
            let taken = server.read_tls(&mut bytes.as_slice())?;
            bytes.drain(..taken);
            server.process_new_packets().map_err(failed)?;
        }
        while server.wants_write() {
            server.write_tls(&mut bytes)?;
        }
        while !bytes.is_empty() {
            let taken = client.read_tls(&mut bytes.as_slice())?;
            bytes.drain(..taken);
            client.process_new_packets().map_err(failed)?;
        }
    }
    Ok(())
}

#[test]
fn only_a_load_balancer_gets_in_where_a_load_balancer_is_awaited() {
    let directory = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::create("test").unwrap();
    let (certificate, key) = (directory.path().join("server.pem"), directory.path().join("server.key"));
    authority.issue_server("server1", &["server1"], &[]).unwrap().save(&certificate, &key).unwrap();
    let certificate = ReloadingCertificate::load(certificate, key).unwrap();
    let roots = tls::roots(authority.certificate_pem().as_bytes()).unwrap();
    let clients =
        ClientAuthentication::RequiredOf(Arc::clone(&roots), ComponentKind::LoadBalancer, Revoked::default());
    let server = tls::server_config(certificate, tls::ALPN_HTTP, &clients).unwrap();
    for kind in ComponentKind::ALL {
        let subject =
            Subject { kind, name: "one".parse().unwrap(), names: Vec::new(), addresses: Vec::new() };
        let issued = authority.issue(&subject).unwrap();
        let identity =
            ClientIdentity { chain_pem: issued.certificate_pem.as_bytes(), key_pem: &issued.key_pem };
        let client = tls::client_config(Arc::clone(&roots), Some(&identity), tls::ALPN_HTTP).unwrap();
        let entered = handshake(client, Arc::clone(&server)).is_ok();
        assert_eq!(entered, kind == ComponentKind::LoadBalancer, "{kind}");
    }
    let nobody = tls::client_config(Arc::clone(&roots), None, tls::ALPN_HTTP).unwrap();
    assert!(handshake(nobody, Arc::clone(&server)).is_err());
    let stranger = CertificateAuthority::create("stranger").unwrap();
    let issued = stranger
        .issue(&Subject {
            kind: ComponentKind::LoadBalancer,
            name: "one".parse().unwrap(),
            names: Vec::new(),
            addresses: Vec::new(),
        })
        .unwrap();
    let identity = ClientIdentity { chain_pem: issued.certificate_pem.as_bytes(), key_pem: &issued.key_pem };
    let client = tls::client_config(roots, Some(&identity), tls::ALPN_HTTP).unwrap();
    assert!(handshake(client, server).is_err(), "another authority's load balancer");
}

#[test]
fn a_revoked_certificate_is_refused_also_to_whoever_was_let_in_before() {
    let directory = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::create("test").unwrap();
    let (certificate, key) = (directory.path().join("server.pem"), directory.path().join("server.key"));
    authority.issue_server("server1", &["server1"], &[]).unwrap().save(&certificate, &key).unwrap();
    let certificate = ReloadingCertificate::load(certificate, key).unwrap();
    let roots = tls::roots(authority.certificate_pem().as_bytes()).unwrap();
    let revoked = Revoked::default();
    let kind = ComponentKind::LoadBalancer;
    let clients = ClientAuthentication::RequiredOf(Arc::clone(&roots), kind, revoked.clone());
    let server = tls::server_config(certificate, tls::ALPN_HTTP, &clients).unwrap();
    let [first, second] = ["one", "two"].map(|name| {
        let issued = authority.issue(&Subject { kind, ..Subject::client(name) }).unwrap();
        let chain_pem = issued.certificate_pem.as_bytes();
        let identity = ClientIdentity { chain_pem, key_pem: &issued.key_pem };
        let client = tls::client_config(Arc::clone(&roots), Some(&identity), tls::ALPN_HTTP).unwrap();
        (client, describe(&issued.certificate_pem).unwrap().serial)
    });
    let enters = |client: &Arc<ClientConfig>| handshake(Arc::clone(client), Arc::clone(&server)).is_ok();
    assert!(enters(&first.0) && enters(&first.0) && enters(&second.0));
    // The client remembers its sessions; none of them gets it in.
    revoked.replace(&[first.1].into());
    assert!(!enters(&first.0) && enters(&second.0));
}
