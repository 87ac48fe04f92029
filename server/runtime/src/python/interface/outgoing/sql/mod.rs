//! `self.out.sql["NAME"]`.

mod arguments;
mod rows;
mod stream;
mod transaction;
mod values;

use std::sync::Arc;

use crosstie_model::outgoing::{
    FoundOutgoing, Outgoing, Refusal, SqlCall, SqlError, SqlOutgoing, SqlResult, SqlStream,
    SqlTransaction as ModelTransaction,
};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use self::arguments::Arguments;
use self::rows::Shape;
use self::stream::SqlRows;
use self::transaction::SqlTransaction;
use crate::python::context::Call;
use crate::python::{failure, host_call};

/// All databases, by name.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct SqlFamily {
    call: Arc<Call>,
}

impl SqlFamily {
    pub(crate) fn new(call: Arc<Call>) -> Self {
        Self { call }
    }

    fn find(&self, name: &str) -> Option<SqlConnection> {
        let found = super::find(&self.call, "sql", name)?;
        Some(SqlConnection { call: Arc::clone(&self.call), name: name.to_owned(), found })
    }
}

#[pymethods]
impl SqlFamily {
    fn __getitem__(&self, name: &str) -> PyResult<SqlConnection> {
        self.find(name).ok_or_else(|| super::missing("sql", name))
    }

    fn get(&self, name: &str) -> Option<SqlConnection> {
        self.find(name)
    }

    fn __contains__(&self, name: &str) -> bool {
        super::find(&self.call, "sql", name).is_some()
    }
}

/// What statements run on.
#[derive(Clone)]
enum Runner {
    /// A database: each statement for itself.
    Database(Arc<dyn SqlOutgoing>),
    /// A transaction.
    Transaction(Arc<dyn ModelTransaction>),
}

impl Runner {
    async fn run(&self, call: SqlCall) -> Result<SqlResult, SqlError> {
        match self {
            Self::Database(database) => database.run(call).await,
            Self::Transaction(transaction) => transaction.run(call).await,
        }
    }

    async fn stream(&self, call: SqlCall) -> Result<Arc<dyn SqlStream>, SqlError> {
        match self {
            Self::Database(database) => database.stream(call).await,
            Self::Transaction(transaction) => transaction.stream(call).await,
        }
    }
}

/// Runs a statement and gives its result in `shape`.
fn run<'py>(
    py: Python<'py>,
    call: &Arc<Call>,
    runner: Runner,
    arguments: Arguments,
    shape: Shape,
) -> PyResult<Bound<'py, PyAny>> {
    let statement = arguments.call(call);
    perform(py, call, async move { runner.run(statement).await }, move |py, result| shape.of(py, result))
}

/// Runs `operation`, which finds its way to where connections live by itself, and gives what `shown` makes of its
/// result.
fn perform<'py, T, F, S>(
    py: Python<'py>,
    call: &Arc<Call>,
    operation: F,
    shown: S,
) -> PyResult<Bound<'py, PyAny>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, SqlError>> + Send + 'static,
    S: for<'a> FnOnce(Python<'a>, T) -> PyResult<Bound<'a, PyAny>> + Send + 'static,
{
    host_call::run(py, call, operation, |py, done| match done {
        Ok(output) => shown(py, output),
        Err(error) => Err(raised(py, &error)),
    })
}

/// The exception for `error`.
fn raised(py: Python<'_>, error: &SqlError) -> PyErr {
    match &error.refusal {
        Some(refusal) => refused(py, refusal).unwrap_or_else(|error| error),
        None => failure::from_outgoing(py, &error.error),
    }
}

fn refused(py: Python<'_>, refusal: &Refusal) -> PyResult<PyErr> {
    let name = if refusal.reason.is_integrity() { "SqlIntegrityError" } else { "SqlError" };
    let exception = py.import("crosstie._sql")?.getattr(name)?.call0()?;
    exception.setattr(intern!(py, "reason"), refusal.reason.as_str())?;
    exception.setattr(intern!(py, "sqlstate"), refusal.sqlstate.as_deref())?;
    exception.setattr(intern!(py, "code"), refusal.code)?;
    exception.setattr(intern!(py, "constraint"), refusal.constraint.as_deref())?;
    exception.setattr(intern!(py, "detail"), refusal.message.as_str())?;
    Ok(PyErr::from_value(exception))
}

/// One database.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct SqlConnection {
    call: Arc<Call>,
    name: String,
    found: FoundOutgoing,
}

impl SqlConnection {
    /// The database behind this, if it is open.
    fn open(&self, py: Python<'_>) -> PyResult<Arc<dyn SqlOutgoing>> {
        match &self.found.state {
            Ok(Outgoing::Sql(database)) => Ok(Arc::clone(database)),
            Ok(_) => Err(super::missing("sql", &self.name)),
            Err(error) => Err(failure::from_outgoing(py, error)),
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
        let py = statement.py();
        let arguments = Arguments::read(statement, params, types, timeout)?;
        run(py, &self.call, Runner::Database(self.open(py)?), arguments, shape)
    }
}

#[pymethods]
impl SqlConnection {
    /// The same: what is called here is called there as well.
    #[getter]
    fn conn<'py>(this: Bound<'py, Self>) -> Bound<'py, Self> {
        this
    }

    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

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
        py: Python<'_>,
        statement: &Bound<'_, PyAny>,
        params: Option<&Bound<'_, PyAny>>,
        types: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<SqlRows> {
        let arguments = Arguments::read(statement, params, types, timeout)?;
        Ok(SqlRows::new(Arc::clone(&self.call), Runner::Database(self.open(py)?), arguments))
    }

    #[pyo3(signature = (*, isolation = None, read_only = false))]
    fn transaction(
        &self,
        py: Python<'_>,
        isolation: Option<&str>,
        read_only: bool,
    ) -> PyResult<SqlTransaction> {
        SqlTransaction::new(Arc::clone(&self.call), self.open(py)?, isolation, read_only)
    }

    fn session<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        if host_call::is_awaited(&this.get().call) {
            return Err(PyRuntimeError::new_err(
                "an asynchronous service uses `async with` and transaction()",
            ));
        }
        this.py()
            .import(intern!(this.py(), "crosstie._sql"))?
            .getattr(intern!(this.py(), "Session"))?
            .call1((this,))
    }

    #[pyo3(signature = (*_args))]
    fn ping<'py>(&self, py: Python<'py>, _args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        super::ping(py, &self.call, &self.found)
    }

    fn __repr__(&self) -> String {
        format!("<outgoing {} of type sql>", self.name)
    }
}
