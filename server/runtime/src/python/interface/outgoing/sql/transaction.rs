//! Transactions as context managers: left by an exception they are undone, else committed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crosstie_model::outgoing::{Access, Begin, Isolation, SqlOutgoing, SqlTransaction as ModelTransaction};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::arguments::Arguments;
use super::rows::Shape;
use super::stream::SqlRows;
use super::{Runner, perform, run};
use crate::python::context::Call;
use crate::python::host_call;

/// How long undoing what an exception left may take, past the call's deadline: the exception may be what tells
/// of that.
const ROLLBACK_LIMIT: Duration = Duration::from_secs(5);

/// A transaction, begun when its block is entered.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct SqlTransaction {
    call: Arc<Call>,
    database: Arc<dyn SqlOutgoing>,
    isolation: Option<Isolation>,
    access: Access,
    state: Arc<Mutex<State>>,
}

enum State {
    /// Not begun.
    New,
    /// Somebody waits for it to begin.
    Beginning,
    /// Under way.
    Open(Arc<dyn ModelTransaction>),
    /// Committed or undone.
    Ended,
}

impl SqlTransaction {
    /// One that is to be begun.
    ///
    /// # Errors
    /// The isolation is none.
    pub(super) fn new(
        call: Arc<Call>,
        database: Arc<dyn SqlOutgoing>,
        isolation: Option<&str>,
        read_only: bool,
    ) -> PyResult<Self> {
        let isolation =
            isolation.map(|word| match word.to_ascii_lowercase().replace(['_', '-'], " ").as_str() {
                "read committed" => Ok(Isolation::ReadCommitted),
                "repeatable read" => Ok(Isolation::RepeatableRead),
                "serializable" => Ok(Isolation::Serializable),
                other => Err(PyValueError::new_err(format!(
                    "{other:?} is no isolation; there are read committed, repeatable read and serializable"
                ))),
            });
        let access = if read_only { Access::Read } else { Access::Write };
        let state = Arc::new(Mutex::new(State::New));
        Ok(Self { call, database, isolation: isolation.transpose()?, access, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn open(&self) -> PyResult<Arc<dyn ModelTransaction>> {
        match &*self.state() {
            State::Open(transaction) => Ok(Arc::clone(transaction)),
            State::New | State::Beginning => {
                Err(PyRuntimeError::new_err("the transaction has not begun: use it in a `with` block"))
            }
            State::Ended => Err(PyRuntimeError::new_err("the transaction has ended")),
        }
    }

    /// Takes the transaction to end it; none if it has ended.
    fn take(&self) -> Option<Arc<dyn ModelTransaction>> {
        match std::mem::replace(&mut *self.state(), State::Ended) {
            State::Open(transaction) => Some(transaction),
            _ => None,
        }
    }

    fn run<'py>(
        &self,
        statement: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        types: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
        shape: Shape,
    ) -> PyResult<Bound<'py, PyAny>> {
        let arguments = Arguments::read(statement, params, types, timeout)?;
        run(statement.py(), &self.call, Runner::Transaction(self.open()?), arguments, shape)
    }

    /// Begins; gives the transaction.
    fn enter<'py>(this: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let (py, own) = (this.py(), this.get());
        match std::mem::replace(&mut *own.state(), State::Beginning) {
            State::New => {}
            before => {
                *own.state() = before;
                return Err(PyRuntimeError::new_err("a transaction begins once"));
            }
        }
        let (database, state, call) =
            (Arc::clone(&own.database), Arc::clone(&own.state), Arc::clone(&own.call));
        let begin = Begin {
            isolation: own.isolation,
            access: own.access,
            trace: own.call.message.trace,
            deadline: host_call::deadline(&own.call),
        };
        let beginning = async move {
            // Whoever fails, or does not wait, leaves one that has ended.
            let guard = Beginning(state);
            let transaction = database.begin(begin).await?;
            call.resources.add_transaction(Arc::downgrade(&transaction));
            guard.begun(transaction);
            Ok(())
        };
        let entered = this.clone().unbind();
        perform(py, &own.call, beginning, |py, ()| Ok(entered.into_bound(py).into_any()))
    }

