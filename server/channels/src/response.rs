//! Response bodies: whole ones, which cost nothing beyond their bytes, and streams, which keep their exchange
//! to report its end.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame, SizeHint};

use crate::exchange::Exchange;
use crate::ports::STATUS_CALLER_GONE;

/// Why a streamed body ended before its end; the connection (HTTP/2: the stream) is cut.
pub(crate) type StreamError = Box<dyn std::error::Error + Send + Sync>;

/// Pieces of a body in order.
pub(crate) type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, StreamError>> + Send>>;

/// A body on its way out, before its exchange is closed.
pub(crate) enum Outgoing {
    /// All of it.
    Whole(Bytes),
    /// As it is made.
    Stream(Pieces),
}

impl Outgoing {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self::Whole(Bytes::new())
    }
}

/// The body type hyper sends.
pub(crate) struct ResponseBody(Kind);

enum Kind {
    Whole(Bytes),
    Stream(Box<Streaming>),
}

struct Streaming {
    pieces: Pieces,
    exchange: Option<Exchange>,
    status: u16,
    sent: u64,
}

impl Drop for Streaming {
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.finish(STATUS_CALLER_GONE, self.sent);
        }
    }
}

impl ResponseBody {
    /// Closes the exchange: at once for a whole body, with its last piece for a stream.
    pub(crate) fn close(exchange: Exchange, status: u16, body: Outgoing) -> Self {
        match body {
            Outgoing::Whole(bytes) => {
                exchange.finish(status, bytes.len() as u64);
                Self(Kind::Whole(bytes))
            }
            Outgoing::Stream(pieces) => {
                Self(Kind::Stream(Box::new(Streaming { pieces, exchange: Some(exchange), status, sent: 0 })))
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match &mut self.get_mut().0 {
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Stream(stream) => match stream.pieces.as_mut().poll_next(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Ok(piece))) => {
                    stream.sent += piece.len() as u64;
                    Poll::Ready(Some(Ok(Frame::data(piece))))
                }
                Poll::Ready(end) => {
                    if let Some(exchange) = stream.exchange.take() {
                        exchange.finish(stream.status, stream.sent);
                    }
                    Poll::Ready(end.map(|piece| piece.map(Frame::data)))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Stream(stream) => stream.exchange.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(_) => SizeHint::default(),
        }
    }
}
