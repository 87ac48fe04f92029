//! `self.out.rest["NAME"]` and `self.out.http["NAME"]`.

use std::sync::Arc;

use crosstie_model::outgoing::{FoundOutgoing, HttpCall, HttpOutgoing, Outgoing, OutgoingError, Pace};
use http::Method;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::answer::{HttpResponse, receive};
use super::arguments::{Arguments, Sending};
use super::exchange::Exchange;
use crate::python::context::Call;
use crate::python::{failure, host_call};

/// All outgoings of one type that speaks HTTP, by name.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct HttpFamily {
    call: Arc<Call>,
    type_name: &'static str,
}

impl HttpFamily {
    pub(crate) fn new(call: Arc<Call>, type_name: &'static str) -> Self {
        Self { call, type_name }
    }

    fn find(&self, name: &str) -> Option<HttpConnection> {
        let found = super::find(&self.call, self.type_name, name)?;
        Some(HttpConnection { call: Arc::clone(&self.call), name: name.to_owned(), found })
    }
}

#[pymethods]
impl HttpFamily {
    fn __getitem__(&self, name: &str) -> PyResult<HttpConnection> {
        self.find(name).ok_or_else(|| super::missing(self.type_name, name))
    }

    fn get(&self, name: &str) -> Option<HttpConnection> {
        self.find(name)
    }

    fn __contains__(&self, name: &str) -> bool {
        super::find(&self.call, self.type_name, name).is_some()
    }
}

/// One outgoing that speaks HTTP.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct HttpConnection {
    call: Arc<Call>,
    name: String,
    found: FoundOutgoing,
}

#[pymethods]
impl HttpConnection {
    /// The same: what is called here is called there as well.
    #[getter]
    fn conn<'py>(this: Bound<'py, Self>) -> Bound<'py, Self> {
        this
    }

    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    #[pyo3(signature = (*args, **more))]
    fn get<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        more: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.call(args.py(), Method::GET, Arguments::without_body(&self.call, args, more)?)
    }

    #[pyo3(signature = (*args, **more))]
    fn head<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        more: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.call(args.py(), Method::HEAD, Arguments::without_body(&self.call, args, more)?)
    }

    #[pyo3(signature = (*args, **more))]
    fn options<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        more: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.call(args.py(), Method::OPTIONS, Arguments::without_body(&self.call, args, more)?)
    }

    #[pyo3(signature = (*args, **more))]
    fn post<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        more: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.call(args.py(), Method::POST, Arguments::with_body(&self.call, args, more)?)
    }

    #[pyo3(signature = (*args, **more))]
    fn put<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        more: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.call(args.py(), Method::PUT, Arguments::with_body(&self.call, args, more)?)
    }

    #[pyo3(signature = (*args, **more))]
    fn patch<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        more: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.call(args.py(), Method::PATCH, Arguments::with_body(&self.call, args, more)?)
    }

    #[pyo3(signature = (*args, **more))]
    fn delete<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        more: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.call(args.py(), Method::DELETE, Arguments::with_body(&self.call, args, more)?)
    }

    #[pyo3(signature = (method, *args, **more))]
    fn send<'py>(
        &self,
        method: &str,
        args: &Bound<'py, PyTuple>,
        more: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| PyValueError::new_err(format!("{method:?} is no HTTP method")))?;
        self.call(args.py(), method, Arguments::with_body(&self.call, args, more)?)
    }

    #[pyo3(signature = (*_args))]
    fn ping<'py>(&self, py: Python<'py>, _args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        super::ping(py, &self.call, &self.found)
    }

    fn __repr__(&self) -> String {
        format!("<outgoing {} of type {}>", self.name, self.found.type_name)
    }
}

impl HttpConnection {
    fn call<'py>(
        &self,
        py: Python<'py>,
        method: Method,
        arguments: Arguments<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let outgoing = self.open(py)?;
        let target = outgoing
            .target(&arguments.params, &arguments.query)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let format = outgoing.data_format();
        let mut headers = arguments.headers.clone();
        let sending = arguments.sending(py, format, &mut headers)?;
        let within = host_call::deadline(&self.call);
        let deadline =
            arguments.timeout.map_or(within, |limit| within.min(std::time::Instant::now() + limit));
        let pace = if arguments.stream { Pace::Pieces } else { Pace::Whole };
        let trace = self.call.message.trace;
        let message = move |body| HttpCall { method, target, headers, body, trace, deadline, pace };
        match sending {
            Sending::Whole(body) => {
                let message = message(body);
                let (call, reading) = (Arc::clone(&self.call), arguments.stream);
                super::run(
                    py,
                    &self.call,
                    async move { receive(outgoing.send(message).await?, reading).await },
                    move |py, received| {
                        Ok(Bound::new(py, HttpResponse::new(call, format, received))?.into_any())
                    },
                )
            }
            Sending::Pieces(pieces) => {
                let exchange = Exchange::start(&self.call, outgoing, format, arguments.stream, message);
                let glue = py.import(intern!(py, "_crosstie_runtime.outgoing"))?;
                let is_async = host_call::is_awaited(&self.call);
                let send = if is_async { intern!(py, "send_async") } else { intern!(py, "send") };
                glue.call_method1(send, (Bound::new(py, exchange)?, pieces))
            }
        }
    }

    /// The outgoing behind this, if it is open.
    fn open(&self, py: Python<'_>) -> PyResult<Arc<dyn HttpOutgoing>> {
        match &self.found.state {
            Ok(Outgoing::Http(outgoing)) => Ok(Arc::clone(outgoing)),
            Ok(_) => Err(super::missing(self.found.type_name, &self.name)),
            Err(error) => Err(closed(py, error)),
        }
    }
}

fn closed(py: Python<'_>, error: &OutgoingError) -> PyErr {
    failure::from_outgoing(py, error)
}
