//! Messages to and from AMQP 0-9-1 brokers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Connection, OutgoingError};
use crate::cid::TraceContext;

/// A broker.
#[async_trait]
pub trait AmqpOutgoing: Connection {
    /// Publishes a message. Returns once the broker has taken it over: a persistent message in a durable queue is
    /// then on its disk. Tried again while the connection breaks, so that the message may be there twice, with
    /// one message-id.
    ///
    /// # Errors
    /// It was not confirmed; or it is mandatory and no queue takes it.
    async fn publish(&self, call: AmqpPublish) -> Result<(), OutgoingError>;

    /// Begins to consume, over a connection of its own, once the place that is asked for is free.
    ///
    /// # Errors
    /// There is no connection, or the queue cannot be consumed.
    async fn consume(&self, call: &AmqpConsume) -> Result<Box<dyn AmqpConsumer>, OutgoingError>;
}

/// A message to publish.
#[derive(Debug, Clone)]
pub struct AmqpPublish {
    /// The exchange; the definition's when there is none.
    pub exchange: Option<String>,
    /// The routing key; the definition's when there is none.
    pub routing_key: Option<String>,
    /// What the message says of itself.
    pub properties: AmqpProperties,
    /// The message.
    pub body: Bytes,
    /// What becomes of a message that no queue takes.
    pub unroutable: Unroutable,
    /// A queue that is made first where there is none.
    pub queue: Option<AmqpQueue>,
    /// The caller's trace; publishing gets a span below it.
    pub trace: TraceContext,
    /// When the caller stops waiting; the definition's own deadline counts where it is earlier.
    pub deadline: Instant,
}

/// What becomes of a message that no queue takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unroutable {
    /// Publishing it is an error (`mandatory`).
    IsAnError,
    /// The broker drops it.
    IsDropped,
}

/// What a message says of itself (AMQP 0-9-1, class `basic`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AmqpProperties {
    /// The media type of the body.
    pub content_type: Option<String>,
    /// The coding of the body: `gzip` …
    pub content_encoding: Option<String>,
    /// Header fields.
    pub headers: BTreeMap<String, AmqpValue>,
    /// Whether the broker keeps the message on disk; `None` where the sender did not say, which means no.
    pub persistent: Option<bool>,
    /// From 0 to 255; queues know fewer.
    pub priority: Option<u8>,
    /// What the message is an answer to.
    pub correlation_id: Option<String>,
    /// The queue that waits for an answer.
    pub reply_to: Option<String>,
    /// After how many milliseconds the message is worth nothing any more, as text.
    pub expiration: Option<String>,
    /// The message's own name.
    pub message_id: Option<String>,
    /// When it was made, in seconds since 1970-01-01T00:00:00Z.
    pub timestamp: Option<u64>,
    /// What it is about (the property `type`).
    pub kind: Option<String>,
    /// Who published it; the broker checks that it is who logged in.
    pub user_id: Option<String>,
    /// Which application published it.
    pub app_id: Option<String>,
}

/// The value of a header field (AMQP 0-9-1, section 4.2.5).
#[derive(Debug, Clone, PartialEq)]
pub enum AmqpValue {
    /// None.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer of any width.
    Int(i64),
    /// A number.
    Float(f64),
    /// A decimal number: `value` times ten to the power of minus `scale`.
    Decimal {
        /// How many of its digits are behind the point.
        scale: u8,
        /// Its digits.
        value: u32,
    },
    /// Text.
    Text(String),
    /// Bytes, or text that is not UTF-8.
    Bytes(Bytes),
    /// Seconds since 1970-01-01T00:00:00Z.
    Timestamp(u64),
    /// Several values.
    List(Vec<AmqpValue>),
    /// Named values.
    Table(BTreeMap<String, AmqpValue>),
}

impl AmqpValue {
    /// The value as text, where it is text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value as an integer, where it is one.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }
}

impl From<&str> for AmqpValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for AmqpValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u32> for AmqpValue {
    fn from(number: u32) -> Self {
        Self::Int(i64::from(number))
    }
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AmqpQueue {
    /// Its name.
    pub name: String,
    /// What it is like where it has to be made. It is durable.
    pub make: AmqpQueueKind,
}

/// What a queue is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AmqpQueueKind {
    /// It must be there already.
    Expected,
    /// On one node of the broker (RabbitMQ: `classic`).
    Classic,
    /// On several nodes of the broker (RabbitMQ: `quorum`).
    Quorum,
}

/// An exchange whose messages a queue gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmqpBinding {
    /// The exchange.
    pub exchange: String,
    /// Its type where it has to be made; `None` where it must be there already.
    pub make: Option<&'static str>,
    /// Which messages; one of them must match.
    pub routing_keys: Vec<String>,
}

/// What to consume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmqpConsume {
    /// The queues; at least one.
    pub sources: Vec<AmqpSource>,
    /// An exchange that the first of them is bound to.
    pub binding: Option<AmqpBinding>,
    /// Queues that are made as well.
    pub beside: Vec<AmqpQueue>,
    /// A place that one consumer has at a time, over all that connect to the broker.
    pub place: Option<String>,
}

/// A queue that is consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmqpSource {
    /// The queue.
    pub queue: AmqpQueue,
    /// How many of its messages the broker sends ahead of their acknowledgement.
    pub prefetch: u16,
}

/// A consumer. Dropping it cuts its connection: the broker then gives what is not acknowledged to others.
#[async_trait]
pub trait AmqpConsumer: Send {
    /// The next message; `None` once there will be no more in order, after [`AmqpConsumer::cancel`].
    ///
    /// # Errors
    /// The connection broke, or a queue is gone.
    async fn next(&mut self) -> Option<Result<AmqpDelivery, OutgoingError>>;

    /// Asks the broker to send no more. What it sent already still comes.
    ///
    /// # Errors
    /// The connection broke.
    async fn cancel(&mut self) -> Result<(), OutgoingError>;

    /// Ends the connection in order, after the last acknowledgement.
    async fn close(self: Box<Self>);
}

/// A message that came.
pub struct AmqpDelivery {
    /// Which of [`AmqpConsume::sources`] it is from, from 0.
    pub source: usize,
    /// The exchange it was published to.
    pub exchange: String,
    /// With which routing key.
    pub routing_key: String,
    /// Whether the broker sent it before and got no acknowledgement.
    pub redelivered: bool,
    /// What it says of itself.
    pub properties: AmqpProperties,
    /// The message.
    pub body: Bytes,
    /// How it is acknowledged. Until then the broker keeps it.
    pub settle: Box<dyn AmqpSettle>,
}

/// The acknowledgement of one message.
#[async_trait]
pub trait AmqpSettle: Send + Sync {
    /// The message is done with.
    ///
    /// # Errors
    /// The connection broke: the message will come again.
    async fn acknowledge(self: Box<Self>) -> Result<(), OutgoingError>;

    /// The message goes back to the queue.
    ///
    /// # Errors
    /// The connection broke, which has the same effect.
    async fn put_back(self: Box<Self>) -> Result<(), OutgoingError>;
}

impl fmt::Debug for AmqpDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpDelivery")
            .field("source", &self.source)
            .field("exchange", &self.exchange)
            .field("routing_key", &self.routing_key)
            .field("redelivered", &self.redelivered)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}
