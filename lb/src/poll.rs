//! Asking the servers who the members are.
//!
//! One connection to one server's management API, kept open and asked every half second with the tag of the
//! last answer, so that an unchanged list costs a few hundred bytes. When that server does not answer, the
//! next is asked: those of the settings and those learned. Both ends show certificates, and whoever answers
//! must hold a server's. Nothing an answer says is believed before [`member::parse`] has read it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crosstie_security::identity::{ComponentKind, Identity};
use http::header::{ETAG, HOST, IF_NONE_MATCH};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::member::{self, Member, MembersError};

/// How long a server may take to answer before the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest answer in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
/// Where the members are.
const PATH: &str = "/api/v1/members";

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// It cannot be reached.
    #[error("cannot be reached: {0}")]
    Connect(#[source] std::io::Error),
    /// It shows the certificate of something else.
    #[error("shows a certificate that is no server's")]
    NoServer,
    /// The connection broke.
    #[error("broke off: {0}")]
    Http(#[source] hyper::Error),
    /// It took too long.
    #[error("did not answer within {} s", PATIENCE.as_secs())]
    Timeout,
    /// It answered with an error.
    #[error("answered {0}")]
    Status(StatusCode),
    /// The answer is too long or broke off.
    #[error("sent an answer that cannot be read: {0}")]
    Body(String),
    /// The answer makes no sense.
    #[error(transparent)]
    Members(#[from] MembersError),
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The same as before.
    Unchanged,
    /// These.
    Members(Vec<Member>),
}

/// Asks one server after the other.
pub struct Poller {
    tls: Arc<ClientConfig>,
    /// Whom to ask; the first is asked now.
    servers: VecDeque<SocketAddr>,
    connection: Option<SendRequest<Empty<Bytes>>>,
    tag: Option<HeaderValue>,
}

impl Poller {
    /// A poller that shows the certificate of `tls` and has asked nobody yet.
    #[must_use]
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls, servers: VecDeque::new(), connection: None, tag: None }
    }

    /// Whom to ask from now on. The one asked last stays first if it is among them.
    pub fn know(&mut self, servers: impl IntoIterator<Item = SocketAddr>) {
        let mut known: VecDeque<SocketAddr> = VecDeque::new();
        for server in servers {
            if !known.contains(&server) {
                known.push_back(server);
            }
        }
        match self.servers.front().and_then(|first| known.iter().position(|server| server == first)) {
            Some(position) => known.rotate_left(position),
            None => self.connection = None,
        }
        self.servers = known;
    }

    /// Shows another certificate from now on.
    pub fn renew(&mut self, tls: Arc<ClientConfig>) {
        self.tls = tls;
        self.connection = None;
    }

    /// Whom the next question goes to.
    #[must_use]
    pub fn server(&self) -> Option<SocketAddr> {
        self.servers.front().copied()
    }

    /// How many servers may be asked.
    #[must_use]
    pub fn known(&self) -> usize {
        self.servers.len()
    }

    /// Asks one server; after a failure the next call asks the next one.
    ///
    /// # Errors
    /// It gave no answer that can be used.
    pub async fn ask(&mut self) -> Result<Answer, PollError> {
        let Some(server) = self.server() else { return Ok(Answer::Unchanged) };
        let answer = tokio::time::timeout(PATIENCE, self.ask_one(server)).await;
        let answer = answer.unwrap_or(Err(PollError::Timeout));
        if answer.is_err() {
            self.connection = None;
            self.tag = None;
            self.servers.rotate_left(1);
        }
        answer
    }

    async fn ask_one(&mut self, server: SocketAddr) -> Result<Answer, PollError> {
        let mut connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => self.connect(server).await?,
        };
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = http::Uri::from_static(PATH);
        let host = HeaderValue::from_str(&server.to_string()).unwrap_or(HeaderValue::from_static("server"));
        request.headers_mut().insert(HOST, host);
        if let Some(tag) = &self.tag {
            request.headers_mut().insert(IF_NONE_MATCH, tag.clone());
        }
        connection.ready().await.map_err(PollError::Http)?;
        let response = connection.send_request(request).await.map_err(PollError::Http)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| PollError::Body(error.to_string()))?.to_bytes();
        self.connection = Some(connection);
        match head.status {
            StatusCode::NOT_MODIFIED => Ok(Answer::Unchanged),
            StatusCode::OK => {
                let members = member::parse(&body)?;
                self.tag = head.headers.get(ETAG).cloned();
                Ok(Answer::Members(members))
            }
            other => Err(PollError::Status(other)),
        }
    }

    async fn connect(&self, server: SocketAddr) -> Result<SendRequest<Empty<Bytes>>, PollError> {
        let stream = TcpStream::connect(server).await.map_err(PollError::Connect)?;
        let name = ServerName::IpAddress(server.ip().into());
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, stream).await.map_err(PollError::Connect)?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let identity = certificate.and_then(|certificate| Identity::of(certificate).ok());
        if identity.is_none_or(|identity| identity.kind != ComponentKind::Server) {
            return Err(PollError::NoServer);
        }
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(PollError::Http)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a management API ended");
            }
        });
        Ok(sender)
    }
}

/// The pause before the next question: `interval`, a fifth of it more or less by chance, so that several
/// load balancers do not ask at the same time.
#[must_use]
pub fn pause(interval: Duration) -> Duration {
    let mut random = [0_u8; 2];
    // Without chance the pause is still right.
    let _ = getrandom::fill(&mut random);
    let part = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
    interval.mul_f64(0.8 + 0.4 * part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_security::tls;

    fn poller() -> Poller {
        let authority = crosstie_security::CertificateAuthority::create("test").unwrap();
        let roots = tls::roots(authority.certificate_pem().as_bytes()).unwrap();
        Poller::new(tls::client_config(roots, None, tls::ALPN_HTTP1).unwrap())
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn the_server_asked_last_stays_first() {
        let mut poller = poller();
        poller.know([address(1), address(2), address(2), address(3)]);
        assert_eq!(poller.servers, [address(1), address(2), address(3)]);
        poller.servers.rotate_left(1);
        poller.know([address(1), address(2), address(4)]);
        assert_eq!(poller.servers, [address(2), address(4), address(1)]);
    }

    #[test]
    fn pauses_differ_but_not_much() {
        for _ in 0..100 {
            let pause = pause(Duration::from_millis(500));
            assert!((Duration::from_millis(400)..=Duration::from_millis(600)).contains(&pause), "{pause:?}");
        }
    }

    #[tokio::test]
    async fn who_does_not_answer_is_asked_last_again() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut poller = poller();
        poller.know([closed, address(1)]);
        assert!(matches!(poller.ask().await, Err(PollError::Connect(_))));
        assert_eq!(poller.server(), Some(address(1)));
    }
}
