use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crosstie_channels::server::Transport;
use crosstie_model::definition::DefinitionKind;
use crosstie_model::refusal::RefusalReason;
use crosstie_security::tls::{self, ListenerTls};
use crosstie_security::{ReloadingCertificate, write_private};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;

use crate::support::client::Client;
use crate::support::{Server, Setup, eventually};

struct Secured {
    server: Server,
    roots: RootCertStore,
}

fn secured() -> Secured {
    secured_with(Setup::new(), |certificate| {
        Transport::Tls(ListenerTls::new(certificate, tls::ALPN_HTTP).unwrap())
    })
}

fn secured_with(setup: Setup, transport: fn(Arc<ReloadingCertificate>) -> Transport) -> Secured {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
    write_private(&chain, certified.cert.pem().as_bytes()).unwrap();
    write_private(&key, certified.signing_key.serialize_pem().as_bytes()).unwrap();
    let certificate = ReloadingCertificate::load(chain, key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let mut setup = setup
        .http(|http| {
            http.tls_handshake_timeout_ms = 300;
            http.max_body_bytes = 1_000;
        })
        .channel("echo", json!({"type": "rest", "path": "/echo", "service": "echo"}));
    setup.transport = transport(certificate);
    setup.linger = Duration::from_millis(200);
    Secured { server: setup.start(), roots }
}

/// A certificate of a client, with its key.
type Shown = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Secured {
    fn connect(&self, alpn: &[&[u8]]) -> StreamOwned<ClientConnection, TcpStream> {
        self.connect_showing(alpn, None)
    }

    fn connect_showing(
        &self,
        alpn: &[&[u8]],
        shown: Option<Shown>,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let mut config = match shown {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key).unwrap(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(self.server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        connection.complete_io(&mut stream).unwrap();
        StreamOwned::new(connection, stream)
    }
}

#[test]
fn https_carries_requests_and_is_known_to_be_secure() {
    let secured = secured();
    let mut client = Client::over(secured.connect(&[b"http/1.1"]));
    for _ in 0..3 {
        let answer = client.get("/echo", "");
        assert_eq!((answer.status, &answer.json()["secure"]), (200, &json!(true)));
    }
}

#[test]
fn http2_is_negotiated_by_alpn() {
    let secured = secured();
    let stream = secured.connect(&[b"h2", b"http/1.1"]);
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    let mut client = Client::over(stream);
    // The preface and an empty SETTINGS frame are answered by a SETTINGS frame (RFC 9113, section 3.4).
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let mut frame = [0u8; 9];
    client.stream.read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 4);
}

#[test]
fn a_reply_to_an_oversized_body_arrives_over_tls_too() {
    let secured = secured();
    let mut client = Client::over(secured.connect(&[]));
    client.send("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 500000\r\n\r\n");
    client.try_send(vec![b'x'; 500_000]);
    assert_eq!(client.read(false).expect("413 arrives").status, 413);
}

#[test]
fn slow_handshakes_end_and_delay_nobody() {
    let secured = secured();
    let began = Instant::now();
    let mut silent = Client::connect(secured.server.address);
    let mut plain = TcpStream::connect(secured.server.address).unwrap();
    plain.write_all(b"GET /echo HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    let mut client = Client::over(secured.connect(&[]));
    assert_eq!(client.get("/echo", "").status, 200);
    assert!(began.elapsed() < Duration::from_millis(280), "{:?}", began.elapsed());
    assert!(silent.is_closed());
    assert!(began.elapsed() >= Duration::from_millis(290));
}

#[test]
fn draining_closes_idle_tls_connections_after_the_linger() {
    let secured = secured();
    let mut client = Client::over(secured.connect(&[]));
    assert_eq!(client.get("/echo", "").status, 200);
    secured.server.http.drain();
    // A clean end of TLS reads as an end; one without close_notify would be an error.
    assert_eq!(client.stream.read(&mut [0u8; 1]).unwrap(), 0);
    drop(client);
    eventually("drained", || secured.server.http.connections() == 0);
}

#[test]
fn draining_leaves_it_to_a_load_balancer_to_close_what_it_does_not_use() {
    let secured = secured_with(Setup::new(), |certificate| {
        let anybody = tls::ClientAuthentication::None;
        Transport::LoadBalancer(tls::server_config(certificate, tls::ALPN_HTTP, &anybody).unwrap())
    });
    let mut clients: Vec<_> = (0..2).map(|_| Client::over(secured.connect(&[b"http/1.1"]))).collect();
    for client in &mut clients {
        assert_eq!(client.get("/echo", "").header("connection"), None);
    }
    secured.server.http.drain();
    // Several times the linger.
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(
        secured.server.http.connections(),
        2,
        "a connection that may be used at any moment was closed"
    );
    let answer = clients[0].get("/echo", "");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    drop(clients);
    eventually("drained", || secured.server.http.connections() == 0);
}

/// An authority of clients: its certificate (PEM), and certificates of its clients by name.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str) -> Shown {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }
}

fn partners(setup: Setup, authority: &Authority, subject: &str) -> Setup {
    let partners = json!({"type": "client_certificate", "ca": authority.pem, "subjects": [{"CN": subject}]});
    setup
        .define(DefinitionKind::Security, "partners", partners)
        .channel("own", json!({"type": "rest", "path": "/own", "service": "echo", "security": "partners"}))
}

fn listener(certificate: Arc<ReloadingCertificate>) -> Transport {
    Transport::Tls(ListenerTls::new(certificate, tls::ALPN_HTTP).unwrap())
}

#[test]
fn a_client_that_shows_its_certificate_is_let_in_where_one_is_wanted() {
    let authority = Authority::new();
    let secured = secured_with(partners(Setup::new(), &authority, "shop"), listener);
    let get = |shown: Option<Shown>, path: &str| {
        let headers = "X-SSL-Client-Verify: SUCCESS\r\nX-SSL-Client-Cert: AAAA\r\n";
        Client::over(secured.connect_showing(&[b"http/1.1"], shown)).get(path, headers)
    };
    let answer = get(Some(authority.issue("shop")), "/own");
    assert_eq!((answer.status, &answer.json()["principal"]), (200, &json!("partners")));
    assert_eq!(get(None, "/echo").status, 200, "who shows none gets to where none is wanted");
    for (shown, reason) in
        [(None, RefusalReason::Missing), (Some(authority.issue("other")), RefusalReason::Claims)]
    {
        let answer = get(shown, "/own");
        assert_eq!(answer.status, 401);
        assert!(answer.header("www-authenticate").unwrap().starts_with("ClientCertificate "));
        let seen = secured.server.fakes().seen_at_least(1).pop().unwrap();
        assert_eq!(seen.refused, Some(("partners".to_owned(), reason)));
    }
}

#[test]
fn a_certificate_of_a_stranger_ends_the_handshake_and_is_told() {
    let authority = Authority::new();
    let secured = secured_with(partners(Setup::new(), &authority, "shop"), listener);
    let stranger = Authority::new().issue("shop");
    let mut client = Client::over(secured.connect_showing(&[b"http/1.1"], Some(stranger)));
    // With TLS 1.3 the client learns of it when it reads.
    client.try_send(b"GET /echo HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(client.read(false).is_none());
    eventually("the refusal is told", || {
        !secured.server.fakes().refused_certificates.lock().unwrap().is_empty()
    });
    let told = secured.server.fakes().refused_certificates.lock().unwrap().clone();
    assert!(matches!(told[..], [RefusalReason::Untrusted | RefusalReason::Wrong]), "{told:?}");
}

#[test]
fn certificates_are_asked_for_while_a_channel_wants_them() {
    let authority = Authority::new();
    let secured = secured_with(partners(Setup::new(), &authority, "shop"), listener);
    let shown = || authority.issue("shop");
    let status = |path: &str, shown: Shown| {
        Client::over(secured.connect_showing(&[b"http/1.1"], Some(shown))).get(path, "").status
    };
    assert_eq!(status("/own", shown()), 200);
    // Nobody wants certificates any more, so that those of strangers disturb nobody.
    let without = Setup::new().channel("echo", json!({"type": "rest", "path": "/echo", "service": "echo"}));
    secured.server.routes.store(Arc::new(without.routes()));
    assert_eq!(status("/echo", Authority::new().issue("shop")), 200);
    assert_eq!(secured.server.fakes().refused_certificates.lock().unwrap().len(), 0);
    // Another authority is trusted.
    let other = Authority::new();
    secured.server.routes.store(Arc::new(partners(Setup::new(), &other, "shop").routes()));
    assert_eq!(status("/own", other.issue("shop")), 200);
}
