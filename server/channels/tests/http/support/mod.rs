//! A server in a thread of its own, as in a worker, and a client that says exactly what a test wants.

pub(crate) mod client;
pub(crate) mod fakes;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crosstie_channels::check::RouteFault;
use crosstie_channels::ports::{Ports, RouteInputs};
use crosstie_channels::routes::Routes;
use crosstie_channels::server::{HttpServer, HttpServerOptions, Transport};
use crosstie_channels::staged::Staged;
use crosstie_model::definition::DefinitionName;
use crosstie_model::inquiry::NoInquiries;
use crosstie_model::names::{Digest, UnitName};
use crosstie_model::settings::HttpSettings;
use crosstie_model::snapshot::ActiveUnit;
use crosstie_model::unit::{ArtifactKind, UnitManifest};
use crosstie_model::{Definition, DefinitionId, DefinitionKind, Snapshot};
use crosstie_security::cluster_key::ClusterKey;
use crosstie_security::credentials::{Authenticators, CredentialSource};
use crosstie_security::secret::SecretResolver;
use serde_json::Value;

use client::Client;
use fakes::{Directory, Fakes, Share};

/// What a test's server is made of.
pub(crate) struct Setup {
    pub(crate) snapshot: Snapshot,
    pub(crate) http: HttpSettings,
    pub(crate) metrics_path: String,
    pub(crate) directory: Directory,
    pub(crate) fakes: Arc<Fakes>,
    pub(crate) share: Arc<Share>,
    pub(crate) linger: Duration,
    pub(crate) transport: Transport,
}

impl Setup {
    /// The standard services, no channels.
    pub(crate) fn new() -> Self {
        let directory = Directory::standard();
        let services = directory.descriptions();
        let manifest = UnitManifest { services, ..UnitManifest::default() };
        let unit = ActiveUnit { digest: Digest::of(b"test"), kind: ArtifactKind::PythonFile, manifest };
        let mut snapshot = Snapshot::default();
        snapshot.units.insert(UnitName::new("test").unwrap(), unit);
        Self {
            snapshot,
            http: HttpSettings::default(),
            metrics_path: String::new(),
            directory,
            fakes: Arc::new(Fakes::default()),
            share: Arc::new(Share::default()),
            linger: Duration::from_secs(30),
            transport: Transport::Plain,
        }
    }

    pub(crate) fn define(mut self, kind: DefinitionKind, name: &str, body: Value) -> Self {
        let id = DefinitionId { kind, name: DefinitionName::new(name).unwrap() };
        let definition = Definition::from_value(id, body).unwrap();
        self.snapshot.definitions.insert(definition.id, definition.body);
        self
    }

    pub(crate) fn channel(self, name: &str, body: Value) -> Self {
        self.define(DefinitionKind::Channel, name, body)
    }

    pub(crate) fn http(mut self, change: impl FnOnce(&mut HttpSettings)) -> Self {
        change(&mut self.http);
        self
    }

    pub(crate) fn routes(&self) -> Routes {
        let (routes, faults) = self.routes_and_faults(false);
        assert_eq!(faults, []);
        routes
    }

    /// What can be opened, and why the rest cannot.
    pub(crate) fn routes_and_faults(&self, require_security: bool) -> (Routes, Vec<RouteFault>) {
        let key = Arc::new(ClusterKey::generate().unwrap());
        let source =
            CredentialSource::new(SecretResolver::new(key, "/nowhere".into()), Arc::new(NoInquiries));
        let authenticators = Authenticators::build(&self.snapshot, &source).unwrap();
        let ports = Ports {
            rates: self.fakes.clone(),
            concurrency: self.fakes.clone(),
            blame: self.fakes.clone(),
            observer: self.fakes.clone(),
            status: self.fakes.clone(),
        };
        let inputs = RouteInputs {
            snapshot: Arc::new(self.snapshot.clone()),
            services: &self.directory,
            authenticators: &authenticators,
            http: &self.http,
            metrics_path: &self.metrics_path,
            require_security,
            ports,
        };
        let (routes, faults) = Routes::build_without_faulty(&inputs);
        assert_eq!(Routes::build(&inputs).err().unwrap_or_default(), faults);
        (routes, faults)
    }

    pub(crate) fn start(self) -> Server {
        self.start_on(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// Starts on a listening socket that other servers may share, as workers do.
    pub(crate) fn start_on(self, listener: TcpListener) -> Server {
        let address = listener.local_addr().unwrap();
        let inherited = listener.try_clone().unwrap();
        let routes = Arc::new(Staged::new(self.routes(), None));
        let options = HttpServerOptions {
            routes: Arc::clone(&routes),
            share: self.share.clone(),
            drain_linger: self.linger,
        };
        let (started, ready) = mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let transport = self.transport.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let server = HttpServer::new(options);
                server.listen(inherited, transport).unwrap();
                started.send(server).unwrap();
                let _ = stopped.await;
            });
        });
        let http = ready.recv().unwrap();
        Server { address, listener, http, routes, setup: self, stop: Some(stop), thread: Some(thread) }
    }
}

/// A running server; stopped when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// As the supervisor does, keeps the socket when the server stops accepting from it.
    pub(crate) listener: TcpListener,
    pub(crate) http: HttpServer,
    pub(crate) routes: Arc<Staged<Routes>>,
    pub(crate) setup: Setup,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    pub(crate) fn fakes(&self) -> &Fakes {
        &self.setup.fakes
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            // A panic on the reactor is what these tests must never miss.
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

/// Waits until `condition` holds; a hang ends the test.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
