//! Loading an artifact into the interpreter, and taking it out again.
//!
//! A [`Unit`] keeps the modules of one loaded artifact in the interpreter; when its last holder (a service in
//! a snapshot, a call under way) drops it, they are removed. Loading runs user code, so it happens on a thread
//! of its own that can be given up, under the unit's blame.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crosstie_model::names::ServiceName;
use crosstie_model::ports::LoadError;
use crosstie_model::snapshot::code_channel;
use crosstie_model::unit::{Artifact, ArtifactKind, LIBRARY_UNIT, ServiceDescription, UnitManifest};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::codec::{self, EncodeError};
use super::failure;
use super::housekeeping::{self, Chore};
use super::input::InputRules;
use super::service::ServiceCode;
use crate::archive;

/// The modules of one loaded artifact.
pub(crate) struct Unit {
    name: String,
    namespace: Option<Py<PyAny>>,
    /// The names its files have in tracebacks.
    files: Vec<String>,
    /// The module the unit begins with; none for a library.
    entry: Option<String>,
    /// Unloaded after the unit that imports from it.
    _library: Option<Arc<Unit>>,
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unit {}", self.name)
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        if let Some(namespace) = self.namespace.take() {
            housekeeping::send(Chore::Unload(namespace));
        }
    }
}

impl Unit {
    /// Registers the artifact's modules; runs none of them.
    ///
    /// # Errors
    /// The artifact is malformed.
    pub(crate) fn open(
        py: Python<'_>,
        artifact: &Artifact,
        library: Option<Arc<Self>>,
    ) -> Result<Self, LoadError> {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        // A dot would make the module part of a package that is not there.
        let module = artifact.unit.as_str().replace('.', "_");
        let (files, directory, entry) = match artifact.kind {
            ArtifactKind::PythonFile => {
                (vec![(format!("{module}.py"), artifact.content.clone())], String::new(), Some(module))
            }
            ArtifactKind::PythonPackage => {
                (unpacked(artifact, &format!("{module}/"))?, String::new(), Some(module))
            }
            ArtifactKind::PythonLibrary => {
                let directory = format!("{LIBRARY_UNIT}/");
                (unpacked(artifact, &directory)?, directory, None)
            }
        };
        let registered = || -> PyResult<Py<PyAny>> {
            let contents = PyDict::new(py);
            for (name, content) in &files {
                contents.set_item(name, PyBytes::new(py, content))?;
            }
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let library = library.as_ref().and_then(|library| library.namespace.as_ref());
            py.import(intern!(py, "_crosstie_runtime.units"))?
                .call_method1(intern!(py, "Namespace"), (serial, contents, directory, library))
                .map(Bound::unbind)
        };
        let namespace = registered().map_err(|error| internal(py, &error))?;
        Ok(Self {
            name: artifact.unit.to_string(),
            namespace: Some(namespace),
            files: files.into_iter().map(|(name, _)| name).collect(),
            entry,
            _library: library,
        })
    }

    /// Imports the unit's modules.
    ///
    /// # Errors
    /// User code failed, or there is something wrong with it.
    pub(crate) fn import(&self, py: Python<'_>) -> Result<(), LoadError> {
        match &self.entry {
            Some(entry) => self.ask(py, "load_unit", Some(entry)).map(drop),
            None => self.ask(py, "check_library", None).map(drop),
        }
    }

    /// The services the imported modules define, with their classes.
    ///
    /// # Errors
    /// A name that is taken, or no service at all.
    pub(crate) fn classes<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyDict>, LoadError> {
        if self.entry.is_none() {
            return Ok(PyDict::new(py));
        }
        let found = self.ask(py, "services_of", None)?;
        let classes = found.cast_into::<PyDict>().map_err(|error| internal(py, &error.into()))?;
        if classes.is_empty() {
            let file = self.files.first().map_or(self.name.as_str(), String::as_str);
            let place = if self.files.len() == 1 { file } else { self.name.as_str() };
            return Err(LoadError {
                message: format!(
                    "{place} defines no service: a class derived from crosstie.Service with `handle`"
                ),
                detail: String::new(),
            });
        }
        Ok(classes)
    }

