//! A request body that is heard out over HTTP/2 although nobody wants it.
//!
//! A stream whose body is dropped half read is reset (RFC 9113, section 8.1). The response is whole by then
//! and a client must not discard it, but several that are still sending do: curl 7 and httpx report a broken
//! stream where 413 or 401 was sent. So the rest is read and dropped beside the response, for as long as a
//! closing HTTP/1 connection would be (see [`crate::server`]).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// How long a client that goes on sending what is not wanted may fall silent.
pub(crate) const SILENCE: Duration = Duration::from_secs(2);
/// How long it is listened to in all.
pub(crate) const FAREWELL: Duration = Duration::from_secs(30);

/// A request body. Dropped before its end on an HTTP/2 stream, its rest is read and dropped by a task of its
/// own, with no more memory than the stream's window.
#[derive(Debug)]
pub struct PatientBody {
    body: Option<Incoming>,
    has_streams: bool,
}

impl PatientBody {
    /// The body of a request of `version`.
    #[must_use]
    pub fn new(body: Incoming, version: Version) -> Self {
        Self { body: Some(body), has_streams: version == Version::HTTP_2 }
    }

    /// Whether the request has a stream of its own, so that nothing after it depends on its body.
    pub(crate) fn has_stream_of_its_own(&self) -> bool {
        self.has_streams
    }
}

impl Body for PatientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Incoming::size_hint).unwrap_or_default()
    }
}

impl Drop for PatientBody {
    fn drop(&mut self) {
        let rest = self.body.take().filter(|body| self.has_streams && !body.is_end_stream());
        // Outside of a runtime nothing is served any more.
        if let (Some(rest), Ok(runtime)) = (rest, tokio::runtime::Handle::try_current()) {
            runtime.spawn(hear_out(rest));
        }
    }
}

async fn hear_out(mut body: Incoming) {
    let rest = async { while let Ok(Some(Ok(_))) = tokio::time::timeout(SILENCE, body.frame()).await {} };
    let _ = tokio::time::timeout(FAREWELL, rest).await;
}
