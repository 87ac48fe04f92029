//! A request's body that a service makes piece by piece.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use crosstie_model::Failure;
use http_body::{Body, Frame};
use tokio::sync::mpsc::Receiver;

/// What a service sends on its way.
pub(super) enum Piece {
    /// Some bytes.
    Bytes(Bytes),
    /// There will be no more.
    End,
}

/// The pieces as they come. Without an [`Piece::End`] it ends with a failure: half a body must not look whole.
pub(super) struct Pieces {
    receiver: Receiver<Piece>,
    is_ended: bool,
}

impl Pieces {
    pub(super) fn new(receiver: Receiver<Piece>) -> Self {
        Self { receiver, is_ended: false }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = self.get_mut();
        if this.is_ended {
            return Poll::Ready(None);
        }
        this.receiver.poll_recv(context).map(|piece| match piece {
            Some(Piece::Bytes(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Piece::End) => {
                this.is_ended = true;
                None
            }
            None => {
                this.is_ended = true;
                Some(Err(Failure::service()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended
    }
}
