//! `self.out.amqp["NAME"]`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crosstie_model::TraceContext;
use crosstie_model::outgoing::{
    AmqpOutgoing, AmqpProperties, AmqpPublish, FoundOutgoing, Outgoing, Unroutable,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::arguments::{bytes_of, timeout};
use crate::python::context::Call;
use crate::python::interface::amqp::{table_from_python, timestamp_from_python};
use crate::python::{codec, failure, host_call};

/// Longest expiration that brokers take, in milliseconds.
const MAX_EXPIRATION_MS: u128 = u32::MAX as u128;

/// All brokers, by name.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct AmqpFamily {
    call: Arc<Call>,
}

impl AmqpFamily {
    pub(crate) fn new(call: Arc<Call>) -> Self {
        Self { call }
    }

    fn find(&self, name: &str) -> Option<AmqpConnection> {
        let found = super::find(&self.call, "amqp", name)?;
        Some(AmqpConnection { call: Arc::clone(&self.call), name: name.to_owned(), found })
    }
}

#[pymethods]
impl AmqpFamily {
    fn __getitem__(&self, name: &str) -> PyResult<AmqpConnection> {
        self.find(name).ok_or_else(|| super::missing("amqp", name))
    }

    fn get(&self, name: &str) -> Option<AmqpConnection> {
        self.find(name)
    }

    fn __contains__(&self, name: &str) -> bool {
        super::find(&self.call, "amqp", name).is_some()
    }

    /// As services written for Zato call it.
    #[pyo3(signature = (name, *args, **more))]
    fn publish<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        args: &Bound<'py, PyTuple>,
        more: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let connection = self.__getitem__(name)?;
        Bound::new(py, connection)?.getattr(intern!(py, "publish"))?.call(args, more)
    }
}

/// One broker.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct AmqpConnection {
    call: Arc<Call>,
    name: String,
    found: FoundOutgoing,
}

#[pymethods]
impl AmqpConnection {
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    #[getter]
    fn conn(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (msg, exchange = None, routing_key = None, *, properties = None, **more))]
    fn publish<'py>(
        &self,
        msg: &Bound<'py, PyAny>,
        exchange: Option<String>,
        routing_key: Option<String>,
        properties: Option<&Bound<'py, PyDict>>,
        more: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = msg.py();
        let broker = self.open(py)?;
        let named = match more {
            Some(more) => more.copy()?,
            None => PyDict::new(py),
        };
        let take = |name: &str| -> PyResult<Option<Bound<'py, PyAny>>> {
            let found = named.get_item(name)?;
            if found.is_some() {
                named.del_item(name)?;
            }
            Ok(found.filter(|value| !value.is_none()))
        };
        let limit = take("timeout")?.map(|limit| timeout(&limit)).transpose()?;
        let mandatory = take("mandatory")?.map(|value| value.is_truthy()).transpose()?.unwrap_or(true);
        let (body, content_type) = body_of(msg)?;
        let mut said = AmqpProperties {
            persistent: Some(true),
            content_type: content_type.map(str::to_owned),
            ..AmqpProperties::default()
        };
        for given in properties.into_iter().chain(std::iter::once(&named)) {
            for (name, value) in given.iter() {
                set(&mut said, name.cast::<PyString>()?.to_str()?, &value)?;
            }
        }
        let message_id =
            said.message_id.get_or_insert_with(|| TraceContext::new_root().cid.to_string()).clone();
        let within = host_call::deadline(&self.call);
        let message = AmqpPublish {
            exchange,
            routing_key,
            properties: said,
            body,
            unroutable: if mandatory { Unroutable::IsAnError } else { Unroutable::IsDropped },
            queue: None,
            trace: self.call.message.trace,
            deadline: limit.map_or(within, |limit| within.min(Instant::now() + limit)),
        };
        super::run(py, &self.call, async move { broker.publish(message).await }, move |py, ()| {
            Ok(PyString::new(py, &message_id).into_any())
        })
    }

    #[pyo3(signature = (*_args))]
    fn ping<'py>(&self, py: Python<'py>, _args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        super::ping(py, &self.call, &self.found)
    }

    fn __repr__(&self) -> String {
        format!("<outgoing {} of type amqp>", self.name)
    }
}

