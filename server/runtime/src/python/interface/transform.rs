//! `self.transform`: stylesheets, which are definitions, and the mapping between XML and plain data.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use crosstie_model::limits::MAX_DOCUMENT_DEPTH;
use crosstie_model::transform::{
    FoundStylesheet, Parameter, TransformError, TransformTrouble, Transformation, Transformed,
};
use crosstie_xml::{Document, Limits, decode, is_ncname, untyped};
use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyString};
use serde_json::Value;

use super::outgoing::bytes_of;
use crate::python::context::Call;
use crate::python::{codec, failure, host_call, json};

/// Integers up to this one are numbers of XPath without loss.
const EXACT: i64 = 1 << 53;

/// All stylesheets by name, and what needs none.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct Transforms {
    call: Arc<Call>,
}

impl Transforms {
    pub(crate) fn new(call: Arc<Call>) -> Self {
        Self { call }
    }

    fn find(&self, name: &str) -> Option<Sheet> {
        let found = self.call.host.stylesheet(name)?;
        Some(Sheet { call: Arc::clone(&self.call), name: name.to_owned(), found })
    }
}

#[pymethods]
impl Transforms {
    fn __getitem__(&self, name: &str) -> PyResult<Sheet> {
        self.find(name).ok_or_else(|| PyKeyError::new_err(format!("there is no stylesheet named {name:?}")))
    }

    fn get(&self, name: &str) -> Option<Sheet> {
        self.find(name)
    }

    fn __contains__(&self, name: &str) -> bool {
        self.call.host.stylesheet(name).is_some()
    }

    /// A document as plain data.
    #[pyo3(name = "from_xml", signature = (xml, *, arrays=None))]
    fn read_xml<'py>(
        &self,
        xml: &Bound<'py, PyAny>,
        arrays: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = xml.py();
        let (source, charset) = document_of(xml)?;
        let arrays = arrays.map(names).transpose()?.unwrap_or_default();
        let read = py.detach(|| read(&source, charset.as_deref(), &arrays));
        let value = read.map_err(|detail| {
            failure::from_transform(py, &TransformError::new(TransformTrouble::Source, detail))
        })?;
        json::to_python(py, &value)
    }

    /// Plain data as a document.
    #[pyo3(signature = (data, root="response"))]
    fn to_xml(&self, data: &Bound<'_, PyAny>, root: &str) -> PyResult<String> {
        if !is_ncname(root) {
            return Err(PyValueError::new_err(format!("{root:?} is no name of an element")));
        }
        let text = codec::to_vec(data, None).map_err(codec::EncodeError::into_exception)?;
        let written = data
            .py()
            .detach(|| serde_json::from_slice(&text).map(|value: Value| untyped::document(root, &value)));
        written.map_err(|error| PyValueError::new_err(format!("the data cannot be written: {error}")))
    }
}

/// One stylesheet.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct Sheet {
    call: Arc<Call>,
    name: String,
    found: FoundStylesheet,
}

#[pymethods]
impl Sheet {
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// Transforms a document: text where the result is in UTF-8, which it is unless the stylesheet says otherwise,
    /// and bytes where it is not.
    #[pyo3(signature = (xml, params=None, /, **more))]
    fn __call__<'py>(
        &self,
        xml: &Bound<'py, PyAny>,
        params: Option<&Bound<'py, PyDict>>,
        more: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = xml.py();
        let (source, charset) = document_of(xml)?;
        let mut parameters = params.map(values).transpose()?.unwrap_or_default();
        parameters.extend(more.map(values).transpose()?.unwrap_or_default());
        let stylesheet = self.found.clone().map_err(|reason| {
            failure::from_transform(py, &TransformError::new(TransformTrouble::Closed, &*reason))
        })?;
        let deadline = host_call::deadline(&self.call);
        let depth = MAX_DOCUMENT_DEPTH;
        let work = Transformation { source, charset, parameters, depth, deadline };
        let (call, name) = (Arc::clone(&self.call), self.name.clone());
        let future = async move { stylesheet.transform(work).await };
        host_call::run(py, &self.call, future, move |py, outcome| shown(py, &call, &name, outcome))
    }
}

