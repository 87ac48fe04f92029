//! `self.out`: connections to other systems.
//!
//! A family is one file or folder beside this one and one getter of [`Out`]. Whatever its objects do runs
//! through [`run`]: on the reactor where connections live, cut off when its caller leaves.

mod amqp;
mod answer;
mod arguments;
mod body;
mod exchange;
mod http;
mod multipart;
mod soap;
mod sql;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crosstie_model::outgoing::{FoundOutgoing, OutgoingError, Ping, Pong, Trouble};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use tokio::task::JoinHandle;

use amqp::AmqpFamily;
pub(crate) use answer::HttpResponse;
pub(super) use arguments::bytes_of;
pub(crate) use http::HttpFamily;
pub(crate) use soap::SoapFamily;
use sql::SqlFamily;

use crate::python::context::Call;
use crate::python::{failure, host_call};

/// All connections, by family.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct Out {
    call: Arc<Call>,
}

impl Out {
    pub(crate) fn new(call: Arc<Call>) -> Self {
        Self { call }
    }
}

#[pymethods]
impl Out {
    #[getter]
    fn rest(&self) -> HttpFamily {
        HttpFamily::new(Arc::clone(&self.call), "rest")
    }

    #[getter]
    fn http(&self) -> HttpFamily {
        HttpFamily::new(Arc::clone(&self.call), "http")
    }

    #[getter]
    fn soap(&self) -> SoapFamily {
        SoapFamily::new(Arc::clone(&self.call))
    }

    #[getter]
    fn sql(&self) -> SqlFamily {
        SqlFamily::new(Arc::clone(&self.call))
    }

    #[getter]
    fn amqp(&self) -> AmqpFamily {
        AmqpFamily::new(Arc::clone(&self.call))
    }
}

/// The outgoing `name`, if there is one and it is of that type.
pub(super) fn find(call: &Call, type_name: &str, name: &str) -> Option<FoundOutgoing> {
    call.host.outgoing(name).filter(|found| found.type_name == type_name)
}

/// That there is no such outgoing.
pub(super) fn missing(type_name: &str, name: &str) -> PyErr {
    PyKeyError::new_err(format!("there is no outgoing of type {type_name} named {name:?}"))
}

/// Runs `operation` where connections live, and gives what `shown` makes of its result; in an asynchronous
/// service an awaitable of it. A caller that leaves ends it.
pub(super) fn run<'py, T, F, S>(
    py: Python<'py>,
    call: &Arc<Call>,
    operation: F,
    shown: S,
) -> PyResult<Bound<'py, PyAny>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, OutgoingError>> + Send + 'static,
    S: for<'a> FnOnce(Python<'a>, T) -> PyResult<Bound<'a, PyAny>> + Send + 'static,
{
    let task = Task::spawn(call, operation);
    host_call::run(py, call, task, |py, done| match done {
        Ok(output) => shown(py, output),
        Err(error) => Err(failure::from_outgoing(py, &error)),
    })
}

/// Asks for a sign of life; gives what it said.
pub(super) fn ping<'py>(
    py: Python<'py>,
    call: &Arc<Call>,
    found: &FoundOutgoing,
) -> PyResult<Bound<'py, PyAny>> {
    let ping = Ping { trace: call.message.trace, deadline: host_call::deadline(call) };
    let state = found.state.clone();
    run(py, call, async move { state?.ping(ping).await }, |py, pong: Pong| {
        Ok(pong.detail.into_pyobject(py)?.into_any())
    })
}

/// Work on the reactor where connections live. Dropping this ends it.
pub(super) struct Task<T>(JoinHandle<Result<T, OutgoingError>>);

impl<T: Send + 'static> Task<T> {
    /// Starts `operation`.
    pub(super) fn spawn(
        call: &Call,
        operation: impl Future<Output = Result<T, OutgoingError>> + Send + 'static,
    ) -> Self {
        Self(call.host.network.spawn(operation))
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, OutgoingError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|joined| {
            joined.unwrap_or_else(|_| Err(OutgoingError::new(Trouble::Broken, "the server stops")))
        })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
