//! The connection that publishes: made when it is needed, made again when it broke, with its idle channels.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crosstie_amqp::{Broker, BrokerTls, Login, connect};
use crosstie_model::definition::{AmqpAddress, AmqpEndpoint};
use crosstie_model::outgoing::{AmqpQueue, OutgoingError};
use crosstie_model::secret::SecretValue;
use crosstie_telemetry::metrics::UnderWay;
use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Connection};
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::DropGuard;

use super::failure::{of_connecting, of_step};
use super::topology;
use crate::blueprint::{Blueprint, OpenError};
use crate::observe::Observer;
use crate::tls;

/// Largest frame in bytes, RabbitMQ's own default: a message's properties must fit into one.
const FRAME_BYTES: u32 = 131_072;

/// Whom connections are made to, and how.
pub(super) struct Settings {
    name: Arc<str>,
    address: AmqpAddress,
    user: String,
    password: Option<SecretValue>,
    tls: Option<BrokerTls>,
    step_limit: Duration,
    heartbeat_s: u16,
}

impl Settings {
    /// What `endpoint` says.
    ///
    /// # Errors
    /// The TLS it describes cannot be.
    pub(super) fn of(blueprint: &Blueprint, endpoint: &AmqpEndpoint) -> Result<Self, OpenError> {
        let address =
            AmqpAddress::parse(&endpoint.address).map_err(|detail| OpenError::field("address", detail))?;
        let settings = endpoint.tls.as_ref();
        let tls = match address.tls {
            true => Some(BrokerTls {
                config: tls::config(settings, blueprint.secrets(), blueprint, &[])?,
                server_name: settings.and_then(|settings| settings.server_name.clone()),
            }),
            false => None,
        };
        Ok(Self {
            name: blueprint.name().as_str().into(),
            address,
            user: endpoint.username.clone(),
            password: blueprint.secrets().get("password").cloned(),
            tls,
            step_limit: Duration::from_millis(endpoint.connect_deadline_ms),
            heartbeat_s: endpoint.heartbeat_s,
        })
    }

    /// Makes a connection for `channels` channels.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn connect(
        &self,
        observer: &Observer,
        purpose: &str,
        channels: u16,
    ) -> Result<(Login, UnderWay), OutgoingError> {
        let broker = Broker {
            host: &self.address.host,
            port: self.address.port,
            vhost: &self.address.vhost,
            user: &self.user,
            password: self.password.as_ref(),
            tls: self.tls.clone(),
            client: format!("crosstie {} ({purpose})", self.name),
            dial_limit: self.step_limit,
            login_limit: self.step_limit,
            heartbeat_s: self.heartbeat_s,
            frame_bytes: FRAME_BYTES,
            // The library's own is one of them.
            channels: channels.saturating_add(1),
        };
        match connect(&broker).await {
            Ok(login) => Ok((login, observer.metrics().connected())),
            Err(error) => {
                observer.metrics().connection_failed();
                Err(of_connecting(&error))
            }
        }
    }

    /// The broker as a person reads it.
    pub(super) fn shown(&self) -> String {
        format!("{}:{}", self.address.host, self.address.port)
    }
}

/// The connection, when there is one.
pub(super) struct Link {
    pub(super) settings: Arc<Settings>,
    observer: Arc<Observer>,
    channels: u16,
    /// Held while a connection is made, so that all who need one wait for the same.
    up: AsyncMutex<Option<Arc<Up>>>,
}

/// A connection that is there.
pub(super) struct Up {
    connection: Connection,
    idle: Mutex<Vec<Channel>>,
    /// Queues that were made or found over this connection.
    known: AsyncMutex<HashSet<AmqpQueue>>,
    _open: UnderWay,
    _socket: DropGuard,
}

impl Link {
    pub(super) fn new(settings: Arc<Settings>, observer: Arc<Observer>, channels: u16) -> Self {
        Self { settings, observer, channels, up: AsyncMutex::new(None) }
    }

    /// The connection; a new one where there is none.
    ///
    /// # Errors
    /// None can be made.
    pub(super) async fn up(&self) -> Result<Arc<Up>, OutgoingError> {
        let mut slot = self.up.lock().await;
        if let Some(up) = slot.as_ref().filter(|up| up.connection.status().connected()) {
            return Ok(Arc::clone(up));
        }
        *slot = None;
        // More than that: channels that are being closed, one that looks for queues, one that is asked for.
        let channels = self.channels.saturating_mul(2).saturating_add(8);
        let (login, open) = self.settings.connect(&self.observer, "publishing", channels).await?;
        let up = Arc::new(Up {
            connection: login.connection,
            idle: Mutex::default(),
            known: AsyncMutex::default(),
            _open: open,
            _socket: login.socket,
        });
        *slot = Some(Arc::clone(&up));
        Ok(up)
    }
}

impl Up {
    /// A channel with confirmations that nobody else uses.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) async fn channel(&self) -> Result<Channel, OutgoingError> {
        while let Some(channel) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        let failed = |error: lapin::Error| of_step("opening a channel", &error);
        let channel = topology::open_channel(&self.connection).await.map_err(failed)?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(failed)?;
        Ok(channel)
    }

    /// Takes back a channel on which nothing is on its way.
    pub(super) fn give_back(&self, channel: Channel) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
    }

    /// Makes `queue` where there is none, once per connection.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) async fn make(&self, queue: &AmqpQueue) -> Result<(), OutgoingError> {
        // One after the other: all who need a queue mostly need the same, and each question takes a channel.
        let mut known = self.known.lock().await;
        if !known.contains(queue) {
            topology::make_queue(&self.connection, queue).await?;
            known.insert(queue.clone());
        }
        Ok(())
    }

    /// Forgets `queue`, which somebody took away.
    pub(super) async fn forget(&self, queue: &AmqpQueue) {
        self.known.lock().await.remove(queue);
    }

    /// Asks the broker for a channel and lets it go.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) async fn ask(&self) -> Result<(), OutgoingError> {
        let asked = topology::open_channel(&self.connection).await;
        asked.map(drop).map_err(|error| of_step("opening a channel", &error))
    }
}
