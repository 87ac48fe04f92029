//! `self.request.security`: who calls, as far as credentials tell.

use std::sync::Arc;

use crosstie_model::Principal;
use crosstie_model::message::Certificate;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};
use time::OffsetDateTime;

use crate::python::context::Call;
use crate::python::json;

/// The authenticated caller. What is more than a name is converted when it is asked for, once.
#[pyclass(frozen, module = "_crosstie")]
pub(crate) struct Security {
    principal: Arc<Principal>,
    claims: PyOnceLock<Py<PyDict>>,
}

impl Security {
    /// The caller of `call`, if credentials were asked for.
    pub(super) fn of(call: &Call) -> Option<Self> {
        let principal = call.message.principal.clone()?;
        Some(Self { principal, claims: PyOnceLock::new() })
    }
}

#[pymethods]
impl Security {
    #[getter]
    fn name(&self) -> &str {
        &self.principal.definition
    }

    #[getter]
    fn r#type(&self) -> &'static str {
        self.principal.kind
    }

    #[getter]
    fn username(&self) -> Option<&str> {
        self.principal.username.as_deref()
    }

    #[getter]
    fn claims(&self, py: Python<'_>) -> PyResult<&Py<PyDict>> {
        self.claims
            .get_or_try_init(py, || json::object_to_python(py, &self.principal.claims).map(Bound::unbind))
    }

    #[getter]
    fn scopes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, &self.principal.scopes)
    }

    #[getter]
    fn certificate(&self) -> Option<ShownCertificate> {
        self.principal.certificate.as_ref()?;
        Some(ShownCertificate { principal: Arc::clone(&self.principal) })
    }
}

/// The certificate that a caller showed.
#[pyclass(frozen, name = "Certificate", module = "_crosstie")]
pub(crate) struct ShownCertificate {
    principal: Arc<Principal>,
}

impl ShownCertificate {
    fn certificate(&self) -> PyResult<&Certificate> {
        let certificate = self.principal.certificate.as_ref();
        certificate.ok_or_else(|| pyo3::exceptions::PyAttributeError::new_err("there is no certificate"))
    }
}

#[pymethods]
impl ShownCertificate {
    #[getter]
    fn subject(&self) -> PyResult<&str> {
        Ok(&self.certificate()?.subject)
    }

    #[getter]
    fn issuer(&self) -> PyResult<&str> {
        Ok(&self.certificate()?.issuer)
    }

    #[getter]
    fn sans<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, &self.certificate()?.sans)
    }

    #[getter]
    fn serial(&self) -> PyResult<&str> {
        Ok(&self.certificate()?.serial)
    }

    #[getter]
    fn fingerprint(&self) -> PyResult<&str> {
        Ok(&self.certificate()?.fingerprint)
    }

    #[getter]
    fn not_before<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_datetime(py, self.certificate()?.not_before)
    }

    #[getter]
    fn not_after<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_datetime(py, self.certificate()?.not_after)
    }
}

/// An aware `datetime` in UTC.
fn to_datetime(py: Python<'_>, time: OffsetDateTime) -> PyResult<Bound<'_, PyAny>> {
    let module = py.import("datetime")?;
    let utc = module.getattr("timezone")?.getattr("utc")?;
    module.getattr("datetime")?.call_method1("fromtimestamp", (time.unix_timestamp(), utc))
}
