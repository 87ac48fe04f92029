//! `self.request.http`, header fields and uploaded files.

use std::sync::Arc;

use crosstie_model::{HttpRequest, message};
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use super::request::form_to_python;
use crate::python::context::Call;

/// HTTP's side of a request; empty where there is none.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct Http {
    call: Arc<Call>,
    params: PyOnceLock<Py<PyDict>>,
    query: PyOnceLock<Py<PyDict>>,
    form: PyOnceLock<Py<PyDict>>,
}

impl Http {
    pub(crate) fn new(call: Arc<Call>) -> Self {
        Self { call, params: PyOnceLock::new(), query: PyOnceLock::new(), form: PyOnceLock::new() }
    }

    fn inner(&self) -> Option<&HttpRequest> {
        self.call.message.http.as_deref()
    }
}

#[pymethods]
impl Http {
    #[getter]
    fn method(&self) -> &str {
        self.inner().map_or("", |http| http.method.as_str())
    }

    #[getter]
    fn path(&self) -> &str {
        self.inner().map_or("", |http| http.path.as_str())
    }

    #[getter]
    pub(super) fn params(&self, py: Python<'_>) -> PyResult<&Py<PyDict>> {
        self.params.get_or_try_init(py, || {
            let params = PyDict::new(py);
            for (name, value) in self.inner().map_or(&[][..], |http| &http.params) {
                params.set_item(&**name, value)?;
            }
            Ok(params.unbind())
        })
    }

    #[getter]
    pub(super) fn query(&self, py: Python<'_>) -> PyResult<&Py<PyDict>> {
        self.query.get_or_try_init(py, || {
            let query = self.inner().map_or(&[][..], |http| &http.query).iter();
            let texts = query.map(|(name, value)| (name.as_str(), PyString::new(py, value).into_any()));
            multi_dict(py, texts).map(Bound::unbind)
        })
    }

    #[getter]
    #[pyo3(name = "GET")]
    fn get(&self, py: Python<'_>) -> PyResult<&Py<PyDict>> {
        self.query(py)
    }

    #[getter]
    fn form(&self, py: Python<'_>) -> PyResult<&Py<PyDict>> {
        self.form.get_or_try_init(py, || form_to_python(py, &self.call.message.payload).map(Bound::unbind))
    }

    #[getter]
    #[pyo3(name = "POST")]
    fn post(&self, py: Python<'_>) -> PyResult<&Py<PyDict>> {
        self.form(py)
    }

    fn get_form_data(&self, py: Python<'_>) -> PyResult<&Py<PyDict>> {
        self.form(py)
    }

    #[getter]
    fn headers(&self) -> Headers {
        Headers::new(Arc::clone(&self.call))
    }

    #[getter]
    fn user_agent(&self) -> String {
        let agent = self.inner().and_then(|http| http.headers.get(USER_AGENT));
        agent.map_or_else(String::new, text_of)
    }

    #[getter]
    fn client(&self) -> String {
        self.inner().map_or_else(String::new, |http| http.client.to_string())
    }

    #[getter]
    fn secure(&self) -> bool {
        self.inner().is_some_and(|http| http.secure)
    }
}

/// Header fields by case-insensitive name.
#[pyclass(frozen, mapping, module = "_crosstie")]
pub(crate) struct Headers {
    source: Source,
}

/// Whose fields they are.
enum Source {
    /// Those of a call's request.
    Request(Arc<Call>),
    /// Those of an answer.
    Answer(HeaderMap),
}

impl Headers {
    pub(crate) fn new(call: Arc<Call>) -> Self {
        Self { source: Source::Request(call) }
    }

    /// The fields of an answer.
    pub(crate) fn of(fields: HeaderMap) -> Self {
        Self { source: Source::Answer(fields) }
    }

    fn fields(&self) -> Option<&HeaderMap> {
        match &self.source {
            Source::Request(call) => call.message.http.as_deref().map(|http| &http.headers),
            Source::Answer(fields) => Some(fields),
        }
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.fields().map_or_else(Vec::new, |fields| fields.get_all(name).iter().map(text_of).collect())
    }

