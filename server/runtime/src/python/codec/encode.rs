//! Python values to JSON text, checked against declared types where there are some.
//!
//! Strings, numbers, lists and dicts are written straight from CPython's memory; everything else takes a
//! slower way. What JSON cannot say (NaN, cycles, unknown objects) is an error that names the place.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosstie_model::limits::MAX_DOCUMENT_DEPTH;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple,
    PyType,
};

use super::model::Missing;
use super::scalar::classes;
use super::{Codec, ModelCodec, Path, model_codec};

/// Why a value could not be written.
#[derive(Debug)]
pub(crate) enum EncodeError {
    /// It is not what was declared, or nothing JSON knows.
    Value {
        /// Where, as a JSON Pointer.
        pointer: String,
        /// What is wrong.
        detail: String,
    },
    /// User code that takes part failed, or the interpreter did.
    Python(PyErr),
}

impl From<PyErr> for EncodeError {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl EncodeError {
    /// The error as an exception.
    pub(crate) fn into_exception(self) -> PyErr {
        match self {
            Self::Python(error) => error,
            Self::Value { pointer, detail } => {
                let place = if pointer.is_empty() {
                    "the value".to_owned()
                } else {
                    format!("the value at {pointer}")
                };
                pyo3::exceptions::PyTypeError::new_err(format!("{place} {detail}"))
            }
        }
    }
}

type Written = Result<(), EncodeError>;

/// That `value` is not the `expected`.
pub(super) fn refuse(path: &Path<'_>, value: &Bound<'_, PyAny>, expected: &str) -> EncodeError {
    let found = value.get_type().name().map_or_else(|_| "?".into(), |name| name.to_string());
    EncodeError::Value {
        pointer: path.pointer(),
        detail: format!("is declared as {expected} and is {found}"),
    }
}

fn fault(path: &Path<'_>, detail: impl Into<String>) -> EncodeError {
    EncodeError::Value { pointer: path.pointer(), detail: detail.into() }
}

/// `value` as JSON, by `codec` where there is one.
///
/// # Errors
/// [`EncodeError`]
pub(crate) fn to_vec(value: &Bound<'_, PyAny>, codec: Option<&Codec>) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(128);
    match codec {
        Some(codec) => codec.encode(value, &mut out, &Path::Root)?,
        None => encode_any(value, &mut out, &Path::Root)?,
    }
    Ok(out)
}

/// Writes `value` by what it is.
///
/// # Errors
/// JSON has nothing for it.
pub(crate) fn encode_any(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, path: &Path<'_>) -> Written {
    if let Ok(text) = value.cast_exact::<PyString>() {
        return write_text(text, out);
    }
    if let Ok(number) = value.cast_exact::<PyInt>() {
        return write_int(number, out);
    }
    if value.is_none() {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    if let Ok(flag) = value.cast_exact::<PyBool>() {
        out.extend_from_slice(if flag.is_true() { b"true" } else { b"false" });
        return Ok(());
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return write_float(number.value(), out, path);
    }
    if path.depth() > MAX_DOCUMENT_DEPTH {
        return Err(fault(path, "is nested too deep, or contains itself"));
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        return encode_dict(dict, None, out, path);
    }
    if let Ok(list) = value.cast::<PyList>() {
        return encode_items(list.iter(), None, out, path);
    }
    if let Ok(tuple) = value.cast::<PyTuple>() {
        return encode_items(tuple.iter(), None, out, path);
    }
    encode_object(value, out, path)
}

/// Writes anything but the types JSON has itself.
fn encode_object(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, path: &Path<'_>) -> Written {
    let py = value.py();
    let classes = classes(py)?;
    let class = value.get_type();
    if class.hasattr(intern!(py, "__crosstie_fields__"))? {
        return model_codec(&class)?.borrow().encode(value, out, path);
    }
    if class.is(classes.draft.bind(py)) {
        return encode_any(&value.getattr(intern!(py, "__dict__"))?, out, path);
    }
    if value.is_instance(classes.enumeration.bind(py))? {
        return encode_any(&value.getattr(intern!(py, "value"))?, out, path);
    }
    if let Ok(text) = value.cast::<PyString>() {
        return write_text(text, out);
    }
    if let Ok(number) = value.cast::<PyInt>() {
        return write_int(number, out);
    }
    let is_moment = |class: &Py<PyAny>| value.is_instance(class.bind(py));
    if is_moment(&classes.date)? || is_moment(&classes.time)? {
        let text = value.call_method0(intern!(py, "isoformat"))?;
        return write_text(text.cast::<PyString>().map_err(PyErr::from)?, out);
    }
    if value.is_instance(classes.decimal.bind(py))? || value.is_instance(classes.uuid.bind(py))? {
        return write_text(&value.str()?, out);
    }
    if value.is_instance(classes.delta.bind(py))? {
        return encode_any(&value.call_method0(intern!(py, "total_seconds"))?, out, path);
    }
    if value.is_instance_of::<PySet>() || value.is_instance_of::<PyFrozenSet>() {
        let items: Vec<_> = value.try_iter()?.collect::<PyResult<_>>()?;
        return encode_items(items.into_iter(), None, out, path);
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return write_base64(bytes.as_bytes(), out);
    }
    if let Ok(bytes) = value.cast::<PyByteArray>() {
        return write_base64(&bytes.to_vec(), out);
    }
    if value.is_instance(classes.mapping.bind(py))? {
        let dict = PyDict::new(py);
        dict.update(value.cast().map_err(PyErr::from)?)?;
        return encode_dict(&dict, None, out, path);
    }
    if class.hasattr(intern!(py, "__dataclass_fields__"))? {
        return encode_dataclass(value, out, path);
    }
    let name = class.qualname().map_or_else(|_| "object".into(), |name| name.to_string());
    Err(fault(path, format!("is a {name}, which has no form in JSON")))
}

fn encode_dataclass(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, path: &Path<'_>) -> Written {
    let py = value.py();
    let dict = PyDict::new(py);
    for name in value.getattr(intern!(py, "__dataclass_fields__"))?.try_iter()? {
        let name = name?.cast_into::<PyString>().map_err(PyErr::from)?;
        dict.set_item(&name, value.getattr(&name)?)?;
    }
    encode_dict(&dict, None, out, path)
}

fn encode_dict(
    dict: &Bound<'_, PyDict>,
    codec: Option<&Codec>,
    out: &mut Vec<u8>,
    path: &Path<'_>,
) -> Written {
    out.push(b'{');
    let mut first = true;
    for (key, value) in dict.iter() {
        if !first {
            out.push(b',');
        }
        first = false;
        let name = key_text(&key, path)?;
        write_text(&name, out)?;
        out.push(b':');
        let text = name.to_str()?;
        write_inner(&value, codec, out, &Path::Member(path, text))?;
    }
    out.push(b'}');
    Ok(())
}

/// The name a dict's key becomes; the same as `json.dumps` writes, and the text of dates, UUIDs and enums.
fn key_text<'py>(key: &Bound<'py, PyAny>, path: &Path<'_>) -> Result<Bound<'py, PyString>, EncodeError> {
    if let Ok(text) = key.cast_exact::<PyString>() {
        return Ok(text.clone());
    }
    let py = key.py();
    let mut out = Vec::new();
    encode_any(key, &mut out, path)?;
    let written = match out.first() {
        Some(b'{' | b'[') => return Err(fault(path, "has a key that is no text")),
        Some(b'"') => serde_json::from_slice::<String>(&out).unwrap_or_default(),
        _ => String::from_utf8(out).unwrap_or_default(),
    };
    Ok(PyString::new(py, &written))
}

fn encode_items<'py>(
    items: impl Iterator<Item = Bound<'py, PyAny>>,
    codec: Option<&Codec>,
    out: &mut Vec<u8>,
    path: &Path<'_>,
) -> Written {
    out.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_inner(&item, codec, out, &Path::Element(path, index))?;
    }
    out.push(b']');
    Ok(())
}

