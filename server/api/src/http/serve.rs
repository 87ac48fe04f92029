//! Serving the API over TLS on the inherited management socket, as long as this worker is the singleton.
//!
//! Handshakes run beside the accept loop, each with its own time limit; a full table of file descriptors is
//! survived. The number of connections is bounded: management is not traffic.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use crosstie_channels::body::PatientBody;
use crosstie_security::identity::Identity;
use crosstie_security::revoked::serial_of;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tower::Service as _;

use super::gate::Peer;
use super::router;
use crate::operations::Operations;

/// Most connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// How long a TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long a request's head may take, and an idle connection stay.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// Largest request head, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Most concurrent HTTP/2 streams of one connection.
const MAX_STREAMS: u32 = 32;
/// How long requests in hand may take once the server stops serving.
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// How long to pause when accepting fails for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is served, and where.
pub struct ServeOptions {
    /// The listening socket, bound by the supervisor.
    pub listener: std::net::TcpListener,
    /// TLS with the server's certificate that asks for (and does not insist on) client certificates of the
    /// environment's CA. Whoever shows one is taken for a component.
    pub tls: Arc<ServerConfig>,
    /// What the API does.
    pub operations: Operations,
}

/// Serves the API until `shutdown`, then finishes the requests in hand.
///
/// # Errors
/// The socket cannot be used; nothing is served then.
pub async fn serve(options: ServeOptions, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
    let ServeOptions { listener, tls, operations } = options;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let router = router(operations).map_err(io::Error::other)?;
    let acceptor = TlsAcceptor::from(tls);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        let Some((stream, address, permit)) = accepted else { continue };
        let connection = connection(acceptor.clone(), stream, address, router.clone(), stopping.clone());
        connections.spawn(async move {
            connection.await;
            drop(permit);
        });
    }
    drop(listener);
    // Nobody listens only when there is no connection left to tell.
    let _ = stop.send(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIME, drained).await.is_err() {
        tracing::warn!("management calls were cut off");
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => Some((stream, address, permit)),
        Err(error) => {
            tracing::warn!(%error, "a management connection could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn connection(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    // Small answers must not wait for each other's acknowledgement; without the option they only do.
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(stream));
    let stream = match handshake.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "a management connection failed its handshake");
            return;
        }
        Err(_) => return,
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let identity = certificate.and_then(|certificate| match Identity::of(certificate) {
        Ok(identity) => Some(identity),
        Err(error) => {
            tracing::warn!(%address, %error, "a client certificate names nobody");
            None
        }
    });
    let serial = certificate.and_then(|certificate| serial_of(certificate));
    let peer = Peer { address: address.ip(), identity, serial };
    let service = service_fn(move |request: Request<Incoming>| {
        let (mut router, peer) = (router.clone(), peer.clone());
        async move {
            let version = request.version();
            let mut request = request.map(|body| Body::new(PatientBody::new(body, version)));
            request.extensions_mut().insert(peer);
            router.call(request).await
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .keep_alive_interval(HEAD_TIME);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let stopped = async {
        // An error says that the server is gone, which comes to the same.
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, error = %error, "a management connection ended early");
    }
}