    fn end<'py>(&self, py: Python<'py>, with: End) -> PyResult<Bound<'py, PyAny>> {
        let transaction = self.take();
        let deadline = match with {
            End::Commit => host_call::deadline(&self.call),
            End::Rollback | End::Undo => Instant::now() + ROLLBACK_LIMIT,
        };
        let Some(transaction) = transaction else {
            return host_call::run(py, &self.call, async {}, |py, ()| Ok(py.None().into_bound(py)));
        };
        let ending = async move {
            match with {
                End::Commit => transaction.commit(deadline).await,
                End::Rollback => transaction.rollback(deadline).await,
                End::Undo => {
                    // Whatever goes wrong with it: the exception under way says more.
                    let _ = transaction.rollback(deadline).await;
                    Ok(())
                }
            }
        };
        perform(py, &self.call, ending, |py, ()| Ok(py.None().into_bound(py)))
    }

    /// Ends it with its block.
    fn leave<'py>(&self, error: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        let py = error.py();
        let is_error = error.iter().next().is_some_and(|class| !class.is_none());
        if is_error && host_call::deadline(&self.call) <= Instant::now() {
            // The call is over: nobody has the time to wait.
            if let Some(transaction) = self.take() {
                transaction.abandon();
            }
        }
        self.end(py, if is_error { End::Undo } else { End::Commit })
    }
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Commit,
    Rollback,
    /// As [`End::Rollback`], in the wake of an exception.
    Undo,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Beginning(Arc<Mutex<State>>);

impl Beginning {
    fn begun(self, transaction: Arc<dyn ModelTransaction>) {
        *lock(&self.0) = State::Open(transaction);
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        if matches!(*state, State::Beginning) {
            *state = State::Ended;
        }
    }
}

#[pymethods]
impl SqlTransaction {
    #[pyo3(signature = (statement, params = None, *, types = None, timeout = None))]
    fn one<'py>(
        &self,
        statement: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        types: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(statement, params, types, timeout, Shape::One)
    }

    #[pyo3(signature = (statement, params = None, *, types = None, timeout = None))]
    fn one_or_none<'py>(
        &self,
        statement: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        types: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(statement, params, types, timeout, Shape::OneOrNone)
    }

    #[pyo3(signature = (statement, params = None, *, types = None, timeout = None))]
    fn all<'py>(
        &self,
        statement: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        types: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(statement, params, types, timeout, Shape::All)
    }

    #[pyo3(signature = (statement, params = None, *, types = None, timeout = None))]
    fn execute<'py>(
        &self,
        statement: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyAny>>,
        types: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.run(statement, params, types, timeout, Shape::All)
    }

    #[pyo3(signature = (statement, params = None, *, types = None, timeout = None))]
    fn stream(
        &self,
        statement: &Bound<'_, PyAny>,
        params: Option<&Bound<'_, PyAny>>,
        types: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<SqlRows> {
        let arguments = Arguments::read(statement, params, types, timeout)?;
        Ok(SqlRows::new(Arc::clone(&self.call), Runner::Transaction(self.open()?), arguments))
    }

    fn begin(this: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Self::enter(this)
    }

    fn commit<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.open()?;
        self.end(py, End::Commit)
    }

    fn rollback<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.end(py, End::Rollback)
    }

    fn __enter__(this: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        if host_call::is_awaited(&this.get().call) {
            return Err(PyRuntimeError::new_err("an asynchronous service uses `async with`"));
        }
        Self::enter(this)
    }

    #[pyo3(signature = (*error))]
    fn __exit__<'py>(&self, error: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        self.leave(error)
    }

    fn __aenter__(this: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        Self::enter(this)
    }

    #[pyo3(signature = (*error))]
    fn __aexit__<'py>(&self, error: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        self.leave(error)
    }
}