fn write_inner(
    value: &Bound<'_, PyAny>,
    codec: Option<&Codec>,
    out: &mut Vec<u8>,
    path: &Path<'_>,
) -> Written {
    match codec {
        Some(codec) => codec.encode(value, out, path),
        None => encode_any(value, out, path),
    }
}

impl Codec {
    /// Writes `value` as the declared type.
    ///
    /// # Errors
    /// It is something else.
    pub(crate) fn encode(&self, value: &Bound<'_, PyAny>, out: &mut Vec<u8>, path: &Path<'_>) -> Written {
        let py = value.py();
        match self {
            Self::Any => encode_any(value, out, path),
            Self::Scalar(scalar) => scalar.encode(value, out, path),
            Self::List(inner) | Self::TupleOf(inner) | Self::Set(inner) | Self::FrozenSet(inner) => {
                let is_text = value.is_instance_of::<PyString>()
                    || value.is_instance_of::<PyBytes>()
                    || value.is_instance_of::<PyDict>();
                let Some(items) = value.try_iter().ok().filter(|_| !is_text) else {
                    return Err(refuse(path, value, "a list"));
                };
                let items: Vec<_> = items.collect::<PyResult<_>>()?;
                encode_items(items.into_iter(), Some(inner), out, path)
            }
            Self::Tuple(codecs) => encode_tuple(codecs, value, out, path),
            Self::Dict(inner) => match as_dict(value)? {
                Some(dict) => encode_dict(&dict, Some(inner), out, path),
                None => Err(refuse(path, value, "a dict")),
            },
            Self::Enum(class) => {
                if value.is_instance(class.bind(py))? || class.bind(py).call1((value,)).is_ok() {
                    return encode_any(value, out, path);
                }
                let name = class.bind(py).getattr(intern!(py, "__name__"))?.to_string();
                Err(refuse(path, value, &name))
            }
            Self::Literal(values) => {
                if values.bind(py).contains(value)? {
                    return encode_any(value, out, path);
                }
                Err(fault(path, "is none of the values declared"))
            }
            Self::Union(choices) => encode_union(choices, value, out, path),
            Self::Model(model) => model.bind(py).borrow().encode(value, out, path),
        }
    }
}

