//! A worker process: takes over what it inherits, puts the crates together, serves until it has drained.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crosstie_channels::amqp::{AmqpChannels, AmqpSurroundings};
use crosstie_channels::ports::Ports;
use crosstie_channels::routes::Routes;
use crosstie_channels::server::{HttpServer, HttpServerOptions, Transport};
use crosstie_channels::staged::Staged;
use crosstie_config::user;
use crosstie_model::settings::{Front, ServerSettings};
use crosstie_odb::{Odb, OdbDataStore, OdbOptions};
use crosstie_outgoing::Environment;
use crosstie_process::control::{ControlStream, ToSupervisor};
use crosstie_process::shm::{Barrier, Segment, WorkerSlot};
use crosstie_process::worker::{Inherited, inherit};
use crosstie_process::{fault, fork_safety};
use crosstie_runtime::python::{PythonOptions, PythonRuntime};
use crosstie_security::identity::ComponentKind;
use crosstie_security::tls::ListenerTls;
use crosstie_security::{ClusterKey, CredentialSource, ReloadingCertificate, SecretResolver, tls};
use crosstie_telemetry::Metrics;
use crosstie_telemetry::logging::{self, LogGuard, LogTarget, Terminal};
use crosstie_telemetry::messages::MessageLog;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Notify, oneshot, watch};

use crate::accepted::{self, AcceptedSettings};
use crate::control::Control;
use crate::follow::{Follower, SnapshotCounts, Standing, no_routes};
use crate::host::WorkerHost;
use crate::inquiries::OutgoingInquiries;
use crate::keep::Keeper;
use crate::last_good::LastGood;
use crate::live::{CurrentDirectory, CurrentLive, Live, Loader};
use crate::nonces::SharedNonces;
use crate::observe::Telemetry;
use crate::outbox::Outbox;
use crate::outgoings::Outgoings;
use crate::ports::{Share, SharedConcurrency, SharedGauges};
use crate::singleton::{BusLink, Duties};
use crate::status::Status;

/// How long a worker that ends waits until its messages are written.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why a worker did not start: one of many reasons, for the log alone.
type StartError = Box<dyn std::error::Error + Send + Sync>;

/// Runs this process as a worker of the server whose directory is the current one. Must be called before
/// the process starts a thread; returns when the worker has drained. `accepted` is where its supervisor keeps
/// the settings.
#[must_use]
#[expect(clippy::print_stderr, reason = "there is no log yet")]
pub fn run_worker(accepted: AcceptedSettings) -> ExitCode {
    let inherited = match inherit() {
        Ok(inherited) => inherited,
        Err(error) => {
            eprintln!("crosstie: {error}");
            return ExitCode::FAILURE;
        }
    };
    let started = std::env::current_dir().map_err(StartError::from).and_then(|directory| {
        let settings = Arc::new(accepted::load(&directory, accepted)?);
        let process = format!("worker {}", u32::from(inherited.index) + 1);
        let target = LogTarget {
            settings: settings.log.clone(),
            directory: directory.join("logs"),
            process,
            terminal: Terminal::Quiet,
        };
        Ok((directory, settings, logging::init(target)?))
    });
    let (directory, settings, log) = match started {
        Ok(started) => started,
        Err(error) => {
            eprintln!("crosstie: the worker did not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match serve(inherited, directory, settings, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the worker did not start");
            ExitCode::FAILURE
        }
    }
}

