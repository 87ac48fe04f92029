//! The API over real TLS: certificates, both HTTP versions, stopping.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crosstie_api::http::{ServeOptions, serve};
use crosstie_security::authority::{IssuedCertificate, Subject, describe};
use crosstie_security::identity::ComponentKind;
use crosstie_security::tls::{
    ALPN_HTTP, ClientAuthentication, ClientIdentity, client_config, roots, server_config,
};
use crosstie_security::{CertificateAuthority, ReloadingCertificate};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;

use crate::world::{VIEWER, World, basic};

struct Served {
    address: SocketAddr,
    authority: CertificateAuthority,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<std::io::Result<()>>,
}

fn start(world: &World) -> Served {
    let authority = CertificateAuthority::create("test").unwrap();
    let directory = world.directory.path();
    let local = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let issued = authority.issue_server("server1", &["localhost"], &local).unwrap();
    let (chain, key) = (directory.join("server.pem"), directory.join("server.key"));
    issued.save(&chain, &key).unwrap();
    let certificate = ReloadingCertificate::load(chain, key).unwrap();
    let clients = ClientAuthentication::Optional(roots(authority.certificate_pem().as_bytes()).unwrap());
    let tls = server_config(certificate, ALPN_HTTP, &clients).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let options = ServeOptions { listener, tls, operations: world.operations.clone() };
    let running = tokio::spawn(serve(options, async {
        let _ = stopped.await;
    }));
    Served { address, authority, stop: Some(stop), running }
}

impl Served {
    fn client(&self, issuer: Option<&CertificateAuthority>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        self.component(issuer.map(|issuer| issuer.issue_client("cli").unwrap()).as_ref(), alpn)
    }

    fn component(&self, issued: Option<&IssuedCertificate>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let roots = roots(self.authority.certificate_pem().as_bytes()).unwrap();
        let identity = issued.map(|issued| ClientIdentity {
            chain_pem: issued.certificate_pem.as_bytes(),
            key_pem: &issued.key_pem,
        });
        client_config(roots, identity.as_ref(), alpn).unwrap()
    }

    async fn connect(&self, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(config).connect("localhost".try_into().unwrap(), stream).await
    }

