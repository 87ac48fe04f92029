//! Single values: text, numbers, dates and the like.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDelta, PyFloat, PyInt, PyString};
use serde_json::Value;

use super::encode::{EncodeError, refuse, write_int, write_text};
use super::path::Path;
use crate::python::json;

/// Up to here every integer has a double of its own: 2 to the power of 53.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// A declared type without parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    /// `str`
    Text,
    /// `int`
    Int,
    /// `float`; takes whole numbers as well.
    Float,
    /// `bool`
    Bool,
    /// `None`
    Null,
    /// `datetime.date` as RFC 3339 full-date.
    Date,
    /// `datetime.datetime` as RFC 3339 date-time.
    DateTime,
    /// `datetime.time`
    Time,
    /// `datetime.timedelta` in seconds.
    Duration,
    /// `decimal.Decimal` as text, which loses nothing.
    Decimal,
    /// `uuid.UUID`
    Uuid,
    /// `bytes` as base64 (RFC 4648, section 4).
    Bytes,
}

/// Classes of the standard library that values are made of.
pub(crate) struct Classes {
    pub(crate) date: Py<PyAny>,
    pub(crate) datetime: Py<PyAny>,
    pub(crate) time: Py<PyAny>,
    pub(crate) delta: Py<PyAny>,
    pub(crate) decimal: Py<PyAny>,
    pub(crate) uuid: Py<PyAny>,
    pub(crate) enumeration: Py<PyAny>,
    pub(crate) mapping: Py<PyAny>,
    pub(crate) draft: Py<PyAny>,
}