/// Serves until drained.
fn serve(
    inherited: Inherited,
    directory: PathBuf,
    settings: Arc<ServerSettings>,
    log: &LogGuard,
) -> Result<(), StartError> {
    let Inherited { index, listeners, control, segment, .. } = inherited;
    fault::install(&segment)?;
    fork_safety::install(&segment)?;
    let slot = segment.own_worker().ok_or("the worker has no slot")?;
    let traffic = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let parts = Parts::assemble(index, slot, segment, directory, settings, log, traffic.handle())?;

    let (mut service, mut management) = (Vec::new(), None);
    for (name, listener) in listeners {
        fork_safety::register(&listener);
        match name.as_str() {
            "http" => service.push((listener, Transport::Plain)),
            "https" => {
                service.push((listener, parts.https()?));
            }
            "management" => management = Some(listener),
            other => tracing::warn!(other, "an inherited listener is of no use here"),
        }
    }
    let (http, messages) = (parts.http.clone(), parts.messages.clone());
    let (serving, first_snapshot) = oneshot::channel();
    let (listening, accepting) = oneshot::channel();
    let thread = parts.start_control(control, management, serving, accepting)?;
    let served = traffic.block_on(async {
        // Fails only when the control thread ended, which the join below reports.
        if first_snapshot.await.is_ok() {
            for (listener, transport) in service {
                http.listen(listener, transport)?;
            }
            let _ = listening.send(());
        }
        join(thread).await
    });
    // Outgoings that services hold on to keep the log open to the end of the process.
    if !messages.flush(FAREWELL) {
        tracing::error!("messages that were not written are lost with this worker");
    }
    served
}

/// Waits for the control thread without holding up the reactor.
async fn join(thread: JoinHandle<()>) -> Result<(), StartError> {
    let joined = tokio::task::spawn_blocking(|| thread.join()).await?;
    joined.map_err(|_| StartError::from("the control thread panicked"))
}

/// What the worker is made of, before it serves.
struct Parts {
    index: u16,
    slot: &'static WorkerSlot,
    directory: PathBuf,
    settings: Arc<ServerSettings>,
    runtime: Runtime,
    odb: Odb,
    cluster_key: Arc<ClusterKey>,
    certificate: Arc<ReloadingCertificate>,
    current: Arc<CurrentLive>,
    outgoings: Outgoings,
    standing: Arc<Standing>,
    routes: Arc<Staged<Routes>>,
    barrier: Barrier,
    credentials: CredentialSource,
    ports: Ports,
    http: HttpServer,
    amqp: Arc<AmqpChannels>,
    python: PythonRuntime,
    user_config: Arc<serde_json::Value>,
    host: Arc<WorkerHost>,
    outbox: Outbox,
    queue: tokio::sync::mpsc::UnboundedReceiver<ToSupervisor>,
    messages: MessageLog,
}

impl Parts {
    fn assemble(
        index: u16,
        slot: &'static WorkerSlot,
        segment: Arc<Segment>,
        directory: PathBuf,
        settings: Arc<ServerSettings>,
        log: &LogGuard,
        traffic: &Handle,
    ) -> Result<Self, StartError> {
        // Two threads would only help a service that floods the ODB; one keeps everything in order.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let cluster_key = Arc::new(ClusterKey::load(&directory.join(&settings.security.cluster_key))?);
        let odb = open_odb(&directory, &settings, &cluster_key)?;
        let certificate = load_certificate(&directory, &settings)?;
        let (outbox, queue) = Outbox::new();
        let barrier = segment.barrier().ok_or("the worker has no slot")?;
        let in_force = Some(barrier.in_force());
        let current = Arc::new(CurrentLive::new(Live::default(), in_force));
        let standing = Arc::new(Standing::default());
        let metrics = Metrics::new(Arc::clone(&segment) as _);
        let telemetry = Telemetry::start(&directory, &settings, index, metrics.clone(), runtime.handle())?;
        telemetry.count_drops(log);
        let user_config = Arc::new(user_config(&directory));
        let reactors = Reactors { control: runtime.handle(), traffic };
        let python = start_python(&directory, &settings, &reactors, &odb, &segment, &outbox, &user_config)?;
        let messages = telemetry.messages();
        let outside = telemetry.environment(Arc::new(SharedGauges::new(Arc::clone(&segment), index)));
        python.set_directory(Arc::new(CurrentDirectory(Arc::clone(&current))));
        let status = Status::new(slot, &standing, &metrics, &segment, &settings);
        let ports = ports(&segment, index, telemetry, status);
        let nonces = SharedNonces::new(odb.clone(), runtime.handle().clone());
        let (outgoings, credentials) = reach_out(&cluster_key, &directory, outside, nonces);
        let routes = Arc::new(Staged::new(no_routes(&settings, ports.clone()), in_force));
        let http = http_server(&routes, &segment, slot, &settings);
        let amqp = Arc::new(consumers(&settings, &segment, index, &odb, &reactors));
        let host = Arc::new(WorkerHost {
            segment,
            outbox: outbox.clone(),
            current: Arc::clone(&current),
            standing: Arc::clone(&standing),
            settings: Arc::clone(&settings),
            metrics,
            bus: BusLink::default(),
            routes: Arc::clone(&routes),
        });
        Ok(Self {
            index,
            slot,
            directory,
            settings,
            runtime,
            odb,
            cluster_key,
            certificate,
            current,
            outgoings,
            standing,
            routes,
            barrier,
            credentials,
            ports,
            http,
            amqp,
            python,
            user_config,
            host,
            outbox,
            queue,
            messages,
        })
    }

