//! Response bodies: whole ones, which cost nothing beyond their bytes, and streams, which keep their exchange
//! to report its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use crosstie_model::Failure;
use crosstie_model::kept::PassingBody;
use crosstie_model::outgoing::{AnswerBody, OutgoingError, whole_answer};
use futures_util::Stream;
use http_body::{Body, Frame, SizeHint};

use crate::exchange::Exchange;
use crate::ports::STATUS_CALLER_GONE;
use crate::target::Permit;

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
    /// Another system's answer, as it comes.
    Passed(AnswerBody),
}

impl Outgoing {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self::Whole(Bytes::new())
    }

    /// All of it, once it is there; `None` for a stream of a service's own, which may have no end.
    ///
    /// # Errors
    /// Another system's answer breaks off, or is beyond its limits.
    pub(crate) async fn whole(self) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Whole(bytes) => Ok(Some(bytes)),
            Self::Passed(body) => Ok(Some(whole_answer(body).await?)),
            Self::Stream(_) => Ok(None),
        }
    }
}

/// The body type hyper sends.
pub(crate) struct ResponseBody(Kind);

enum Kind {
    Whole(Bytes),
    Stream(Box<Streaming>),
}

/// Where pieces come from.
enum Source {
    Pieces(Pieces),
    Answer(AnswerBody),
}

impl Source {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        match self {
            Self::Pieces(pieces) => pieces.as_mut().poll_next(cx),
            Self::Answer(body) => loop {
                match ready!(body.as_mut().poll_frame(cx)) {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => return Poll::Ready(Some(Err(Box::new(error)))),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => return Poll::Ready(Some(Ok(data))),
                        // Trailers are not handed back.
                        Err(_) => continue,
                    },
                }
            },
        }
    }

    /// Whether it is known that nothing follows. Whoever sends a body of a known size does not ask for more.
    fn is_over(&self) -> bool {
        match self {
            Self::Pieces(_) => false,
            Self::Answer(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Pieces(_) => SizeHint::default(),
            Self::Answer(body) => body.size_hint(),
        }
    }
}

/// An answer on its way through that keeps its places under limits until it has passed.
pub(crate) struct Held {
    pub(crate) body: AnswerBody,
    pub(crate) _permits: Vec<Permit>,
}

impl Body for Held {
    type Data = Bytes;
    type Error = OutgoingError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OutgoingError>>> {
        self.get_mut().body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Streaming {
    source: Source,
    exchange: Option<Exchange>,
    status: u16,
    sent: u64,
    /// What is kept of it for the message log.
    passing: Option<PassingBody>,
}

impl Streaming {
    fn finish(&mut self, status: u16, is_broken: bool) {
        if let Some(mut exchange) = self.exchange.take() {
            if let Some(passing) = self.passing.take() {
                exchange.keep_passed(passing.end(is_broken));
            }
            exchange.finish(status, self.sent);
        }
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.finish(STATUS_CALLER_GONE, true);
    }
}

impl ResponseBody {
    /// Closes the exchange: at once for a whole body, with its last piece for a stream, which goes through `passing`.
    pub(crate) fn close(
        exchange: Exchange,
        status: u16,
        body: Outgoing,
        passing: Option<PassingBody>,
    ) -> Self {
        match body {
            Outgoing::Whole(bytes) => {
                exchange.finish(status, bytes.len() as u64);
                Self(Kind::Whole(bytes))
            }
            Outgoing::Stream(pieces) => Self::stream(exchange, status, Source::Pieces(pieces), passing),
            Outgoing::Passed(body) => Self::stream(exchange, status, Source::Answer(body), passing),
        }
    }

    fn stream(exchange: Exchange, status: u16, source: Source, passing: Option<PassingBody>) -> Self {
        let exchange = Some(exchange);
        Self(Kind::Stream(Box::new(Streaming { source, exchange, status, sent: 0, passing })))
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
            Kind::Stream(stream) => match stream.source.poll_next(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Ok(piece))) => {
                    stream.sent += piece.len() as u64;
                    if let Some(passing) = &mut stream.passing {
                        passing.pass(&piece);
                    }
                    if stream.source.is_over() {
                        stream.finish(stream.status, false);
                    }
                    Poll::Ready(Some(Ok(Frame::data(piece))))
                }
                Poll::Ready(end) => {
                    stream.finish(stream.status, end.is_some());
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
            Kind::Stream(stream) => stream.source.size_hint(),
        }
    }
}
