//! Coroutines wrapped so that each resumption runs as part of its call: under its service's blame, its cid
//! and its deadline. The wrapper of a handler also makes the reply when the handler ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crosstie_model::{Failure, ReplyBody};
use pyo3::exceptions::PyStopIteration;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAnyMethods, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::{Purpose, Running, Shared};
use crate::python::context::{self, Call, run_user_code};
use crate::python::handler;
use crate::python::ticket::{Answer, Outcome};
use crate::python::{failure, stream};

/// What happens when the coroutine ends.
struct End {
    running: Arc<Running>,
    /// The service's instance, where the coroutine is its handler.
    service: Option<Py<PyAny>>,
}

/// A coroutine that belongs to a call.
#[pyclass(frozen, module = "_crosstie")]
pub(super) struct Step {
    shared: Arc<Shared>,
    call: Arc<Call>,
    coroutine: Mutex<Option<Py<PyAny>>>,
    end: Mutex<Option<End>>,
}

impl Step {
    /// Makes the coroutine that `running` is about.
    pub(super) fn begin<'py>(
        py: Python<'py>,
        shared: Arc<Shared>,
        running: Arc<Running>,
    ) -> PyResult<Bound<'py, Self>> {
        let calls = py.import(intern!(py, "_crosstie_runtime.calls"))?;
        let (coroutine, service) = match &running.purpose {
            Purpose::Handle => {
                let (coroutine, service) = handler::begin_async(py, &running.call)?;
                (coroutine, Some(service))
            }
            Purpose::Advance(generator) => {
                (calls.call_method1(intern!(py, "advanced"), (generator.bind(py),))?, None)
            }
            Purpose::Close(generator) => {
                (calls.call_method1(intern!(py, "closed"), (generator.bind(py),))?, None)
            }
        };
        let call = Arc::clone(&running.call);
        let end = End { running, service: service.map(Bound::unbind) };
        Bound::new(
            py,
            Self {
                shared,
                call,
                coroutine: Mutex::new(Some(coroutine.unbind())),
                end: Mutex::new(Some(end)),
            },
        )
    }

    fn coroutine<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let coroutine = self.coroutine.lock().unwrap_or_else(PoisonError::into_inner);
        match coroutine.as_ref() {
            Some(coroutine) => Ok(coroutine.bind(py).clone()),
            None => Err(PyStopIteration::new_err(())),
        }
    }

    /// Until when this resumption may take. What a handler left running in the background has no deadline
    /// of its own, but must not block the loop either.
    fn deadline(&self) -> Instant {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        match end.as_ref() {
            Some(end) => end.running.ticket.deadline,
            None => self.call.message.deadline.max(Instant::now() + self.shared.stuck_after),
        }
    }

    /// Resumes the coroutine by calling `method` of it.
    fn resume<'py>(
        &self,
        py: Python<'py>,
        method: &Bound<'py, pyo3::types::PyString>,
        arguments: Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let coroutine = self.coroutine(py)?;
        let resumed =
            run_user_code(py, &self.call, self.deadline(), || coroutine.call_method1(method, arguments));
        let error = match resumed {
            Ok(yielded) => return Ok(yielded),
            Err(error) => error,
        };
        self.coroutine.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(end) = self.end.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Err(error);
        };
        self.finish(py, &end, error)
    }

    /// The coroutine of a call ended; `error` says how.
    fn finish<'py>(&self, py: Python<'py>, end: &End, error: PyErr) -> PyResult<Bound<'py, PyAny>> {
        self.shared.running().remove(&end.running.number);
        let running = &end.running;
        if let Ok(stopped) = error.value(py).cast::<PyStopIteration>() {
            let result = stopped.getattr(intern!(py, "value"))?;
            let answer =
                run_user_code(py, &self.call, running.ticket.deadline, || answer_of(py, end, &result));
            let goes_on = match &answer {
                Ok(Outcome::Reply(reply)) => matches!(reply.body, ReplyBody::Stream(_)),
                Ok(Outcome::Piece(piece)) => piece.is_some(),
                Err(_) => false,
            };
            if !goes_on {
                self.call.resources.close();
            }
            running.ticket.answer(answer);
            return Err(PyStopIteration::new_err(()));
        }
        if let Some(service) = &end.service {
            handler::forget_response(py, service.bind(py));
        }
        self.call.resources.close();
        running.ticket.answer(Err(failure_of(py, running, &error)));
        // asyncio must see a cancellation through; anything else was answered and logged here.
        if is_cancellation(py, &error) { Err(error) } else { Err(PyStopIteration::new_err(())) }
    }
}

fn answer_of(py: Python<'_>, end: &End, result: &Bound<'_, PyAny>) -> Answer {
    let running = &end.running;
    let made = match &end.service {
        Some(service) => {
            handler::reply(py, &running.call, &running.unit, service.bind(py), result).map(Outcome::Reply)
        }
        None => stream::piece(result).map(Outcome::Piece),
    };
    made.map_err(|error| failure_of(py, running, &error))
}

/// What the caller is told of an error of the coroutine.
pub(super) fn failure_of(py: Python<'_>, running: &Running, error: &PyErr) -> Failure {
    if is_cancellation(py, error) && running.ticket.deadline <= Instant::now() {
        return Failure::timeout();
    }
    failure::from_exception(py, error, running.call.message.trace.cid, running.call.name())
}

fn is_cancellation(py: Python<'_>, error: &PyErr) -> bool {
    py.import(intern!(py, "asyncio"))
        .and_then(|asyncio| asyncio.getattr(intern!(py, "CancelledError")))
        .is_ok_and(|class| error.is_instance(py, &class))
}

#[pymethods]
impl Step {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.resume(py, intern!(py, "send"), PyTuple::new(py, [py.None()])?)
    }

    fn send<'py>(&self, py: Python<'py>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.resume(py, intern!(py, "send"), PyTuple::new(py, [value])?)
    }

    #[pyo3(signature = (*arguments))]
    fn throw<'py>(&self, py: Python<'py>, arguments: Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        self.resume(py, intern!(py, "throw"), arguments)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let coroutine = self.coroutine.lock().unwrap_or_else(PoisonError::into_inner).take();
        match coroutine {
            Some(coroutine) => coroutine.bind(py).call_method0(intern!(py, "close")).map(drop),
            None => Ok(()),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(coroutine) = self.coroutine.try_lock() {
            visit.call(&*coroutine)?;
        }
        if let Ok(end) = self.end.try_lock()
            && let Some(end) = &*end
        {
            visit.call(&end.service)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        self.coroutine.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Wraps the coroutine of every task that is made while a call is resumed.
#[pyclass(frozen, module = "_crosstie")]
pub(super) struct Stepper {
    shared: Arc<Shared>,
}

impl Stepper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[pymethods]
impl Stepper {
    fn __call__<'py>(&self, py: Python<'py>, coroutine: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let Some(call) = context::current() else { return Ok(coroutine) };
        if coroutine.cast::<Step>().is_ok() {
            return Ok(coroutine);
        }
        let step = Step {
            shared: Arc::clone(&self.shared),
            call,
            coroutine: Mutex::new(Some(coroutine.unbind())),
            end: Mutex::new(None),
        };
        Ok(Bound::new(py, step)?.into_any())
    }
}
