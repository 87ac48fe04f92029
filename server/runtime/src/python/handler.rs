//! One call of a service's handler: the instance, the hooks, the handler, and the reply made of what it left.

use std::sync::Arc;

use bytes::Bytes;
use crosstie_model::message::ReplyBody;
use crosstie_model::{Failure, FailureKind, Origin, Reply};
use http::HeaderValue;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyString};

use super::codec::{self, EncodeError};
use super::context::{Call, run_user_code};
use super::interface::ServiceBase;
use super::service::Handlers;
use super::unit::Unit;
use super::{failure, stream};

/// Runs the handler of a `def` service on the calling thread.
///
/// # Errors
/// What the caller is told; the rest is in the log.
pub(crate) fn run(py: Python<'_>, call: &Arc<Call>, unit: &Arc<Unit>) -> Result<Reply, Failure> {
    let handler = handler_of(call)?;
    run_user_code(py, call, call.message.deadline, || {
        let service = call.service.class.bind(py).call0()?;
        let done = handle(py, call, unit, &service, handler);
        if done.is_err() {
            forget_response(py, &service);
        }
        done
    })
    .map_err(|error| failure::from_exception(py, &error, call.message.trace.cid, call.name()))
}

fn handle(
    py: Python<'_>,
    call: &Arc<Call>,
    unit: &Arc<Unit>,
    service: &Bound<'_, PyAny>,
    handler: &Py<PyString>,
) -> PyResult<Reply> {
    let hooks = &call.service.hooks;
    check_accepted(py, call, service)?;
    if hooks.before {
        service.call_method0(intern!(py, "before_handle"))?;
    }
    let result = service.call_method0(handler.bind(py))?;
    if hooks.after {
        service.call_method0(intern!(py, "after_handle"))?;
    }
    reply(py, call, unit, service, &result)
}

/// Makes the coroutine of an `async def` service's call, and the instance it runs on.
///
/// # Errors
/// The service could not be made or does not accept the call.
pub(crate) fn begin_async<'py>(
    py: Python<'py>,
    call: &Arc<Call>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let handler = handler_of(call).map_err(|failure| failure::to_exception(py, &failure))?;
    let service = call.service.class.bind(py).call0()?;
    check_accepted(py, call, &service)?;
    let hooks = &call.service.hooks;
    if !hooks.before && !hooks.after && !hooks.streams {
        return Ok((service.call_method0(handler.bind(py))?, service));
    }
    let calls = py.import(intern!(py, "_crosstie_runtime.calls"))?;
    let bound = service.getattr(handler.bind(py))?;
    let coroutine =
        calls.call_method1(intern!(py, "handled"), (&service, bound, hooks.before, hooks.after))?;
    Ok((coroutine, service))
}

fn check_accepted(py: Python<'_>, call: &Call, service: &Bound<'_, PyAny>) -> PyResult<()> {
    if call.service.hooks.accept && !service.call_method0(intern!(py, "accept"))?.is_truthy()? {
        let refused = Failure::bad_request("The service does not accept this request");
        return Err(failure::to_exception(py, &refused));
    }
    Ok(())
}

/// The handler for the call's method.
fn handler_of(call: &Call) -> Result<&Py<PyString>, Failure> {
    match &call.service.handlers {
        Handlers::One(handler) => Ok(handler),
        Handlers::ByMethod(handlers) => {
            let Some(http) = &call.message.http else {
                // Another service calls: it has no method. POST is what carries a payload.
                let by_name = |wanted: &str| handlers.iter().find(|(method, _)| method == wanted);
                let found = by_name("POST").or_else(|| handlers.first());
                return found.map(|(_, handler)| handler).ok_or_else(Failure::service);
            };
            let asked = http.method.as_str();
            let find = |wanted: &str| handlers.iter().find(|(method, _)| method == wanted);
            // HEAD is GET without the body (RFC 9110, section 9.3.2); the channel drops the body.
            let found = find(asked).or_else(|| if asked == "HEAD" { find("GET") } else { None });
            found.map(|(_, handler)| handler).ok_or_else(|| {
                let mut failure = Failure::new(FailureKind::MethodNotAllowed, Origin::Client);
                failure.allow = handlers.iter().map(|(method, _)| method.clone()).collect();
                failure
            })
        }
    }
}

