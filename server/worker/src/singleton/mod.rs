//! What the one worker of a server does that holds the singleton lock: the management API, the pickup
//! directory, the git repositories, new certificates, the bus, heartbeats, and the lead of the cluster if it gets it.
//!
//! The lock is a POSIX record lock: the kernel frees it when its holder dies, so another worker takes over at
//! once. A worker that drains gives it up as soon as its management calls have ended.

mod bus;
mod certificates;
mod comparison;
mod history;
mod leader;
mod member;
mod messages;
mod settings;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crosstie_api::checker::ScratchChecker;
use crosstie_api::http::{ServeOptions, serve};
use crosstie_api::operations::{Operations, OperationsParts};
use crosstie_model::{Event, settings::ServerSettings};
use crosstie_odb::Odb;
use crosstie_process::control::ToSupervisor;
use crosstie_process::lock::RecordLock;
use crosstie_security::{ClusterKey, ReloadingCertificate, tls};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use self::bus::Bridge;
pub(crate) use self::bus::BusLink;
use self::leader::Candidate;
use self::member::Member;
use self::settings::InForce;
use crate::follow::Standing;
use crate::host::WorkerHost;
use crate::observe::{message_directory, message_limits};
use crate::outbox::Outbox;
use crate::pickup::{Memory, Pickup};

/// How often a worker that is not the singleton asks for the lock.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// What the duties need.
pub(crate) struct Duties {
    /// The server's directory.
    pub(crate) directory: PathBuf,
    /// The settings in force.
    pub(crate) settings: Arc<ServerSettings>,
    /// What services read as `self.config`.
    pub(crate) user_config: Arc<serde_json::Value>,
    /// The inherited listener of the management API.
    pub(crate) management: Option<TcpListener>,
    /// The truth.
    pub(crate) odb: Odb,
    /// This process, as the operations see it.
    pub(crate) host: Arc<WorkerHost>,
    /// Seals secrets.
    pub(crate) cluster_key: Arc<ClusterKey>,
    /// The server's certificate.
    pub(crate) certificate: Arc<ReloadingCertificate>,
    /// To the supervisor.
    pub(crate) outbox: Outbox,
    /// Where the worker stands.
    pub(crate) standing: Arc<Standing>,
    /// Hands events of this process to the operations, once there are some.
    pub(crate) events: watch::Sender<Option<Operations>>,
    /// Woken when a revision changed.
    pub(crate) revised: Arc<Notify>,
    /// Becomes true when the worker drains.
    pub(crate) draining: watch::Receiver<bool>,
}

impl Duties {
    /// Waits for the lock, does the duties, and gives the lock up when the worker drains.
    pub(crate) async fn run(mut self) {
        let Some(lock) = self.take_lock().await else { return };
        self.outbox.send(ToSupervisor::Singleton(true));
        tracing::info!("this worker is the singleton");
        let operations = self.operations();
        // Nobody else holds the receiver but the control loop, which ends with the process.
        let _ = self.events.send(Some(operations.clone()));
        let mut tasks = JoinSet::new();
        self.start_duties(&mut tasks, &operations);
        let member = self.member(&operations);
        tasks.spawn(member.clone().beat());
        tasks.spawn(comparison::compare(member.clone()));
        let name = &self.settings.server.name;
        let (odb, standing) = (self.odb.clone(), Arc::clone(&self.standing));
        let candidate = Candidate::new(name, odb, standing, &self.settings.cluster);
        tasks.spawn(candidate.clone().run());
        self.outbox.event(Event::RevisionChanged { revision: self.standing.revision() });
        let served = self.serve_management(operations).await;
        if let Err(error) = served {
            tracing::error!(%error, "the management API does not answer");
            drained(&mut self.draining).await;
        }
        tasks.shutdown().await;
        self.host.bus.close().await;
        tokio::join!(candidate.resign(), member.leave());
        let _ = self.events.send(None);
        self.outbox.send(ToSupervisor::Singleton(false));
        drop(lock);
    }

    async fn take_lock(&mut self) -> Option<RecordLock> {
        let path = self.directory.join("work/singleton.lock");
        loop {
            match RecordLock::try_acquire(&path) {
                Ok(Some(lock)) => return Some(lock),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "the singleton lock cannot be asked for"),
            }
            tokio::select! {
                () = tokio::time::sleep(ASK_AGAIN) => {}
                () = drained(&mut self.draining) => return None,
            }
        }
    }

    fn operations(&self) -> Operations {
        let checker = ScratchChecker::new(Arc::clone(&self.host) as _, self.directory.clone());
        Operations::new(OperationsParts {
            server: self.settings.server.name.clone(),
            directory: self.directory.clone(),
            odb: self.odb.clone(),
            host: Arc::clone(&self.host) as _,
            checker: Arc::new(checker),
            cluster_key: Arc::clone(&self.cluster_key),
        })
    }

    /// This server, as the cluster knows it.
    fn member(&self, operations: &Operations) -> Member {
        let (segment, standing) = (Arc::clone(&self.host.segment), Arc::clone(&self.standing));
        let certificate = Arc::clone(&self.certificate);
        Member::new(&self.settings, certificate, self.odb.clone(), operations.clone(), segment, standing)
    }

    fn start_duties(&self, tasks: &mut JoinSet<()>, operations: &Operations) {
        let directory = self.directory.clone();
        tasks.spawn(history::write(operations.clone(), self.odb.clone(), Arc::clone(&self.revised)));
        let in_force = InForce { settings: Arc::clone(&self.settings), user: Arc::clone(&self.user_config) };
        tasks.spawn(settings::watch(directory.clone(), in_force, operations.clone(), self.outbox.clone()));
        let reporting = operations.clone();
        tasks.spawn(async move { reporting.keep_reports().await });
        let security = self.settings.security.clone();
        tasks.spawn(certificates::watch(directory.clone(), security, self.outbox.clone()));
        let kept = message_directory(&directory);
        tasks.spawn(messages::age(kept, message_limits(&self.settings)));
        let broker = bus::options(&directory, &self.settings, &self.cluster_key);
        tasks.spawn(Bridge::new(&self.host).run(broker));
        if self.settings.deploy.pickup {
            let memory = Memory::new(self.odb.clone(), operations.clone());
            let pickup = Pickup::new(directory.join("pickup"), self.settings.deploy.clone(), memory);
            tasks.spawn(pickup.run());
        }
    }

    async fn serve_management(
        &mut self,
        operations: Operations,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let listener = self.management.take().ok_or("the supervisor passed no management listener")?;
        let roots = tls::roots_from_file(&self.directory.join(&self.settings.security.ca))?;
        let tls = tls::server_config(
            Arc::clone(&self.certificate),
            tls::ALPN_HTTP,
            &tls::ClientAuthentication::Optional(roots),
        )?;
        let mut draining = self.draining.clone();
        let shutdown = async move { drained(&mut draining).await };
        serve(ServeOptions { listener, tls, operations }, shutdown).await?;
        Ok(())
    }
}

/// Waits until the worker drains.
async fn drained(draining: &mut watch::Receiver<bool>) {
    // A sender that is gone means that the process is on its way out as well.
    let _ = draining.wait_for(|draining| *draining).await;
}
