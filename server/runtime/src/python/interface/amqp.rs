//! Header fields of AMQP messages as Python's values.

use std::collections::BTreeMap;

use bytes::Bytes;
use crosstie_model::outgoing::AmqpValue;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

/// How deep values of headers may nest.
const MAX_DEPTH: usize = 16;

/// Header fields as a dict.
pub(super) fn table_to_python<'py>(
    py: Python<'py>,
    table: &BTreeMap<String, AmqpValue>,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in table {
        dict.set_item(name, to_python(py, value)?)?;
    }
    Ok(dict)
}

fn to_python<'py>(py: Python<'py>, value: &AmqpValue) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        AmqpValue::Null => py.None().into_bound(py),
        AmqpValue::Bool(flag) => PyBool::new(py, *flag).to_owned().into_any(),
        AmqpValue::Int(number) => PyInt::new(py, *number).into_any(),
        AmqpValue::Float(number) => PyFloat::new(py, *number).into_any(),
        AmqpValue::Decimal { scale, value } => {
            let digits =
                py.import(intern!(py, "decimal"))?.getattr(intern!(py, "Decimal"))?.call1((*value,))?;
            digits.call_method1(intern!(py, "scaleb"), (-i32::from(*scale),))?
        }
        AmqpValue::Text(text) => PyString::new(py, text).into_any(),
        AmqpValue::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        AmqpValue::Timestamp(seconds) => timestamp_to_python(py, *seconds)?,
        AmqpValue::List(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item)?)?;
            }
            list.into_any()
        }
        AmqpValue::Table(table) => table_to_python(py, table)?.into_any(),
    })
}

/// Seconds since 1970 as an aware `datetime` in UTC; as they are where that cannot hold them.
pub(super) fn timestamp_to_python(py: Python<'_>, seconds: u64) -> PyResult<Bound<'_, PyAny>> {
    let module = py.import(intern!(py, "datetime"))?;
    let utc = module.getattr(intern!(py, "timezone"))?.getattr(intern!(py, "utc"))?;
    let class = module.getattr(intern!(py, "datetime"))?;
    match class.call_method1(intern!(py, "fromtimestamp"), (seconds, utc)) {
        Ok(time) => Ok(time),
        Err(_) => Ok(PyInt::new(py, seconds).into_any()),
    }
}

/// A dict of header fields.
pub(super) fn table_from_python(value: &Bound<'_, PyAny>) -> PyResult<BTreeMap<String, AmqpValue>> {
    table(value, 0)
}

fn table(value: &Bound<'_, PyAny>, depth: usize) -> PyResult<BTreeMap<String, AmqpValue>> {
    let dict = value.cast::<PyDict>().map_err(|_| PyTypeError::new_err("headers are a dict"))?;
    let field = |(name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        let name = name.cast::<PyString>().map_err(|_| PyTypeError::new_err("names of headers are text"))?;
        Ok((name.to_str()?.to_owned(), from_python(&value, depth + 1)?))
    };
    dict.iter().map(field).collect()
}

fn from_python(value: &Bound<'_, PyAny>, depth: usize) -> PyResult<AmqpValue> {
    if depth > MAX_DEPTH {
        return Err(PyValueError::new_err(format!("headers nest at most {MAX_DEPTH} deep")));
    }
    if value.is_none() {
        return Ok(AmqpValue::Null);
    }
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(AmqpValue::Bool(flag.is_true()));
    }
    if let Ok(number) = value.cast::<PyInt>() {
        let number = number.extract();
        return number
            .map(AmqpValue::Int)
            .map_err(|_| PyValueError::new_err("an integer in a header has at most 64 bits"));
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return Ok(AmqpValue::Float(number.extract()?));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(AmqpValue::Text(text.to_str()?.to_owned()));
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(AmqpValue::Bytes(Bytes::copy_from_slice(bytes.as_bytes())));
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items: PyResult<Vec<_>> = value.try_iter()?.map(|item| from_python(&item?, depth + 1)).collect();
        return items.map(AmqpValue::List);
    }
    if value.is_instance_of::<PyDict>() {
        return table(value, depth).map(AmqpValue::Table);
    }
    if let Some(seconds) = timestamp_from_python(value)? {
        return Ok(AmqpValue::Timestamp(seconds));
    }
    let kind = value.get_type().name()?;
    Err(PyTypeError::new_err(format!("a {kind} cannot be a header of a message")))
}

/// The seconds since 1970 of a `datetime`; `None` for anything else.
pub(super) fn timestamp_from_python(value: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
    let py = value.py();
    let class = py.import(intern!(py, "datetime"))?.getattr(intern!(py, "datetime"))?;
    if !value.is_instance(&class)? {
        return Ok(None);
    }
    let seconds: f64 = value.call_method0(intern!(py, "timestamp"))?.extract()?;
    std::time::Duration::try_from_secs_f64(seconds)
        .map(|since| Some(since.as_secs()))
        .map_err(|_| PyValueError::new_err("a timestamp of AMQP is not before 1970"))
}