fn encode_tuple(codecs: &[Codec], value: &Bound<'_, PyAny>, out: &mut Vec<u8>, path: &Path<'_>) -> Written {
    let items: Vec<_> = match (value.cast::<PyTuple>(), value.cast::<PyList>()) {
        (Ok(tuple), _) => tuple.iter().collect(),
        (_, Ok(list)) => list.iter().collect(),
        _ => return Err(refuse(path, value, "a tuple")),
    };
    if items.len() != codecs.len() {
        return Err(fault(path, format!("has {} elements instead of {}", items.len(), codecs.len())));
    }
    out.push(b'[');
    for (index, (codec, item)) in codecs.iter().zip(&items).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        codec.encode(item, out, &Path::Element(path, index))?;
    }
    out.push(b']');
    Ok(())
}

fn encode_union(choices: &[Codec], value: &Bound<'_, PyAny>, out: &mut Vec<u8>, path: &Path<'_>) -> Written {
    let start = out.len();
    let own = path.pointer();
    let mut best: Option<EncodeError> = None;
    for choice in choices {
        match choice.encode(value, out, path) {
            Ok(()) => return Ok(()),
            Err(EncodeError::Python(error)) => return Err(EncodeError::Python(error)),
            Err(error) => {
                out.truncate(start);
                let is_deeper = matches!(&error, EncodeError::Value { pointer, .. } if *pointer != own);
                if best.is_none() || is_deeper {
                    best = Some(error);
                }
            }
        }
    }
    Err(best.unwrap_or_else(|| fault(path, "is of no declared type")))
}

