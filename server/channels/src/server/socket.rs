//! The byte stream of one connection as hyper reads and writes it: plain TCP or TLS, with the bytes that
//! were read to tell HTTP/1 from HTTP/2, accounts for the sweep, and a close that loses no reply.
//!
//! A socket closed while unread bytes wait is reset, and a reset takes away the reply the peer has not read
//! yet (RFC 9112, section 9.6). So a close shuts the sending side first and reads on, discarding, until the
//! peer closes too, falls silent, or has used up its time. That is what makes 413 and 431 arrive.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;

use super::tracking::ConnectionState;
use crate::body::{FAREWELL, SILENCE};

/// What carries the bytes.
pub(super) enum Stream {
    /// As they are.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    /// Reads some bytes into `buffer`.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(self.poll_read(cx, &mut buffer))?;
            Poll::Ready(Ok(buffer.filled().len()))
        })
        .await
    }
}

/// Where a close stands.
enum Closing {
    /// Not begun.
    Open,
    /// The sending side is shut; discarding what the peer still sends.
    Discarding { silence: Pin<Box<Sleep>>, end: Instant },
    /// Done.
    Closed,
}

/// A stream with its accounts.
pub(super) struct Socket {
    stream: Stream,
    prefix: Bytes,
    state: Arc<ConnectionState>,
    closing: Closing,
}

impl Socket {
    /// `prefix` is what was read from `stream` already.
    pub(super) fn new(stream: Stream, prefix: Bytes, state: Arc<ConnectionState>) -> Self {
        if !prefix.is_empty() {
            state.bytes_read();
        }
        Self { stream, prefix, state, closing: Closing::Open }
    }

    fn account_write(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => self.state.write_blocked(),
            Poll::Ready(_) => self.state.write_progressed(),
        }
    }

    /// Reads and drops what the peer sends; ready when it stopped or its time is over.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Closing::Discarding { silence, end } = &mut self.closing else { return Poll::Ready(()) };
        let mut scratch = [0u8; 4096];
        // Bounded, so that a fast sender cannot keep the reactor here.
        for _ in 0..64 {
            let mut buffer = ReadBuf::new(&mut scratch);
            match self.stream.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let next = (Instant::now() + SILENCE).min(*end);
                    silence.as_mut().reset(next);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return silence.as_mut().poll(cx),
            }
        }
        if silence.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.prefix.is_empty() {
            let taken = this.prefix.len().min(buffer.remaining());
            buffer.put_slice(this.prefix.get(..taken).unwrap_or_default());
            this.prefix.advance(taken);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(this.stream.poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            this.state.bytes_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        this.account_write(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        };
        this.account_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Closing::Open = this.closing {
            this.state.closing();
            let shut = match &mut this.stream {
                Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
                Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            };
            ready!(shut)?;
            let now = Instant::now();
            let silence = Box::pin(tokio::time::sleep_until(now + SILENCE));
            this.closing = Closing::Discarding { silence, end: now + FAREWELL };
        }
        ready!(this.poll_discard(cx));
        this.closing = Closing::Closed;
        Poll::Ready(Ok(()))
    }
}
