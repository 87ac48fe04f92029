//! One connection's life: publishes the newest revision whenever there is one, hears the others, notices
//! when the broker takes nothing, and ends with the connection.
//!
//! Everything in flight is counted: one notice being confirmed, as many acknowledgements as the broker sends
//! ahead, nothing else. A broker that blocks (`connection.blocked`) therefore holds back that one notice.

use std::pin::pin;
use std::time::Duration;

use crosstie_amqp::BrokerError as BusError;
use crosstie_model::{Revision, UnitName};
use futures_util::StreamExt;
use futures_util::future::{self, BoxFuture};
use futures_util::stream::FuturesUnordered;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicPublishOptions};
use lapin::{BasicProperties, Channel, Confirmation, Error as AmqpError, Event as ConnectionEvent};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::bus::Heard;
use crate::connect::Connected;
use crate::frame::{Frame, MEDIA_TYPE, Notice};
use crate::state::BusState;

/// How long the broker may take to confirm a notice while it is not blocked.
const CONFIRM_LIMIT: Duration = Duration::from_secs(10);
/// How long saying goodbye may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Delivery mode of messages that are not stored (AMQP 0-9-1, `basic` properties).
const TRANSIENT: u8 = 1;
/// `reply-success` of AMQP 0-9-1.
const REPLY_SUCCESS: u16 = 200;

/// What all sessions of a bus share.
pub(crate) struct Shared {
    /// This server.
    pub(crate) server: UnitName,
    /// Where notices go.
    pub(crate) exchange: String,
    /// The newest revision this server made.
    pub(crate) newest: watch::Receiver<Option<Revision>>,
    /// To the owner.
    pub(crate) inbound: mpsc::Sender<Heard>,
    /// What is known of the connection.
    pub(crate) state: watch::Sender<BusState>,
    /// Says that the bus ends.
    pub(crate) stop: CancellationToken,
}

/// How a session ended in order.
pub(crate) struct Stopped;

impl Shared {
    /// Runs a session until the bus ends.
    ///
    /// # Errors
    /// The connection ended.
    pub(crate) async fn run(&mut self, connected: Connected, address: &str) -> Result<Stopped, BusError> {
        let Connected { connection, channel, consumer, socket: _socket } = connected;
        let mut events = pin!(connection.events_listener());
        let mut consumer = pin!(consumer);
        let mut acknowledged = FuturesUnordered::new();
        let mut sending: Option<Sending> = None;
        let mut blocked = connection.status().blocked();
        self.state.send_modify(BusState::up);
        // Whatever was missed while nobody listened is found by looking, here and at the others.
        self.newest.mark_changed();
        self.tell(Heard::CompareNow);
        let broken = |step| move |error| BusError::of_amqp(address, step, error);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.inbound.closed() => break,
                event = events.next() => match event {
                    Some(ConnectionEvent::ConnectionBlocked(reason)) => {
                        blocked = true;
                        tracing::warn!(reason, "the broker takes no messages");
                        self.state.send_modify(|state| state.blocked = Some(reason));
                    }
                    Some(ConnectionEvent::ConnectionUnblocked) => {
                        blocked = false;
                        tracing::info!("the broker takes messages again");
                        self.state.send_modify(|state| state.blocked = None);
                        sending.iter_mut().for_each(Sending::postpone);
                    }
                    Some(ConnectionEvent::Error(error)) => return Err(broken("the connection")(error)),
                    Some(_) => {}
                    None => return Err(BusError::broken(address, "the connection", "it ended")),
                },
                delivery = consumer.next() => match delivery {
                    Some(Ok(delivery)) => {
                        self.hear(&delivery);
                        acknowledged.push(async move { delivery.acker.ack(BasicAckOptions::default()).await });
                    }
                    Some(Err(error)) => return Err(broken("the queue")(error)),
                    None => return Err(BusError::broken(address, "the queue", "it was deleted")),
                },
                Some(done) = acknowledged.next() => { done.map_err(broken("acknowledging"))?; },
                changed = self.newest.changed(), if sending.is_none() && !blocked => {
                    let Ok(()) = changed else { break };
                    sending = self.next_notice().map(|frame| Sending::begin(&channel, &self.exchange, frame));
                }
                outcome = outcome(&mut sending, blocked) => {
                    sending = None;
                    match outcome {
                        Outcome::Taken => self.state.send_modify(|state| state.counts.sent += 1),
                        Outcome::NotTaken(reason) => {
                            return Err(BusError::broken(address, "publishing", reason));
                        }
                        Outcome::Failed(error) => return Err(broken("publishing")(error)),
                    }
                }
            }
        }
        let goodbye = connection.close(REPLY_SUCCESS, "the server stops".into());
        // A broker that does not answer learns of it by the socket.
        let _ = timeout(CLOSE_LIMIT, goodbye).await;
        Ok(Stopped)
    }

    fn next_notice(&mut self) -> Option<Vec<u8>> {
        let revision = (*self.newest.borrow_and_update())?;
        let frame = Frame::new(self.server.clone(), Notice::Revision { revision });
        frame.encode().inspect_err(|error| tracing::error!(%error, "a notice could not be written")).ok()
    }

    fn hear(&self, delivery: &Delivery) {
        match Frame::decode(&delivery.data) {
            Ok(frame) if frame.server == self.server => {}
            Ok(frame) => {
                self.state.send_modify(|state| state.counts.received += 1);
                self.tell(Heard::Changed(frame.notice.into()));
            }
            Err(error) => {
                self.state.send_modify(|state| state.counts.unreadable += 1);
                tracing::debug!(%error, "a message on the bus is dropped");
            }
        }
    }

    /// Tells the owner. When its queue is full this is dropped: each of those before it makes the owner look
    /// at the ODB, and later than now.
    fn tell(&self, heard: Heard) {
        let _ = self.inbound.try_send(heard);
    }
}

