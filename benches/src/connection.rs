//! Keep-alive connections that post JSON: plain ones, and such as the load balancer makes to its servers.
//!
//! The servers of a cluster let in nobody but a load balancer, and `wrk` cannot show a certificate. So what
//! asks servers directly does it over these connections, and whatever that is compared with does too.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use crosstie_model::secret::SecretValue;
use crosstie_security::tls::{self, ClientIdentity};
use crosstie_test_support::{Cluster, HANG};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

/// Where requests go in.
#[derive(Clone)]
pub(crate) struct Entrance {
    address: SocketAddr,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Entrance {
    /// Plain HTTP at `address`.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// Server `number` of a cluster itself, over TLS with the load balancer's certificate.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub(crate) fn of_server(cluster: &Cluster, number: u16) -> Result<Self> {
        let directory = cluster.root().join("lb/tls");
        let read = |name: &str| fs::read(directory.join(name)).with_context(|| format!("lb/tls/{name}"));
        let key = SecretValue::new(read("lb.key")?);
        let identity = ClientIdentity { chain_pem: &read("lb.pem")?, key_pem: &key };
        let config = tls::client_config(tls::roots(&read("ca.pem")?)?, Some(&identity), tls::ALPN_HTTP1)?;
        let name = ServerName::try_from(format!("server{number}"))?;
        Ok(Self { address: cluster.at(number - 1), tls: Some((config, name)) })
    }

    /// All servers of a cluster.
    ///
    /// # Errors
    /// As for [`Entrance::of_server`].
    pub(crate) fn of_servers(cluster: &Cluster) -> Result<Vec<Self>> {
        (1..=cluster.servers()).map(|number| Self::of_server(cluster, number)).collect()
    }

    /// Posts once on a connection of its own.
    ///
    /// # Errors
    /// As for [`Connection::open`] and [`Connection::post`].
    pub(crate) fn post(&self, path: &str, body: &str) -> Result<(u16, String)> {
        Connection::open(self)?.post(path, body)
    }
}

/// A connection's bytes, in plain text.
trait Stream: Read + Write + Send {}

impl Stream for TcpStream {}
impl Stream for StreamOwned<ClientConnection, TcpStream> {}

/// One keep-alive connection.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    /// The same socket.
    tcp: TcpStream,
    piece: Vec<u8>,
    /// What came of the answer so far.
    received: Vec<u8>,
}

impl Connection {
    /// Connects; the handshake, if there is one, is made with the first request.
    ///
    /// # Errors
    /// Nothing listens there.
    pub(crate) fn open(entrance: &Entrance) -> Result<Self> {
        let tcp = TcpStream::connect(entrance.address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(HANG))?;
        let own = tcp.try_clone()?;
        let stream: Box<dyn Stream> = match &entrance.tls {
            None => Box::new(tcp),
            Some((config, name)) => {
                Box::new(StreamOwned::new(ClientConnection::new(Arc::clone(config), name.clone())?, tcp))
            }
        };
        Ok(Self { stream, tcp: own, piece: vec![0; 16 * 1024], received: Vec::new() })
    }

    /// Whether reading waits for what has not come yet.
    ///
    /// # Errors
    /// The socket is gone.
    pub(crate) fn set_waiting(&self, waits: bool) -> Result<()> {
        Ok(self.tcp.set_nonblocking(!waits)?)
    }

    /// Posts `body` and gives status and answer.
    ///
    /// # Errors
    /// The connection broke, or the answer is no HTTP/1.1 response with a length.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> Result<(u16, String)> {
        self.send(path, body)?;
        self.answer()?.context("no answer within a minute")
    }

    /// Posts `body`; [`Connection::answer`] has the answer.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) fn send(&mut self, path: &str, body: &str) -> Result<()> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes())?;
        Ok(self.stream.flush()?)
    }

    /// Status and answer; `None` when it has not come as a whole and reading does not wait.
    ///
    /// # Errors
    /// The connection broke, or the answer is no HTTP/1.1 response with a length.
    pub(crate) fn answer(&mut self) -> Result<Option<(u16, String)>> {
        loop {
            let count = match self.stream.read(&mut self.piece) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                count => count?,
            };
            ensure!(count > 0, "the connection was closed");
            self.received.extend_from_slice(self.piece.get(..count).unwrap_or_default());
            if let Some(answer) = parse(&self.received)? {
                self.received.clear();
                return Ok(Some(answer));
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

fn parse(received: &[u8]) -> Result<Option<(u16, String)>> {
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(received.get(..end).unwrap_or_default()).to_ascii_lowercase();
    let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).context("no status")?;
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|value| value.trim().parse().ok())
        .context("no content-length")?;
    let body = received.get(end + 4..).unwrap_or_default();
    Ok((body.len() >= length)
        .then(|| (status, String::from_utf8_lossy(body.get(..length).unwrap_or_default()).into_owned())))
}
