//! Converters between JSON and the types a service declares, compiled once when a unit is loaded.
//!
//! The SDK turns annotations into plans (nested tuples) and a JSON Schema; the plan becomes a [`Codec`] here.
//! The schema has checked what comes in before a codec converts it, so decoding finds few faults of its own:
//! a date that does not exist, base64 that is none. Encoding checks what goes out, in the same pass that
//! writes it: a service that answers with something it did not declare fails, it does not surprise its
//! callers.

mod decode;
mod encode;
mod model;
mod path;
mod scalar;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

pub(crate) use encode::{EncodeError, encode_any, to_vec};
pub(crate) use model::{ModelCodec, model_codec};
pub(crate) use path::Path;
use scalar::Scalar;

/// How one declared type is converted.
#[derive(Debug)]
pub(crate) enum Codec {
    /// Whatever JSON says.
    Any,
    /// A single value.
    Scalar(Scalar),
    /// `list[T]`.
    List(Box<Codec>),
    /// `set[T]`.
    Set(Box<Codec>),
    /// `frozenset[T]`.
    FrozenSet(Box<Codec>),
    /// `tuple[T, ...]`.
    TupleOf(Box<Codec>),
    /// `tuple[A, B]`.
    Tuple(Vec<Codec>),
    /// `dict[str, T]`.
    Dict(Box<Codec>),
    /// An `Enum`, by its values.
    Enum(Py<PyAny>),
    /// One of some values.
    Literal(Py<PyTuple>),
    /// The first of several that fits.
    Union(Vec<Codec>),
    /// A model.
    Model(Py<ModelCodec>),
}

impl Codec {
    /// Compiles a plan of the SDK.
    ///
    /// # Errors
    /// The plan is none, or a model in it cannot be resolved.
    pub(crate) fn compile(plan: &Bound<'_, PyAny>) -> PyResult<Self> {
        let plan = plan.cast::<PyTuple>()?;
        let word: String = plan.get_item(0)?.extract()?;
        if word == "any" {
            return Ok(Self::Any);
        }
        if let Some(scalar) = Scalar::from_word(&word) {
            return Ok(Self::Scalar(scalar));
        }
        let argument = plan.get_item(1)?;
        let inner = || Self::compile(&argument).map(Box::new);
        match word.as_str() {
            "list" => inner().map(Self::List),
            "set" => inner().map(Self::Set),
            "frozenset" => inner().map(Self::FrozenSet),
            "tuple_of" => inner().map(Self::TupleOf),
            "dict" => inner().map(Self::Dict),
            "tuple" => Self::compile_all(&argument).map(Self::Tuple),
            "union" => Self::compile_all(&argument).map(Self::Union),
            "enum" => Ok(Self::Enum(argument.unbind())),
            "literal" => Ok(Self::Literal(argument.cast_into::<PyTuple>()?.unbind())),
            "model" => model_codec(argument.cast::<PyType>()?).map(|codec| Self::Model(codec.unbind())),
            _ => Err(PyTypeError::new_err(format!("unknown plan {word:?}"))),
        }
    }

    fn compile_all(plans: &Bound<'_, PyAny>) -> PyResult<Vec<Self>> {
        plans.cast::<PyTuple>()?.iter().map(|plan| Self::compile(&plan)).collect()
    }

    /// Shows the garbage collector the Python objects this codec holds itself.
    fn traverse(&self, visit: &pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        match self {
            Self::List(inner)
            | Self::Set(inner)
            | Self::FrozenSet(inner)
            | Self::TupleOf(inner)
            | Self::Dict(inner) => inner.traverse(visit),
            Self::Tuple(all) | Self::Union(all) => all.iter().try_for_each(|codec| codec.traverse(visit)),
            Self::Enum(class) => visit.call(class),
            Self::Literal(values) => visit.call(values),
            Self::Model(model) => visit.call(model),
            Self::Any | Self::Scalar(_) => Ok(()),
        }
    }
}
