//! Bodies on their way out.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use crosstie_model::Failure;
use crosstie_model::outgoing::CallBody;
use http_body::{Body, Frame, SizeHint};

/// A stream of pieces that a caller makes.
pub(crate) type Pieces = Pin<Box<dyn Body<Data = Bytes, Error = Failure> + Send>>;

/// A request's body, as a connection takes it.
pub(crate) enum SendBody {
    /// None, or what there was is sent.
    Done,
    /// All of it.
    Full(Bytes),
    /// Pieces as they come.
    Pieces(Pieces),
}

impl From<CallBody> for SendBody {
    fn from(body: CallBody) -> Self {
        match body {
            CallBody::Empty => Self::Done,
            CallBody::Full(bytes) => Self::Full(bytes),
            CallBody::Stream(pieces) => Self::Pieces(pieces),
        }
    }
}

impl SendBody {
    /// All of it, where it is all there.
    pub(crate) fn whole(&self) -> Option<&Bytes> {
        match self {
            Self::Full(bytes) => Some(bytes),
            Self::Done | Self::Pieces(_) => None,
        }
    }

    /// The same body once more; `None` when it can be sent only once.
    pub(crate) fn again(&self) -> Option<Self> {
        match self {
            Self::Done => Some(Self::Done),
            Self::Full(bytes) => Some(Self::Full(bytes.clone())),
            Self::Pieces(_) => None,
        }
    }
}

impl Body for SendBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = self.get_mut();
        match this {
            Self::Done => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Done;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Pieces(pieces) => pieces.as_mut().poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Done => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Pieces(pieces) => pieces.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Done => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces(pieces) => pieces.size_hint(),
        }
    }
}
