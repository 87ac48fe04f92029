//! From an address to a queue that listens: TCP, TLS, login, exchange, queue. Each step is timed.
//!
//! The exchange is durable, so that a broker's administrator can make it beforehand and grant this server
//! no more than its own queues; nothing else is: the queue is exclusive and dies with its connection, holds
//! at most [`QUEUE_LENGTH`] notices (the oldest make room) and messages are transient.

use std::sync::Arc;
use std::time::Duration;

use crosstie_amqp::{Broker, BrokerError, BrokerTls, Login, timed};
use crosstie_model::UnitName;
use crosstie_model::secret::SecretValue;
use crosstie_model::settings::BusUrl;
use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, Consumer, Error as AmqpError, ExchangeKind};
use rustls::ClientConfig;
use tokio_util::sync::DropGuard;

/// How long TCP and TLS may take, each.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// How long login and declarations may take, each.
const LOGIN_LIMIT: Duration = Duration::from_secs(10);
/// Notices a server's queue holds while the server does not take them.
const QUEUE_LENGTH: u32 = 1000;
/// Bytes it holds.
const QUEUE_BYTES: u32 = 1024 * 1024;
/// Notices on their way that this server has not acknowledged.
pub(crate) const PREFETCH: u16 = 32;
/// Seconds between heartbeats; a connection that is silent for two is given up.
const HEARTBEAT_S: u16 = 10;
/// Largest frame in bytes. The library keeps 64 of them as buffers, and notices are small.
const FRAME_BYTES: u32 = 8192;
/// Channels on the connection: the library's own and ours.
const CHANNELS: u16 = 2;

/// Whom to connect to, and as whom.
pub(crate) struct Target<'a> {
    /// The broker.
    pub(crate) url: &'a BusUrl,
    /// The exchange all servers of the cluster share.
    pub(crate) exchange: &'a str,
    /// This server.
    pub(crate) server: &'a UnitName,
    /// Of the user in the URL.
    pub(crate) password: Option<&'a SecretValue>,
    /// For `amqps`.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// A connection whose queue listens. Dropped, its socket is closed at once.
pub(crate) struct Connected {
    /// The connection.
    pub(crate) connection: Connection,
    /// Its one channel, with publisher confirms.
    pub(crate) channel: Channel,
    /// What the others say.
    pub(crate) consumer: Consumer,
    pub(crate) socket: DropGuard,
}

/// Connects.
pub(crate) async fn connect(target: &Target<'_>) -> Result<Connected, BrokerError> {
    let url = target.url;
    let broker = Broker {
        host: &url.host,
        port: url.port,
        vhost: &url.vhost,
        user: &url.user,
        password: target.password,
        // An address in plain is on this machine.
        tls: target.tls.clone().filter(|_| url.tls).map(|config| BrokerTls { config, server_name: None }),
        client: format!("crosstie server {}", target.server),
        dial_limit: DIAL_LIMIT,
        login_limit: LOGIN_LIMIT,
        heartbeat_s: HEARTBEAT_S,
        frame_bytes: FRAME_BYTES,
        channels: CHANNELS,
    };
    let Login { connection, socket } = crosstie_amqp::connect(&broker).await?;
    let address = url.to_string();
    let declared = |error| BrokerError::of_amqp(&address, "declaring the queue", error);
    let declaring = async {
        let channel = connection.create_channel().await?;
        let consumer = listen(&channel, target).await?;
        Ok((channel, consumer))
    };
    let done = timed(&address, "declaring the queue", LOGIN_LIMIT, declaring).await?;
    let (channel, consumer) = done.map_err(declared)?;
    Ok(Connected { connection, channel, consumer, socket })
}

async fn listen(channel: &Channel, target: &Target<'_>) -> Result<Consumer, AmqpError> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let none = FieldTable::default;
    channel.exchange_declare(target.exchange.into(), ExchangeKind::Fanout, durable, none()).await?;
    // A name that is never used again: after a cut the broker may hold on to the old queue for a while.
    let suffix = hex::encode(getrandom::u64().unwrap_or_default().to_be_bytes());
    let name = format!("{}.{}.{suffix}", target.exchange, target.server);
    let mut bounds = none();
    bounds.insert("x-max-length".into(), AMQPValue::LongUInt(QUEUE_LENGTH));
    bounds.insert("x-max-length-bytes".into(), AMQPValue::LongUInt(QUEUE_BYTES));
    bounds.insert("x-overflow".into(), AMQPValue::LongString("drop-head".into()));
    let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(name.into(), own, bounds).await?.name().clone();
    let bind = QueueBindOptions::default();
    channel.queue_bind(queue.clone(), target.exchange.into(), "".into(), bind, none()).await?;
    let consume = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
    channel.basic_consume(queue, "".into(), consume, none()).await
}