/// `value` as a dict, if it is a mapping or a response's unset payload.
fn as_dict<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyDict>>> {
    let py = value.py();
    if let Ok(dict) = value.cast::<PyDict>() {
        return Ok(Some(dict.clone()));
    }
    let classes = classes(py)?;
    if value.get_type().is(classes.draft.bind(py)) {
        return Ok(value.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>().ok());
    }
    if !value.is_instance(classes.mapping.bind(py))? {
        return Ok(None);
    }
    let dict = PyDict::new(py);
    dict.update(value.cast().map_err(PyErr::from)?)?;
    Ok(Some(dict))
}

impl ModelCodec {
    /// Writes an instance of the model, or a dict that has its fields.
    pub(crate) fn encode(&self, value: &Bound<'_, PyAny>, out: &mut Vec<u8>, path: &Path<'_>) -> Written {
        let py = value.py();
        if path.depth() > MAX_DOCUMENT_DEPTH {
            return Err(fault(path, "is nested too deep, or contains itself"));
        }
        let class = self.class.as_ref().map(|class| class.bind(py));
        let is_own = class.is_some_and(|class| value.get_type().is(class))
            || class.is_some_and(|class| value.is_instance(class).unwrap_or(false));
        if is_own {
            return self.write_fields(out, path, |name| value.getattr(name).map(Some), py);
        }
        match as_dict(value)? {
            Some(dict) => self.write_fields(out, path, |name| dict.get_item(name), py),
            None => Err(refuse(path, value, &class_name(class))),
        }
    }

    fn write_fields<'py>(
        &self,
        out: &mut Vec<u8>,
        path: &Path<'_>,
        get: impl Fn(&Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>>,
        py: Python<'py>,
    ) -> Written {
        out.push(b'{');
        for (index, field) in self.fields.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&field.key);
            let place = Path::Member(path, &field.name);
            let value = match (get(field.attribute.bind(py))?, &field.missing) {
                (Some(value), _) => value,
                (None, Missing::Value(value)) => value.bind(py).clone(),
                (None, Missing::Made(factory)) => factory.bind(py).call0()?,
                (None, Missing::Fault) => return Err(fault(&place, "is declared and missing")),
            };
            field.codec.encode(&value, out, &place)?;
        }
        out.push(b'}');
        Ok(())
    }
}

fn class_name(class: Option<&Bound<'_, PyType>>) -> String {
    class.and_then(|class| class.name().ok()).map_or_else(|| "a model".into(), |name| name.to_string())
}

/// Writes text. Lone surrogates, which UTF-8 does not have, are an error.
pub(super) fn write_text(text: &Bound<'_, PyString>, out: &mut Vec<u8>) -> Written {
    let text = text.to_str()?;
    serde_json::to_writer(out, text).map_err(|error| PyErr::from(std::io::Error::from(error)).into())
}

/// Writes a whole number, of any size.
pub(super) fn write_int(number: &Bound<'_, PyInt>, out: &mut Vec<u8>) -> Written {
    match number.extract::<i64>() {
        Ok(number) => serde_json::to_writer(out, &number)
            .map_err(|error| PyErr::from(std::io::Error::from(error)).into()),
        Err(_) => {
            let py = number.py();
            let text = py.get_type::<PyInt>().call_method1(intern!(py, "__repr__"), (number,))?;
            out.extend_from_slice(text.extract::<String>()?.as_bytes());
            Ok(())
        }
    }
}

fn write_float(number: f64, out: &mut Vec<u8>, path: &Path<'_>) -> Written {
    if !number.is_finite() {
        return Err(fault(path, format!("is {number}, which JSON does not have")));
    }
    serde_json::to_writer(out, &number).map_err(|error| PyErr::from(std::io::Error::from(error)).into())
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) -> Written {
    out.push(b'"');
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
    Ok(())
}
