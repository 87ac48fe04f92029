use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crosstie_channels::server::Transport;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use serde_json::json;

use crate::support::client::Client;
use crate::support::{Server, Setup, eventually};

struct Secured {
    server: Server,
    roots: RootCertStore,
}

fn secured() -> Secured {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let mut setup = Setup::new()
        .http(|http| {
            http.tls_handshake_timeout_ms = 300;
            http.max_body_bytes = 1_000;
        })
        .channel("echo", json!({"type": "rest", "path": "/echo", "service": "echo"}));
    setup.transport = Transport::Tls(Arc::new(config));
    setup.linger = Duration::from_millis(200);
    Secured { server: setup.start(), roots }
}

impl Secured {
    fn connect(&self, alpn: &[&[u8]]) -> StreamOwned<ClientConnection, TcpStream> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
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