/// The classes, looked up once.
pub(crate) fn classes(py: Python<'_>) -> PyResult<&'static Classes> {
    static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();
    CLASSES.get_or_try_init(py, || {
        let find = |module: &str, name: &str| Ok::<_, PyErr>(py.import(module)?.getattr(name)?.unbind());
        Ok(Classes {
            date: find("datetime", "date")?,
            datetime: find("datetime", "datetime")?,
            time: find("datetime", "time")?,
            delta: find("datetime", "timedelta")?,
            decimal: find("decimal", "Decimal")?,
            uuid: find("uuid", "UUID")?,
            enumeration: find("enum", "Enum")?,
            mapping: find("collections.abc", "Mapping")?,
            draft: find("_crosstie_runtime.calls", "Draft")?,
        })
    })
}

impl Scalar {
    /// The scalar that a plan's word names.
    pub(super) fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "str" => Self::Text,
            "int" => Self::Int,
            "float" => Self::Float,
            "bool" => Self::Bool,
            "none" => Self::Null,
            "date" => Self::Date,
            "datetime" => Self::DateTime,
            "time" => Self::Time,
            "timedelta" => Self::Duration,
            "decimal" => Self::Decimal,
            "uuid" => Self::Uuid,
            "bytes" => Self::Bytes,
            _ => return None,
        })
    }

    /// What the type is called towards people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "str",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Null => "None",
            Self::Date => "date",
            Self::DateTime => "datetime",
            Self::Time => "time",
            Self::Duration => "timedelta",
            Self::Decimal => "Decimal",
            Self::Uuid => "UUID",
            Self::Bytes => "bytes",
        }
    }

    /// What is wrong with a value that [`Scalar::decode`] does not take, for whoever sent it.
    pub(super) fn refusal(self) -> &'static str {
        match self {
            Self::Text => "is not a text",
            Self::Int => "is not a whole number of 64 bits",
            Self::Float => "is not a number",
            Self::Bool => "is not true or false",
            Self::Null => "is not null",
            Self::Date => "is not a date such as 2026-01-31",
            Self::DateTime => "is not a time with date and offset such as 2026-01-31T12:00:00Z",
            Self::Time => "is not a time such as 12:00:00",
            Self::Duration => "is not a number of seconds in the range of a timedelta",
            Self::Decimal => "is not a decimal number",
            Self::Uuid => "is not a UUID",
            Self::Bytes => "is not base64 (RFC 4648, section 4)",
        }
    }

    /// The Python value of `value`; `Ok(None)` when `value` is not one of this type.
    pub(super) fn decode<'py>(self, py: Python<'py>, value: &Value) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(match (self, value) {
            (Self::Text, Value::String(_)) | (Self::Bool, Value::Bool(_)) | (Self::Null, Value::Null) => {
                Some(json::to_python(py, value)?)
            }
            (Self::Int, Value::Number(number)) => match number.as_f64() {
                // JSON Schema counts 2.0 as an integer. Beyond 2^53 a double no longer says which integer was
                // written; what is written without a point and fits 64 bits never is a double.
                Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT_INTEGERS => {
                    Some(PyFloat::new(py, float).call_method0(intern!(py, "__int__"))?)
                }
                _ if number.is_f64() => None,
                _ => Some(json::to_python(py, value)?),
            },
            (Self::Float, Value::Number(number)) => {
                number.as_f64().map(|float| PyFloat::new(py, float).into_any())
            }
            (Self::Date, Value::String(text)) => from_iso(py, &classes(py)?.date, text),
            (Self::DateTime, Value::String(text)) => from_iso(py, &classes(py)?.datetime, text),
            (Self::Time, Value::String(text)) => from_iso(py, &classes(py)?.time, text),
            (Self::Duration, Value::Number(number)) => match number.as_f64() {
                Some(seconds) => classes(py)?.delta.bind(py).call1((0, seconds)).ok(),
                None => None,
            },
            (Self::Decimal, Value::String(text)) => classes(py)?.decimal.bind(py).call1((text,)).ok(),
            (Self::Decimal, Value::Number(number)) => {
                classes(py)?.decimal.bind(py).call1((number.to_string(),)).ok()
            }
            (Self::Uuid, Value::String(text)) => classes(py)?.uuid.bind(py).call1((text,)).ok(),
            (Self::Bytes, Value::String(text)) => {
                STANDARD.decode(text).ok().map(|bytes| PyBytes::new(py, &bytes).into_any())
            }
            _ => None,
        })
    }

    /// Writes `value` as JSON.
    ///
    /// # Errors
    /// It is not of this type.
    pub(super) fn encode(
        self,
        value: &Bound<'_, PyAny>,
        out: &mut Vec<u8>,
        path: &Path<'_>,
    ) -> Result<(), EncodeError> {
        let py = value.py();
        let wrong = || refuse(path, value, self.name());
        match self {
            Self::Text => match value.cast::<PyString>() {
                Ok(text) => write_text(text, out),
                Err(_) => Err(wrong()),
            },
            Self::Int => match value.cast::<PyInt>() {
                Ok(number) if !value.is_instance_of::<PyBool>() => write_int(number, out),
                _ => Err(wrong()),
            },
            Self::Float if value.is_instance_of::<PyBool>() => Err(wrong()),
            Self::Float if value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>() => {
                super::encode_any(value, out, path)
            }
            Self::Bool if value.is_instance_of::<PyBool>() => super::encode_any(value, out, path),
            Self::Null if value.is_none() => super::encode_any(value, out, path),
            Self::Duration if value.is_instance_of::<PyDelta>() => super::encode_any(value, out, path),
            Self::Bytes if value.is_instance_of::<PyBytes>() || value.is_instance_of::<PyByteArray>() => {
                super::encode_any(value, out, path)
            }
            Self::Float | Self::Bool | Self::Null | Self::Duration | Self::Bytes => Err(wrong()),
            // What has a textual form may be given as text.
            Self::Date | Self::DateTime | Self::Time | Self::Uuid | Self::Decimal => {
                if value.is_instance_of::<PyString>() || self.is_own(py, value)? {
                    return super::encode_any(value, out, path);
                }
                let number = value.is_instance_of::<PyInt>() || value.is_instance_of::<PyFloat>();
                if self == Self::Decimal && number && !value.is_instance_of::<PyBool>() {
                    return super::encode_any(value, out, path);
                }
                Err(wrong())
            }
        }
    }

    /// Whether `value` is of the class this scalar stands for.
    fn is_own(self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<bool> {
        let classes = classes(py)?;
        let class = match self {
            Self::Date => &classes.date,
            Self::DateTime => &classes.datetime,
            Self::Time => &classes.time,
            Self::Decimal => &classes.decimal,
            _ => &classes.uuid,
        };
        value.is_instance(class.bind(py))
    }
}

fn from_iso<'py>(py: Python<'py>, class: &Py<PyAny>, text: &str) -> Option<Bound<'py, PyAny>> {
    class.bind(py).call_method1(intern!(py, "fromisoformat"), (text,)).ok()
}