    async fn get(
        &self,
        config: Arc<ClientConfig>,
        path: &str,
        credentials: Option<&str>,
    ) -> (StatusCode, Value) {
        let stream = self.connect(config).await.unwrap();
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let mut request = Request::get(format!("https://localhost/api/v1{path}")).header("host", "localhost");
        if let Some(credentials) = credentials {
            request = request.header("authorization", basic(credentials));
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let response = if h2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        decode(response).await
    }
}

async fn decode(response: Response<hyper::body::Incoming>) -> (StatusCode, Value) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn a_certificate_of_the_environment_is_an_admin_component() {
    let world = World::new().await;
    let served = start(&world);
    for alpn in [&[b"h2".as_slice()][..], &[b"http/1.1".as_slice()][..]] {
        let config = served.client(Some(&served.authority), alpn);
        let (status, me) = served.get(config, "/me", None).await;
        assert_eq!(status, 200);
        assert_eq!(me, serde_json::json!({"name": "cli", "role": "admin", "proof": "certificate"}));
    }
}

#[tokio::test]
async fn a_certificate_allows_what_its_holder_needs() {
    let world = World::new().await;
    let served = start(&world);
    for (kind, role) in [
        (ComponentKind::Client, Some("admin")),
        (ComponentKind::LoadBalancer, Some("viewer")),
        (ComponentKind::Server, Some("viewer")),
        (ComponentKind::Broker, None),
    ] {
        let issued = served.authority.issue(&Subject { kind, ..Subject::client("it") }).unwrap();
        let (status, me) = served.get(served.component(Some(&issued), ALPN_HTTP), "/me", None).await;
        assert_eq!(me["role"].as_str(), role, "{kind}");
        assert_eq!(status, if role.is_some() { 200 } else { 401 }, "{kind}");
    }
    // A database's certificate is no client's at all.
    let database = Subject { kind: ComponentKind::Database, ..Subject::client("it") };
    let issued = served.authority.issue(&database).unwrap();
    let refused = match served.connect(served.component(Some(&issued), ALPN_HTTP)).await {
        Err(_) => true,
        Ok(mut stream) => {
            let _ = stream.write_all(b"GET /api/v1/me HTTP/1.1\r\nhost: x\r\n\r\n").await;
            !matches!(stream.read(&mut [0; 64]).await, Ok(read) if read > 0)
        }
    };
    assert!(refused);
}

#[tokio::test]
async fn a_revoked_certificate_lets_nobody_in_any_more() {
    let world = World::new().await;
    let served = start(&world);
    let issued = served.authority.issue_client("cli").unwrap();
    let serial = describe(&issued.certificate_pem).unwrap().serial;
    let config = served.component(Some(&issued), &[b"http/1.1"]);
    assert_eq!(served.get(Arc::clone(&config), "/me", None).await.0, 200);
    world.host.revoked.replace(&[serial].into());
    // The same configuration: it may take its session up again.
    assert_eq!(served.get(Arc::clone(&config), "/me", None).await.0, 401);
    // Whoever has credentials besides is let in by those, as without a certificate.
    assert_eq!(served.get(config, "/me", Some(VIEWER)).await.0, 200);
    assert_eq!(served.get(served.client(Some(&served.authority), ALPN_HTTP), "/me", None).await.0, 200);
}

#[tokio::test]
async fn a_component_that_calls_for_somebody_has_that_somebodys_role() {
    let world = World::new().await;
    let served = start(&world);
    let config = || served.client(Some(&served.authority), ALPN_HTTP);
    let (_, me) = served.get(config(), "/me", Some(VIEWER)).await;
    assert_eq!(me["role"], "viewer");
    let (status, _) = served.get(config(), "/me", Some("vera:wrong-password")).await;
    assert_eq!(status, 401);
    let (status, _) = served.get(served.client(None, ALPN_HTTP), "/me", None).await;
    assert_eq!(status, 401);
    let (_, me) = served.get(served.client(None, ALPN_HTTP), "/me", Some(VIEWER)).await;
    assert_eq!(me["role"], "viewer");
}

#[tokio::test]
async fn a_certificate_of_somebody_else_does_not_get_through() {
    let world = World::new().await;
    let served = start(&world);
    let stranger = CertificateAuthority::create("other").unwrap();
    let config = served.client(Some(&stranger), ALPN_HTTP);
    // TLS 1.3: the client learns of the refusal with its first read.
    let refused = match served.connect(config).await {
        Err(_) => true,
        Ok(mut stream) => {
            let _ = stream.write_all(b"GET /api/v1/me HTTP/1.1\r\nhost: x\r\n\r\n").await;
            !matches!(stream.read(&mut [0; 64]).await, Ok(read) if read > 0)
        }
    };
    assert!(refused);
}

#[tokio::test]
async fn components_get_in_while_the_odb_is_away() {
    let world = World::without_odb();
    let served = start(&world);
    let (status, body) = served.get(served.client(Some(&served.authority), ALPN_HTTP), "/status", None).await;
    assert_eq!((status, body["state"].as_str()), (StatusCode::OK, Some("degraded")));
}

#[tokio::test]
async fn silent_and_plain_connections_do_not_hold_up_others() {
    let world = World::new().await;
    let served = start(&world);
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let (status, _) = served.get(served.client(None, ALPN_HTTP), "/openapi.json", None).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn it_stops_when_told_and_closes_idle_connections() {
    let world = World::new().await;
    let mut served = start(&world);
    let config = served.client(Some(&served.authority), &[b"http/1.1"]);
    let mut idle = served.connect(config).await.unwrap();
    idle.write_all(b"GET /api/v1/me HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(idle.read(&mut [0; 4096]).await.unwrap() > 0);
    served.stop.take().unwrap().send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), &mut served.running).await;
    ended.unwrap().unwrap().unwrap();
    assert_eq!(idle.read(&mut [0; 64]).await.unwrap_or(0), 0);
    assert!(TcpStream::connect(served.address).await.is_err());
    assert!(Path::new(world.directory.path()).exists());
}
