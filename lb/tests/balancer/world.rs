//! A small cluster for one test: an authority, servers, a management API that tells the members, and the
//! load balancer's directory with its agent. Everything dies with the value.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use crosstie_lb::settings::{LbSettings, template};
use crosstie_lb::{directory, settings};
use crosstie_model::UnitName;
use crosstie_model::secret::SecretValue;
use crosstie_security::authority::Subject;
use crosstie_security::identity::ComponentKind;
use crosstie_security::private_file::write_public;
use crosstie_security::tls::{self, ClientAuthentication, ClientIdentity};
use crosstie_security::{CertificateAuthority, ReloadingCertificate};
use crosstie_test_support::{Kind, Load, wait_until};
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::programs;

/// What the management API answers.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// Questions so far.
    pub(crate) asked: u64,
    /// Those answered with 304.
    pub(crate) unchanged: u64,
}

/// The cluster.
pub(crate) struct World {
    home: tempfile::TempDir,
    host: Ipv4Addr,
    pub(crate) authority: CertificateAuthority,
    told: Arc<Mutex<Told>>,
    pub(crate) servers: Vec<Option<Child>>,
    agent: Option<Child>,
}

/// A loopback address that no other test uses: ports need no reserving then.
fn own_address() -> Ipv4Addr {
    static WORLDS: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 16 + high % 128, low, WORLDS.fetch_add(1, Ordering::Relaxed))
}

/// A certificate somebody shows.
pub(crate) struct Shown {
    pub(crate) certificate: String,
    pub(crate) key: SecretValue,
}

impl World {
    /// A world with `servers` servers that run, and nothing else yet.
    pub(crate) fn new(servers: usize) -> Self {
        let home = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::create("test").unwrap();
        write_public(&home.path().join("ca.pem"), authority.certificate_pem().as_bytes()).unwrap();
        let told = Told { status: 200, body: "[]".into(), asked: 0, unchanged: 0 };
        let mut world = Self {
            home,
            host: own_address(),
            authority,
            told: Arc::new(Mutex::new(told)),
            servers: Vec::new(),
            agent: None,
        };
        for number in 1..=servers {
            world.issue(ComponentKind::Server, &format!("server{number}"));
            world.servers.push(None);
            world.start_server(number);
        }
        world.issue(ComponentKind::Server, "management");
        world.serve_members("management", world.management());
        world.tell_all();
        world.make_balancer();
        world
    }

    /// A world whose load balancer runs and has every server.
    pub(crate) fn running(servers: usize) -> Self {
        let mut world = Self::new(servers);
        world.start_agent();
        world.wait_for_servers(servers);
        world
    }

    /// The address that this world alone uses.
    pub(crate) fn host(&self) -> IpAddr {
        self.host.into()
    }

    /// The address a caller on this host is seen with: that of loopback, whatever it connects to.
    pub(crate) fn caller(&self) -> String {
        let stream = std::net::TcpStream::connect(self.api()).unwrap();
        stream.local_addr().unwrap().ip().to_string()
    }

    fn address(&self, offset: u16) -> SocketAddr {
        (self.host, 17_010 + offset).into()
    }

    pub(crate) fn server(&self, number: usize) -> SocketAddr {
        self.address(u16::try_from(number).unwrap() - 1)
    }

    pub(crate) fn management(&self) -> SocketAddr {
        self.address(100)
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.address(200)
    }

    pub(crate) fn api(&self) -> SocketAddr {
        self.address(201)
    }

    pub(crate) fn https(&self) -> SocketAddr {
        self.address(250)
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn balancer(&self) -> PathBuf {
        self.home.path().join("lb")
    }

    /// Issues a certificate and keeps it as `NAME.pem` and `NAME.key`.
    pub(crate) fn issue(&self, kind: ComponentKind, name: &str) -> Shown {
        let subject = Subject {
            kind,
            name: name.parse().unwrap(),
            names: vec![name.to_owned()],
            addresses: vec![self.host()],
        };
        let issued = self.authority.issue(&subject).unwrap();
        let path = self.home.path().join(name);
        issued.save(&path.with_extension("pem"), &path.with_extension("key")).unwrap();
        Shown { certificate: issued.certificate_pem, key: issued.key_pem }
    }

    fn make_balancer(&self) {
        let directory = self.balancer();
        let mut settings = LbSettings::new(UnitName::new("lb").unwrap(), self.api(), vec![self.management()]);
        settings.lb.http = Some(self.http());
        settings.lb.https = Some(self.https());
        settings.lb.poll_ms = 50;
        settings.lb.drain_s = 5;
        directory::create(&directory, &settings).unwrap();
        let subject = Subject {
            kind: ComponentKind::LoadBalancer,
            name: "lb".parse().unwrap(),
            names: vec!["localhost".into()],
            addresses: vec![self.host()],
        };
        let issued = self.authority.issue(&subject).unwrap();
        issued.save(&directory.join("tls/lb.pem"), &directory.join("tls/lb.key")).unwrap();
        let ca = self.authority.certificate_pem().as_bytes();
        write_public(&directory.join("tls/ca.pem"), ca).unwrap();
    }

    /// Changes `lb.toml`; the agent learns of it by SIGHUP.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut LbSettings)) {
        let mut settings = settings::load(&self.balancer()).unwrap();
        change(&mut settings);
        std::fs::write(self.balancer().join(settings::SETTINGS_FILE), template(&settings)).unwrap();
        if let Some(agent) = &self.agent {
            signal(agent.id(), Signal::SIGHUP);
        }
    }