/// Empties the response of a call that failed: its payload may refer to the service.
pub(crate) fn forget_response(py: Python<'_>, service: &Bound<'_, PyAny>) {
    if let Ok(base) = service.cast::<ServiceBase>()
        && let Some(response) = base.get().touched_response(py)
        && let Ok(mut response) = response.try_borrow_mut(py)
    {
        let _ = response.take(py);
    }
}

/// The reply made of what the handler returned and left in `self.response`.
///
/// # Errors
/// The answer is not what the service declares, or has no form in JSON.
pub(crate) fn reply(
    py: Python<'_>,
    call: &Arc<Call>,
    unit: &Arc<Unit>,
    service: &Bound<'_, PyAny>,
    result: &Bound<'_, PyAny>,
) -> PyResult<Reply> {
    let base = service.cast::<ServiceBase>()?;
    let mut written = match base.get().touched_response(py) {
        Some(response) => response.try_borrow_mut(py)?.take(py)?,
        None => super::interface::Written::default(),
    };
    let payload = match written.payload.take() {
        Some(payload) => payload.into_bound(py),
        None => result.clone(),
    };
    let is_error = written.status.is_some_and(|status| status >= 400);
    let (body, implied) = body(call, unit, &payload, is_error)?;
    Ok(Reply {
        status: written.status,
        headers: written.headers,
        content_type: written.content_type.or(implied),
        body,
        soap: written.soap,
    })
}

/// The body, and the media type it implies.
fn body(
    call: &Arc<Call>,
    unit: &Arc<Unit>,
    payload: &Bound<'_, PyAny>,
    is_error: bool,
) -> PyResult<(ReplyBody, Option<HeaderValue>)> {
    if payload.is_none() {
        return Ok((ReplyBody::Empty, None));
    }
    if let Some(streamed) = stream::open(call, unit, payload)? {
        return Ok(streamed);
    }
    if let Some(declared) = call.service.output.as_ref().filter(|_| !is_error) {
        let text = codec::to_vec(payload, Some(&declared.codec)).map_err(|error| undeclared(call, error))?;
        if let Some(schema) = &declared.schema {
            check_constraints(call, schema, &text)?;
        }
        return Ok((ReplyBody::Json(text.into()), None));
    }
    if let Ok(text) = payload.cast::<PyString>() {
        return Ok((ReplyBody::Text(text.to_str()?.to_owned()), None));
    }
    if let Ok(bytes) = payload.cast::<PyBytes>() {
        return Ok((ReplyBody::Bytes(Bytes::copy_from_slice(bytes.as_bytes())), None));
    }
    if let Ok(bytes) = payload.cast::<PyByteArray>() {
        return Ok((ReplyBody::Bytes(bytes.to_vec().into()), None));
    }
    let text = codec::to_vec(payload, None).map_err(EncodeError::into_exception)?;
    Ok((ReplyBody::Json(text.into()), None))
}

fn undeclared(call: &Call, error: EncodeError) -> PyErr {
    match error {
        EncodeError::Value { pointer, detail } => {
            let place = if pointer.is_empty() { "itself".to_owned() } else { format!("at {pointer}") };
            PyTypeError::new_err(format!("the output of {} {place} {detail}", call.name()))
        }
        EncodeError::Python(error) => error,
    }
}

fn check_constraints(call: &Call, schema: &crosstie_model::schema::Schema, text: &[u8]) -> PyResult<()> {
    let value = serde_json::from_slice(text).map_err(|error| PyTypeError::new_err(error.to_string()))?;
    let faults = schema.faults(&value);
    if faults.is_empty() {
        return Ok(());
    }
    let shown: Vec<_> = faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect();
    Err(PyTypeError::new_err(format!("the output of {}: {}", call.name(), shown.join("; "))))
}