    /// How the HTTPS listener's connections are protected.
    fn https(&self) -> Result<Transport, tls::TlsError> {
        let certificate = Arc::clone(&self.certificate);
        match self.settings.http.front {
            Front::Clients => ListenerTls::new(certificate, tls::ALPN_HTTP).map(Transport::Tls),
            Front::LoadBalancer => {
                let roots = tls::roots_from_file(&self.directory.join(&self.settings.security.ca))?;
                let balancers = tls::ClientAuthentication::RequiredOf(
                    roots,
                    ComponentKind::LoadBalancer,
                    self.standing.revoked.clone(),
                );
                tls::server_config(certificate, tls::ALPN_HTTP, &balancers).map(Transport::LoadBalancer)
            }
        }
    }

    /// Starts the control thread.
    fn start_control(
        self,
        stream: ControlStream,
        management: Option<std::net::TcpListener>,
        serving: oneshot::Sender<()>,
        listening: oneshot::Receiver<()>,
    ) -> io::Result<JoinHandle<()>> {
        let (drain, draining) = watch::channel(false);
        let last_good = LastGood::new(&self.directory.join("work"));
        let segment = Arc::clone(&self.host.segment);
        let is_quarantined = Box::new(move |unit: &_| segment.is_unit_quarantined(unit));
        let loader = Loader::new(vec![Arc::new(self.python)], is_quarantined);
        let follower = Follower {
            own: self.slot,
            slot: self.index,
            odb: self.odb.clone(),
            keeper: Keeper::start(self.odb.clone(), last_good.clone(), self.runtime.handle()),
            last_good,
            loader,
            outgoings: self.outgoings,
            current: self.current,
            routes: self.routes,
            barrier: self.barrier,
            waiting: None,
            credentials: self.credentials,
            ports: self.ports,
            settings: Arc::clone(&self.settings),
            outbox: self.outbox.clone(),
            standing: Arc::clone(&self.standing),
            counts: SnapshotCounts::new(&self.host.metrics),
            refused: None,
            left_out: Default::default(),
            kept: None,
            amqp: Arc::clone(&self.amqp),
            segment: Arc::clone(&self.host.segment),
        };
        let duties = Duties {
            directory: self.directory.clone(),
            settings: self.settings,
            user_config: self.user_config,
            management,
            odb: self.odb,
            host: self.host,
            cluster_key: self.cluster_key,
            certificate: Arc::clone(&self.certificate),
            outbox: self.outbox.clone(),
            standing: self.standing,
            events: watch::channel(None).0,
            revised: Arc::new(Notify::new()),
            draining,
        };
        let control = Control {
            stream,
            queue: self.queue,
            outbox: self.outbox,
            follower,
            duties,
            drain,
            http: self.http,
            amqp: self.amqp,
            certificate: self.certificate,
            serving,
            listening,
            directory: self.directory,
        };
        spawn(control, self.runtime)
    }
}

/// Runs `control` on a thread of its own.
fn spawn(control: Control, runtime: Runtime) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("control".into()).spawn(move || {
        runtime.block_on(control.run());
        // Calls to the ODB that services still wait for end with the process.
        runtime.shutdown_background();
    })
}

/// Where host calls of services run.
struct Reactors<'a> {
    /// The control thread's.
    control: &'a Handle,
    /// The one that serves traffic.
    traffic: &'a Handle,
}

