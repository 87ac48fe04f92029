//! The byte stream under a connection: TCP or TLS over it, made here so that both ends are verified by the
//! server's own rules, and torn down at will. The library runs a connection on a thread of its own that only
//! an error of its stream ends for sure; a broker that accepts and then says nothing would otherwise keep
//! that thread and its socket for ever.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream as Sequence;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// TCP, or TLS over it.
pub(crate) trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection's bytes, until its token is cancelled.
pub(crate) struct BrokerStream {
    inner: Compat<Box<dyn Duplex>>,
    token: CancellationToken,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl BrokerStream {
    /// `inner`, which fails once `token` is cancelled.
    pub(crate) fn new(inner: Box<dyn Duplex>, token: CancellationToken) -> Self {
        let cancelled = Box::pin(token.clone().cancelled_owned());
        Self { inner: inner.compat(), token, cancelled }
    }

    /// Whether the token is cancelled; the task is woken when it is. Only the reading side asks: it waits as
    /// long as the connection lives.
    fn poll_cancelled(&mut self, context: &mut Context<'_>) -> bool {
        self.cancelled.as_mut().poll(context).is_ready()
    }
}

fn torn_down() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was given up")
}

impl AsyncRead for BrokerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.poll_cancelled(context) {
            return Poll::Ready(Err(torn_down()));
        }
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for BrokerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.token.is_cancelled() {
            return Poll::Ready(Err(torn_down()));
        }
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.token.is_cancelled() {
            return Poll::Ready(Err(torn_down()));
        }
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.poll_cancelled(context) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_close(context)
    }
}

/// The runtime the library is given: this thread's, with [`BrokerStream`] as its connections.
pub(crate) type BrokerRuntime = async_rs::Runtime<RuntimeParts<Tokio, BrokerReactor>>;

/// The runtime of the caller, which must be within one.
pub(crate) fn current_runtime() -> BrokerRuntime {
    async_rs::Runtime::new(RuntimeParts::new(Tokio::current(), BrokerReactor(Tokio::current())))
}

/// Tokio's timers; connections are made beforehand.
#[derive(Debug, Clone)]
pub(crate) struct BrokerReactor(Tokio);

impl Reactor for BrokerReactor {
    type TcpStream = BrokerStream;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: io::Read + io::Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<BrokerStream, _>(made_beforehand())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Sequence<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        _address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(made_beforehand()))
    }
}

/// A second connection over the same stream is never asked for: recovery is this crate's.
pub(crate) fn made_beforehand() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "connections to the broker are made beforehand")
}
