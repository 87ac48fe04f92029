//! Calls from a service into the server: they wait on a handler thread, and are awaited on the event loop.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::context::Call;
use super::{failure, interpreter, pool};

/// What is waited for past a call's deadline: what is being waited for knows the deadline too and says more.
const GRACE: Duration = Duration::from_millis(200);

/// How long a thread that a service started may wait; its call's deadline may be long past.
const FOREIGN_LIMIT: Duration = Duration::from_secs(60);

/// Gives the result of `future` as `shown` makes it; in an asynchronous service an awaitable of it.
///
/// # Errors
/// What `shown` says; that the deadline passed; that this process is a fork without a server.
pub(crate) fn run<'py, F, S>(
    py: Python<'py>,
    call: &Arc<Call>,
    future: F,
    shown: S,
) -> PyResult<Bound<'py, PyAny>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    S: for<'a> FnOnce(Python<'a>, F::Output) -> PyResult<Bound<'a, PyAny>> + Send + 'static,
{
    if interpreter::is_forked() {
        return Err(PyRuntimeError::new_err("a forked process has no server to call"));
    }
    if call.service.description.is_async && call.host.events.is_this_thread() {
        return call.host.events.awaitable(py, future, shown);
    }
    let limit =
        if pool::is_handler() { call.message.deadline + GRACE } else { Instant::now() + FOREIGN_LIMIT };
    match pool::block_on(py, future, limit, || call.host.pool.about_to_block()) {
        Some(output) => shown(py, output),
        None => Err(PyErr::from_value(failure::deadline_exceeded(py).call0()?)),
    }
}
