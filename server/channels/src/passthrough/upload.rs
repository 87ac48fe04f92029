//! A request's body on its way out: within its size, and never silent for too long.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use crosstie_model::Failure;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::body::PatientBody;
use crate::body::read::{broken, too_large, too_slow};

/// How far a body came. Shared with whoever has to know once it is on its way.
#[derive(Clone, Default)]
pub(super) struct Uploaded(Arc<Progress>);

#[derive(Default)]
struct Progress {
    bytes: AtomicU64,
    is_ended: AtomicBool,
}

impl Uploaded {
    /// It was read to its end.
    pub(super) fn end(&self) {
        self.0.is_ended.store(true, Ordering::Release);
    }

    pub(super) fn is_ended(&self) -> bool {
        self.0.is_ended.load(Ordering::Acquire)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Acquire)
    }
}

/// See the module.
pub(super) struct Upload {
    body: PatientBody,
    left: usize,
    limit: usize,
    patience: Duration,
    silence: Pin<Box<Sleep>>,
    progress: Uploaded,
}

impl Upload {
    /// The body, of at most `limit` bytes, each piece of which comes within `patience`.
    ///
    /// # Errors
    /// 413 when it says itself that it is larger.
    pub(super) fn new(
        body: PatientBody,
        limit: usize,
        patience: Duration,
        progress: Uploaded,
    ) -> Result<Self, Failure> {
        if usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX) > limit {
            return Err(too_large(limit));
        }
        let silence = Box::pin(tokio::time::sleep(patience));
        Ok(Self { body, left: limit, limit, patience, silence, progress })
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = self.get_mut();
        loop {
            let frame = match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(this.silence.as_mut().poll(context));
                    return Poll::Ready(Some(Err(too_slow())));
                }
            };
            let frame = match frame {
                None => {
                    this.progress.end();
                    return Poll::Ready(None);
                }
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return Poll::Ready(Some(Err(broken()))),
            };
            // Trailers are not handed on.
            let Ok(data) = frame.into_data() else { continue };
            let Some(left) = this.left.checked_sub(data.len()) else {
                return Poll::Ready(Some(Err(too_large(this.limit))));
            };
            this.left = left;
            this.progress.0.bytes.fetch_add(data.len() as u64, Ordering::AcqRel);
            if this.body.is_end_stream() {
                this.progress.end();
            } else {
                this.silence.as_mut().reset(Instant::now() + this.patience);
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
