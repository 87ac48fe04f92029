//! JSON to Python values of declared types.

#![expect(unsafe_code, reason = "makes instances of models without calling their constructor")]

use crosstie_model::Fault;
use crosstie_model::schema::MAX_FAULTS;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFrozenSet, PyList, PySet, PyTuple, PyType};
use serde_json::{Map, Value};

use super::model::Missing;
use super::{Codec, ModelCodec, Path};
use crate::python::json;

/// What decoding came to: the value, or nothing when at least one fault was added.
type Decoded<'py> = PyResult<Option<Bound<'py, PyAny>>>;

impl Codec {
    /// The Python value of `value`. Adds every fault it finds to `faults`, and then gives `None`.
    ///
    /// # Errors
    /// User code that takes part failed: a default's factory, an enum's `_missing_`.
    pub(crate) fn decode<'py>(
        &self,
        py: Python<'py>,
        value: &Value,
        path: &Path<'_>,
        faults: &mut Vec<Fault>,
    ) -> Decoded<'py> {
        match (self, value) {
            (Self::Any, _) => json::to_python(py, value).map(Some),
            (Self::Scalar(scalar), _) => {
                let decoded = scalar.decode(py, value)?;
                if decoded.is_none() {
                    faults.push(path.fault(scalar.refusal()));
                }
                Ok(decoded)
            }
            (Self::List(inner), Value::Array(items)) => {
                inner.decode_items(py, items, path, faults, |items| {
                    PyList::new(py, items).map(Bound::into_any)
                })
            }
            (Self::TupleOf(inner), Value::Array(items)) => {
                inner.decode_items(py, items, path, faults, |items| {
                    PyTuple::new(py, items).map(Bound::into_any)
                })
            }
            (Self::Set(inner), Value::Array(items)) => inner
                .decode_items(py, items, path, faults, |items| PySet::new(py, items).map(Bound::into_any)),
            (Self::FrozenSet(inner), Value::Array(items)) => {
                inner.decode_items(py, items, path, faults, |items| {
                    PyFrozenSet::new(py, items).map(Bound::into_any)
                })
            }
            (Self::Tuple(codecs), Value::Array(items)) if codecs.len() == items.len() => {
                decode_tuple(py, codecs, items, path, faults)
            }
            (Self::Dict(inner), Value::Object(members)) => decode_dict(py, inner, members, path, faults),
            (Self::Enum(class), _) => decode_enum(py, class, value, path, faults),
            (Self::Literal(values), _) => {
                let given = json::to_python(py, value)?;
                if values.bind(py).contains(&given)? {
                    return Ok(Some(given));
                }
                faults.push(path.fault("is none of the values allowed here"));
                Ok(None)
            }
            (Self::Union(choices), _) => decode_union(py, choices, value, path, faults),
            (Self::Model(model), Value::Object(members)) => {
                model.bind(py).borrow().decode(py, members, path, faults)
            }
            _ => {
                faults.push(path.fault("is not of the declared type"));
                Ok(None)
            }
        }
    }

    fn decode_items<'py>(
        &self,
        py: Python<'py>,
        items: &[Value],
        path: &Path<'_>,
        faults: &mut Vec<Fault>,
        collect: impl FnOnce(Vec<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>>,
    ) -> Decoded<'py> {
        let mut decoded = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            if let Some(item) = self.decode(py, item, &Path::Element(path, index), faults)? {
                decoded.push(item);
            } else if faults.len() >= MAX_FAULTS {
                break;
            }
        }
        if decoded.len() < items.len() { Ok(None) } else { collect(decoded).map(Some) }
    }
}

fn decode_tuple<'py>(
    py: Python<'py>,
    codecs: &[Codec],
    items: &[Value],
    path: &Path<'_>,
    faults: &mut Vec<Fault>,
) -> Decoded<'py> {
    let mut decoded = Vec::with_capacity(items.len());
    for (index, (codec, item)) in codecs.iter().zip(items).enumerate() {
        if let Some(item) = codec.decode(py, item, &Path::Element(path, index), faults)? {
            decoded.push(item);
        }
    }
    if decoded.len() < items.len() { Ok(None) } else { Ok(Some(PyTuple::new(py, decoded)?.into_any())) }
}

