//! Python exceptions and failures, each turned into the other. The one place that decides what a caller is
//! told of an exception: its own text for those of `crosstie`, nothing but a 500 for any other.

use std::time::Duration;

use crosstie_model::outgoing::{OutgoingError, Trouble};
use crosstie_model::transform::{TransformError, TransformTrouble};
use crosstie_model::{Cid, Failure, FailureKind, Fault, Origin, ServiceName};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

/// The origin of failures that another system caused, as exceptions name it.
const UPSTREAM: &str = "upstream";

/// Longest text of an exception that is passed on, in characters.
const MAX_TEXT: usize = 2_000;

/// Longest traceback that is logged, in bytes; the end of one tells most.
const MAX_TRACEBACK: usize = 64 * 1024;

struct Classes {
    service_error: Py<PyType>,
    deadline_exceeded: Py<PyType>,
    model_error: Py<PyType>,
    by_kind: Py<PyDict>,
}

static CLASSES: PyOnceLock<Classes> = PyOnceLock::new();

fn classes(py: Python<'_>) -> PyResult<&Classes> {
    CLASSES.get_or_try_init(py, || {
        let module = py.import("crosstie._errors")?;
        let class = |name: &str| -> PyResult<Py<PyType>> {
            Ok(module.getattr(name)?.cast_into::<PyType>()?.unbind())
        };
        Ok(Classes {
            service_error: class("ServiceError")?,
            deadline_exceeded: class("DeadlineExceeded")?,
            model_error: class("ModelError")?,
            by_kind: module.getattr("BY_KIND")?.cast_into::<PyDict>()?.unbind(),
        })
    })
}

