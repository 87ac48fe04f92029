//! The base class of every service, and calls of one service by another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crosstie_model::limits::MAX_INVOKE_DEPTH;
use crosstie_model::message::ChannelInfo;
use crosstie_model::{Failure, FailureKind, Message, Origin, Payload, Reply};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};
use serde_json::Value;

use super::{
    Channel, Data, Dictionaries, HttpFamily, Logger, Out, Request, Response, SoapFamily, Transforms,
};
use crate::python::codec;
use crate::python::context::{self, Call};
use crate::python::{config, failure, host_call, json};

/// What the SDK's `Service` is derived from.
#[pyclass(subclass, frozen, module = "_crosstie")]
pub(crate) struct ServiceBase {
    /// The call the instance was made for; none for one that a service made itself outside of any.
    call: Option<Arc<Call>>,
    request: PyOnceLock<Py<Request>>,
    response: PyOnceLock<Py<Response>>,
}

impl ServiceBase {
    fn call(&self) -> PyResult<&Arc<Call>> {
        self.call.as_ref().ok_or_else(|| PyRuntimeError::new_err("this service was not called by the server"))
    }

    /// The response, if the service looked at it.
    pub(crate) fn touched_response(&self, py: Python<'_>) -> Option<&Py<Response>> {
        self.response.get(py)
    }
}

#[pymethods]
impl ServiceBase {
    #[new]
    #[pyo3(signature = (*_args, **_more))]
    fn new(_args: &Bound<'_, PyTuple>, _more: Option<&Bound<'_, PyDict>>) -> Self {
        Self { call: context::current(), request: PyOnceLock::new(), response: PyOnceLock::new() }
    }

    #[getter]
    fn request(&self, py: Python<'_>) -> PyResult<&Py<Request>> {
        self.request.get_or_try_init(py, || Py::new(py, Request::new(Arc::clone(self.call()?))))
    }

    #[getter]
    fn response(&self, py: Python<'_>) -> PyResult<&Py<Response>> {
        self.call()?;
        self.response.get_or_try_init(py, || Py::new(py, Response::default()))
    }

    #[getter]
    fn cid(&self) -> PyResult<&str> {
        Ok(self.call()?.cid())
    }

    #[getter]
    fn logger(&self) -> PyResult<Logger> {
        Ok(Logger::new(Arc::clone(self.call()?)))
    }

    #[getter]
    fn channel(&self) -> PyResult<Channel> {
        Ok(Channel::new(Arc::clone(self.call()?)))
    }

    #[getter]
    fn dictionary(&self) -> PyResult<Dictionaries> {
        Ok(Dictionaries::new(Arc::clone(&self.call()?.host)))
    }

    #[getter]
    fn data(&self) -> PyResult<Data> {
        Ok(Data::new(Arc::clone(self.call()?)))
    }

    #[getter]
    fn out(&self) -> PyResult<Out> {
        Ok(Out::new(Arc::clone(self.call()?)))
    }

    #[getter]
    fn rest(&self) -> PyResult<HttpFamily> {
        Ok(HttpFamily::new(Arc::clone(self.call()?), "rest"))
    }

    #[getter]
    fn soap(&self) -> PyResult<SoapFamily> {
        Ok(SoapFamily::new(Arc::clone(self.call()?)))
    }

    #[getter]
    fn transform(&self) -> PyResult<Transforms> {
        Ok(Transforms::new(Arc::clone(self.call()?)))
    }

    #[getter]
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        config::shown(py, &self.call()?.host)
    }

    #[pyo3(signature = (service, payload = None, /, **fields))]
    fn invoke<'py>(
        &self,
        py: Python<'py>,
        service: &Bound<'py, PyAny>,
        payload: Option<&Bound<'py, PyAny>>,
        fields: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let call = self.call()?;
        let name = name_of(service)?;
        let payload = match (payload, fields) {
            (Some(payload), None) => payload_of(payload)?,
            (None, Some(fields)) => payload_of(fields)?,
            (None, None) => Payload::Empty,
            (Some(_), Some(_)) => {
                return Err(PyTypeError::new_err("invoke() takes a payload or its fields, not both"));
            }
        };
        let Some(target) = call.host.find(&name) else {
            let text = format!("There is no service named {name}");
            return Err(failure::to_exception(
                py,
                &Failure::new(FailureKind::NotFound, Origin::Service).with_text(text),
            ));
        };
        let message =
            message_for(call, payload, target.description().deadline_ms, &target.description().name)
                .map_err(|failure| failure::to_exception(py, &failure))?;
        let future = async move { target.invoke(message).await };
        host_call::run(py, call, future, |py, reply| match reply {
            Ok(reply) => answer_of(py, &reply),
            Err(failure) => Err(failure::to_exception(py, &failure)),
        })
    }
}

/// The name that a name or a service class stands for.
fn name_of(service: &Bound<'_, PyAny>) -> PyResult<String> {
    if let Ok(name) = service.cast::<PyString>() {
        return Ok(name.to_str()?.to_owned());
    }
    match service.cast::<PyType>() {
        Ok(class) => class.call_method0(intern!(service.py(), "get_name"))?.extract(),
        Err(_) => Err(PyTypeError::new_err("invoke() takes the name or the class of a service")),
    }
}

fn payload_of(payload: &Bound<'_, PyAny>) -> PyResult<Payload> {
    let text = codec::to_vec(payload, None).map_err(codec::EncodeError::into_exception)?;
    serde_json::from_slice(&text)
        .map(Payload::Json)
        .map_err(|error| PyTypeError::new_err(format!("the payload cannot be passed on: {error}")))
}

/// The message of a call from within `call`: the caller's trace, principal and, at most, deadline.
fn message_for(
    call: &Call,
    payload: Payload,
    deadline_ms: Option<u64>,
    service: &crosstie_model::ServiceName,
) -> Result<Message, Failure> {
    let depth = call.message.depth.saturating_add(1);
    if depth > MAX_INVOKE_DEPTH {
        let text = format!("Services call each other more than {MAX_INVOKE_DEPTH} deep");
        return Err(Failure::new(FailureKind::Internal, Origin::Service).with_text(text));
    }
    let own = deadline_ms.and_then(|limit| Instant::now().checked_add(Duration::from_millis(limit)));
    Ok(Message {
        trace: call.message.trace.child(),
        channel: Arc::new(ChannelInfo { name: "invoke".into(), kind: "invoke", service: service.clone() }),
        payload,
        raw: Bytes::new(),
        http: None,
        soap: None,
        amqp: None,
        principal: call.message.principal.clone(),
        deadline: own.map_or(call.message.deadline, |own| own.min(call.message.deadline)),
        depth,
    })
}

/// What the called service answered, as plain Python.
fn answer_of<'py>(py: Python<'py>, reply: &Reply) -> PyResult<Bound<'py, PyAny>> {
    use crosstie_model::ReplyBody;
    match &reply.body {
        ReplyBody::Empty => Ok(py.None().into_bound(py)),
        ReplyBody::Text(text) => Ok(PyString::new(py, text).into_any()),
        ReplyBody::Bytes(bytes) => Ok(pyo3::types::PyBytes::new(py, bytes).into_any()),
        ReplyBody::Json(text) => {
            let value: Value = serde_json::from_slice(text)
                .map_err(|error| PyRuntimeError::new_err(format!("the answer is no JSON: {error}")))?;
            json::to_python(py, &value)
        }
        ReplyBody::Stream(_) => {
            Err(PyRuntimeError::new_err("the service answers with a stream, which only a channel can take"))
        }
    }
}
