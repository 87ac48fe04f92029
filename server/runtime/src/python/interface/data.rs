//! `self.data`: values that services share, in the ODB.

use std::sync::Arc;
use std::time::Duration;

use crosstie_model::ports::{DataEntry, DataError};
use crosstie_model::{Failure, FailureKind, Origin};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyList};
use serde_json::Value;
use tokio::task::JoinError;

use crate::python::codec;
use crate::python::context::Call;
use crate::python::{failure, host_call, json};

/// Most keys one listing gives.
const MAX_KEYS: usize = 10_000;

/// The data store, for one call.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct Data {
    call: Arc<Call>,
}

impl Data {
    pub(crate) fn new(call: Arc<Call>) -> Self {
        Self { call }
    }

    /// Runs `operation` where database connections live; `shown` makes its result Python's.
    fn run<'py, T, F, S>(&self, py: Python<'py>, operation: F, shown: S) -> PyResult<Bound<'py, PyAny>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DataError>> + Send + 'static,
        S: for<'a> FnOnce(Python<'a>, Result<T, DataError>) -> PyResult<Bound<'a, PyAny>> + Send + 'static,
    {
        let task = self.call.host.io.spawn(operation);
        host_call::run(py, &self.call, task, |py, done: Result<_, JoinError>| {
            shown(py, done.unwrap_or(Err(DataError::Unreachable)))
        })
    }
}

#[pymethods]
impl Data {
    #[pyo3(signature = (key, default = None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: String,
        default: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let store = Arc::clone(&self.call.host.data);
        self.run(py, async move { store.get(&key).await }, move |py, found| match found {
            Ok(Some(entry)) => json::to_python(py, &entry.value),
            Ok(None) => Ok(default.unwrap_or_else(|| py.None()).into_bound(py)),
            Err(error) => Err(raised(py, &error)),
        })
    }

    fn entry<'py>(&self, py: Python<'py>, key: String) -> PyResult<Bound<'py, PyAny>> {
        let store = Arc::clone(&self.call.host.data);
        self.run(py, async move { store.get(&key).await }, |py, found| match found {
            Ok(Some(DataEntry { value, version })) => {
                Ok((json::to_python(py, &value)?, version).into_pyobject(py)?.into_any())
            }
            Ok(None) => Ok(py.None().into_bound(py)),
            Err(error) => Err(raised(py, &error)),
        })
    }

    #[pyo3(signature = (key, value, *, ttl = None, expected = None))]
    fn set<'py>(
        &self,
        py: Python<'py>,
        key: String,
        value: &Bound<'py, PyAny>,
        ttl: Option<f64>,
        expected: Option<u64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (store, value, ttl) = (Arc::clone(&self.call.host.data), to_value(value)?, duration(ttl)?);
        self.run(py, async move { store.set(&key, &value, ttl, expected).await }, |py, set| match set {
            Ok(version) => Ok(PyInt::new(py, version).into_any()),
            Err(error) => Err(raised(py, &error)),
        })
    }

    #[pyo3(signature = (key, value, expected, *, ttl = None))]
    fn cas<'py>(
        &self,
        py: Python<'py>,
        key: String,
        value: &Bound<'py, PyAny>,
        expected: u64,
        ttl: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (store, value, ttl) = (Arc::clone(&self.call.host.data), to_value(value)?, duration(ttl)?);
        self.run(py, async move { store.set(&key, &value, ttl, Some(expected)).await }, |py, set| match set {
            Ok(_) => Ok(PyBool::new(py, true).to_owned().into_any()),
            Err(DataError::Conflict { .. }) => Ok(PyBool::new(py, false).to_owned().into_any()),
            Err(error) => Err(raised(py, &error)),
        })
    }

    fn delete<'py>(&self, py: Python<'py>, key: String) -> PyResult<Bound<'py, PyAny>> {
        let store = Arc::clone(&self.call.host.data);
        self.run(py, async move { store.delete(&key).await }, |py, deleted| match deleted {
            Ok(was_there) => Ok(PyBool::new(py, was_there).to_owned().into_any()),
            Err(error) => Err(raised(py, &error)),
        })
    }

    #[pyo3(signature = (prefix = String::new(), limit = 1000))]
    fn keys<'py>(&self, py: Python<'py>, prefix: String, limit: usize) -> PyResult<Bound<'py, PyAny>> {
        let (store, limit) = (Arc::clone(&self.call.host.data), limit.min(MAX_KEYS));
        self.run(py, async move { store.keys(&prefix, limit).await }, |py, keys| match keys {
            Ok(keys) => Ok(PyList::new(py, keys)?.into_any()),
            Err(error) => Err(raised(py, &error)),
        })
    }
}

fn to_value(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    let text = codec::to_vec(value, None).map_err(codec::EncodeError::into_exception)?;
    serde_json::from_slice(&text).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn duration(seconds: Option<f64>) -> PyResult<Option<Duration>> {
    let wrong = |_| PyValueError::new_err("ttl is a number of seconds greater than 0");
    let found = seconds.map(Duration::try_from_secs_f64).transpose().map_err(wrong)?;
    if found.is_some_and(|ttl| ttl.is_zero()) {
        return Err(PyValueError::new_err("ttl is a number of seconds greater than 0"));
    }
    Ok(found)
}

fn raised(py: Python<'_>, error: &DataError) -> PyErr {
    let kind = match error {
        DataError::Conflict { .. } => FailureKind::Conflict,
        DataError::Unreachable => FailureKind::Unavailable,
        DataError::Invalid(text) => return PyValueError::new_err(text.clone()),
    };
    failure::to_exception(py, &Failure::new(kind, Origin::Platform).with_text(error.to_string()))
}
