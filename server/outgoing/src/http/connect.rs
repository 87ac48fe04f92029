//! Making connections: TCP, a proxy's tunnel, TLS, and the version of HTTP that comes of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crosstie_model::definition::HttpVersions;
use crosstie_model::outgoing::{OutgoingError, Trouble};
use crosstie_telemetry::metrics::OutgoingMetrics;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::HeaderValue;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::body::SendBody;
use super::origin::Origin;

/// After how long the next address of a host is tried beside the last one (RFC 8305, section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// Most addresses of a host that are tried.
const MAX_ADDRESSES: usize = 16;
/// Largest head of a proxy's answer.
const MAX_PROXY_HEAD: usize = 16 * 1024;
/// A connection with calls under way that shows no sign of life for so long is asked for one.
const PROBE_AFTER: Duration = Duration::from_secs(10);

/// Makes connections to one origin.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    pub(crate) origin: Origin,
    pub(crate) tls: Option<Tls>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) versions: HttpVersions,
    /// How long one connection may take.
    pub(crate) deadline: Duration,
}

/// TLS to one name.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: ServerName<'static>,
}

/// A proxy on the way.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    pub(crate) origin: Origin,
    /// The Proxy-Authorization field.
    pub(crate) authorization: Option<HeaderValue>,
}

/// A new connection, ready for its first request.
pub(crate) enum Fresh {
    /// For one request at a time.
    Http1(http1::SendRequest<SendBody>),
    /// For many.
    Http2(http2::SendRequest<SendBody>),
}

/// Why there is no connection.
pub(crate) type ConnectError = OutgoingError;

impl Connector {
    /// A connection, driven by a task of the current reactor until its last handle is gone.
    pub(crate) async fn connect(&self, metrics: &OutgoingMetrics) -> Result<Fresh, ConnectError> {
        let made = match tokio::time::timeout(self.deadline, self.make(metrics)).await {
            Ok(made) => made,
            Err(_) => {
                let limit = self.deadline.as_millis();
                Err(OutgoingError::new(
                    Trouble::Deadline,
                    format!("no connection to {} within {limit} ms", self.origin),
                ))
            }
        };
        if made.is_err() {
            metrics.connection_failed();
        }
        made
    }

    async fn make(&self, metrics: &OutgoingMetrics) -> Result<Fresh, ConnectError> {
        let stream = self.reach().await?;
        let Some(tls) = &self.tls else {
            let speaks_http2 = self.versions == HttpVersions::Http2;
            return self.handshake(stream, speaks_http2, metrics).await;
        };
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        let stream = connector
            .connect(tls.name.clone(), stream)
            .await
            .map_err(|error| OutgoingError::new(Trouble::Tls, format!("TLS to {}: {error}", self.origin)))?;
        let chosen = stream.get_ref().1.alpn_protocol();
        let speaks_http2 = match self.versions {
            HttpVersions::Auto => chosen == Some(b"h2"),
            HttpVersions::Http1 => false,
            HttpVersions::Http2 => true,
        };
        self.handshake(stream, speaks_http2, metrics).await
    }

    async fn handshake<S>(
        &self,
        stream: S,
        speaks_http2: bool,
        metrics: &OutgoingMetrics,
    ) -> Result<Fresh, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let failed = |error: hyper::Error| {
            OutgoingError::new(Trouble::Protocol, format!("HTTP with {}: {error}", self.origin))
        };
        let io = TokioIo::new(stream);
        if speaks_http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PROBE_AFTER)
                .keep_alive_timeout(PROBE_AFTER)
                .adaptive_window(true)
                .handshake(io)
                .await
                .map_err(failed)?;
            drive(connection, metrics);
            return Ok(Fresh::Http2(sender));
        }
        let (sender, connection) = http1::handshake(io).await.map_err(failed)?;
        drive(connection, metrics);
        Ok(Fresh::Http1(sender))
    }

    /// What a proxy that takes the requests themselves wants to see in each.
    pub(crate) fn forwarding_authorization(&self) -> Option<&HeaderValue> {
        self.proxy.as_ref().filter(|_| !self.origin.is_tls())?.authorization.as_ref()
    }

    /// Bytes that reach the origin, through the proxy where there is one. A proxy is asked for a tunnel to
    /// an encrypted origin; for a plain one it takes the requests themselves.
    async fn reach(&self) -> Result<TcpStream, ConnectError> {
        let Some(proxy) = &self.proxy else { return tcp(&self.origin).await };
        let mut stream = tcp(&proxy.origin).await?;
        if self.origin.is_tls() {
            tunnel(&mut stream, proxy, &self.origin).await?;
        }
        Ok(stream)
    }
}