/// What consumes for channels of brokers.
fn consumers(
    settings: &ServerSettings,
    segment: &Segment,
    index: u16,
    odb: &Odb,
    reactors: &Reactors<'_>,
) -> AmqpChannels {
    AmqpChannels::new(AmqpSurroundings {
        server: settings.server.name.to_string(),
        index,
        workers: segment.worker_count(),
        data: Arc::new(OdbDataStore::new(odb.clone())),
        io: reactors.control.clone(),
        traffic: reactors.traffic.clone(),
    })
}

fn start_python(
    directory: &Path,
    settings: &ServerSettings,
    reactors: &Reactors<'_>,
    odb: &Odb,
    segment: &Arc<Segment>,
    outbox: &Outbox,
    user_config: &serde_json::Value,
) -> Result<PythonRuntime, StartError> {
    let outbox = outbox.clone();
    let on_exhausted = move || {
        let reason = "too many handler threads are stuck in services".to_owned();
        outbox.send(ToSupervisor::Replace { reason });
    };
    Ok(PythonRuntime::start(PythonOptions {
        settings: settings.python.clone(),
        venv: directory.join(&settings.python.venv),
        host: reactors.control.clone(),
        network: reactors.traffic.clone(),
        data: Arc::new(OdbDataStore::new(odb.clone())),
        blame: Arc::clone(segment) as _,
        user_config: user_config.clone(),
        on_exhausted: Box::new(on_exhausted),
    })?)
}

/// What channels meet shared memory and telemetry through.
fn ports(segment: &Arc<Segment>, index: u16, telemetry: Telemetry, status: Status) -> Ports {
    Ports {
        rates: Arc::clone(segment) as _,
        concurrency: Arc::new(SharedConcurrency::new(Arc::clone(segment), index)),
        blame: Arc::clone(segment) as _,
        observer: Arc::new(telemetry),
        status: Arc::new(status),
    }
}

/// What reaches other systems: outgoings, and the questions of those who check credentials.
fn reach_out(
    cluster_key: &Arc<ClusterKey>,
    directory: &Path,
    outside: Environment,
    nonces: SharedNonces,
) -> (Outgoings, CredentialSource) {
    let directory = directory.to_owned();
    let resolver = SecretResolver::new(Arc::clone(cluster_key), directory.clone());
    let inquiries = OutgoingInquiries::new(resolver.clone(), directory.clone(), outside.clone());
    let credentials = CredentialSource::new(resolver.clone(), Arc::new(inquiries));
    let credentials = credentials.with_nonces(Arc::new(nonces));
    (Outgoings::new(resolver, directory, outside), credentials)
}

fn http_server(
    routes: &Arc<Staged<Routes>>,
    segment: &Arc<Segment>,
    slot: &'static WorkerSlot,
    settings: &ServerSettings,
) -> HttpServer {
    HttpServer::new(HttpServerOptions {
        routes: Arc::clone(routes),
        share: Arc::new(Share::new(Arc::clone(segment), slot)),
        drain_linger: Duration::from_secs(settings.server.drain_linger_s),
    })
}

fn load_certificate(
    directory: &Path,
    settings: &ServerSettings,
) -> Result<Arc<ReloadingCertificate>, StartError> {
    let file = |path: &Path| directory.join(path);
    Ok(ReloadingCertificate::load(file(&settings.security.certificate), file(&settings.security.key))?)
}

fn open_odb(directory: &Path, settings: &ServerSettings, key: &Arc<ClusterKey>) -> Result<Odb, StartError> {
    let resolver = SecretResolver::new(Arc::clone(key), directory.to_owned());
    let password =
        settings.odb.password.as_deref().map(|reference| resolver.resolve_setting(reference)).transpose()?;
    Ok(Odb::connect(&OdbOptions::from_settings(settings, directory, password))?)
}

/// `self.config` of services. A fault was refused when it was edited; one that got past that leaves services
/// without their configuration rather than the server without its workers.
fn user_config(directory: &Path) -> serde_json::Value {
    user::load(&directory.join("config/user")).unwrap_or_else(|faults| {
        for fault in faults {
            tracing::error!(%fault, "the configuration of services cannot be read");
        }
        serde_json::Value::Object(serde_json::Map::new())
    })
}