fn decode_dict<'py>(
    py: Python<'py>,
    inner: &Codec,
    members: &Map<String, Value>,
    path: &Path<'_>,
    faults: &mut Vec<Fault>,
) -> Decoded<'py> {
    let dict = PyDict::new(py);
    let before = faults.len();
    for (name, value) in members {
        if let Some(value) = inner.decode(py, value, &Path::Member(path, name), faults)? {
            dict.set_item(name, value)?;
        } else if faults.len() >= MAX_FAULTS {
            break;
        }
    }
    Ok((faults.len() == before).then(|| dict.into_any()))
}

fn decode_enum<'py>(
    py: Python<'py>,
    class: &Py<PyAny>,
    value: &Value,
    path: &Path<'_>,
    faults: &mut Vec<Fault>,
) -> Decoded<'py> {
    let given = json::to_python(py, value)?;
    match class.bind(py).call1((given,)) {
        Ok(member) => Ok(Some(member)),
        Err(error) if error.is_instance_of::<pyo3::exceptions::PyValueError>(py) => {
            faults.push(path.fault("is none of the values allowed here"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The first choice that fits without a fault. When none does, the faults of the choice of the same JSON type
/// say most: those of the last one that found faults deeper than the value itself, or of the last one.
fn decode_union<'py>(
    py: Python<'py>,
    choices: &[Codec],
    value: &Value,
    path: &Path<'_>,
    faults: &mut Vec<Fault>,
) -> Decoded<'py> {
    let mut own = None;
    let mut best = Vec::new();
    for choice in choices {
        let mut found = Vec::new();
        if let Some(decoded) = choice.decode(py, value, path, &mut found)? {
            return Ok(Some(decoded));
        }
        // Most values fit the first choice, and need no pointer.
        let own = own.get_or_insert_with(|| path.pointer());
        if best.is_empty() || found.iter().any(|fault| fault.pointer != *own) {
            best = found;
        }
    }
    faults.append(&mut best);
    Ok(None)
}

impl ModelCodec {
    /// An instance of the model. Its constructor is not called: the fields are set as they are.
    pub(crate) fn decode<'py>(
        &self,
        py: Python<'py>,
        members: &Map<String, Value>,
        path: &Path<'_>,
        faults: &mut Vec<Fault>,
    ) -> Decoded<'py> {
        let instance = self.new_instance(py)?;
        let before = faults.len();
        for field in &self.fields {
            let value = match (members.get(&field.name), &field.missing) {
                (Some(value), _) => {
                    match field.codec.decode(py, value, &Path::Member(path, &field.name), faults)? {
                        Some(value) => value,
                        None => continue,
                    }
                }
                (None, Missing::Value(value)) => value.bind(py).clone(),
                (None, Missing::Made(factory)) => factory.bind(py).call0()?,
                (None, Missing::Fault) => {
                    faults.push(Path::Member(path, &field.name).fault("is required"));
                    continue;
                }
            };
            set_attribute(&instance, field.attribute.bind(py).as_any(), &value)?;
        }
        Ok((faults.len() == before).then_some(instance))
    }

    fn new_instance<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let class = self.class.as_ref().ok_or_else(|| PyTypeError::new_err("the model was unloaded"))?;
        new_instance(class.bind(py))
    }
}

/// An instance of `class` as `object.__new__` makes it.
fn new_instance<'py>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyAny>> {
    let py = class.py();
    // SAFETY: `class` is a live type; `PyType_GenericAlloc` gives a new reference or sets an exception. A
    // model is an ordinary Python class, so the generic allocator is its own.
    unsafe {
        let object = ffi::PyType_GenericAlloc(class.as_type_ptr(), 0);
        Bound::from_owned_ptr_or_err(py, object)
    }
}

/// Sets an attribute past any `__setattr__` of the class, as a constructor in Rust would.
fn set_attribute(
    object: &Bound<'_, PyAny>,
    name: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
) -> PyResult<()> {
    // SAFETY: all three are live objects and the interpreter is held; the references are borrowed.
    let failed = unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value.as_ptr()) };
    if failed == 0 { Ok(()) } else { Err(PyErr::fetch(object.py())) }
}
