//! `self.config`, made once per configuration and shared by all services: it cannot be changed by any.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::Value;

use super::context::Host;
use super::json;

/// The configuration as services see it.
///
/// # Errors
/// The interpreter is out of memory.
pub(crate) fn shown<'py>(py: Python<'py>, host: &Host) -> PyResult<Bound<'py, PyAny>> {
    host.shown_config(py, |config| {
        let values = match config {
            Value::Object(files) => json::object_to_python(py, files)?,
            _ => PyDict::new(py),
        };
        py.import(intern!(py, "_crosstie_runtime.config"))?.call_method1(intern!(py, "Config"), (values,))
    })
}
