//! `self.request.amqp`: AMQP's side of a message.

use std::sync::Arc;

use crosstie_model::message::AmqpRequest;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use super::amqp::{table_to_python, timestamp_to_python};
use crate::python::context::Call;

/// What a message says of itself, and where it came from.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct Amqp {
    call: Arc<Call>,
    headers: PyOnceLock<Py<PyDict>>,
}

impl Amqp {
    /// The message of `call`, if a broker brought it.
    pub(super) fn of(call: &Arc<Call>) -> Option<Self> {
        call.message.amqp.as_ref()?;
        Some(Self { call: Arc::clone(call), headers: PyOnceLock::new() })
    }

    fn message(&self) -> PyResult<&AmqpRequest> {
        let message = self.call.message.amqp.as_deref();
        message.ok_or_else(|| pyo3::exceptions::PyAttributeError::new_err("there is no message"))
    }
}

#[pymethods]
impl Amqp {
    #[getter]
    fn queue(&self) -> PyResult<&str> {
        Ok(&self.message()?.queue)
    }

    #[getter]
    fn exchange(&self) -> PyResult<&str> {
        Ok(&self.message()?.exchange)
    }

    #[getter]
    fn routing_key(&self) -> PyResult<&str> {
        Ok(&self.message()?.routing_key)
    }

    #[getter]
    fn attempt(&self) -> PyResult<u32> {
        Ok(self.message()?.attempt)
    }

    #[getter]
    fn redeliveries(&self) -> PyResult<u32> {
        Ok(self.message()?.redeliveries)
    }

    #[getter]
    fn redelivered(&self) -> PyResult<bool> {
        Ok(self.message()?.redeliveries > 0)
    }

    #[getter]
    fn headers(&self, py: Python<'_>) -> PyResult<&Py<PyDict>> {
        let table = &self.message()?.properties.headers;
        self.headers.get_or_try_init(py, || table_to_python(py, table).map(Bound::unbind))
    }

    #[getter]
    fn message_id(&self) -> PyResult<Option<&str>> {
        Ok(self.message()?.properties.message_id.as_deref())
    }

    #[getter]
    fn correlation_id(&self) -> PyResult<Option<&str>> {
        Ok(self.message()?.properties.correlation_id.as_deref())
    }

    #[getter]
    fn reply_to(&self) -> PyResult<Option<&str>> {
        Ok(self.message()?.properties.reply_to.as_deref())
    }

    #[getter]
    fn content_type(&self) -> PyResult<Option<&str>> {
        Ok(self.message()?.properties.content_type.as_deref())
    }

    #[getter]
    fn content_encoding(&self) -> PyResult<Option<&str>> {
        Ok(self.message()?.properties.content_encoding.as_deref())
    }

    #[getter]
    fn persistent(&self) -> PyResult<bool> {
        Ok(self.message()?.properties.persistent.unwrap_or_default())
    }

    #[getter]
    fn priority(&self) -> PyResult<Option<u8>> {
        Ok(self.message()?.properties.priority)
    }

    /// In milliseconds, as text: as AMQP has it.
    #[getter]
    fn expiration(&self) -> PyResult<Option<&str>> {
        Ok(self.message()?.properties.expiration.as_deref())
    }

    #[getter]
    fn timestamp<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.message()?.properties.timestamp.map(|seconds| timestamp_to_python(py, seconds)).transpose()
    }

    #[getter]
    fn r#type(&self) -> PyResult<Option<&str>> {
        Ok(self.message()?.properties.kind.as_deref())
    }

    #[getter]
    fn user_id(&self) -> PyResult<Option<&str>> {
        Ok(self.message()?.properties.user_id.as_deref())
    }

    #[getter]
    fn app_id(&self) -> PyResult<Option<&str>> {
        Ok(self.message()?.properties.app_id.as_deref())
    }
}