/// A notice on its way.
struct Sending {
    confirmed: BoxFuture<'static, Result<Confirmation, AmqpError>>,
    until: Instant,
}

impl Sending {
    fn begin(channel: &Channel, exchange: &str, body: Vec<u8>) -> Self {
        let (channel, exchange) = (channel.clone(), exchange.into());
        let properties =
            BasicProperties::default().with_content_type(MEDIA_TYPE.into()).with_delivery_mode(TRANSIENT);
        let confirmed = async move {
            let options = BasicPublishOptions::default();
            channel.basic_publish(exchange, "".into(), options, &body, properties).await?.await
        };
        Self { confirmed: Box::pin(confirmed), until: Instant::now() + CONFIRM_LIMIT }
    }

    /// The time a block took does not count.
    fn postpone(&mut self) {
        self.until = Instant::now() + CONFIRM_LIMIT;
    }
}

/// What became of a notice.
enum Outcome {
    Taken,
    NotTaken(&'static str),
    Failed(AmqpError),
}

impl From<Result<Confirmation, AmqpError>> for Outcome {
    fn from(confirmed: Result<Confirmation, AmqpError>) -> Self {
        match confirmed {
            Ok(Confirmation::Ack(_) | Confirmation::NotRequested) => Self::Taken,
            Ok(Confirmation::Nack(_)) => Self::NotTaken("the broker did not take a notice"),
            Err(error) => Self::Failed(error),
        }
    }
}

/// Waits for the notice on its way; for ever when there is none. Cancelled, it goes on with the next call.
async fn outcome(sending: &mut Option<Sending>, blocked: bool) -> Outcome {
    match sending {
        None => future::pending().await,
        Some(sending) if blocked => sending.confirmed.as_mut().await.into(),
        Some(sending) => match timeout_at(sending.until, sending.confirmed.as_mut()).await {
            Ok(confirmed) => confirmed.into(),
            Err(_) => Outcome::NotTaken("the broker did not confirm a notice in time"),
        },
    }
}
