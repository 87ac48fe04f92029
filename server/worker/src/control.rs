//! A worker's control thread: a reactor of its own for everything that may be slow.
//!
//! It hears the supervisor, follows the ODB, loads code and, in the singleton, answers the management API. The
//! main thread's reactor is left to traffic alone.

use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crosstie_api::operations::Operations;
use crosstie_channels::amqp::AmqpChannels;
use crosstie_channels::server::HttpServer;
use crosstie_model::Event;
use crosstie_process::control::{ControlReader, ControlStream, ToSupervisor, ToWorker};
use crosstie_process::pidfile::{self, Signal};
use crosstie_security::ReloadingCertificate;
use tokio::sync::{Notify, oneshot, watch};

use crate::follow::{Follower, Standing};
use crate::outbox::{Outbox, forward};
use crate::singleton::Duties;

/// How long after the last connection calls of services that nobody waits for may still take.
const AFTERWORK: Duration = Duration::from_secs(1);

/// What the control thread is given.
pub(crate) struct Control {
    /// The socket to the supervisor.
    pub(crate) stream: ControlStream,
    /// The other end of the outbox.
    pub(crate) queue: tokio::sync::mpsc::UnboundedReceiver<ToSupervisor>,
    /// To the supervisor.
    pub(crate) outbox: Outbox,
    /// Follows the ODB.
    pub(crate) follower: Follower,
    /// Does the singleton's work.
    pub(crate) duties: Duties,
    /// Tells everybody here that the worker drains.
    pub(crate) drain: watch::Sender<bool>,
    /// The HTTP side.
    pub(crate) http: HttpServer,
    /// The side of brokers.
    pub(crate) amqp: Arc<AmqpChannels>,
    /// The server's certificate.
    pub(crate) certificate: Arc<ReloadingCertificate>,
    /// Told when the first snapshot is served.
    pub(crate) serving: oneshot::Sender<()>,
    /// Tells that the main thread accepts connections.
    pub(crate) listening: oneshot::Receiver<()>,
    /// The server's directory.
    pub(crate) directory: PathBuf,
}

impl Control {
    /// Runs until the worker has drained.
    pub(crate) async fn run(self) {
        let (reader, writer) = match self.stream.split() {
            Ok(halves) => halves,
            Err(error) => return tracing::error!(%error, "the control channel cannot be used"),
        };
        let forwarding = tokio::spawn(forward(self.queue, writer));
        let standing = Arc::clone(&self.follower.standing);
        let revised = Arc::clone(&self.duties.revised);
        let operations = self.duties.events.subscribe();
        let ca = self.directory.join(&self.duties.settings.security.ca);
        standing.membership.note_certificates(&self.certificate, &ca);
        let following = tokio::spawn(self.follower.run(self.serving));
        let outbox = self.outbox.clone();
        let ready = tokio::spawn(async move {
            if self.listening.await.is_ok() {
                outbox.send(ToSupervisor::Ready);
            }
        });
        let duties = tokio::spawn(self.duties.run());
        let mut hearing =
            Hearing { reader, standing, revised, operations, certificate: self.certificate, ca };
        hearing.until_drain().await;

        tracing::info!(directory = %self.directory.display(), "draining");
        self.outbox.send(ToSupervisor::Draining);
        // Receivers that are gone have drained already.
        let _ = self.drain.send(true);
        self.http.drain();
        tokio::join!(self.http.drained(), self.amqp.drain());
        tokio::select! {
            _ = duties => {}
            () = hearing.until_closed() => {}
        }
        following.abort();
        ready.abort();
        self.outbox.send(ToSupervisor::Drained);
        drop(self.outbox);
        // The forwarder ends when every outbox is gone; services that still run hold some.
        let _ = tokio::time::timeout(AFTERWORK, forwarding).await;
    }
}

/// Hears the supervisor.
struct Hearing {
    reader: ControlReader,
    standing: Arc<Standing>,
    revised: Arc<Notify>,
    operations: watch::Receiver<Option<Operations>>,
    certificate: Arc<ReloadingCertificate>,
    ca: PathBuf,
}

impl Hearing {
    /// Until the supervisor asks for a drain, or is gone, which means the same.
    async fn until_drain(&mut self) {
        loop {
            match self.reader.next().await {
                Ok(Some(ToWorker::Event(event))) => self.hear(&event),
                Ok(Some(ToWorker::Start { .. })) => {}
                Ok(Some(ToWorker::Drain { .. })) => return,
                Ok(None) => return tracing::warn!("the supervisor is gone"),
                Err(error) => return tracing::error!(%error, "the control channel broke"),
            }
        }
    }

    /// Events still matter to management calls under way while the worker drains.
    async fn until_closed(&mut self) {
        while let Ok(Some(message)) = self.reader.next().await {
            if let ToWorker::Event(event) = message {
                self.hear(&event);
            }
        }
    }

    fn hear(&self, event: &Event) {
        if let Some(operations) = self.operations.borrow().as_ref() {
            operations.observe(event);
        }
        match event {
            Event::RevisionChanged { .. } => {
                self.standing.look(true);
                self.revised.notify_one();
            }
            Event::CertificatesChanged => {
                if let Err(error) = self.certificate.reload() {
                    tracing::error!(%error, "the new certificate cannot be used; the old one stays");
                }
                self.standing.membership.note_certificates(&self.certificate, &self.ca);
            }
            Event::SettingsChanged if self.operations.borrow().is_some() => {
                // Workers read settings when they start: the supervisor accepts the new ones and rolls.
                if let Err(error) = pidfile::signal(parent_id(), Signal::Reload) {
                    tracing::error!(%error, "the supervisor could not be told of the new configuration");
                }
            }
            Event::QuarantineReleased { .. } => self.standing.retry(),
            // A revision that a comparison found, and no event told of, is history to write as well.
            Event::Applied(_) => self.revised.notify_one(),
            // The singleton's to act on.
            Event::SettingsChanged => {}
        }
    }
}
