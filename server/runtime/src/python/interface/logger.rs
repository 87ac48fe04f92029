//! `self.logger`, and records of Python's `logging`, as events of the server's log under the cid.

use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tracing::Level;

use crate::python::context::{self, Call};
use crate::python::failure;

/// Longest message that is logged, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;

/// A call's logger.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct Logger {
    call: Arc<Call>,
}

impl Logger {
    pub(crate) fn new(call: Arc<Call>) -> Self {
        Self { call }
    }

    fn write(
        &self,
        level: i64,
        message: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
        more: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        if !is_enabled(level) {
            return Ok(());
        }
        let py = message.py();
        let mut text = formatted(message, arguments)?;
        if let Some(error) = exception_in(py, more)? {
            text.push('\n');
            text.push_str(&failure::traceback_of(py, &error));
        }
        let (cid, service) = (self.call.message.trace.cid, self.call.name());
        emit(level, &text, Some((cid.to_string(), service.as_str())), None);
        Ok(())
    }
}

#[pymethods]
impl Logger {
    #[pyo3(signature = (message, *arguments, **more))]
    fn debug(
        &self,
        message: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
        more: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        self.write(10, message, arguments, more)
    }

    #[pyo3(signature = (message, *arguments, **more))]
    fn info(
        &self,
        message: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
        more: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        self.write(20, message, arguments, more)
    }

    #[pyo3(signature = (message, *arguments, **more))]
    fn warning(
        &self,
        message: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
        more: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        self.write(30, message, arguments, more)
    }

    #[pyo3(signature = (message, *arguments, **more))]
    fn warn(
        &self,
        message: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
        more: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        self.write(30, message, arguments, more)
    }

    #[pyo3(signature = (message, *arguments, **more))]
    fn error(
        &self,
        message: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
        more: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        self.write(40, message, arguments, more)
    }

    #[pyo3(signature = (message, *arguments, **more))]
    fn exception(
        &self,
        message: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
        more: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let all = match more {
            Some(more) => more.copy()?,
            None => PyDict::new(message.py()),
        };
        all.set_item("exc_info", true)?;
        self.write(40, message, arguments, Some(&all))
    }

    #[pyo3(signature = (message, *arguments, **more))]
    fn critical(
        &self,
        message: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
        more: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        self.write(50, message, arguments, more)
    }

    #[pyo3(signature = (level, message, *arguments, **more))]
    fn log(
        &self,
        level: i64,
        message: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
        more: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        self.write(level, message, arguments, more)
    }

    #[pyo3(name = "isEnabledFor")]
    fn is_enabled_for(&self, level: i64) -> bool {
        is_enabled(level)
    }
}

/// `message % arguments`, as `logging` does it.
fn formatted(message: &Bound<'_, PyAny>, arguments: &Bound<'_, PyTuple>) -> PyResult<String> {
    let text = message.str()?;
    if arguments.is_empty() {
        return Ok(text.to_str()?.to_owned());
    }
    let only = arguments.get_item(0)?;
    let values = if arguments.len() == 1 && only.is_instance_of::<PyDict>() {
        only
    } else {
        arguments.clone().into_any()
    };
    text.as_any().rem(values)?.extract()
}

/// The exception that `exc_info` names: given itself, or the one being handled.
fn exception_in(py: Python<'_>, more: Option<&Bound<'_, PyDict>>) -> PyResult<Option<PyErr>> {
    let Some(given) = more.map(|more| more.get_item(intern!(py, "exc_info"))).transpose()?.flatten() else {
        return Ok(None);
    };
    if given.is_instance_of::<pyo3::exceptions::PyBaseException>() {
        return Ok(Some(PyErr::from_value(given)));
    }
    if !given.is_truthy()? {
        return Ok(None);
    }
    let handled = py.import(intern!(py, "sys"))?.call_method0(intern!(py, "exc_info"))?.get_item(1)?;
    Ok((!handled.is_none()).then(|| PyErr::from_value(handled)))
}

/// Writes a record of `logging`, or a line that was printed, under the call of the calling thread.
pub(crate) fn write(level: i64, name: &str, text: &str) {
    if !is_enabled(level) {
        return;
    }
    match context::current() {
        Some(call) => {
            let cid = call.message.trace.cid.to_string();
            emit(level, text, Some((cid, call.name().as_str())), Some(name));
        }
        None => emit(level, text, None, Some(name)),
    }
}

fn level_of(level: i64) -> Level {
    match level {
        ..10 => Level::TRACE,
        10..20 => Level::DEBUG,
        20..30 => Level::INFO,
        30..40 => Level::WARN,
        _ => Level::ERROR,
    }
}

fn is_enabled(level: i64) -> bool {
    match level_of(level) {
        Level::TRACE => tracing::enabled!(target: "service", Level::TRACE),
        Level::DEBUG => tracing::enabled!(target: "service", Level::DEBUG),
        Level::INFO => tracing::enabled!(target: "service", Level::INFO),
        Level::WARN => tracing::enabled!(target: "service", Level::WARN),
        Level::ERROR => tracing::enabled!(target: "service", Level::ERROR),
    }
}

fn emit(level: i64, text: &str, call: Option<(String, &str)>, logger: Option<&str>) {
    let end = text.floor_char_boundary(MAX_MESSAGE);
    let text = text.get(..end).unwrap_or(text);
    let (cid, service) = match &call {
        Some((cid, service)) => (Some(cid.as_str()), Some(*service)),
        None => (None, None),
    };
    match level_of(level) {
        Level::TRACE => tracing::trace!(target: "service", cid, service, logger, "{text}"),
        Level::DEBUG => tracing::debug!(target: "service", cid, service, logger, "{text}"),
        Level::INFO => tracing::info!(target: "service", cid, service, logger, "{text}"),
        Level::WARN => tracing::warn!(target: "service", cid, service, logger, "{text}"),
        Level::ERROR => tracing::error!(target: "service", cid, service, logger, "{text}"),
    }
}
