//! Values of messages, as Python has them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosstie_model::tagged::Tag;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use serde_json::Value;

use crate::python::json;

/// Classes of the standard library that values are made of.
struct Classes {
    decimal: Py<PyAny>,
    int: Py<PyAny>,
    float: Py<PyAny>,
    datetime: Py<PyAny>,
    date: Py<PyAny>,
    time: Py<PyAny>,
}

fn classes(py: Python<'_>) -> PyResult<&'static Classes> {
    static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();
    CLASSES.get_or_try_init(py, || {
        let find = |module: &str, name: &str| py.import(module)?.getattr(name);
        let from_text = |name: &str| find("datetime", name)?.getattr("fromisoformat").map(Bound::unbind);
        Ok(Classes {
            decimal: find("decimal", "Decimal")?.unbind(),
            int: find("builtins", "int")?.unbind(),
            float: find("builtins", "float")?.unbind(),
            datetime: from_text("datetime")?,
            date: from_text("date")?,
            time: from_text("time")?,
        })
    })
}

/// `value`, in which some are marked with their type, as dict, list, str, int, float, bool, None, Decimal, datetime,
/// date, time or bytes. What Python's types cannot hold, such as a year 10000, stays text.
///
/// # Errors
/// The interpreter is out of memory.
pub(super) fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    match value {
        Value::Object(members) => match Tag::of(members) {
            Some((tag, text)) => marked(py, tag, text),
            None => {
                let dict = PyDict::new(py);
                for (name, value) in members {
                    dict.set_item(name, to_python(py, value)?)?;
                }
                Ok(dict.into_any())
            }
        },
        Value::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item)?)?;
            }
            Ok(list.into_any())
        }
        other => json::to_python(py, other),
    }
}

fn marked<'py>(py: Python<'py>, tag: Tag, text: &str) -> PyResult<Bound<'py, PyAny>> {
    let classes = classes(py)?;
    let (class, argument) = match tag {
        Tag::Base64 => {
            let bytes = STANDARD.decode(text).unwrap_or_default();
            return Ok(PyBytes::new(py, &bytes).into_any());
        }
        Tag::Decimal => (&classes.decimal, text),
        Tag::Integer => (&classes.int, text),
        Tag::Double => (&classes.float, text),
        Tag::DateTime => (&classes.datetime, text),
        // Python's dates have no zone.
        Tag::Date => (&classes.date, text.get(..10).unwrap_or(text)),
        Tag::Time => (&classes.time, text),
    };
    match class.bind(py).call1((argument,)) {
        Ok(value) => Ok(value),
        Err(_) => Ok(PyString::new(py, text).into_any()),
    }
}
