//! One connection from accept to close: TLS handshake, telling HTTP/1 from HTTP/2, serving requests, obeying
//! the sweep's orders.
//!
//! hyper's graceful shutdown closes an idle HTTP/1 connection at once and so loses the request that is on its
//! way; here such a connection learns of the end by `Connection: close` in its next response and is closed
//! idle only after the linger. HTTP/2 can say it without a request (GOAWAY), and there hyper's way is right.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use crosstie_security::credentials::{ClientChain, reason_of};
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, server::conn::http1, server::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::RootCertStore;
use tokio::net::TcpStream;

use super::socket::{Socket, Stream};
use super::tracking::{ConnectionState, Order, Protocol};
use super::{Shared, Transport};
use crate::client_address::Neighbour;
use crate::handle::{HEAD_SLACK, Peer, handle};
use crate::response::ResponseBody;
use crate::routes::ConnectionLimits;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// hyper's own default, which `max_headers` need not repeat: repeating it costs an allocation per request.
const HYPER_MAX_HEADERS: u16 = 100;
/// How often an HTTP/2 peer with nothing to say is asked whether it is there, and how long it may take.
const H2_PING: Duration = Duration::from_secs(30);

/// Carries one accepted connection to its end.
pub(super) async fn carry(
    shared: Arc<Shared>,
    transport: Transport,
    stream: TcpStream,
    peer: SocketAddr,
    state: Arc<ConnectionState>,
) {
    let (limits, asked) = {
        let routes = shared.routes.load();
        (routes.limits(), routes.client_authorities().cloned())
    };
    if let Err(error) = converse(&shared, transport, asked, stream, peer, &state, limits).await {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn converse(
    shared: &Arc<Shared>,
    transport: Transport,
    asked: Option<Arc<RootCertStore>>,
    stream: TcpStream,
    peer: SocketAddr,
    state: &Arc<ConnectionState>,
    limits: ConnectionLimits,
) -> io::Result<()> {
    // Replies are written whole; waiting for more would only delay them.
    stream.set_nodelay(true)?;
    let secure = !matches!(transport, Transport::Plain);
    let neighbour = Neighbour::behind(&transport);
    let config = match transport {
        Transport::Plain => None,
        Transport::Tls(tls) => Some(tls.asking_for(asked.as_ref()).map_err(io::Error::other)?),
        Transport::LoadBalancer(config) => Some(config),
    };
    let mut certificate = None;
    let (mut stream, negotiated) = match config {
        None => (Stream::Plain(stream), None),
        Some(config) => {
            let handshake = tokio_rustls::TlsAcceptor::from(config).accept(stream);
            let stream = timed(limits.tls_handshake, handshake).await;
            let stream = stream.inspect_err(|error| tell_refusal(shared, peer, error))?;
            let session = stream.get_ref().1;
            // What a load balancer shows is its own.
            if neighbour == Neighbour::Anybody {
                certificate = session.peer_certificates().and_then(ClientChain::new);
            }
            let is_http2 = session.alpn_protocol() == Some(b"h2");
            let protocol = if is_http2 { Protocol::Http2 } else { Protocol::Http1 };
            (Stream::Tls(Box::new(stream)), Some(protocol))
        }
    };
    let (protocol, prefix) = match negotiated {
        Some(protocol) => (protocol, Bytes::new()),
        None => {
            let mut told = pin!(tell_protocol(&mut stream));
            let first = obey(state, |cx, order| match order {
                Order::Close | Order::Abort => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
                _ => told.as_mut().poll(cx),
            });
            timed(limits.header_timeout, first).await?
        }
    };
    state.speaks(protocol);
    let peer = Arc::new(Peer {
        routes: Arc::clone(&shared.routes),
        address: peer.ip().to_canonical(),
        secure,
        neighbour,
        certificate,
        state: Arc::clone(state),
    });
    let socket = TokioIo::new(Socket::new(stream, prefix, Arc::clone(state)));
    match protocol {
        Protocol::Http1 => serve_http1(socket, peer, limits).await,
        Protocol::Http2 => serve_http2(socket, peer, limits).await,
    }
    .map_err(io::Error::other)
}

/// Tells of a client whose certificate was refused: nobody else learns of it, as there is no request yet.
fn tell_refusal(shared: &Shared, peer: SocketAddr, error: &io::Error) {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(reason) = tls.and_then(reason_of) {
        let observer = Arc::clone(shared.routes.load().observer());
        observer.certificate_refused(peer.ip().to_canonical(), reason);
    }
}

async fn timed<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads until the first bytes are, or are not, HTTP/2's preface (RFC 9113, section 3.4).
async fn tell_protocol(stream: &mut Stream) -> io::Result<(Protocol, Bytes)> {
    let mut buffer = [0u8; H2_PREFACE.len()];
    let mut length = 0;
    loop {
        let read = stream.read(buffer.get_mut(length..).unwrap_or_default()).await?;
        length += read;
        let known = buffer.get(..length).unwrap_or_default();
        if known == H2_PREFACE {
            return Ok((Protocol::Http2, Bytes::copy_from_slice(known)));
        }
        if read == 0 || !H2_PREFACE.starts_with(known) {
            return Ok((Protocol::Http1, Bytes::copy_from_slice(known)));
        }
    }
}

async fn serve_http1(
    socket: TokioIo<Socket>,
    peer: Arc<Peer>,
    limits: ConnectionLimits,
) -> Result<(), hyper::Error> {
    let mut builder = http1::Builder::new();
    builder
        // The sweep does this for all connections with one timer.
        .header_read_timeout(None)
        // Heads above the limit get our own 431 or 414; hyper's ends what is larger still.
        .max_buf_size(limits.max_header_bytes.saturating_add(HEAD_SLACK).max(8192));
    if limits.max_headers > HYPER_MAX_HEADERS {
        builder.max_headers(usize::from(limits.max_headers));
    }
    let state = Arc::clone(&peer.state);
    let service = service_fn(move |request| answer(Arc::clone(&peer), request));
    let mut connection = pin!(builder.serve_connection(socket, service));
    let mut leaving = false;
    obey(&state, |cx, order| {
        if order == Order::Abort {
            return Poll::Ready(Ok(()));
        }
        if order == Order::Close && !leaving {
            leaving = true;
            connection.as_mut().graceful_shutdown();
        }
        match connection.as_mut().poll(cx) {
            // Half a head or a reply nobody takes is in the way of a proper end.
            Poll::Pending if leaving && !state.is_closing() => Poll::Ready(Ok(())),
            other => other,
        }
    })
    .await
}

async fn serve_http2(
    socket: TokioIo<Socket>,
    peer: Arc<Peer>,
    limits: ConnectionLimits,
) -> Result<(), hyper::Error> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(H2_PING)
        .max_concurrent_streams(limits.max_h2_streams)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX));
    let state = Arc::clone(&peer.state);
    let service = service_fn(move |request| answer(Arc::clone(&peer), request));
    let mut connection = pin!(builder.serve_connection(socket, service));
    let mut told = false;
    obey(&state, |cx, order| match order {
        Order::Close | Order::Abort => Poll::Ready(Ok(())),
        Order::Finish if !told => {
            told = true;
            connection.as_mut().graceful_shutdown();
            connection.as_mut().poll(cx)
        }
        _ => connection.as_mut().poll(cx),
    })
    .await
}

type Answer = hyper::Response<ResponseBody>;

/// Not asynchronous itself: some requests must be begun although nobody comes to wait for them.
fn answer(peer: Arc<Peer>, request: Request<Incoming>) -> impl Future<Output = Result<Answer, Infallible>> {
    handle(peer, request).map(Ok)
}

/// Polls a connection together with the order it is under. The waker is registered at the first poll only:
/// a task's waker stays the same.
async fn obey<T>(
    state: &ConnectionState,
    mut poll: impl FnMut(&mut std::task::Context<'_>, Order) -> Poll<T>,
) -> T {
    let mut registered = false;
    std::future::poll_fn(|cx| {
        let order = state.order((!registered).then(|| cx.waker()));
        registered = true;
        poll(cx, order)
    })
    .await
}
