//! OTLP/HTTP (OpenTelemetry protocol, "OTLP/HTTP"): POST requests over one kept connection.
//!
//! One connection is all a batch a second needs, so there is no pool: it is opened when there is something to
//! send and opened again when it broke. TLS comes as a ready configuration from whoever owns the trusted
//! authorities.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::uri::Scheme;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one attempt may take, connecting included (the protocol's default timeout).
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
const PROTOBUF: &str = "application/x-protobuf";

/// A collector's address, checked.
#[derive(Debug, Clone)]
pub struct Endpoint {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
}

/// Why a text is no collector's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It is no absolute http or https URL.
    #[error("{0:?} is not an http:// or https:// address")]
    Address(String),
    /// It holds a user name or password, which would end up in logs.
    #[error("a collector's address must not hold credentials")]
    Credentials,
    /// It is https and there is no TLS configuration.
    #[error("{0:?} needs TLS, and no trusted authorities could be read")]
    Tls(String),
}

impl Endpoint {
    /// Checks `[telemetry] otlp_endpoint`. `tls` is used for `https` alone.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn new(address: &str, tls: Option<Arc<ClientConfig>>) -> Result<Self, EndpointError> {
        let wrong = || EndpointError::Address(address.to_owned());
        if address.split('/').nth(2).is_some_and(|authority| authority.contains('@')) {
            return Err(EndpointError::Credentials);
        }
        let uri: Uri = address.parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(wrong()),
        };
        if secure && tls.is_none() {
            return Err(EndpointError::Tls(address.to_owned()));
        }
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { host, port, tls: tls.filter(|_| secure), uri })
    }
}

/// What a collector said to a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Spans it did not take.
    pub(super) rejected: u64,
    /// Why.
    pub(super) message: String,
}

/// Why a batch was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("the collector cannot be reached: {0}")]
    Connect(#[source] std::io::Error),
    #[error("the connection to the collector broke: {0}")]
    Http(#[source] hyper::Error),
    #[error("the request could not be made: {0}")]
    Request(#[source] http::Error),
    #[error("the collector's answer could not be read")]
    Answer,
    #[error("the collector answered {status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
    #[error("the collector did not answer in time")]
    Timeout,
}

impl SendError {
    /// Whether the same may succeed later ("OTLP/HTTP Response", "Retryable Response Codes").
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::Status { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            Self::Request(_) | Self::Answer => false,
            Self::Connect(_) | Self::Http(_) | Self::Timeout => true,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// A collector and the connection to it.
#[derive(Debug)]
pub(super) struct Collector {
    endpoint: Endpoint,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Collector {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, connection: None }
    }

    /// Sends one encoded request.
    pub(super) async fn send(&mut self, body: Bytes) -> Result<Sent, SendError> {
        let sent = tokio::time::timeout(TIMEOUT, self.exchange(body)).await;
        let sent = sent.unwrap_or(Err(SendError::Timeout));
        // After anything unexpected the state of the connection is unknown.
        if matches!(&sent, Err(error) if !matches!(error, SendError::Status { .. })) {
            self.connection = None;
        }
        sent
    }

    /// The kept connection, or a new one if the collector closed it meanwhile.
    async fn revive(
        &self,
        mut kept: SendRequest<Full<Bytes>>,
    ) -> Result<SendRequest<Full<Bytes>>, SendError> {
        if kept.ready().await.is_ok() { Ok(kept) } else { self.endpoint.connect().await }
    }

    async fn exchange(&mut self, body: Bytes) -> Result<Sent, SendError> {
        let path = self.endpoint.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.endpoint.uri.authority().map_or("", |authority| authority.as_str());
        let request = Request::post(path)
            .header(HOST, host)
            .header(CONTENT_TYPE, PROTOBUF)
            .header(ACCEPT, PROTOBUF)
            .header(USER_AGENT, concat!("crosstie/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(SendError::Request)?;
        let mut connection = match self.connection.take() {
            Some(kept) => self.revive(kept).await?,
            None => self.endpoint.connect().await?,
        };
        let response = connection.send_request(request).await.map_err(SendError::Http)?;
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let answer = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let answer = answer.map_err(|_| SendError::Answer)?.to_bytes();
        self.connection = Some(connection);
        if !status.is_success() {
            return Err(SendError::Status { status, retry_after });
        }
        // A collector may leave the body out or write something of its own; the status decides.
        let partial =
            ExportTraceServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
        Ok(partial.map_or_else(Sent::default, |partial| Sent {
            rejected: u64::try_from(partial.rejected_spans).unwrap_or(0),
            message: partial.error_message,
        }))
    }
}

impl Endpoint {
    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, SendError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(SendError::Connect)?;
        stream.set_nodelay(true).map_err(SendError::Connect)?;
        let Some(tls) = &self.tls else { return open(stream).await };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|error| SendError::Connect(std::io::Error::other(error)))?;
        let connector = TlsConnector::from(Arc::clone(tls));
        open(connector.connect(name, stream).await.map_err(SendError::Connect)?).await
    }
}

async fn open<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, SendError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(SendError::Http)?;
    // Ends when the sender is dropped or the peer closes; either is noticed at the next batch.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_before_anything_is_sent() {
        let plain = Endpoint::new("http://127.0.0.1:4318/v1/traces", None).unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("127.0.0.1", 4318));
        let v6 = Endpoint::new("http://[::1]/v1/traces", None).unwrap();
        assert_eq!((v6.host.as_str(), v6.port), ("::1", 80));
        for wrong in ["", "127.0.0.1:4318", "ftp://host/", "/v1/traces", "http://"] {
            assert!(matches!(Endpoint::new(wrong, None), Err(EndpointError::Address(_))), "{wrong}");
        }
        assert_eq!(Endpoint::new("http://u:p@host/", None).unwrap_err(), EndpointError::Credentials);
        assert!(matches!(Endpoint::new("https://host/", None), Err(EndpointError::Tls(_))));
    }
}
