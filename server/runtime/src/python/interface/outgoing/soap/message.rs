//! The whole answer of an operation: what is in the body and all that came with it.

use crosstie_model::outgoing::SoapAnswer;
use crosstie_model::soap::SoapAttachment;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::values;
use crate::python::interface::Headers;

/// The answer of an operation.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct SoapMessage {
    answer: SoapAnswer,
}

impl SoapMessage {
    pub(super) fn new(answer: SoapAnswer) -> Self {
        Self { answer }
    }
}

#[pymethods]
impl SoapMessage {
    /// What the body holds.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        values::to_python(py, &self.answer.message)
    }

    /// What the header blocks hold, by local name; the last of a name.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for header in &self.answer.headers {
            dict.set_item(&header.name, values::to_python(py, &header.value)?)?;
        }
        Ok(dict)
    }

    /// The header blocks as XML, in their order.
    #[getter]
    fn header_blocks(&self) -> Vec<String> {
        self.answer.headers.iter().map(|header| header.xml.clone()).collect()
    }

    /// What came beside the envelope.
    #[getter]
    fn attachments<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for attachment in &self.answer.attachments {
            list.append(Bound::new(py, SoapPart { attachment: attachment.clone() })?)?;
        }
        Ok(list)
    }

    #[getter]
    fn status_code(&self) -> u16 {
        self.answer.status.as_u16()
    }

    /// Header fields of HTTP.
    #[getter]
    fn http_headers(&self) -> Headers {
        Headers::of(self.answer.fields.clone())
    }

    fn __repr__(&self) -> String {
        format!("<SOAP answer {}>", self.answer.status.as_u16())
    }
}

/// What stands beside an envelope.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct SoapPart {
    attachment: SoapAttachment,
}

#[pymethods]
impl SoapPart {
    #[getter]
    fn content_id(&self) -> &str {
        &self.attachment.content_id
    }

    #[getter]
    fn content_type(&self) -> &str {
        &self.attachment.content_type
    }

    #[getter]
    fn content<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.attachment.content)
    }
}
