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

/// Whether what a host call gives is to be awaited: the service is asynchronous and on its loop.
pub(crate) fn is_awaited(call: &Call) -> bool {
    call.service.description.is_async && call.host.events.is_this_thread()
}

/// When what is called on behalf of `call` must be done: with what the thread works on now, which for the later
/// pieces of a reply is not the call any more. A thread that the service started has a minute from now.
pub(crate) fn deadline(call: &Call) -> Instant {
    if pool::is_handler() || is_awaited(call) {
        pool::current_deadline().unwrap_or(call.message.deadline)
    } else {
        Instant::now() + FOREIGN_LIMIT
    }
}

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
    if is_awaited(call) {
        return call.host.events.awaitable(py, future, shown);
    }
    match pool::block_on(py, future, deadline(call) + GRACE, || call.host.pool.about_to_block()) {
        Some(output) => shown(py, output),
        None => Err(PyErr::from_value(failure::deadline_exceeded(py).call0()?)),
    }
}
