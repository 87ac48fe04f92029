//! `self.out.soap["NAME"]`.

mod message;
mod values;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use crosstie_model::definition::OutgoingFormat;
use crosstie_model::outgoing::{
    AnsweredFault, EnvelopeCall, FoundOutgoing, Outgoing, SoapAnswer, SoapCall, SoapCallHeader, SoapError,
    SoapOutgoing,
};
use http::HeaderMap;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use self::message::SoapMessage;
use super::answer::{HttpResponse, receive};
use super::arguments::{bytes_of, is_cid, timeout};
use crate::python::context::Call;
use crate::python::interface::response::header_fields;
use crate::python::{codec, failure, host_call};

/// All outgoings that speak SOAP, by name.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct SoapFamily {
    call: Arc<Call>,
}

impl SoapFamily {
    pub(crate) fn new(call: Arc<Call>) -> Self {
        Self { call }
    }

    fn find(&self, name: &str) -> Option<SoapConnection> {
        let found = super::find(&self.call, "soap", name)?;
        Some(SoapConnection { call: Arc::clone(&self.call), name: name.to_owned(), found })
    }
}

#[pymethods]
impl SoapFamily {
    fn __getitem__(&self, name: &str) -> PyResult<SoapConnection> {
        self.find(name).ok_or_else(|| super::missing("soap", name))
    }

    fn get(&self, name: &str) -> Option<SoapConnection> {
        self.find(name)
    }

    fn __contains__(&self, name: &str) -> bool {
        super::find(&self.call, "soap", name).is_some()
    }
}

/// One outgoing that speaks SOAP.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct SoapConnection {
    call: Arc<Call>,
    name: String,
    found: FoundOutgoing,
}

#[pymethods]
impl SoapConnection {
    /// The same: what is called here is called there as well.
    #[getter]
    fn conn<'py>(this: Bound<'py, Self>) -> Bound<'py, Self> {
        this
    }

    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// The names of the operations.
    #[getter]
    fn operations(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(self.open(py)?.operations().to_vec())
    }

    /// Calls an operation.
    #[pyo3(signature = (*args, headers=None, http_headers=None, timeout=None, whole=false))]
    fn call<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        headers: Option<&Bound<'py, PyAny>>,
        http_headers: Option<&Bound<'py, PyDict>>,
        timeout: Option<&Bound<'py, PyAny>>,
        whole: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = args.py();
        let mut given = args.iter().peekable();
        given.next_if(|first| args.len() > 1 && is_cid(&self.call, first));
        let (Some(operation), data, None) = (given.next(), given.next(), given.next()) else {
            return Err(PyTypeError::new_err("call takes an operation and what it is called with"));
        };
        let outgoing = self.open(py)?;
        let soap_call = SoapCall {
            operation: operation.cast::<PyString>()?.to_str()?.to_owned(),
            message: match data.filter(|data| !data.is_none()) {
                Some(data) => encoded(&data)?.into(),
                None => Bytes::from_static(b"{}"),
            },
            headers: headers.map(header_blocks).transpose()?.unwrap_or_default(),
            fields: fields(http_headers)?,
            trace: self.call.message.trace,
            deadline: self.deadline(timeout)?,
        };
        super::run(
            py,
            &self.call,
            async move { Ok(outgoing.call(soap_call).await) },
            move |py, done: Result<SoapAnswer, SoapError>| match done {
                Ok(answer) if whole => Ok(Bound::new(py, SoapMessage::new(answer))?.into_any()),
                Ok(answer) => values::to_python(py, &answer.message),
                Err(error) => Err(raised(py, &error)),
            },
        )
    }

    /// Sends an envelope as it is; gives what came, whatever it is.
    #[pyo3(signature = (envelope, *, action=None, http_headers=None, timeout=None))]
    fn send<'py>(
        &self,
        envelope: &Bound<'py, PyAny>,
        action: Option<String>,
        http_headers: Option<&Bound<'py, PyDict>>,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = envelope.py();
        let envelope: Bytes = match envelope.cast::<PyString>() {
            Ok(text) => text.to_str()?.as_bytes().to_vec().into(),
            Err(_) => {
                bytes_of(envelope).ok_or_else(|| PyTypeError::new_err("an envelope is text or bytes"))?
            }
        };
        let outgoing = self.open(py)?;
        let (fields, deadline) = (fields(http_headers)?, self.deadline(timeout)?);
        let sent = EnvelopeCall { envelope, action, fields, trace: self.call.message.trace, deadline };
        let call = Arc::clone(&self.call);
        super::run(
            py,
            &self.call,
            async move { receive(outgoing.send(sent).await?, false).await },
            move |py, received| {
                let answer = HttpResponse::new(call, OutgoingFormat::Raw, received);
                Ok(Bound::new(py, answer)?.into_any())
            },
        )
    }

    #[pyo3(signature = (*_args))]
    fn ping<'py>(&self, py: Python<'py>, _args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        super::ping(py, &self.call, &self.found)
    }

    fn __repr__(&self) -> String {
        format!("<outgoing {} of type soap>", self.name)
    }
}

