//! Work on messages that would hold up the reactor, done on a blocking thread.

use crosstie_model::{Failure, FailureKind, Origin};

/// Messages up to this size are worked on where they arrived: tens of microseconds, less than a thread switch and
/// back costs under load.
pub(crate) const INLINE_BYTES: usize = 64 * 1024;

/// Runs `work` on a blocking thread.
///
/// # Errors
/// 500 when that thread panicked.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Failure::new(FailureKind::Internal, Origin::Platform))
}

/// Runs `work` over a message of so many bytes: here, or on a blocking thread when it is a large one. Where the way
/// of small messages is to borrow what a thread would have to own, callers decide by [`INLINE_BYTES`] themselves.
///
/// # Errors
/// As for [`aside`].
pub(crate) async fn aside_if_large<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    if bytes <= INLINE_BYTES { Ok(work()) } else { aside(work).await }
}
