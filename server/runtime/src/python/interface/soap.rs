//! `self.request.soap` and `self.response.soap`: what stands around the body of a SOAP message.

use std::sync::Arc;

use crosstie_model::TraceContext;
use crosstie_model::soap::{SoapAttachment, SoapReply, SoapReplyHeader, SoapRequest};
use pyo3::exceptions::{PyAttributeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};
use serde_json::Value;

use crate::python::codec;
use crate::python::context::Call;
use crate::python::json;

/// SOAP's side of a request.
#[pyclass(frozen, name = "SoapRequest", module = "_crosstie")]
pub(crate) struct Soap {
    call: Arc<Call>,
}

impl Soap {
    /// The one of `call`, if it came through a SOAP channel.
    pub(super) fn of(call: &Arc<Call>) -> Option<Self> {
        call.message.soap.as_ref()?;
        Some(Self { call: Arc::clone(call) })
    }

    fn request(&self) -> PyResult<&SoapRequest> {
        let request = self.call.message.soap.as_deref();
        request.ok_or_else(|| PyAttributeError::new_err("the message is not a SOAP message"))
    }
}

#[pymethods]
impl Soap {
    #[getter]
    fn version(&self) -> PyResult<&'static str> {
        Ok(self.request()?.version.as_str())
    }

    #[getter]
    fn operation(&self) -> PyResult<&str> {
        Ok(&self.request()?.operation)
    }

    #[getter]
    fn action(&self) -> PyResult<Option<&str>> {
        Ok(self.request()?.action.as_deref())
    }

    #[getter]
    fn message_id(&self) -> PyResult<Option<&str>> {
        Ok(self.request()?.message_id.as_deref())
    }

    #[getter]
    fn to(&self) -> PyResult<Option<&str>> {
        Ok(self.request()?.to.as_deref())
    }

    #[getter]
    fn reply_to(&self) -> PyResult<Option<&str>> {
        Ok(self.request()?.reply_to.as_deref())
    }

    #[getter]
    fn relates_to(&self) -> PyResult<Option<&str>> {
        Ok(self.request()?.relates_to.as_deref())
    }

    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let count = self.request()?.headers.len();
        let made = (0..count).map(|index| Py::new(py, SoapHeader { call: Arc::clone(&self.call), index }));
        PyList::new(py, made.collect::<PyResult<Vec<_>>>()?)
    }

    #[pyo3(signature = (name, namespace = None))]
    fn header(&self, name: &str, namespace: Option<&str>) -> PyResult<Option<SoapHeader>> {
        let is_meant = |header: &crosstie_model::soap::SoapHeader| {
            header.name == name && namespace.is_none_or(|namespace| header.namespace == namespace)
        };
        let found = self.request()?.headers.iter().position(is_meant);
        Ok(found.map(|index| SoapHeader { call: Arc::clone(&self.call), index }))
    }

    #[getter]
    fn attachments<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let made = self.request()?.attachments.iter().cloned().map(|held| Py::new(py, Attachment { held }));
        PyList::new(py, made.collect::<PyResult<Vec<_>>>()?)
    }
}

/// A header block of a request.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct SoapHeader {
    call: Arc<Call>,
    index: usize,
}

impl SoapHeader {
    fn header(&self) -> PyResult<&crosstie_model::soap::SoapHeader> {
        let headers = self.call.message.soap.as_ref().map(|soap| &soap.headers);
        let header = headers.and_then(|headers| headers.get(self.index));
        header.ok_or_else(|| PyAttributeError::new_err("there is no such header block"))
    }
}

#[pymethods]
impl SoapHeader {
    #[getter]
    fn name(&self) -> PyResult<&str> {
        Ok(&self.header()?.name)
    }

    #[getter]
    fn namespace(&self) -> PyResult<&str> {
        Ok(&self.header()?.namespace)
    }

    #[getter]
    fn must_understand(&self) -> PyResult<bool> {
        Ok(self.header()?.must_understand)
    }

    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json::to_python(py, &self.header()?.value)
    }

    #[getter]
    fn xml(&self) -> PyResult<&str> {
        Ok(&self.header()?.xml)
    }
}

/// What came beside an envelope.
#[pyclass(frozen, name = "Attachment", module = "_crosstie")]
pub(crate) struct Attachment {
    held: SoapAttachment,
}

#[pymethods]
impl Attachment {
    #[getter]
    fn content_id(&self) -> &str {
        &self.held.content_id
    }

    #[getter]
    fn content_type(&self) -> &str {
        &self.held.content_type
    }

    #[getter]
    fn content<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.held.content)
    }
}

/// SOAP's side of the answer in the making.
#[pyclass(module = "_crosstie")]
#[derive(Default)]
pub(crate) struct SoapResponse {
    reply: SoapReply,
}

#[pymethods]
impl SoapResponse {
    #[pyo3(signature = (name, value, /, *, namespace, must_understand = false))]
    fn add_header(
        &mut self,
        name: &str,
        value: &Bound<'_, PyAny>,
        namespace: &str,
        must_understand: bool,
    ) -> PyResult<()> {
        if namespace.is_empty() {
            return Err(PyValueError::new_err("a header block is in a namespace"));
        }
        if !is_name(name) {
            return Err(PyValueError::new_err(format!("{name:?} is no name that XML has")));
        }
        let text = codec::to_vec(value, None).map_err(codec::EncodeError::into_exception)?;
        let value: Value =
            serde_json::from_slice(&text).map_err(|error| PyValueError::new_err(error.to_string()))?;
        self.reply.headers.push(SoapReplyHeader {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            must_understand,
            value,
        });
        Ok(())
    }

    #[pyo3(signature = (content, content_type = "application/octet-stream", *, content_id = None))]
    fn attach<'py>(
        &mut self,
        py: Python<'py>,
        content: &[u8],
        content_type: &str,
        content_id: Option<&str>,
    ) -> PyResult<Bound<'py, PyString>> {
        let refused =
            |text: &str| text.is_empty() || text.chars().any(|c| c.is_control() || c == '<' || c == '>');
        if refused(content_type) || content_id.is_some_and(refused) {
            return Err(PyValueError::new_err("a content type and a content id are text of one line"));
        }
        let content_id = match content_id {
            Some(id) => id.to_owned(),
            None => format!("{}@crosstie", TraceContext::new_root().cid),
        };
        let shown = PyString::new(py, &content_id);
        self.reply.attachments.push(SoapAttachment {
            content_id,
            content_type: content_type.to_owned(),
            content: content.to_vec().into(),
        });
        Ok(shown)
    }
}

impl SoapResponse {
    /// Takes out what was added; `None` when that is nothing.
    pub(super) fn take(&mut self) -> Option<Box<SoapReply>> {
        let reply = std::mem::take(&mut self.reply);
        (reply != SoapReply::default()).then(|| Box::new(reply))
    }
}

/// Whether `name` may be an element's local name, as far as names of headers go: letters, digits, `_`, `-`, `.`,
/// and no digit first.
fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    let is_start = |c: char| c.is_alphabetic() || c == '_';
    characters.next().is_some_and(is_start)
        && characters.all(|c| is_start(c) || c.is_numeric() || matches!(c, '-' | '.'))
}