impl SoapConnection {
    /// The outgoing behind this, if it is open.
    fn open(&self, py: Python<'_>) -> PyResult<Arc<dyn SoapOutgoing>> {
        match &self.found.state {
            Ok(Outgoing::Soap(outgoing)) => Ok(Arc::clone(outgoing)),
            Ok(_) => Err(super::missing("soap", &self.name)),
            Err(error) => Err(failure::from_outgoing(py, error)),
        }
    }

    fn deadline(&self, limit: Option<&Bound<'_, PyAny>>) -> PyResult<Instant> {
        let within = host_call::deadline(&self.call);
        let limit = limit.filter(|limit| !limit.is_none()).map(timeout).transpose()?;
        Ok(limit.map_or(within, |limit| within.min(Instant::now() + limit)))
    }
}

fn encoded(value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    codec::to_vec(value, None).map_err(codec::EncodeError::into_exception)
}

fn fields(given: Option<&Bound<'_, PyDict>>) -> PyResult<HeaderMap> {
    let mut fields = HeaderMap::new();
    if let Some(given) = given {
        for (name, value) in header_fields(given)? {
            fields.append(name, value);
        }
    }
    Ok(fields)
}

/// Header blocks: a dict of those that are described, or XML; a list of XML for several.
fn header_blocks(given: &Bound<'_, PyAny>) -> PyResult<Vec<SoapCallHeader>> {
    if let Ok(dict) = given.cast::<PyDict>() {
        let mut blocks = Vec::with_capacity(dict.len());
        for (name, value) in dict.iter() {
            let name = name.cast::<PyString>()?.to_str()?.to_owned();
            let value = serde_json::from_slice(&encoded(&value)?)
                .map_err(|error| PyTypeError::new_err(error.to_string()))?;
            blocks.push(SoapCallHeader::Declared { name, value });
        }
        return Ok(blocks);
    }
    if let Ok(xml) = given.cast::<PyString>() {
        return Ok(vec![SoapCallHeader::Xml(xml.to_str()?.to_owned())]);
    }
    if given.is_none() {
        return Ok(Vec::new());
    }
    let blocks = given.try_iter()?.map(|xml| Ok(SoapCallHeader::Xml(xml?.extract()?)));
    blocks.collect()
}

/// The exception for a call without a result.
fn raised(py: Python<'_>, error: &SoapError) -> PyErr {
    if !error.faults.is_empty() {
        return failure::model_error(py, &error.faults);
    }
    match &error.fault {
        Some(fault) => soap_fault(py, fault, &error.error.detail).unwrap_or_else(|error| error),
        None => failure::from_outgoing(py, &error.error),
    }
}

fn soap_fault(py: Python<'_>, fault: &AnsweredFault, detail: &str) -> PyResult<PyErr> {
    let more = PyDict::new(py);
    more.set_item(intern!(py, "code"), &fault.code)?;
    more.set_item(intern!(py, "subcodes"), &fault.subcodes)?;
    more.set_item(intern!(py, "text"), &fault.text)?;
    more.set_item(intern!(py, "node"), &fault.node)?;
    more.set_item(intern!(py, "data"), values::to_python(py, &fault.detail)?)?;
    more.set_item(intern!(py, "xml"), &fault.xml)?;
    more.set_item(intern!(py, "detail"), detail)?;
    let class = py.import(intern!(py, "crosstie._errors"))?.getattr(intern!(py, "SoapFault"))?;
    Ok(PyErr::from_value(class.call((), Some(&more))?))
}
