//! `self.request` and `self.channel`.

use std::sync::Arc;

use crosstie_model::{Message, Payload};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString};
use serde_json::Value;

use super::amqp_request::Amqp;
use super::http::{Part, multi_dict};
use super::security::Security;
use super::soap::Soap;
use super::{Headers, Http};
use crate::python::codec::Path;
use crate::python::context::{Call, InputData};
use crate::python::{failure, input, json};

/// One request. Everything is converted when it is asked for, once.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct Request {
    call: Arc<Call>,
    payload: PyOnceLock<Py<PyAny>>,
    input: PyOnceLock<Py<PyAny>>,
    http: PyOnceLock<Py<Http>>,
    security: PyOnceLock<Option<Py<Security>>>,
    soap: PyOnceLock<Option<Py<Soap>>>,
    amqp: PyOnceLock<Option<Py<Amqp>>>,
}

impl Request {
    pub(crate) fn new(call: Arc<Call>) -> Self {
        Self {
            call,
            payload: PyOnceLock::new(),
            input: PyOnceLock::new(),
            http: PyOnceLock::new(),
            security: PyOnceLock::new(),
            soap: PyOnceLock::new(),
            amqp: PyOnceLock::new(),
        }
    }

    fn message(&self) -> &Message {
        &self.call.message
    }
}

#[pymethods]
impl Request {
    #[getter]
    fn payload(&self, py: Python<'_>) -> PyResult<&Py<PyAny>> {
        self.payload.get_or_try_init(py, || payload_to_python(py, &self.message().payload).map(Bound::unbind))
    }

    #[getter]
    fn input(&self, py: Python<'_>) -> PyResult<&Py<PyAny>> {
        self.input.get_or_try_init(py, || match &self.call.input {
            InputData::Undeclared => self.undeclared_input(py),
            InputData::Payload => match &self.message().payload {
                Payload::Json(value) => declared_input(py, &self.call, value),
                _ => declared_input(py, &self.call, &Value::Null),
            },
            InputData::Merged(value) => declared_input(py, &self.call, value),
        })
    }

    #[getter]
    fn http(&self, py: Python<'_>) -> PyResult<&Py<Http>> {
        self.http.get_or_try_init(py, || Py::new(py, Http::new(Arc::clone(&self.call))))
    }

    #[getter]
    fn params(&self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        self.http(py)?.get().params(py).map(|params| params.clone_ref(py))
    }

    #[getter]
    fn headers(&self) -> Headers {
        Headers::new(Arc::clone(&self.call))
    }

    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.message().raw)
    }

    #[getter]
    fn raw_request<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.raw(py)
    }

    #[getter]
    fn text<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, &String::from_utf8_lossy(&self.message().raw))
    }

    #[getter]
    fn cid(&self) -> &str {
        self.call.cid()
    }

    #[getter]
    fn security(&self, py: Python<'_>) -> PyResult<Option<&Py<Security>>> {
        let security = self.security.get_or_try_init(py, || {
            Security::of(&self.call).map(|security| Py::new(py, security)).transpose()
        });
        security.map(Option::as_ref)
    }

    #[getter]
    fn amqp(&self, py: Python<'_>) -> PyResult<Option<&Py<Amqp>>> {
        let amqp =
            self.amqp.get_or_try_init(py, || Amqp::of(&self.call).map(|amqp| Py::new(py, amqp)).transpose());
        amqp.map(Option::as_ref)
    }

    #[getter]
    fn soap(&self, py: Python<'_>) -> PyResult<Option<&Py<Soap>>> {
        let soap =
            self.soap.get_or_try_init(py, || Soap::of(&self.call).map(|soap| Py::new(py, soap)).transpose());
        soap.map(Option::as_ref)
    }
}

impl Request {
    /// Path over query over body where those are objects; else the payload as it came.
    fn undeclared_input(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let payload = self.payload(py)?.bind(py);
        let fields = match payload.cast::<PyDict>() {
            Ok(fields) => fields.copy()?,
            Err(_) if payload.is_none() => PyDict::new(py),
            Err(_) => return Ok(payload.clone().unbind()),
        };
        let http = self.http(py)?.get();
        fields.update(http.query(py)?.bind(py).as_mapping())?;
        fields.update(http.params(py)?.bind(py).as_mapping())?;
        Ok(fields.into_any().unbind())
    }
}

/// Converts what was validated before the interpreter was needed.
fn declared_input(py: Python<'_>, call: &Call, value: &Value) -> PyResult<Py<PyAny>> {
    let Some(declared) = &call.service.input else { return Ok(py.None()) };
    let mut faults = Vec::new();
    match declared.codec.decode(py, value, &Path::Root, &mut faults)? {
        Some(input) => Ok(input.unbind()),
        None => Err(failure::to_exception(py, &input::refused(faults))),
    }
}

fn payload_to_python<'py>(py: Python<'py>, payload: &Payload) -> PyResult<Bound<'py, PyAny>> {
    match payload {
        Payload::Empty => Ok(py.None().into_bound(py)),
        Payload::Json(value) => json::to_python(py, value),
        Payload::Form(_) | Payload::Multipart(_) => form_to_python(py, payload).map(Bound::into_any),
        Payload::Text(text) => Ok(PyString::new(py, text).into_any()),
        Payload::Bytes(bytes) => Ok(PyBytes::new(py, bytes).into_any()),
    }
}

/// The fields of a form body; empty for any other.
pub(super) fn form_to_python<'py>(py: Python<'py>, payload: &Payload) -> PyResult<Bound<'py, PyDict>> {
    match payload {
        Payload::Form(fields) => multi_dict(
            py,
            fields.iter().map(|(name, value)| (name.as_str(), PyString::new(py, value).into_any())),
        ),
        Payload::Multipart(parts) => {
            let mut fields = Vec::with_capacity(parts.len());
            for part in parts {
                let value = if part.file_name.is_some() {
                    Bound::new(py, Part::new(part.clone()))?.into_any()
                } else {
                    PyString::new(py, &String::from_utf8_lossy(&part.content)).into_any()
                };
                fields.push((part.name.as_str(), value));
            }
            multi_dict(py, fields.into_iter())
        }
        _ => Ok(PyDict::new(py)),
    }
}

/// `self.channel`
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct Channel {
    call: Arc<Call>,
}

impl Channel {
    pub(crate) fn new(call: Arc<Call>) -> Self {
        Self { call }
    }
}

#[pymethods]
impl Channel {
    #[getter]
    fn name(&self) -> &str {
        &self.call.message.channel.name
    }

    #[getter]
    fn r#type(&self) -> &'static str {
        self.call.message.channel.kind
    }

    #[getter]
    fn security(&self) -> Option<Security> {
        Security::of(&self.call)
    }
}