/// The class that interrupts handlers.
pub(crate) fn deadline_exceeded(py: Python<'_>) -> Bound<'_, PyAny> {
    match classes(py) {
        Ok(classes) => classes.deadline_exceeded.bind(py).clone().into_any(),
        // Only an SDK that did not load has no such class, and then nothing runs that could be late.
        Err(_) => py.get_type::<pyo3::exceptions::PyTimeoutError>().into_any(),
    }
}

/// What the caller is told of `error`, which ended a call of `service`. Writes the traceback of anything
/// unexpected to the log.
pub(crate) fn from_exception(py: Python<'_>, error: &PyErr, cid: Cid, service: &ServiceName) -> Failure {
    let Ok(classes) = classes(py) else { return Failure::service() };
    let value = error.value(py);
    if value.is_instance(classes.service_error.bind(py)).unwrap_or(false) {
        match told(value) {
            Ok(failure) => return failure,
            Err(error) => tracing::error!(target: "service", %cid, %service, "unreadable exception: {error}"),
        }
    }
    if value.is_instance(classes.deadline_exceeded.bind(py)).unwrap_or(false) {
        return Failure::timeout();
    }
    let traceback = traceback_of(py, error);
    tracing::error!(target: "service", %cid, %service, "the service failed\n{traceback}");
    Failure::service()
}

/// The failure that an exception of `crosstie` stands for.
fn told(error: &Bound<'_, PyAny>) -> PyResult<Failure> {
    let py = error.py();
    let status: u16 = error.getattr(intern!(py, "status"))?.extract()?;
    let kind: String = error.getattr(intern!(py, "kind"))?.extract()?;
    let kind = kind_of(&kind, status);
    let named: Option<String> = error.getattr(intern!(py, "origin"))?.extract()?;
    let origin = match kind {
        _ if named.as_deref() == Some(UPSTREAM) => Origin::Upstream,
        FailureKind::Internal | FailureKind::Unavailable | FailureKind::Timeout => Origin::Service,
        FailureKind::BadGateway => Origin::Upstream,
        _ => Origin::Client,
    };
    let mut failure = Failure::new(kind, origin);
    if status != kind.status() {
        failure.status = Some(status);
    }
    let text: String = error.getattr(intern!(py, "message"))?.extract()?;
    if !text.is_empty() {
        failure.text = text.chars().take(MAX_TEXT).collect();
    }
    let faults: Vec<(String, String)> = error.getattr(intern!(py, "faults"))?.extract()?;
    failure.faults = faults.into_iter().map(|(pointer, detail)| Fault { pointer, detail }).collect();
    let retry_after: Option<f64> = error.getattr(intern!(py, "retry_after"))?.extract()?;
    failure.retry_after = retry_after.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let challenge: Option<String> = error.getattr(intern!(py, "challenge"))?.extract()?;
    failure.challenges = challenge.into_iter().collect();
    failure.allow = error.getattr(intern!(py, "allow"))?.extract()?;
    Ok(failure)
}

fn kind_of(kind: &str, status: u16) -> FailureKind {
    serde_json::from_value(kind.into()).ok().filter(|kind: &FailureKind| kind.status() == status).unwrap_or(
        match status {
            400 => FailureKind::BadRequest,
            401 => FailureKind::Unauthorized,
            403 => FailureKind::Forbidden,
            404 | 410 => FailureKind::NotFound,
            405 => FailureKind::MethodNotAllowed,
            406 => FailureKind::NotAcceptable,
            409 | 412 => FailureKind::Conflict,
            413 => FailureKind::PayloadTooLarge,
            415 => FailureKind::UnsupportedMediaType,
            429 => FailureKind::TooManyRequests,
            402..=499 => FailureKind::BadRequest,
            502 => FailureKind::BadGateway,
            503 => FailureKind::Unavailable,
            504 => FailureKind::Timeout,
            _ => FailureKind::Internal,
        },
    )
}

/// The exception a service gets when something it called failed.
pub(crate) fn to_exception(py: Python<'_>, failure: &Failure) -> PyErr {
    raise(py, failure).unwrap_or_else(|error| error)
}

fn raise(py: Python<'_>, failure: &Failure) -> PyResult<PyErr> {
    let classes = classes(py)?;
    let kind = serde_json::to_value(failure.kind).ok();
    let name = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or("internal");
    let class = match classes.by_kind.bind(py).get_item(name)? {
        Some(class) => class,
        None => classes.service_error.bind(py).clone().into_any(),
    };
    let more = PyDict::new(py);
    if failure.http_status() != failure.kind.status() || name == "internal" {
        more.set_item("status", failure.http_status())?;
    }
    let faults: Vec<_> =
        failure.faults.iter().map(|fault| (fault.pointer.as_str(), fault.detail.as_str())).collect();
    more.set_item("faults", faults)?;
    more.set_item("retry_after", failure.retry_after.map(|after| after.as_secs_f64()))?;
    // A list of challenges may stand in one field (RFC 9110, section 11.6.1).
    more.set_item("challenge", (!failure.challenges.is_empty()).then(|| failure.challenges.join(", ")))?;
    more.set_item("allow", &failure.allow)?;
    Ok(PyErr::from_value(class.call((failure.text.as_str(),), Some(&more))?))
}

/// The exception for a call of another system that has no result. What a caller is told of it holds no detail;
/// the service finds that in its attributes.
pub(crate) fn from_outgoing(py: Python<'_>, error: &OutgoingError) -> PyErr {
    if error.trouble == Trouble::Misuse {
        return PyValueError::new_err(error.detail.clone());
    }
    let exception = to_exception(py, &error.failure);
    let described = || -> PyResult<()> {
        let value = exception.value(py);
        if error.failure.origin == Origin::Upstream {
            value.setattr(intern!(py, "origin"), UPSTREAM)?;
        }
        value.setattr(intern!(py, "reason"), error.trouble.as_str())?;
        value.setattr(intern!(py, "detail"), error.detail.as_str())
    };
    described().map_or_else(|error| error, |()| exception)
}

/// The exception for a document that could not be transformed. A caller is told what is wrong with the document, which
/// is its own as a rule; the service finds all of it in the exception's attributes.
pub(crate) fn from_transform(py: Python<'_>, error: &TransformError) -> PyErr {
    if error.trouble == TransformTrouble::Misuse {
        return PyValueError::new_err(error.detail.clone());
    }
    let exception = to_exception(py, &error.failure(Origin::Client));
    let described = || -> PyResult<()> {
        let value = exception.value(py);
        value.setattr(intern!(py, "reason"), error.trouble.as_str())?;
        value.setattr(intern!(py, "detail"), error.detail.as_str())
    };
    described().map_or_else(|error| error, |()| exception)
}

/// The exception for an answer that says that the other system failed or refused.
pub(crate) fn upstream_error(py: Python<'_>, response: &Bound<'_, PyAny>) -> PyErr {
    let made = || -> PyResult<PyErr> {
        let class = py.import("crosstie._errors")?.getattr(intern!(py, "UpstreamError"))?;
        Ok(PyErr::from_value(class.call1((response,))?))
    };
    made().unwrap_or_else(|error| error)
}

/// A `ModelError` that lists `faults`.
pub(crate) fn model_error(py: Python<'_>, faults: &[Fault]) -> PyErr {
    let shown: Vec<_> =
        faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail).trim().to_owned()).collect();
    let listed: Vec<_> = faults.iter().map(|fault| (fault.pointer.as_str(), fault.detail.as_str())).collect();
    classes(py)
        .and_then(|classes| classes.model_error.bind(py).call1((shown.join("; "), listed)))
        .map_or_else(|error| error, PyErr::from_value)
}

/// The exception with its traceback attached. Before Python 3.12 the two travel apart until somebody asks for
/// the exception as a value of its own.
pub(crate) fn with_traceback<'py>(py: Python<'py>, error: &PyErr) -> Bound<'py, PyAny> {
    error.clone_ref(py).into_value(py).into_bound(py).into_any()
}

/// The traceback of `error` as text, without the runtime's own frames.
pub(crate) fn traceback_of(py: Python<'_>, error: &PyErr) -> String {
    let text = py
        .import(intern!(py, "_crosstie_runtime.tracebacks"))
        .and_then(|module| module.call_method1(intern!(py, "traceback_of"), (with_traceback(py, error),)))
        .and_then(|text| text.extract::<String>())
        .unwrap_or_else(|_| error.to_string());
    if text.len() <= MAX_TRACEBACK {
        return text;
    }
    let start = text.len() - MAX_TRACEBACK;
    let start = (start..text.len()).find(|index| text.is_char_boundary(*index)).unwrap_or(0);
    format!("…{}", text.get(start..).unwrap_or_default())
}
