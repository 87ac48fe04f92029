//! The runtime as its process sees it: started once, then loads and runs units.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use crosstie_model::names::{Digest, ServiceName};
use crosstie_model::ports::{Blame, LoadError, LoadedService, LoadedUnit, Runtime, ServiceDirectory};
use crosstie_model::unit::{Artifact, ArtifactKind, UnitManifest};
use pyo3::prelude::*;
use serde_json::Value;
use tokio::sync::oneshot;

use super::context::Host;
use super::event_loop::EventLoop;
use super::interpreter::{self, Setting};
use super::options::{Activity, PythonOptions, StartError};
use super::pool::{Pool, Slot, on_this_thread, with_blame};
use super::service::PythonService;
use super::unit::Unit;

/// How long the modules of one unit may take to load.
const LOAD_LIMIT: Duration = Duration::from_secs(30);

/// CPython with its threads. Cheap to clone; all clones are one runtime.
#[derive(Clone)]
pub struct PythonRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    host: Arc<Host>,
    blame: Arc<dyn Blame>,
    /// Shared libraries that loaded units use, by digest: units with the same version share its modules.
    libraries: Mutex<HashMap<Digest, Weak<Unit>>>,
}

impl fmt::Debug for PythonRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonRuntime").field("activity", &self.activity()).finish()
    }
}

impl PythonRuntime {
    /// Starts the interpreter (once per process) and the threads that run services.
    ///
    /// # Errors
    /// The interpreter or its environment is unusable.
    pub fn start(options: PythonOptions) -> Result<Self, StartError> {
        let PythonOptions { settings, venv, host, network, data, blame, user_config, on_exhausted } = options;
        interpreter::start(&venv, Setting::Worker)?;
        let pool = Pool::start(settings.clone(), Arc::clone(&blame), on_exhausted)?;
        let events = EventLoop::new(&settings, &pool)?;
        let host = Arc::new(Host::new(pool, events, data, host, network, user_config));
        Ok(Self { inner: Arc::new(Inner { host, blame, libraries: Mutex::default() }) })
    }

    /// Says where services find each other and dictionaries. Until then there are none.
    pub fn set_directory(&self, directory: Arc<dyn ServiceDirectory>) {
        self.inner.host.set_directory(directory);
    }

    /// Replaces what `self.config` shows; a service keeps what it already looked at.
    pub fn set_user_config(&self, config: &Value) {
        self.inner.host.set_config(config.clone());
    }

    /// How busy the runtime is.
    #[must_use]
    pub fn activity(&self) -> Activity {
        Activity { async_calls: self.inner.host.events.calls(), ..self.inner.host.pool.activity() }
    }

    /// Runs `work` with the interpreter on a thread of its own, under the blame of the unit that is loaded.
    async fn on_load_thread<T, F>(&self, artifact: &Artifact, work: F) -> Result<T, LoadError>
    where
        T: Send + 'static,
        F: FnOnce(Python<'_>) -> Result<T, LoadError> + Send + 'static,
    {
        let refused = |message: String| LoadError { message, detail: String::new() };
        let unit = artifact.unit.clone();
        let frame = ServiceName::new(unit.as_str()).map_err(|error| refused(error.to_string()))?;
        let (sender, receiver) = oneshot::channel();
        let (slot, blame) = (Arc::new(Slot::default()), Arc::clone(&self.inner.blame));
        let own = Arc::clone(&slot);
        thread::Builder::new()
            .name("python-load".into())
            .stack_size(16 << 20)
            .spawn(move || {
                on_this_thread(&own, &blame);
                let done = Python::attach(|py| {
                    own.enter(py, &frame, Instant::now() + LOAD_LIMIT);
                    let done = with_blame(|slot| slot.enter_load(&unit), || work(py));
                    own.leave(py);
                    done
                });
                let _ = sender.send(done);
            })
            .map_err(|error| refused(format!("no thread to load with: {error}")))?;
        match tokio::time::timeout(LOAD_LIMIT, receiver).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(refused("the runtime failed while it loaded the unit".into())),
            Err(_) => {
                if let Some(overdue) = slot.overdue(Instant::now() + REACH) {
                    self.inner.host.pool.interrupter().send(&slot, overdue.number);
                }
                Err(refused(format!("the unit did not finish loading within {} s", LOAD_LIMIT.as_secs())))
            }
        }
    }
}