    fn names(&self) -> Vec<String> {
        self.fields().map_or_else(Vec::new, |fields| fields.keys().map(ToString::to_string).collect())
    }
}

#[pymethods]
impl Headers {
    fn __getitem__(&self, name: &str) -> PyResult<String> {
        let values = self.all(name);
        if values.is_empty() { Err(PyKeyError::new_err(name.to_owned())) } else { Ok(values.join(", ")) }
    }

    #[pyo3(signature = (name, default = None))]
    fn get<'py>(&self, py: Python<'py>, name: &str, default: Option<Bound<'py, PyAny>>) -> Bound<'py, PyAny> {
        let values = self.all(name);
        if values.is_empty() {
            return default.unwrap_or_else(|| py.None().into_bound(py));
        }
        PyString::new(py, &values.join(", ")).into_any()
    }

    fn get_all(&self, name: &str) -> Vec<String> {
        self.all(name)
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> bool {
        name.cast::<PyString>()
            .ok()
            .and_then(|name| name.to_str().ok().map(|name| !self.all(name).is_empty()))
            .unwrap_or(false)
    }

    fn __len__(&self) -> usize {
        self.fields().map_or(0, HeaderMap::keys_len)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyList::new(py, self.names())?.try_iter()?.into_any())
    }

    fn keys(&self) -> Vec<String> {
        self.names()
    }

    fn values(&self) -> Vec<String> {
        self.names().iter().map(|name| self.all(name).join(", ")).collect()
    }

    fn items(&self) -> Vec<(String, String)> {
        self.names().into_iter().map(|name| (self.all(&name).join(", "), name)).map(|(v, n)| (n, v)).collect()
    }

    fn __repr__(&self) -> String {
        format!("Headers({})", self.names().join(", "))
    }
}

/// A field's value as text; bytes that are no UTF-8 are shown as Latin-1, which HTTP/1 once said they are.
fn text_of(value: &HeaderValue) -> String {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => text.to_owned(),
        Err(_) => value.as_bytes().iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// An uploaded file.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct Part {
    part: message::Part,
}

impl Part {
    pub(super) fn new(part: message::Part) -> Self {
        Self { part }
    }
}

#[pymethods]
impl Part {
    #[getter]
    fn name(&self) -> &str {
        &self.part.name
    }

    #[getter]
    fn file_name(&self) -> Option<&str> {
        self.part.file_name.as_deref()
    }

    #[getter]
    fn content_type(&self) -> Option<&str> {
        self.part.content_type.as_deref()
    }

    #[getter]
    fn content<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.part.content)
    }

    #[getter]
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.part.content).into_owned()
    }

    /// What it is, not what it holds: a part is logged more often than it is meant to be.
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let quoted = |text: Option<&str>| -> PyResult<String> {
            // As Python quotes, which lets no control character of the caller's through.
            Ok(text.map(|text| PyString::new(py, text)).into_pyobject(py)?.repr()?.to_string())
        };
        let message::Part { name, file_name, content_type, content } = &self.part;
        Ok(format!(
            "Part(name={}, file_name={}, content_type={}, {} bytes)",
            quoted(Some(name))?,
            quoted(file_name.as_deref())?,
            quoted(content_type.as_deref())?,
            content.len()
        ))
    }
}

/// A dict of named values in which a repeated name is a list.
pub(super) fn multi_dict<'py, 'a>(
    py: Python<'py>,
    fields: impl Iterator<Item = (&'a str, Bound<'py, PyAny>)>,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in fields {
        match dict.get_item(name)? {
            None => dict.set_item(name, value)?,
            Some(known) => match known.cast::<PyList>() {
                Ok(list) => list.append(value)?,
                Err(_) => dict.set_item(name, PyList::new(py, [known, value])?)?,
            },
        }
    }
    Ok(dict)
}