fn shown<'py>(
    py: Python<'py>,
    call: &Call,
    name: &str,
    outcome: Result<Transformed, TransformError>,
) -> PyResult<Bound<'py, PyAny>> {
    let (cid, service) = (call.cid(), &call.service.description.name);
    let transformed = outcome.map_err(|error| {
        let is_documents = matches!(error.trouble, TransformTrouble::Source | TransformTrouble::Terminated);
        if !is_documents && error.trouble != TransformTrouble::Misuse {
            let (trouble, detail) = (error.trouble.as_str(), error.detail.as_str());
            tracing::warn!(target: "service", cid, %service, stylesheet = name, trouble, detail,
                "a document was not transformed");
        }
        failure::from_transform(py, &error)
    })?;
    for message in &transformed.messages {
        tracing::info!(target: "service", cid, %service, stylesheet = name, "{message}");
    }
    if !transformed.is_utf8() {
        return Ok(PyBytes::new(py, &transformed.body).into_any());
    }
    let text = std::str::from_utf8(&transformed.body)
        .map_err(|error| PyRuntimeError::new_err(format!("the result is not UTF-8: {error}")))?;
    Ok(PyString::new(py, text).into_any())
}

/// A document given as text or bytes, and its encoding where that is known: text has none but ours, whatever its
/// declaration says.
fn document_of(xml: &Bound<'_, PyAny>) -> PyResult<(Bytes, Option<String>)> {
    if let Ok(text) = xml.cast::<PyString>() {
        return Ok((Bytes::copy_from_slice(text.to_str()?.as_bytes()), Some("utf-8".to_owned())));
    }
    let bytes = bytes_of(xml).ok_or_else(|| PyTypeError::new_err("a document is text or bytes"))?;
    Ok((bytes, None))
}

fn names(given: &Bound<'_, PyAny>) -> PyResult<BTreeSet<String>> {
    if given.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err("arrays are several names, such as [\"line\"]"));
    }
    given.try_iter()?.map(|name| name?.extract()).collect()
}

fn values(given: &Bound<'_, PyDict>) -> PyResult<Vec<(String, Parameter)>> {
    given.iter().map(|(name, value)| Ok((name.extract()?, value_of(&value)?))).collect()
}

fn value_of(value: &Bound<'_, PyAny>) -> PyResult<Parameter> {
    // A truth value is a number as well.
    if let Ok(truth) = value.cast::<PyBool>() {
        return Ok(Parameter::Truth(truth.is_true()));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Parameter::Text(text.to_str()?.to_owned()));
    }
    let is_exact = || value.extract::<i64>().is_ok_and(|number| (-EXACT..=EXACT).contains(&number));
    if value.is_instance_of::<PyInt>() && !is_exact() {
        return Ok(Parameter::Text(value.str()?.to_str()?.to_owned()));
    }
    if value.is_instance_of::<PyInt>() || value.is_instance_of::<PyFloat>() {
        return Ok(Parameter::Number(value.extract()?));
    }
    Err(PyTypeError::new_err("a parameter is text, a number or a truth value"))
}

fn read(source: &[u8], charset: Option<&str>, arrays: &BTreeSet<String>) -> Result<Value, String> {
    let text: Cow<'_, str> = decode(source, charset).map_err(|error| error.to_string())?;
    let limits = Limits { bytes: usize::MAX, text_bytes: usize::MAX, nodes: usize::MAX, ..Limits::default() };
    let document = Document::parse(&*text, &limits).map_err(|error| error.to_string())?;
    let mut value = untyped::to_json(document.root());
    untyped::make_arrays(&mut value, arrays);
    Ok(value)
}