/// Two clocks measure a load; what one calls late must be late for the other.
const REACH: Duration = Duration::from_secs(1);

impl Inner {
    /// The loaded library of that version.
    fn library(&self, py: Python<'_>, artifact: &Artifact) -> Result<Arc<Unit>, LoadError> {
        let known = || self.libraries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(unit) = known().get(&artifact.digest).and_then(Weak::upgrade) {
            return Ok(unit);
        }
        // Opened without the lock, as that runs Python; of two that race, the second is forgotten.
        let opened = Arc::new(Unit::open(py, artifact, None)?);
        let mut libraries = known();
        libraries.retain(|_, unit| unit.strong_count() > 0);
        if let Some(unit) = libraries.get(&artifact.digest).and_then(Weak::upgrade) {
            return Ok(unit);
        }
        libraries.insert(artifact.digest, Arc::downgrade(&opened));
        Ok(opened)
    }

    fn load(
        &self,
        py: Python<'_>,
        artifact: &Artifact,
        manifest: &UnitManifest,
        library: Option<&Artifact>,
    ) -> Result<Vec<Arc<dyn LoadedService>>, LoadError> {
        if artifact.kind == ArtifactKind::PythonLibrary {
            return Ok(Vec::new());
        }
        let library = library.map(|library| self.library(py, library)).transpose()?;
        let unit = Arc::new(Unit::open(py, artifact, library)?);
        unit.import(py)?;
        let classes = unit.classes(py)?;
        let mut services: Vec<Arc<dyn LoadedService>> = Vec::with_capacity(manifest.services.len());
        for description in &manifest.services {
            let class = Unit::class_of(&classes, &description.name)?;
            let code = unit.compile(py, description, &class)?;
            if description.is_async {
                self.host.events.ensure_started().map_err(|error| LoadError {
                    message: format!("the event loop could not be started: {error}"),
                    detail: String::new(),
                })?;
            }
            services.push(Arc::new(PythonService::new(code, Arc::clone(&self.host), Arc::clone(&unit))));
        }
        Ok(services)
    }
}

/// Checks an artifact with the interpreter of this process.
///
/// # Errors
/// Why it cannot be deployed.
pub(crate) fn describe(
    py: Python<'_>,
    artifact: &Artifact,
    library: Option<&Artifact>,
) -> Result<UnitManifest, LoadError> {
    let opened = library.map(|library| Unit::open(py, library, None)).transpose()?.map(Arc::new);
    let unit = Unit::open(py, artifact, opened)?;
    unit.import(py)?;
    unit.manifest(py, library)
}

#[async_trait]
impl Runtime for PythonRuntime {
    fn kinds(&self) -> &'static [ArtifactKind] {
        &[ArtifactKind::PythonFile, ArtifactKind::PythonPackage, ArtifactKind::PythonLibrary]
    }

    async fn describe(&self, unit: &Artifact, library: Option<&Artifact>) -> Result<UnitManifest, LoadError> {
        let (artifact, library) = (unit.clone(), library.cloned());
        self.on_load_thread(unit, move |py| describe(py, &artifact, library.as_ref())).await
    }

    async fn load(
        &self,
        unit: &Artifact,
        manifest: &UnitManifest,
        library: Option<&Artifact>,
    ) -> Result<LoadedUnit, LoadError> {
        let (inner, artifact) = (Arc::clone(&self.inner), unit.clone());
        let (manifest, used) = (manifest.clone(), library.cloned());
        let services =
            self.on_load_thread(unit, move |py| inner.load(py, &artifact, &manifest, used.as_ref())).await?;
        Ok(LoadedUnit {
            unit: unit.unit.clone(),
            digest: unit.digest,
            library: library.map(|library| library.digest),
            services,
        })
    }
}
