//! What a worker says to its supervisor, in order, without waiting.

use crosstie_model::Event;
use crosstie_process::control::{ControlWriter, ToSupervisor};
use tokio::sync::mpsc;

/// Queues messages for the control channel. Cheap to clone. Unbounded, because nothing that comes from
/// outside makes a message: the senders are this worker's own phases and management operations.
#[derive(Debug, Clone)]
pub(crate) struct Outbox(mpsc::UnboundedSender<ToSupervisor>);

impl Outbox {
    /// An outbox, and the other end for [`forward`].
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<ToSupervisor>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Sends `message`. One for a supervisor that is gone is dropped: the worker learns of that by itself.
    pub(crate) fn send(&self, message: ToSupervisor) {
        let _ = self.0.send(message);
    }

    /// Sends `event` to every worker of the server, this one included.
    pub(crate) fn event(&self, event: Event) {
        self.send(ToSupervisor::Event(event));
    }
}

/// Carries queued messages to the supervisor until either end is gone.
pub(crate) async fn forward(mut queue: mpsc::UnboundedReceiver<ToSupervisor>, writer: ControlWriter) {
    while let Some(message) = queue.recv().await {
        if let Err(error) = writer.send(&message).await {
            return tracing::warn!(%error, "the supervisor does not hear this worker");
        }
    }
}
