//! A consumer: a connection of its own, with a channel for each queue that it consumes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use crosstie_model::outgoing::{
    AmqpConsume, AmqpConsumer, AmqpDelivery, AmqpSettle, AmqpSource, OutgoingError, Trouble,
};
use crosstie_telemetry::metrics::UnderWay;
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{StreamExt, stream};
use lapin::Acker;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
    QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, Error as AmqpError};
use tokio::time::timeout;
use tokio_util::sync::DropGuard;

use super::failure::{RESOURCE_LOCKED, code, of_step};
use super::link::Settings;
use super::topology::{bind, make_queue, open_channel};
use super::values::{from_wire, short};
use crate::observe::Observer;

/// Channels that a consumer uses at most at one time, those that end included.
const CHANNELS: u16 = 16;
/// How long queues may take to be found or made.
const DECLARE_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked whether a place became free that others had.
const PLACE_PAUSE: Duration = Duration::from_secs(1);
/// How long saying goodbye may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// `reply-success` of AMQP 0-9-1.
const REPLY_SUCCESS: u16 = 200;

/// Begins to consume.
pub(super) async fn start(
    settings: &Arc<Settings>,
    observer: &Arc<Observer>,
    call: &AmqpConsume,
) -> Result<Box<dyn AmqpConsumer>, OutgoingError> {
    let (login, open) = settings.connect(observer, "consuming", CHANNELS).await?;
    if let Some(place) = &call.place {
        wait_for_place(&login.connection, place).await?;
    }
    let listening = timeout(DECLARE_LIMIT, listen(&login.connection, call)).await;
    let late = || {
        let names: Vec<_> = call.sources.iter().map(|source| source.queue.name.as_str()).collect();
        let text = format!("{} did not declare {} in time", settings.shown(), names.join(", "));
        Err(OutgoingError::new(Trouble::Deadline, text))
    };
    let (coming, ears) = listening.unwrap_or_else(|_| late())?;
    Ok(Box::new(Listening {
        coming,
        open: ears.len(),
        ears,
        is_cancelled: false,
        connection: login.connection,
        _open: open,
        _socket: login.socket,
    }))
}

async fn listen(connection: &Connection, call: &AmqpConsume) -> Result<(Coming, Vec<Ear>), OutgoingError> {
    for queue in call.sources.iter().map(|source| &source.queue).chain(&call.beside) {
        make_queue(connection, queue).await?;
    }
    if let (Some(first), Some(binding)) = (call.sources.first(), &call.binding) {
        bind(connection, &first.queue.name, binding).await?;
    }
    let mut coming = SelectAll::new();
    let mut ears = Vec::new();
    for (index, source) in call.sources.iter().enumerate() {
        let (ear, news) = listen_to(connection, index, source).await?;
        coming.push(news);
        ears.push(ear);
    }
    Ok((coming, ears))
}

async fn listen_to(
    connection: &Connection,
    index: usize,
    source: &AmqpSource,
) -> Result<(Ear, BoxStream<'static, News>), OutgoingError> {
    let failed = |error: AmqpError| of_step("consuming", &error);
    let channel = open_channel(connection).await.map_err(failed)?;
    channel.basic_qos(source.prefetch, BasicQosOptions::default()).await.map_err(failed)?;
    let queue = short("the queue", &source.queue.name)?;
    let options = BasicConsumeOptions::default();
    let consumer =
        channel.basic_consume(queue, "".into(), options, FieldTable::default()).await.map_err(failed)?;
    let ear = Ear { channel, tag: consumer.tag() };
    let news = consumer.map(Some).chain(stream::iter([None])).map(move |news| (index, news));
    Ok((ear, news.boxed()))
}

/// Takes the place `name` once nobody else has it: an exclusive queue, which the broker lets one connection have at
/// a time and takes away with it.
async fn wait_for_place(connection: &Connection, name: &str) -> Result<(), OutgoingError> {
    let failed = |error: AmqpError| of_step("taking a place", &error);
    let name = short("the place", name)?;
    loop {
        let channel = open_channel(connection).await.map_err(failed)?;
        let own = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        match channel.queue_declare(name.clone(), own, FieldTable::default()).await {
            Ok(_) => return Ok(()),
            Err(error) if code(&error) == Some(RESOURCE_LOCKED) => tokio::time::sleep(PLACE_PAUSE).await,
            Err(error) => return Err(failed(error)),
        }
    }
}

/// What is heard of all queues.
type Coming = SelectAll<BoxStream<'static, News>>;

/// What is heard of the queue with this index: a message, or that the channel broke; `None` at its end.
type News = (usize, Option<Result<Delivery, AmqpError>>);

/// What one queue is listened to with.
struct Ear {
    channel: Channel,
    tag: ShortString,
}

/// A consumer at work. The fields are dropped in this order.
struct Listening {
    coming: Coming,
    ears: Vec<Ear>,
    /// How many queues something still comes from.
    open: usize,
    is_cancelled: bool,
    connection: Connection,
    _open: UnderWay,
    _socket: DropGuard,
}

#[async_trait]
impl AmqpConsumer for Listening {
    async fn next(&mut self) -> Option<Result<AmqpDelivery, OutgoingError>> {
        while self.open > 0 {
            match self.coming.next().await {
                Some((source, Some(Ok(delivery)))) => return Some(Ok(delivered(source, delivery))),
                Some((_, Some(Err(error)))) => return Some(Err(of_step("consuming", &error))),
                Some((_, None)) if self.is_cancelled => self.open -= 1,
                Some((_, None)) | None => {
                    let text = "consuming: the queue was deleted";
                    return Some(Err(OutgoingError::new(Trouble::Broken, text)));
                }
            }
        }
        None
    }

    async fn cancel(&mut self) -> Result<(), OutgoingError> {
        self.is_cancelled = true;
        for ear in &self.ears {
            let cancelled = ear.channel.basic_cancel(ear.tag.clone(), BasicCancelOptions::default());
            cancelled.await.map_err(|error| of_step("cancelling", &error))?;
        }
        Ok(())
    }

    async fn close(self: Box<Self>) {
        // A broker that does not answer learns of it by the socket.
        let _ = timeout(CLOSE_LIMIT, self.connection.close(REPLY_SUCCESS, "done".into())).await;
    }
}

fn delivered(source: usize, delivery: Delivery) -> AmqpDelivery {
    AmqpDelivery {
        source,
        exchange: delivery.exchange.as_str().to_owned(),
        routing_key: delivery.routing_key.as_str().to_owned(),
        redelivered: delivery.redelivered,
        properties: from_wire(&delivery.properties),
        body: Bytes::from(delivery.data),
        settle: Box::new(Unsettled(delivery.acker)),
    }
}

/// A message that the broker waits to hear of.
struct Unsettled(Acker);

#[async_trait]
impl AmqpSettle for Unsettled {
    async fn acknowledge(self: Box<Self>) -> Result<(), OutgoingError> {
        told("acknowledging", self.0.ack(BasicAckOptions::default()).await)
    }

    async fn put_back(self: Box<Self>) -> Result<(), OutgoingError> {
        let back = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        told("putting back", self.0.nack(back).await)
    }
}

fn told(step: &'static str, outcome: Result<bool, AmqpError>) -> Result<(), OutgoingError> {
    match outcome {
        Ok(true) => Ok(()),
        Ok(false) => Err(OutgoingError::new(Trouble::Broken, format!("{step}: the connection is gone"))),
        Err(error) => Err(of_step(step, &error)),
    }
}
