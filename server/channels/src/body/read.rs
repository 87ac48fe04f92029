//! Reading a request body from its connection within size and time, and getting rid of one nobody wants.
//!
//! A body that arrives in one piece is passed on as it is, without a copy.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use crosstie_model::{Failure, FailureKind, Origin};
use http_body::Body;
use http_body_util::BodyExt;

use super::PatientBody;

/// An unwanted body up to this size is read and dropped, so that its connection can go on; a larger one ends
/// the connection after the reply.
const DISCARDED: u64 = 64 * 1024;
/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(1);
/// Most memory set aside on a Content-Length's word alone.
const TRUSTED_LENGTH: usize = 256 * 1024;

/// Reads a body of at most `limit` bytes in at most `patience`.
///
/// # Errors
/// 413 beyond the limit (at once when the Content-Length says so), 408 when it takes too long, 400 when it is
/// broken.
pub(crate) async fn read(body: PatientBody, limit: usize, patience: Duration) -> Result<Bytes, Failure> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if declared > limit {
        return Err(too_large(limit));
    }
    match tokio::time::timeout(patience, collect(body, declared, limit)).await {
        Ok(result) => result,
        Err(_) => Err(too_slow()),
    }
}

/// 413: a body is beyond its limit.
pub(crate) fn too_large(limit: usize) -> Failure {
    Failure::new(FailureKind::PayloadTooLarge, Origin::Client)
        .with_text(format!("The request body is larger than {limit} bytes"))
}

/// 408: a body takes too long.
pub(crate) fn too_slow() -> Failure {
    let mut failure = Failure::new(FailureKind::BadRequest, Origin::Client)
        .with_text("The request body did not arrive in time");
    failure.status = Some(408);
    failure.retryable = true;
    failure
}

/// 400: a body ended before its end, or is framed wrongly.
pub(crate) fn broken() -> Failure {
    Failure::new(FailureKind::BadRequest, Origin::Client).with_text("The request body is broken")
}

async fn collect(mut body: PatientBody, declared: usize, limit: usize) -> Result<Bytes, Failure> {
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    let mut length = 0usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| broken())?;
        // Trailers say nothing a service could use.
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length > limit {
            return Err(too_large(limit));
        }
        match &mut rest {
            Some(rest) => rest.extend_from_slice(&data),
            None if first.is_empty() => first = data,
            None => {
                let mut joined = BytesMut::with_capacity(declared.min(TRUSTED_LENGTH).max(length));
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&data);
                rest = Some(joined);
            }
        }
    }
    Ok(rest.map_or(first, BytesMut::freeze))
}

/// Gets rid of a body that the reply does not need; says whether the connection can carry another request.
pub(crate) async fn discard(mut body: PatientBody, expects_continue: bool) -> bool {
    if body.is_end_stream() || body.has_stream_of_its_own() {
        return true;
    }
    // A client that waits for "100 Continue" has not sent it yet and should not.
    let short = body.size_hint().exact().is_some_and(|length| length <= DISCARDED);
    if expects_continue || !short {
        return false;
    }
    let drain = async {
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(DISCARD_TIME, drain).await.unwrap_or(false)
}
