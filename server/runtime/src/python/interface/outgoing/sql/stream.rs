//! Rows that a service reads one after the other, while the database waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crosstie_model::outgoing::{Columns, SqlCall, SqlRow, SqlStream};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::arguments::Arguments;
use super::rows::{names_of, rows_of};
use super::{Runner, perform};
use crate::python::context::Call;
use crate::python::host_call;

/// The rows of one statement. Nothing is asked of the database before the first is wanted.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct SqlRows {
    call: Arc<Call>,
    state: Arc<Mutex<State>>,
    /// The piece that rows are given from.
    piece: Mutex<Option<Given>>,
}

/// A piece of which some rows were given.
struct Given {
    rows: Py<PyList>,
    next: usize,
}

enum State {
    /// Not begun.
    Waiting { runner: Runner, arguments: Arguments },
    /// Somebody waits for the next piece.
    Busy,
    /// Under way.
    Reading(Arc<dyn SqlStream>),
    /// Read to its end, or closed.
    Ended,
}

/// What is to be waited for.
enum Next {
    Begin(Runner, SqlCall),
    Read(Arc<dyn SqlStream>),
}

impl SqlRows {
    pub(super) fn new(call: Arc<Call>, runner: Runner, arguments: Arguments) -> Self {
        let state = Arc::new(Mutex::new(State::Waiting { runner, arguments }));
        Self { call, state, piece: Mutex::new(None) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn given(&self) -> MutexGuard<'_, Option<Given>> {
        self.piece.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next row of the piece at hand.
    fn at_hand<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mut given = self.given();
        let Some(piece) = given.as_mut() else { return Ok(None) };
        let rows = piece.rows.bind(py);
        if piece.next >= rows.len() {
            *given = None;
            return Ok(None);
        }
        let row = rows.get_item(piece.next)?;
        piece.next += 1;
        Ok(Some(row))
    }

    /// Gives what `shown` makes of the next piece: a list of rows, empty at the end.
    fn advance<'py, S>(&self, py: Python<'py>, shown: S) -> PyResult<Bound<'py, PyAny>>
    where
        S: for<'a> FnOnce(Python<'a>, Bound<'a, PyList>) -> PyResult<Bound<'a, PyAny>> + Send + 'static,
    {
        let next = match std::mem::replace(&mut *self.state(), State::Busy) {
            State::Waiting { runner, arguments } => Some(Next::Begin(runner, arguments.call(&self.call))),
            State::Reading(stream) => Some(Next::Read(stream)),
            State::Ended => {
                *self.state() = State::Ended;
                None
            }
            State::Busy => return Err(PyRuntimeError::new_err("the rows are being read already")),
        };
        let (state, deadline) = (Arc::clone(&self.state), host_call::deadline(&self.call));
        let call = Arc::clone(&self.call);
        let reading = async move {
            let guard = Reading { state, call };
            let stream = match next {
                None => return Ok((Columns::default(), Vec::new())),
                Some(Next::Read(stream)) => stream,
                Some(Next::Begin(runner, statement)) => {
                    let stream = runner.stream(statement).await?;
                    guard.call.resources.add_stream(Arc::downgrade(&stream));
                    stream
                }
            };
            let rows: Vec<SqlRow> = stream.next(deadline).await?;
            let columns = Arc::clone(stream.columns());
            guard.leave(if rows.is_empty() { State::Ended } else { State::Reading(stream) });
            Ok((columns, rows))
        };
        perform(py, &self.call, reading, |py, (columns, rows): (Columns, Vec<SqlRow>)| {
            let names = names_of(py, &columns);
            shown(py, rows_of(py, &names, rows)?)
        })
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Somebody reads. One who fails, or does not wait to the end, ends the stream.
struct Reading {
    state: Arc<Mutex<State>>,
    call: Arc<Call>,
}

impl Reading {
    fn leave(&self, next: State) {
        let mut state = lock(&self.state);
        if matches!(*state, State::Busy) {
            *state = next;
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.leave(State::Ended);
    }
}

#[pymethods]
impl SqlRows {
    fn __iter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __next__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, own) = (this.py(), this.get());
        if let Some(row) = own.at_hand(py)? {
            return Ok(row);
        }
        if host_call::is_awaited(&own.call) {
            return Err(PyRuntimeError::new_err("an asynchronous service reads rows with `async for`"));
        }
        let rows = own.advance(py, |_, rows| Ok(rows.into_any()))?.cast_into::<PyList>()?;
        *own.given() = Some(Given { rows: rows.unbind(), next: 0 });
        own.at_hand(py)?.ok_or_else(|| PyStopIteration::new_err(()))
    }

    fn __aiter__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = this.py();
        py.import(intern!(py, "_crosstie_runtime.outgoing"))?.call_method1(intern!(py, "rows_async"), (this,))
    }

    /// The next rows, a list; empty at the end.
    fn piece<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.advance(py, |_, rows| Ok(rows.into_any()))
    }

    /// Ends it; what was not read is cancelled at the database.
    fn close(&self) {
        *self.given() = None;
        let old = std::mem::replace(&mut *self.state(), State::Ended);
        if let State::Reading(stream) = old {
            stream.abandon();
        }
    }

    fn __enter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, _error: &Bound<'_, PyTuple>) {
        self.close();
    }

    fn __aenter__<'py>(this: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, call) = (this.py(), Arc::clone(&this.get().call));
        let this = this.unbind();
        host_call::run(py, &call, async move { this }, |py, this| Ok(this.into_bound(py).into_any()))
    }

    #[pyo3(signature = (*_error))]
    fn __aexit__<'py>(&self, py: Python<'py>, _error: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        self.close();
        host_call::run(py, &self.call, async {}, |py, ()| Ok(py.None().into_bound(py)))
    }
}

impl Drop for SqlRows {
    fn drop(&mut self) {
        self.close();
    }
}
