//! The codec of one model class.
//!
//! It lives on the class, so it goes when the class goes. Class and codec refer to each other; the codec
//! tells the garbage collector what it holds, or no redeployed model would ever be freed.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};
use pyo3::{PyTraverseError, PyVisit};

use super::Codec;

/// The attribute of a model class that holds its codec.
const ATTRIBUTE: &str = "__crosstie_codec__";

/// What a field that is missing becomes.
#[derive(Debug)]
pub(super) enum Missing {
    /// A fault.
    Fault,
    /// This value.
    Value(Py<PyAny>),
    /// What this gives.
    Made(Py<PyAny>),
}

/// One field.
#[derive(Debug)]
pub(super) struct FieldCodec {
    /// The attribute's name, interned.
    pub(super) attribute: Py<PyString>,
    /// The same as text.
    pub(super) name: String,
    /// `"name":`, ready to be written.
    pub(super) key: Vec<u8>,
    pub(super) codec: Codec,
    pub(super) missing: Missing,
}

/// The fields of a model, in order.
#[pyclass(module = "_crosstie")]
#[derive(Debug)]
pub(crate) struct ModelCodec {
    pub(super) class: Option<Py<PyType>>,
    pub(super) fields: Vec<FieldCodec>,
}

#[pymethods]
impl ModelCodec {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.class)?;
        for field in &self.fields {
            visit.call(&field.attribute)?;
            field.codec.traverse(&visit)?;
            match &field.missing {
                Missing::Value(object) | Missing::Made(object) => visit.call(object)?,
                Missing::Fault => {}
            }
        }
        Ok(())
    }

    fn __clear__(&mut self) {
        self.class = None;
        self.fields.clear();
    }
}

/// The codec of `class`, compiled on first use. A model may refer to itself: the codec is put on the class
/// before its fields are compiled.
///
/// # Errors
/// A field's type has no form in JSON.
pub(crate) fn model_codec<'py>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, ModelCodec>> {
    let py = class.py();
    // Only the class's own attribute: a base's codec has other fields.
    let own = class.getattr(intern!(py, "__dict__"))?;
    if let Ok(codec) = own.get_item(ATTRIBUTE) {
        return Ok(codec.cast_into::<ModelCodec>()?);
    }
    let codec = Bound::new(py, ModelCodec { class: Some(class.clone().unbind()), fields: Vec::new() })?;
    class.setattr(ATTRIBUTE, &codec)?;
    match compile_fields(class) {
        Ok(fields) => codec.borrow_mut().fields = fields,
        Err(error) => {
            class.delattr(ATTRIBUTE)?;
            return Err(error);
        }
    }
    Ok(codec)
}

fn compile_fields(class: &Bound<'_, PyType>) -> PyResult<Vec<FieldCodec>> {
    let py = class.py();
    let fields =
        py.import(intern!(py, "crosstie._model"))?.call_method1(intern!(py, "fields_of"), (class,))?;
    let mut compiled = Vec::new();
    for (name, field) in fields.cast::<PyDict>()?.iter() {
        let name: String = name.extract()?;
        let required: bool = field.getattr(intern!(py, "required"))?.extract()?;
        let factory = field.getattr(intern!(py, "default_factory"))?;
        let missing = if required {
            Missing::Fault
        } else if factory.is_none() {
            Missing::Value(field.getattr(intern!(py, "default"))?.unbind())
        } else {
            Missing::Made(factory.unbind())
        };
        let mut key = serde_json::to_vec(&name).unwrap_or_default();
        key.push(b':');
        compiled.push(FieldCodec {
            attribute: PyString::intern(py, &name).unbind(),
            codec: Codec::compile(&field.getattr(intern!(py, "plan"))?)?,
            name,
            key,
            missing,
        });
    }
    Ok(compiled)
}
