//! What services give with a statement: `params`, `types`, `timeout`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crosstie_model::outgoing::{Named, Parameters, SqlCall, SqlType};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use super::values;
use crate::python::context::Call;
use crate::python::host_call;

/// A statement and its arguments.
pub(super) struct Arguments {
    statement: Arc<str>,
    parameters: Parameters,
    types: Vec<(String, SqlType)>,
    timeout: Option<Duration>,
}

impl Arguments {
    /// Reads them.
    ///
    /// # Errors
    /// One is not what it must be.
    pub(super) fn read(
        statement: &Bound<'_, PyAny>,
        params: Option<&Bound<'_, PyAny>>,
        types: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Self> {
        let wrong = |_| PyValueError::new_err("timeout is a number of seconds greater than 0");
        let timeout = timeout.map(Duration::try_from_secs_f64).transpose().map_err(wrong)?;
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(PyValueError::new_err("timeout is a number of seconds greater than 0"));
        }
        Ok(Self {
            statement: text_of(statement)?.into(),
            parameters: params.map(parameters).transpose()?.unwrap_or_else(|| Parameters::Once(Vec::new())),
            types: types.map(types_of).transpose()?.unwrap_or_default(),
            timeout,
        })
    }

    /// The call that they make as part of `call`.
    pub(super) fn call(self, call: &Call) -> SqlCall {
        let within = host_call::deadline(call);
        let deadline = self.timeout.map_or(within, |limit| within.min(Instant::now() + limit));
        SqlCall {
            statement: self.statement,
            parameters: self.parameters,
            types: self.types,
            trace: call.message.trace,
            deadline,
        }
    }
}

/// A statement as text, or as an object that has one, as SQLAlchemy's `text()` does.
fn text_of(statement: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(text) = statement.cast::<PyString>() {
        return Ok(text.to_str()?.to_owned());
    }
    let own = statement.getattr_opt(intern!(statement.py(), "text"))?;
    own.and_then(|text| text.extract().ok()).ok_or_else(|| PyTypeError::new_err("a statement is a text"))
}

fn parameters(params: &Bound<'_, PyAny>) -> PyResult<Parameters> {
    if params.is_none() {
        return Ok(Parameters::Once(Vec::new()));
    }
    if params.is_instance_of::<PyList>() || params.is_instance_of::<PyTuple>() {
        let each = params.try_iter()?.map(|item| named(&item?)).collect::<PyResult<Vec<_>>>()?;
        return Ok(Parameters::Each(each));
    }
    named(params).map(Parameters::Once)
}

/// The members of a dict, a mapping or a model.
fn named(params: &Bound<'_, PyAny>) -> PyResult<Named> {
    let py = params.py();
    let dict = match params.cast::<PyDict>() {
        Ok(dict) => dict.clone(),
        Err(_) if params.hasattr(intern!(py, "to_dict"))? => {
            params.call_method0(intern!(py, "to_dict"))?.cast_into::<PyDict>()?
        }
        Err(_) if params.hasattr(intern!(py, "keys"))? => {
            py.get_type::<PyDict>().call1((params,))?.cast_into::<PyDict>()?
        }
        Err(_) => {
            let text = "params is a dict of names and values, or a list of such dicts";
            return Err(PyTypeError::new_err(text));
        }
    };
    let mut named = Vec::with_capacity(dict.len());
    for (name, value) in dict.iter() {
        let name: String = name.extract().map_err(|_| PyTypeError::new_err("names of params are texts"))?;
        let value = values::from_python(&value).map_err(|error| about(py, &name, error))?;
        named.push((name, value));
    }
    Ok(named)
}

/// The same error, told of a parameter.
fn about(py: Python<'_>, name: &str, error: PyErr) -> PyErr {
    let text = format!("the parameter :{name}: {}", error.value(py));
    if error.is_instance_of::<PyTypeError>(py) {
        PyTypeError::new_err(text)
    } else {
        PyValueError::new_err(text)
    }
}

fn types_of(types: &Bound<'_, PyAny>) -> PyResult<Vec<(String, SqlType)>> {
    if types.is_none() {
        return Ok(Vec::new());
    }
    let dict = types
        .cast::<PyDict>()
        .map_err(|_| PyTypeError::new_err("types is a dict of columns and their types"))?;
    dict.iter().map(|(column, wanted)| Ok((column.extract()?, values::type_of(&wanted)?))).collect()
}