impl AmqpConnection {
    /// The broker behind this, if it is open.
    fn open(&self, py: Python<'_>) -> PyResult<Arc<dyn AmqpOutgoing>> {
        match &self.found.state {
            Ok(Outgoing::Amqp(broker)) => Ok(Arc::clone(broker)),
            Ok(_) => Err(super::missing("amqp", &self.name)),
            Err(error) => Err(failure::from_outgoing(py, error)),
        }
    }
}

/// A message as bytes, with its media type.
fn body_of(msg: &Bound<'_, PyAny>) -> PyResult<(Bytes, Option<&'static str>)> {
    if msg.is_none() {
        return Ok((Bytes::new(), None));
    }
    if let Ok(text) = msg.cast::<PyString>() {
        return Ok((text.to_str()?.as_bytes().to_vec().into(), Some("text/plain; charset=utf-8")));
    }
    if let Some(bytes) = bytes_of(msg) {
        return Ok((bytes, Some("application/octet-stream")));
    }
    let json = codec::to_vec(msg, None).map_err(codec::EncodeError::into_exception)?;
    Ok((json.into(), Some("application/json")))
}

/// Sets the property `name`.
fn set(said: &mut AmqpProperties, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let text = || -> PyResult<Option<String>> {
        if value.is_none() {
            return Ok(None);
        }
        let text = value.cast::<PyString>().map_err(|_| PyTypeError::new_err(format!("{name} is text")))?;
        Ok(Some(text.to_str()?.to_owned()))
    };
    match name {
        "content_type" => said.content_type = text()?,
        "content_encoding" => said.content_encoding = text()?,
        "correlation_id" => said.correlation_id = text()?,
        "reply_to" => said.reply_to = text()?,
        "message_id" => said.message_id = text()?,
        "type" => said.kind = text()?,
        "user_id" => said.user_id = text()?,
        "app_id" => said.app_id = text()?,
        "expiration" => said.expiration = expiration(value)?,
        "priority" => said.priority = value.extract()?,
        "persistent" => said.persistent = Some(value.is_truthy()?),
        "delivery_mode" => said.persistent = Some(delivery_mode(value)?),
        "timestamp" if value.is_none() => said.timestamp = None,
        "timestamp" => {
            said.timestamp = match timestamp_from_python(value)? {
                Some(seconds) => Some(seconds),
                None => Some(value.extract()?),
            };
        }
        "headers" if value.is_none() => {}
        "headers" => said.headers.extend(table_from_python(value)?),
        _ => return Err(PyTypeError::new_err(format!("there is no argument named {name}"))),
    }
    Ok(())
}

fn delivery_mode(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    match value.extract::<u8>() {
        Ok(1) => Ok(false),
        Ok(2) => Ok(true),
        _ => Err(PyValueError::new_err("delivery_mode is 1 (transient) or 2 (persistent)")),
    }
}

/// Seconds, as a number or a `timedelta`; text is milliseconds, as AMQP has it.
fn expiration(value: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    if value.is_none() {
        return Ok(None);
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Some(text.to_str()?.to_owned()));
    }
    let py = value.py();
    let seconds: f64 = match value.getattr_opt(intern!(py, "total_seconds"))? {
        Some(total) => total.call0()?.extract()?,
        None => value.extract()?,
    };
    let wrong = || PyValueError::new_err("expiration is a number of seconds, at most 49 days");
    let span = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?.as_millis();
    if span > MAX_EXPIRATION_MS { Err(wrong()) } else { Ok(Some(span.to_string())) }
}
