//! From an address to a queue that listens: TCP, TLS, login, exchange, queue. Each step is timed.
//!
//! The exchange is durable, so that a broker's administrator can make it beforehand and grant this server
//! no more than its own queues; nothing else is: the queue is exclusive and dies with its connection, holds
//! at most [`QUEUE_LENGTH`] notices (the oldest make room) and messages are transient.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crosstie_model::UnitName;
use crosstie_model::secret::SecretValue;
use crosstie_model::settings::BusUrl;
use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, Consumer, Error as AmqpError, ExchangeKind,
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::BusError;
use crate::stream::{BrokerStream, Duplex, current_runtime, made_beforehand};

/// How long TCP and TLS may take, each.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// How long login and declarations may take together.
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
pub(crate) async fn connect(target: &Target<'_>) -> Result<Connected, BusError> {
    let address = target.url.to_string();
    let token = CancellationToken::new();
    let socket = token.clone().drop_guard();
    let stream = BrokerStream::new(dial(target, &address).await?, token);
    let login = log_in(target, &address, stream);
    let (connection, channel, consumer) = timed(&address, "login", LOGIN_LIMIT, login).await??;
    Ok(Connected { connection, channel, consumer, socket })
}

async fn timed<F: Future>(
    address: &str,
    step: &'static str,
    limit: Duration,
    work: F,
) -> Result<F::Output, BusError> {
    let late = |_| BusError::TimedOut { address: address.to_owned(), step, limit };
    tokio::time::timeout(limit, work).await.map_err(late)
}

async fn dial(target: &Target<'_>, address: &str) -> Result<Box<dyn Duplex>, BusError> {
    let url = target.url;
    let connecting = TcpStream::connect((url.host.as_str(), url.port));
    let unreachable = |source| BusError::Unreachable { address: address.to_owned(), source };
    let tcp = timed(address, "TCP", DIAL_LIMIT, connecting).await?.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    let Some(config) = target.tls.clone().filter(|_| url.tls) else {
        // An address in plain is on this machine.
        return Ok(Box::new(tcp));
    };
    let name = ServerName::try_from(url.host.clone()).map_err(|_| BusError::Host(url.host.clone()))?;
    let handshake = TlsConnector::from(config).connect(name, tcp);
    let secured = timed(address, "TLS", DIAL_LIMIT, handshake).await?;
    Ok(Box::new(secured.map_err(|error| BusError::of_handshake(address, &error))?))
}

async fn log_in(
    target: &Target<'_>,
    address: &str,
    stream: BrokerStream,
) -> Result<(Connection, Channel, Consumer), BusError> {
    let slot = Mutex::new(Some(stream));
    let connection = Connection::connector(
        uri(target)?,
        current_runtime(),
        async move |_, _| {
            let taken = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            taken.map(AsyncTcpStream::Plain).ok_or_else(|| AmqpError::from(made_beforehand()))
        },
        ConnectionProperties::default()
            .with_connection_name(format!("crosstie server {}", target.server).into())
            .with_client_property("product".into(), "Crosstie".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into()),
    )
    .await
    .map_err(|error| BusError::of_login(address, target.url.tls, error))?;
    let declared = |error| BusError::of_amqp(address, "declaring the queue", error);
    let channel = connection.create_channel().await.map_err(declared)?;
    let consumer = listen(&channel, target).await.map_err(declared)?;
    Ok((connection, channel, consumer))
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

fn uri(target: &Target<'_>) -> Result<AMQPUri, BusError> {
    let password = target.password.map_or(Ok(""), |password| std::str::from_utf8(password.expose()));
    let password = password.map_err(|_| BusError::Secrets("the password is not UTF-8".to_owned()))?;
    Ok(AMQPUri {
        // TLS is below the library.
        scheme: AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: target.url.user.clone(), password: password.to_owned() },
            host: target.url.host.clone(),
            port: target.url.port,
        },
        vhost: target.url.vhost.clone(),
        query: AMQPQueryString {
            frame_max: Some(FRAME_BYTES),
            channel_max: Some(CHANNELS),
            heartbeat: Some(HEARTBEAT_S),
            connection_timeout: None,
            auth_mechanism: None,
        },
    })
}