    pub(crate) fn snippet(&self, name: &str, text: &str) {
        std::fs::write(self.balancer().join("lb.d").join(name), text).unwrap();
        if let Some(agent) = &self.agent {
            signal(agent.id(), Signal::SIGHUP);
        }
    }

    pub(crate) fn start_server(&mut self, number: usize) {
        let (name, address) = (format!("server{number}"), self.server(number));
        self.servers[number - 1] = Some(programs::start_server(self.home.path(), &name, address));
        wait_until("the server listens", || std::net::TcpStream::connect(address).is_ok());
    }

    /// Kills a server at once.
    pub(crate) fn kill_server(&mut self, number: usize) {
        let mut server = self.servers[number - 1].take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    pub(crate) fn start_agent(&mut self) {
        self.agent = Some(programs::start_agent(&self.balancer()));
        wait_until("the API answers", || self.stats().is_some());
    }

    /// Starts the agent and does not wait for its API, which shows the certificate under test.
    pub(crate) fn start_agent_unseen(&mut self) {
        self.agent = Some(programs::start_agent(&self.balancer()));
    }

    /// Waits until the agent was refused by the management API.
    pub(crate) fn wait_for_refusals(&self) {
        wait_until("the agent is refused", || self.agent_log().contains("does not tell the members"));
    }

    pub(crate) fn kill_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Stops the agent as its users do.
    pub(crate) fn stop_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        signal(agent.id(), Signal::SIGTERM);
        assert!(agent.wait().unwrap().success());
    }

    /// Tells the load balancer that the members are these: name, state, wanted.
    pub(crate) fn tell(&self, members: &[(&str, &str, &str)]) {
        let members: Vec<_> = members
            .iter()
            .map(|(name, state, wanted)| {
                let number: usize = name.trim_start_matches("server").parse().unwrap();
                json!({
                    "name": name, "state": state, "wanted": wanted, "address": self.server(number),
                    "tls": true, "management": self.management(), "version": "0.1.0", "revision": 1,
                    "seen": "2026-01-01T00:00:00Z",
                })
            })
            .collect();
        self.answer(200, &Value::from(members).to_string());
    }

    /// Tells that every server is ready.
    pub(crate) fn tell_all(&self) {
        let names: Vec<_> = (1..=self.servers.len()).map(|number| format!("server{number}")).collect();
        let members: Vec<_> = names.iter().map(|name| (name.as_str(), "ready", "serving")).collect();
        self.tell(&members);
    }

    /// Has the management API answer this from now on.
    pub(crate) fn answer(&self, status: u16, body: &str) {
        let mut told = self.told.lock().unwrap();
        told.status = status;
        body.clone_into(&mut told.body);
    }

    pub(crate) fn told(&self) -> Told {
        self.told.lock().unwrap().clone()
    }

    /// Waits until the management API was asked `count` times more.
    pub(crate) fn wait_for_questions(&self, count: u64) {
        let goal = self.told().asked + count;
        wait_until("the servers are asked", || self.told().asked >= goal);
    }

