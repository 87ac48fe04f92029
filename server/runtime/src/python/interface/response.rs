//! `self.response`: what the caller gets.

use crosstie_model::soap::SoapReply;
use http::{HeaderName, HeaderValue};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use super::soap::SoapResponse;

/// The answer in the making.
#[pyclass(module = "_crosstie")]
#[derive(Default)]
pub(crate) struct Response {
    payload: Option<Py<PyAny>>,
    /// A payload was handed out before one was set; it counts only if something was put in it.
    is_draft: bool,
    status_code: Option<u16>,
    content_type: Option<String>,
    headers: Option<Py<PyDict>>,
    soap: Option<Py<SoapResponse>>,
}

/// What a handler left in its response.
#[derive(Default)]
pub(crate) struct Written {
    /// The payload, if one was set.
    pub(crate) payload: Option<Py<PyAny>>,
    /// The status, if one was chosen.
    pub(crate) status: Option<u16>,
    /// The media type, if one was chosen.
    pub(crate) content_type: Option<HeaderValue>,
    /// Header fields in the order they were set.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// What goes around the body of a SOAP answer.
    pub(crate) soap: Option<Box<SoapReply>>,
}

#[pymethods]
impl Response {
    #[getter]
    fn payload<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(payload) = &self.payload {
            return Ok(payload.bind(py).clone());
        }
        let draft = py.import(intern!(py, "_crosstie_runtime.calls"))?.call_method0(intern!(py, "Draft"))?;
        self.payload = Some(draft.clone().unbind());
        self.is_draft = true;
        Ok(draft)
    }

    #[setter]
    fn set_payload(&mut self, payload: Py<PyAny>) {
        self.payload = Some(payload);
        self.is_draft = false;
    }

    #[getter]
    fn status_code(&self) -> Option<u16> {
        self.status_code
    }

    #[setter]
    fn set_status_code(&mut self, status: Option<u16>) -> PyResult<()> {
        if status.is_some_and(|status| !(200..=599).contains(&status)) {
            return Err(PyValueError::new_err("a status code is a number from 200 to 599"));
        }
        self.status_code = status;
        Ok(())
    }

    #[getter]
    fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    #[setter]
    fn set_content_type(&mut self, content_type: Option<String>) -> PyResult<()> {
        if let Some(text) = &content_type {
            HeaderValue::from_str(text).map_err(|_| PyValueError::new_err("not a content type"))?;
        }
        self.content_type = content_type;
        Ok(())
    }

    #[getter]
    fn headers<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyDict> {
        self.headers.get_or_insert_with(|| PyDict::new(py).unbind()).bind(py).clone()
    }

    #[setter]
    fn set_headers(&mut self, py: Python<'_>, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        let dict = PyDict::new(py);
        dict.update(headers.cast()?)?;
        self.headers = Some(dict.unbind());
        Ok(())
    }

    #[getter]
    fn soap(&mut self, py: Python<'_>) -> PyResult<Py<SoapResponse>> {
        if let Some(soap) = &self.soap {
            return Ok(soap.clone_ref(py));
        }
        let soap = Py::new(py, SoapResponse::default())?;
        self.soap = Some(soap.clone_ref(py));
        Ok(soap)
    }
}

impl Response {
    /// Takes everything out, so that a payload that refers to the service leaves no circle behind.
    ///
    /// # Errors
    /// A header field is not one.
    pub(crate) fn take(&mut self, py: Python<'_>) -> PyResult<Written> {
        let payload = self.payload.take();
        let is_unused = match &payload {
            Some(draft) if self.is_draft => {
                draft.bind(py).getattr(intern!(py, "__dict__"))?.cast::<PyDict>()?.is_empty()
            }
            _ => false,
        };
        let headers = match self.headers.take() {
            Some(headers) => header_fields(headers.bind(py))?,
            None => Vec::new(),
        };
        let content_type = self.content_type.take();
        let soap = match self.soap.take() {
            Some(soap) => soap.try_borrow_mut(py)?.take(),
            None => None,
        };
        Ok(Written {
            soap,
            payload: payload.filter(|_| !is_unused),
            status: self.status_code,
            content_type: content_type.and_then(|text| HeaderValue::from_str(&text).ok()),
            headers,
        })
    }
}

/// Header fields of a dict; a list stands for a field that repeats.
///
/// # Errors
/// One of them is none.
pub(super) fn header_fields(headers: &Bound<'_, PyDict>) -> PyResult<Vec<(HeaderName, HeaderValue)>> {
    let mut fields = Vec::with_capacity(headers.len());
    for (name, value) in headers.iter() {
        let name = name.str()?;
        let name = HeaderName::from_bytes(name.to_str()?.as_bytes())
            .map_err(|_| PyValueError::new_err(format!("{name:?} is no header field's name")))?;
        let is_list = value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>();
        let values: Vec<Bound<'_, PyAny>> =
            if is_list { value.try_iter()?.collect::<PyResult<_>>()? } else { vec![value] };
        for value in values {
            fields.push((name.clone(), header_value(&name, &value.str()?)?));
        }
    }
    Ok(fields)
}

fn header_value(name: &HeaderName, text: &Bound<'_, PyString>) -> PyResult<HeaderValue> {
    HeaderValue::from_str(text.to_str()?)
        .or_else(|_| HeaderValue::from_bytes(text.to_str().unwrap_or_default().as_bytes()))
        .map_err(|_| PyValueError::new_err(format!("the header field {name} holds what a field cannot")))
}
