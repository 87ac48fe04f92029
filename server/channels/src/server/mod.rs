//! The HTTP side of one worker: accept loops on inherited listeners, connections, draining.
//!
//! Everything runs on the tokio runtime that [`HttpServer::listen`] is called in, one task per connection.
//! Life: serving → [`HttpServer::drain`] → [`HttpServer::drained`]. A draining server accepts nothing, says
//! `Connection: close` (HTTP/2: GOAWAY) with its next responses, and closes idle connections only after the
//! linger, those of a load balancer never: it closes them itself.

mod accept;
mod connection;
mod socket;
mod tracking;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crosstie_security::tls::ListenerTls;
use tokio::sync::Notify;

use crate::ports::ConnectionShare;
use crate::routes::Routes;
use crate::staged::Staged;
pub(crate) use tracking::{ConnectionState, Purpose};
use tracking::{Connections, Patience};

/// How a listener's connections are protected.
#[derive(Clone)]
pub enum Transport {
    /// Plain TCP: HTTP/1.1, and HTTP/2 with prior knowledge.
    Plain,
    /// TLS; HTTP/2 when the configuration offers `h2` by ALPN and the client takes it. The server's certificate
    /// is replaced by the configuration's own resolver, so open connections notice nothing. Clients are asked
    /// for a certificate while a channel wants one.
    Tls(Arc<ListenerTls>),
    /// TLS whose configuration lets in holders of a load balancer's certificate alone. What they say of
    /// clients is believed.
    LoadBalancer(Arc<rustls::ServerConfig>),
}

/// What a server is made of.
pub struct HttpServerOptions {
    /// The routes. Each request loads them once and keeps the channel it found to its end; each connection
    /// takes its limits from them when it is accepted.
    pub routes: Arc<Staged<Routes>>,
    /// This worker's part of the connections.
    pub share: Arc<dyn ConnectionShare>,
    /// How long idle connections stay open once draining began (`drain_linger_s`); those of load balancers
    /// until the other end closes them.
    pub drain_linger: Duration,
}

/// The HTTP side of one worker. Cheap to clone; clones are the same server.
#[derive(Clone)]
pub struct HttpServer {
    shared: Arc<Shared>,
}

/// What accept loops, connections and the sweep share.
struct Shared {
    routes: Arc<Staged<Routes>>,
    share: Arc<dyn ConnectionShare>,
    connections: Arc<Connections>,
    linger: Duration,
    /// Told when draining begins, for the accept loops.
    stop: Notify,
    sweeping: AtomicBool,
}

impl Shared {
    fn patience(&self) -> Patience {
        let limits = self.routes.load().limits();
        Patience { idle: limits.header_timeout, stalled: limits.body_timeout, linger: self.linger }
    }
}

impl HttpServer {
    /// A server that listens nowhere yet.
    #[must_use]
    pub fn new(options: HttpServerOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                routes: options.routes,
                connections: Connections::new(Arc::clone(&options.share)),
                share: options.share,
                linger: options.drain_linger,
                stop: Notify::new(),
                sweeping: AtomicBool::new(false),
            }),
        }
    }

    /// Starts accepting on an inherited listener. Call it inside a tokio runtime, whose reactor then
    /// carries the traffic.
    ///
    /// # Errors
    /// The listener cannot be registered with the reactor.
    pub fn listen(&self, listener: TcpListener, transport: Transport) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        if !self.shared.sweeping.swap(true, Ordering::Relaxed) {
            tokio::spawn(sweep(Arc::downgrade(&self.shared)));
        }
        tokio::spawn(accept::accept(Arc::clone(&self.shared), listener, transport));
        Ok(())
    }

    /// Stops accepting and starts to drain. More calls change nothing.
    pub fn drain(&self) {
        if self.shared.connections.start_draining() {
            self.shared.stop.notify_waiters();
            self.shared.connections.sweep(&self.shared.patience());
        }
    }

    /// Waits until the last connection is gone. Unless draining began, more may come.
    pub async fn drained(&self) {
        loop {
            let ended = self.shared.connections.ended.notified();
            if self.shared.connections.open() == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Closes every connection at once, whatever it carries: for a drain whose deadline passed.
    pub fn abort(&self) {
        self.drain();
        self.shared.connections.abort_all();
    }

    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.open()
    }

    /// Requests being served.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.connections.in_flight()
    }
}

/// Sweeps for as long as the server exists and anything can be open.
async fn sweep(server: std::sync::Weak<Shared>) {
    loop {
        let Some(shared) = server.upgrade() else { return };
        let patience = shared.patience();
        shared.connections.sweep(&patience);
        let done = shared.connections.is_draining() && shared.connections.open() == 0;
        drop(shared);
        if done {
            return;
        }
        tokio::time::sleep(patience.tick()).await;
    }
}