    /// What the unit defines.
    ///
    /// # Errors
    /// A service that declares something impossible.
    pub(crate) fn manifest(
        &self,
        py: Python<'_>,
        library: Option<&Artifact>,
    ) -> Result<UnitManifest, LoadError> {
        let mut services = Vec::new();
        for (_, class) in self.classes(py)?.iter() {
            let place = self.describe(py, "where", &class)?.to_string();
            let refuse =
                |reason: String| LoadError { message: format!("{place}: {reason}"), detail: String::new() };
            let described = self.describe(py, "description_of", &class)?;
            let text = codec::to_vec(&described, None)
                .map_err(|error| refuse(EncodeError::into_exception(error).to_string()))?;
            let description: ServiceDescription =
                serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?;
            for channel in &description.channels {
                code_channel(&description.name, channel).map_err(|error| refuse(error.to_string()))?;
            }
            if let Some(schema) = &description.input {
                InputRules::compile(schema).map_err(|error| refuse(format!("input: {error}")))?;
            }
            self.compile(py, &description, &class)?;
            services.push(description);
        }
        services.sort_by(|one, two| one.name.cmp(&two.name));
        let library_modules: Vec<String> = match &self.entry {
            Some(_) => self
                .ask(py, "library_modules", None)?
                .extract()
                .map_err(|error: PyErr| internal(py, &error))?,
            None => Vec::new(),
        };
        let library = library.filter(|_| !library_modules.is_empty()).map(|library| library.digest);
        Ok(UnitManifest { services, library_modules, library })
    }

    /// Compiles one service.
    ///
    /// # Errors
    /// Its class is not what its description was made of.
    pub(crate) fn compile(
        &self,
        py: Python<'_>,
        description: &ServiceDescription,
        class: &Bound<'_, PyAny>,
    ) -> Result<ServiceCode, LoadError> {
        let loaded = self.describe(py, "loaded_service", class)?;
        let compiled = loaded
            .cast_into::<PyDict>()
            .map_err(PyErr::from)
            .and_then(|loaded| ServiceCode::compile(description, &loaded));
        compiled.map_err(|error| self.refused(py, &error))
    }

    /// The class of `service` among `classes`.
    ///
    /// # Errors
    /// It is not there, although a check found it.
    pub(crate) fn class_of<'py>(
        classes: &Bound<'py, PyDict>,
        service: &ServiceName,
    ) -> Result<Bound<'py, PyAny>, LoadError> {
        classes.get_item(service.as_str()).ok().flatten().ok_or_else(|| LoadError {
            message: format!("the service {service} was there when the unit was checked and is not now"),
            detail: String::new(),
        })
    }

    /// Calls a function of `describe.py` with the unit's namespace.
    fn ask<'py>(
        &self,
        py: Python<'py>,
        question: &str,
        more: Option<&str>,
    ) -> Result<Bound<'py, PyAny>, LoadError> {
        let answer = || -> PyResult<Bound<'py, PyAny>> {
            let question = py.import(intern!(py, "_crosstie_runtime.describe"))?.getattr(question)?;
            match more {
                Some(more) => question.call1((&self.namespace, more)),
                None => question.call1((&self.namespace,)),
            }
        };
        answer().map_err(|error| self.refused(py, &error))
    }

    /// Calls a function of `describe.py` with a service's class.
    fn describe<'py>(
        &self,
        py: Python<'py>,
        question: &str,
        class: &Bound<'py, PyAny>,
    ) -> Result<Bound<'py, PyAny>, LoadError> {
        py.import(intern!(py, "_crosstie_runtime.describe"))
            .and_then(|module| module.getattr(question)?.call1((class,)))
            .map_err(|error| self.refused(py, &error))
    }

    /// What an exception of user code, or of a look at it, tells whoever deployed it.
    fn refused(&self, py: Python<'_>, error: &PyErr) -> LoadError {
        let told = || -> PyResult<LoadError> {
            let refused =
                py.import(intern!(py, "_crosstie_runtime.describe"))?.getattr(intern!(py, "Refused"))?;
            if error.is_instance(py, &refused) {
                return Ok(LoadError { message: error.value(py).to_string(), detail: String::new() });
            }
            let files = pyo3::types::PySet::new(py, &self.files)?;
            let message = py
                .import(intern!(py, "_crosstie_runtime.tracebacks"))?
                .call_method1(intern!(py, "reason_of"), (failure::with_traceback(py, error), files))?
                .extract()?;
            Ok(LoadError { message, detail: failure::traceback_of(py, error) })
        };
        told().unwrap_or_else(|_| internal(py, error))
    }
}

fn internal(py: Python<'_>, error: &PyErr) -> LoadError {
    LoadError { message: error.to_string(), detail: failure::traceback_of(py, error) }
}

fn unpacked(artifact: &Artifact, directory: &str) -> Result<Vec<(String, bytes::Bytes)>, LoadError> {
    let files = archive::unpack(&artifact.content).map_err(|error| LoadError {
        message: format!("the archive of {} is not acceptable: {error}", artifact.unit),
        detail: String::new(),
    })?;
    Ok(files.into_iter().map(|(path, content)| (format!("{directory}{path}"), content)).collect())
}
