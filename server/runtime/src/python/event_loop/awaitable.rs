//! Rust futures that coroutines await: polled on the loop's own thread, so a call from one asynchronous
//! service to another crosses no thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use pyo3::intern;
use pyo3::prelude::*;

use super::{Command, Shared};

/// Makes a finished future's output Python's.
type Resolution = Box<dyn for<'a> FnOnce(Python<'a>) -> PyResult<Bound<'a, PyAny>> + Send>;

type Pending = Pin<Box<dyn Future<Output = Resolution> + Send>>;

/// A future and the asyncio future that waits for it.
pub(super) struct Awaited {
    shared: Weak<Shared>,
    pending: Mutex<Option<Pending>>,
    promise: Py<PyAny>,
}

impl Wake for Awaited {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.shared.upgrade() {
            shared.push(Command::Poll(self));
        }
    }
}

/// Starts `future`; gives what a coroutine awaits.
pub(super) fn start<'py, F, S>(
    py: Python<'py>,
    shared: &Arc<Shared>,
    future: F,
    shown: S,
) -> PyResult<Bound<'py, PyAny>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    S: for<'a> FnOnce(Python<'a>, F::Output) -> PyResult<Bound<'a, PyAny>> + Send + 'static,
{
    let promise = shared.object(py)?.call_method0(intern!(py, "create_future"))?;
    let pending: Pending = Box::pin(async move {
        let output = future.await;
        let resolution: Resolution = Box::new(move |py| shown(py, output));
        resolution
    });
    let awaited = Arc::new(Awaited {
        shared: Arc::downgrade(shared),
        pending: Mutex::new(Some(pending)),
        promise: promise.clone().unbind(),
    });
    awaited.poll(py);
    if awaited.is_pending() {
        // A coroutine that is cancelled waits no more, and what it waited for should end as well.
        let forget = Bound::new(py, Forget(Arc::downgrade(&awaited)))?;
        promise.call_method1(intern!(py, "add_done_callback"), (forget,))?;
    }
    Ok(promise)
}

/// Ends a future when the asyncio future that waits for it is done. That is done only by its end or, earlier, by
/// a cancellation.
#[pyclass(frozen, module = "_crosstie")]
struct Forget(Weak<Awaited>);

#[pymethods]
impl Forget {
    fn __call__(&self, _promise: &Bound<'_, PyAny>) {
        if let Some(awaited) = self.0.upgrade() {
            drop(awaited.pending.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

impl Awaited {
    fn is_pending(&self) -> bool {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Polls the future, on the loop's thread.
    pub(super) fn poll(self: &Arc<Self>, py: Python<'_>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(future) = pending.as_mut() else { return };
        let waker = Waker::from(Arc::clone(self));
        let Poll::Ready(resolution) = future.as_mut().poll(&mut Context::from_waker(&waker)) else { return };
        *pending = None;
        drop(pending);
        if let Err(error) = self.resolve(py, resolution) {
            tracing::warn!(%error, "an awaited result could not be handed over");
        }
    }

    fn resolve(&self, py: Python<'_>, resolution: Resolution) -> PyResult<()> {
        let promise = self.promise.bind(py);
        if promise.call_method0(intern!(py, "done"))?.is_truthy()? {
            return Ok(());
        }
        match resolution(py) {
            Ok(value) => promise.call_method1(intern!(py, "set_result"), (value,))?,
            Err(error) => promise.call_method1(intern!(py, "set_exception"), (error.into_value(py),))?,
        };
        Ok(())
    }
}