fn drive<C>(connection: C, metrics: &OutgoingMetrics)
where
    C: Future<Output = Result<(), hyper::Error>> + Send + 'static,
{
    let open = metrics.connected();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of an outgoing ended");
        }
        drop(open);
    });
}

/// Connects to the first address that answers; IPv6 and IPv4 take turns (RFC 8305).
async fn tcp(origin: &Origin) -> Result<TcpStream, ConnectError> {
    let failed = |error: &io::Error| OutgoingError::new(Trouble::Connect, format!("{origin}: {error}"));
    let found = tokio::net::lookup_host((origin.host.as_str(), origin.port)).await;
    let mut addresses = in_turns(found.map_err(|error| failed(&error))?).into_iter();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    let mut running = FuturesUnordered::new();
    loop {
        running.extend(addresses.next().map(TcpStream::connect));
        let connected = if addresses.len() == 0 {
            running.next().await
        } else {
            // Nobody answered yet: the next address is tried beside those.
            let Ok(connected) = tokio::time::timeout(NEXT_ADDRESS, running.next()).await else { continue };
            connected
        };
        match connected {
            Some(Ok(stream)) => {
                // Requests are written whole; waiting for more of them to fill a packet only delays.
                stream.set_nodelay(true).map_err(|error| failed(&error))?;
                return Ok(stream);
            }
            Some(Err(error)) => last = error,
            None => return Err(failed(&last)),
        }
    }
}

/// The addresses of a host, families by turns, the resolver's first choice first.
fn in_turns(found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let found: Vec<_> = found.take(MAX_ADDRESSES).collect();
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::new();
    loop {
        let before = ordered.len();
        ordered.extend(first.next());
        ordered.extend(second.next());
        if ordered.len() == before {
            return ordered;
        }
    }
}

/// Asks a proxy for a tunnel (RFC 9110, section 9.3.6).
async fn tunnel(stream: &mut TcpStream, proxy: &Proxy, origin: &Origin) -> Result<(), ConnectError> {
    let failed = |detail: String| {
        OutgoingError::new(Trouble::Proxy, format!("proxy {}: {detail}", proxy.origin.authority))
    };
    let target = format!("{}:{}", origin.authority.host(), origin.port);
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.map_err(|error| failed(error.to_string()))?;
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > MAX_PROXY_HEAD {
            return Err(failed("its answer has no end".to_owned()));
        }
        // Byte by byte: what comes after the head belongs to the tunnel. Once per connection.
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    let status =
        head.get(..12).filter(|start| start.starts_with(b"HTTP/1.")).and_then(|start| start.get(9..));
    match status {
        Some([b'2', _, _]) => Ok(()),
        Some(status) => Err(failed(format!("answered {}", String::from_utf8_lossy(status)))),
        None => Err(failed("does not speak HTTP".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_take_turns() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let found = ["[::1]:1", "[::2]:1", "127.0.0.1:1", "[::3]:1"].map(address);
        let ordered: Vec<_> = in_turns(found.into_iter()).iter().map(ToString::to_string).collect();
        assert_eq!(ordered, ["[::1]:1", "127.0.0.1:1", "[::2]:1", "[::3]:1"]);
        assert!(in_turns(std::iter::empty()).is_empty());
    }
}