    /// Tells members at `address`, with the certificate `NAME.pem`.
    pub(crate) fn serve_members(&self, name: &str, address: SocketAddr) {
        let (path, told) = (self.home.path().join(name), Arc::clone(&self.told));
        let certificate =
            ReloadingCertificate::load(path.with_extension("pem"), path.with_extension("key")).unwrap();
        let roots = tls::roots(self.authority.certificate_pem().as_bytes()).unwrap();
        let clients = ClientAuthentication::Required(roots);
        let tls = tls::server_config(certificate, tls::ALPN_HTTP, &clients).unwrap();
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        // Ends with the test's process.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tell_members(TcpListener::from_std(listener).unwrap(), tls, told).await;
            });
        });
    }

    /// What the agent's API says of everything; `None` while it does not answer.
    pub(crate) fn stats(&self) -> Option<Value> {
        let (status, body) = self.ask_api("/api/v1/stats", Some(&self.client()))?;
        (status == 200).then(|| serde_json::from_str(&body).unwrap())
    }

    fn client(&self) -> Shown {
        self.issue(ComponentKind::Client, "client")
    }

    /// Asks the agent's API.
    pub(crate) fn ask_api(&self, path: &str, shown: Option<&Shown>) -> Option<(u16, String)> {
        let answer = self.exchange(self.api(), path, shown, &[])?;
        Some((answer.0, answer.1))
    }

    /// A request over TLS: the status, the body, and the protocol that was agreed on.
    pub(crate) fn exchange(
        &self,
        address: SocketAddr,
        path: &str,
        shown: Option<&Shown>,
        headers: &[(&str, &str)],
    ) -> Option<(u16, String, String)> {
        let roots = tls::roots(self.authority.certificate_pem().as_bytes()).unwrap();
        let identity = shown
            .map(|shown| ClientIdentity { chain_pem: shown.certificate.as_bytes(), key_pem: &shown.key });
        let config = tls::client_config(roots, identity.as_ref(), tls::ALPN_HTTP).unwrap();
        let mut request = http::Request::builder().uri(format!("https://{address}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = TcpStream::connect(address).await.ok()?;
            let name = rustls_pki_types::ServerName::IpAddress(address.ip().into());
            let stream = TlsConnector::from(config).connect(name, stream).await.ok()?;
            let protocol = stream.get_ref().1.alpn_protocol().unwrap_or_default().to_vec();
            let protocol = String::from_utf8(protocol).unwrap();
            let (head, body) = if protocol == "h2" {
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                        .await
                        .ok()?;
                tokio::spawn(connection);
                sender.send_request(request).await.ok()?.into_parts()
            } else {
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
                tokio::spawn(connection);
                sender.send_request(request).await.ok()?.into_parts()
            };
            let body = body.collect().await.ok()?.to_bytes();
            Some((head.status.as_u16(), String::from_utf8(body.to_vec()).unwrap(), protocol))
        })
    }

    /// Waits until exactly `count` servers get traffic.
    pub(crate) fn wait_for_servers(&self, count: usize) {
        wait_until(&format!("{count} servers get traffic"), || self.servers_up() == Some(count));
    }

    pub(crate) fn servers_up(&self) -> Option<usize> {
        let (_, body) = self.ask_api("/api/v1/health", Some(&self.client()))?;
        let health: Value = serde_json::from_str(&body).unwrap();
        usize::try_from(health["servers_up"].as_u64()?).ok()
    }

    /// A load of 300 requests a second: GET, PUT of 8 KiB, POST.
    pub(crate) fn load(&self) -> Load {
        let kinds = [Kind::get("/a"), Kind::sized("PUT", "/b", 8 * 1024), Kind::sized("POST", "/c", 200)];
        Load::start(self.http(), 12, 300, &kinds)
    }

    /// The agent's process.
    pub(crate) fn agent(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// Gives the load balancer's directory to `user`, who may get there.
    pub(crate) fn give_balancer_to(&self, user: &User) {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(self.home.path(), open).unwrap();
        let mut left = vec![self.balancer()];
        while let Some(path) = left.pop() {
            nix::unistd::chown(&path, Some(user.uid), Some(user.gid)).unwrap();
            if path.is_dir() {
                left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
    }

    pub(crate) fn haproxy(&self) -> u32 {
        directory::haproxy_pid(&self.balancer()).unwrap()
    }

    pub(crate) fn agent_log(&self) -> String {
        std::fs::read_to_string(self.balancer().join("logs/server.log")).unwrap_or_default()
    }
}

/// Sends a signal to a process that lives.
pub(crate) fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

async fn tell_members(listener: TcpListener, tls: Arc<rustls::ServerConfig>, told: Arc<Mutex<Told>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, told) = (TlsAcceptor::from(tls.clone()), Arc::clone(&told));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let answer = tell_once(&told, &request);
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn tell_once(
    told: &Mutex<Told>,
    request: &http::Request<hyper::body::Incoming>,
) -> http::Response<Full<Bytes>> {
    let mut told = told.lock().unwrap();
    told.asked += 1;
    let tag = format!("\"{}\"", crosstie_model::Digest::of(told.body.as_bytes()));
    let mut response = http::Response::new(Full::default());
    *response.status_mut() = http::StatusCode::from_u16(told.status).unwrap();
    if request.uri().path() != "/api/v1/members" {
        *response.status_mut() = http::StatusCode::NOT_FOUND;
    } else if request.headers().get("if-none-match").is_some_and(|known| known == tag.as_str()) {
        told.unchanged += 1;
        *response.status_mut() = http::StatusCode::NOT_MODIFIED;
    } else {
        response.headers_mut().insert("etag", tag.parse().unwrap());
        *response.body_mut() = Full::new(told.body.clone().into());
    }
    response
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["lb/logs/server.log", "lb/logs/haproxy.log", "programs.log"] {
                let text = std::fs::read_to_string(self.home.path().join(log)).unwrap_or_default();
                let lines: Vec<_> = text.lines().rev().take(400).collect();
                eprintln!("---- end of {log}");
                lines.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
        let processes = self.servers.iter_mut().flatten().chain(self.agent.as_mut());
        for process in processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        // HAProxy outlives its agent; it is known by the directory it works in.
        for pid in crosstie_test_support::processes::working_below(self.home.path()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
