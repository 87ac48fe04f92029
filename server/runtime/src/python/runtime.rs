//! The runtime as its process sees it: started once, then loads and runs units.

use std::sync::Arc;

use async_trait::async_trait;
use crosstie_model::ports::{LoadError, LoadedUnit, Runtime, ServiceDirectory};
use crosstie_model::unit::{Artifact, ArtifactKind, UnitManifest};
use serde_json::Value;

use super::options::{Activity, PythonOptions, StartError};

/// CPython with its threads. Cheap to clone; all clones are one runtime.
#[derive(Clone)]
pub struct PythonRuntime {}

impl PythonRuntime {
    /// Starts the interpreter (once per process) and the threads that run services.
    ///
    /// # Errors
    /// The interpreter or its environment is unusable.
    pub fn start(_options: PythonOptions) -> Result<Self, StartError> {
        Err(StartError::Interpreter("not there yet".into()))
    }

    /// Says where services find each other and dictionaries. Until then there are none.
    pub fn set_directory(&self, _directory: Arc<dyn ServiceDirectory>) {}

    /// Replaces what `self.config` shows; calls under way keep what they have.
    pub fn set_user_config(&self, _config: &Value) {}

    /// How busy the runtime is.
    #[must_use]
    pub fn activity(&self) -> Activity {
        Activity::default()
    }
}

#[async_trait]
impl Runtime for PythonRuntime {
    fn kinds(&self) -> &'static [ArtifactKind] {
        &[ArtifactKind::PythonFile, ArtifactKind::PythonPackage, ArtifactKind::PythonLibrary]
    }

    async fn describe(
        &self,
        _unit: &Artifact,
        _library: Option<&Artifact>,
    ) -> Result<UnitManifest, LoadError> {
        Err(LoadError { message: "not there yet".into(), detail: String::new() })
    }

    async fn load(
        &self,
        _unit: &Artifact,
        _manifest: &UnitManifest,
        _library: Option<&Artifact>,
    ) -> Result<LoadedUnit, LoadError> {
        Err(LoadError { message: "not there yet".into(), detail: String::new() })
    }
}
