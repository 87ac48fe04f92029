//! From an address to a login: TCP, TLS, AMQP's own handshake. Each step is timed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crosstie_model::secret::SecretValue;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, Error as AmqpError};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::BrokerError;
use crate::stream::{BrokerStream, Duplex, current_runtime, made_beforehand};

/// Whom to connect to, as whom, and how.
pub struct Broker<'a> {
    /// Name or address, without brackets.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// The virtual host.
    pub vhost: &'a str,
    /// Who logs in.
    pub user: &'a str,
    /// That user's password.
    pub password: Option<&'a SecretValue>,
    /// How TLS is spoken; `None` for a connection in plain.
    pub tls: Option<BrokerTls>,
    /// What the broker's operator sees as the connection's name.
    pub client: String,
    /// How long TCP and TLS may take, each.
    pub dial_limit: Duration,
    /// How long the login may take.
    pub login_limit: Duration,
    /// Seconds between heartbeats; a connection that is silent for two is given up.
    pub heartbeat_s: u16,
    /// Largest frame in bytes. The library keeps 64 of them as buffers.
    pub frame_bytes: u32,
    /// Channels on the connection, the library's own included.
    pub channels: u16,
}

/// How TLS is spoken to a broker.
#[derive(Clone)]
pub struct BrokerTls {
    /// What is trusted and shown.
    pub config: Arc<ClientConfig>,
    /// The name the broker's certificate must be made out to, where that is not the host.
    pub server_name: Option<String>,
}

/// A connection that is logged in.
pub struct Login {
    /// The connection.
    pub connection: Connection,
    /// Dropped, the socket is closed at once.
    pub socket: DropGuard,
}

impl Broker<'_> {
    /// Where the broker is, as errors name it.
    #[must_use]
    pub fn address(&self) -> String {
        let scheme = if self.tls.is_some() { "amqps" } else { "amqp" };
        if self.host.contains(':') {
            return format!("{scheme}://[{}]:{}", self.host, self.port);
        }
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    fn uri(&self) -> Result<AMQPUri, BrokerError> {
        let password = self.password.map_or(Ok(""), |password| std::str::from_utf8(password.expose()));
        let password = password.map_err(|_| BrokerError::Secrets("the password is not UTF-8".to_owned()))?;
        Ok(AMQPUri {
            // TLS is below the library.
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: self.user.to_owned(), password: password.to_owned() },
                host: self.host.to_owned(),
                port: self.port,
            },
            vhost: self.vhost.to_owned(),
            query: AMQPQueryString {
                frame_max: Some(self.frame_bytes),
                channel_max: Some(self.channels),
                heartbeat: Some(self.heartbeat_s),
                connection_timeout: None,
                auth_mechanism: None,
            },
        })
    }
}

/// Connects and logs in, on the caller's runtime, which must be a tokio runtime with time and I/O.
///
/// # Errors
/// Which step failed, and why.
pub async fn connect(broker: &Broker<'_>) -> Result<Login, BrokerError> {
    let address = broker.address();
    let token = CancellationToken::new();
    let socket = token.clone().drop_guard();
    let stream = BrokerStream::new(dial(broker, &address).await?, token);
    let login = log_in(broker, &address, stream);
    let connection = timed(&address, "login", broker.login_limit, login).await??;
    Ok(Login { connection, socket })
}

/// Runs a step of talking to the broker at `address` within `limit`.
///
/// # Errors
/// It took longer.
pub async fn timed<F: Future>(
    address: &str,
    step: &'static str,
    limit: Duration,
    work: F,
) -> Result<F::Output, BrokerError> {
    let late = |_| BrokerError::TimedOut { address: address.to_owned(), step, limit };
    tokio::time::timeout(limit, work).await.map_err(late)
}

async fn dial(broker: &Broker<'_>, address: &str) -> Result<Box<dyn Duplex>, BrokerError> {
    let connecting = TcpStream::connect((broker.host, broker.port));
    let unreachable = |source| BrokerError::Unreachable { address: address.to_owned(), source };
    let tcp = timed(address, "TCP", broker.dial_limit, connecting).await?.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    let Some(tls) = &broker.tls else { return Ok(Box::new(tcp)) };
    let host = tls.server_name.as_deref().unwrap_or(broker.host);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| BrokerError::Host(host.to_owned()))?;
    let handshake = TlsConnector::from(Arc::clone(&tls.config)).connect(name, tcp);
    let secured = timed(address, "TLS", broker.dial_limit, handshake).await?;
    Ok(Box::new(secured.map_err(|error| BrokerError::of_handshake(address, &error))?))
}

async fn log_in(broker: &Broker<'_>, address: &str, stream: BrokerStream) -> Result<Connection, BrokerError> {
    let slot = Mutex::new(Some(stream));
    // The library panics at names that are longer than AMQP's short strings.
    let name: String = broker.client.chars().filter(char::is_ascii).take(200).collect();
    Connection::connector(
        broker.uri()?,
        current_runtime(),
        async move |_, _| {
            let taken = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            taken.map(AsyncTcpStream::Plain).ok_or_else(|| AmqpError::from(made_beforehand()))
        },
        ConnectionProperties::default()
            .with_connection_name(name.into())
            .with_client_property("product".into(), "Crosstie".into())
            .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into()),
    )
    .await
    .map_err(|error| BrokerError::of_login(address, broker.tls.is_some(), error))
}

impl fmt::Debug for Broker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broker({})", self.address())
    }
}

impl fmt::Debug for BrokerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}
