//! The module `_crosstie`: what the Python side calls in Rust.

use pyo3::prelude::*;

/// The module, as CPython's table of built-in modules lists it.
#[pymodule]
#[pyo3(name = "_crosstie")]
pub(crate) mod crosstie_native {
    use pyo3::prelude::*;
    use pyo3::types::PyType;
    use serde_json::Value;

    use super::super::codec::{self, EncodeError, Path};
    use super::super::{failure, interface};

    #[pymodule_export]
    use super::super::interface::ServiceBase;

    /// A value as JSON text, as a reply would have it.
    #[pyfunction]
    fn to_json(value: &Bound<'_, PyAny>) -> PyResult<String> {
        let text = codec::to_vec(value, None).map_err(EncodeError::into_exception)?;
        String::from_utf8(text).map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
    }

    /// An instance of a model made of plain data; every fault is listed.
    #[pyfunction]
    fn from_dict<'py>(model: &Bound<'py, PyType>, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = model.py();
        let text = codec::to_vec(data, None).map_err(EncodeError::into_exception)?;
        let value: Value = serde_json::from_slice(&text)
            .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))?;
        let schema = super::schema_of(model)?;
        let mut faults = schema.faults(&value);
        if faults.is_empty()
            && let Value::Object(members) = &value
        {
            let codec = codec::model_codec(model)?;
            let decoded = codec.borrow().decode(py, members, &Path::Root, &mut faults)?;
            if let Some(instance) = decoded {
                return Ok(instance);
            }
        }
        Err(failure::model_error(py, &faults))
    }

    /// A record for the server's log.
    #[pyfunction]
    fn log(level: i64, name: &str, text: &str) {
        interface::write_log(level, name, text);
    }
}

/// The compiled schema of a model, kept on its class.
fn schema_of(model: &Bound<'_, pyo3::types::PyType>) -> PyResult<CompiledSchema> {
    const ATTRIBUTE: &str = "__crosstie_schema__";
    let own = model.getattr("__dict__")?;
    if let Ok(known) = own.get_item(ATTRIBUTE) {
        return Ok(known.cast::<CompiledSchema>()?.get().clone());
    }
    let schema = model.call_method0("json_schema")?;
    let text = super::codec::to_vec(&schema, None).map_err(super::codec::EncodeError::into_exception)?;
    let wrong = |error: String| pyo3::exceptions::PyValueError::new_err(error);
    let value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let compiled =
        crosstie_model::schema::Schema::compile(value).map_err(|error| wrong(error.to_string()))?;
    let compiled = CompiledSchema(std::sync::Arc::new(compiled));
    model.setattr(ATTRIBUTE, compiled.clone())?;
    Ok(compiled)
}

/// A schema on a class; holds nothing of Python's.
#[pyclass(frozen, module = "_crosstie")]
#[derive(Clone)]
struct CompiledSchema(std::sync::Arc<crosstie_model::schema::Schema>);

impl CompiledSchema {
    fn faults(&self, value: &serde_json::Value) -> Vec<crosstie_model::Fault> {
        self.0.faults(value)
    }
}
