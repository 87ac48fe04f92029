//! `self.dictionary`: lookup tables that are definitions, read from the snapshot as they are.

use std::sync::Arc;

use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::PyList;
use serde_json::{Map, Value};

use crate::python::context::Host;
use crate::python::json;

/// All tables by name.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct Dictionaries {
    host: Arc<Host>,
}

impl Dictionaries {
    pub(crate) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }
}

#[pymethods]
impl Dictionaries {
    fn __getitem__(&self, name: &str) -> PyResult<Table> {
        match self.host.dictionary(name) {
            Some(entries) => Ok(Table { entries }),
            None => Err(PyKeyError::new_err(format!("there is no dictionary named {name:?}"))),
        }
    }

    fn get(&self, name: &str) -> Option<Table> {
        self.host.dictionary(name).map(|entries| Table { entries })
    }

    fn __contains__(&self, name: &str) -> bool {
        self.host.dictionary(name).is_some()
    }
}

/// One table, as it was when it was asked for. An entry is converted when it is read, each time anew, so no
/// service can change what another reads.
#[pyclass(frozen, mapping, module = "_crosstie")]
pub(crate) struct Table {
    entries: Arc<Value>,
}

impl Table {
    fn members(&self) -> Option<&Map<String, Value>> {
        self.entries.as_object()
    }

    fn names(&self) -> Vec<&str> {
        self.members().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
    }
}

#[pymethods]
impl Table {
    fn __getitem__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        match self.members().and_then(|members| members.get(name)) {
            Some(value) => json::to_python(py, value),
            None => Err(PyKeyError::new_err(name.to_owned())),
        }
    }

    #[pyo3(signature = (name, default = None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        default: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self.members().and_then(|members| members.get(name)) {
            Some(value) => json::to_python(py, value),
            None => Ok(default.unwrap_or_else(|| py.None().into_bound(py))),
        }
    }

    fn __contains__(&self, name: &str) -> bool {
        self.members().is_some_and(|members| members.contains_key(name))
    }

    fn __len__(&self) -> usize {
        self.members().map_or(0, Map::len)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyList::new(py, self.names())?.try_iter()?.into_any())
    }

    fn keys(&self) -> Vec<&str> {
        self.names()
    }

    fn values<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let members = self.members().into_iter().flatten();
        members.map(|(_, value)| json::to_python(py, value)).collect()
    }

    fn items<'py>(&self, py: Python<'py>) -> PyResult<Vec<(&str, Bound<'py, PyAny>)>> {
        let members = self.members().into_iter().flatten();
        members.map(|(name, value)| Ok((name.as_str(), json::to_python(py, value)?))).collect()
    }
}
