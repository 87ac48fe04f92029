//! What one worker serves: a snapshot with its code loaded, built off the hot path and swapped whole.
//!
//! Owned by the worker's control thread. A request reads the current [`Live`] once; an old one lives until
//! its last request ends, and with it the code only it uses.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use crosstie_channels::staged::Staged;
use crosstie_model::definition::{DefinitionBody, DefinitionKind, StylesheetDefinition};
use crosstie_model::event::FailedUnit;
use crosstie_model::outgoing::FoundOutgoing;
use crosstie_model::ports::{LoadError, LoadedService, LoadedUnit, Runtime, ServiceDirectory};
use crosstie_model::snapshot::{ActiveUnit, Snapshot};
use crosstie_model::transform::FoundStylesheet;
use crosstie_model::unit::{Artifact, LIBRARY_UNIT};
use crosstie_model::{Digest, ServiceName, UnitName};
use crosstie_xslt::Sheet;
use serde_json::Value;

use crate::outgoings::OpenOutgoings;

/// One snapshot, loaded.
#[derive(Default)]
pub(crate) struct Live {
    /// The definitions and deployments.
    pub snapshot: Arc<Snapshot>,
    services: HashMap<ServiceName, Arc<dyn LoadedService>>,
    dictionaries: HashMap<String, Arc<Value>>,
    stylesheets: HashMap<String, FoundStylesheet>,
    /// Connections to other systems.
    pub outgoings: OpenOutgoings,
}

impl ServiceDirectory for Live {
    fn find(&self, name: &str) -> Option<Arc<dyn LoadedService>> {
        self.services.get(name).cloned()
    }

    fn dictionary(&self, name: &str) -> Option<Arc<Value>> {
        self.dictionaries.get(name).cloned()
    }

    fn outgoing(&self, name: &str) -> Option<FoundOutgoing> {
        self.outgoings.found.get(name).cloned()
    }

    fn stylesheet(&self, name: &str) -> Option<FoundStylesheet> {
        self.stylesheets.get(name).cloned()
    }
}

/// The current [`Live`], for code that is loaded once and looks services up call by call.
pub(crate) type CurrentLive = Staged<Live>;

/// [`CurrentLive`] as services reach it.
pub(crate) struct CurrentDirectory(pub(crate) Arc<CurrentLive>);

impl ServiceDirectory for CurrentDirectory {
    fn find(&self, name: &str) -> Option<Arc<dyn LoadedService>> {
        self.0.load().find(name)
    }

    fn dictionary(&self, name: &str) -> Option<Arc<Value>> {
        self.0.load().dictionary(name)
    }

    fn outgoing(&self, name: &str) -> Option<FoundOutgoing> {
        self.0.load().outgoing(name)
    }

    fn stylesheet(&self, name: &str) -> Option<FoundStylesheet> {
        self.0.load().stylesheet(name)
    }
}

/// Where the loader finds an artifact's bytes.
#[async_trait]
pub(crate) trait ArtifactSource: Send + Sync {
    /// The artifact of `unit`'s active deployment.
    async fn fetch(&self, unit: &UnitName, active: &ActiveUnit) -> Result<Artifact, LoadError>;
}

/// Whether a unit killed so many workers while it was loaded that it must not be loaded any more.
pub(crate) type IsQuarantined = Box<dyn Fn(&UnitName) -> bool + Send + Sync>;

/// Loads what a snapshot needs and keeps what the previous one had loaded.
pub(crate) struct Loader {
    runtimes: Vec<Arc<dyn Runtime>>,
    is_quarantined: IsQuarantined,
    loaded: HashMap<UnitName, Arc<LoadedUnit>>,
}

impl Loader {
    /// A loader for code of these runtimes' kinds.
    pub(crate) fn new(runtimes: Vec<Arc<dyn Runtime>>, is_quarantined: IsQuarantined) -> Self {
        Self { runtimes, is_quarantined, loaded: HashMap::new() }
    }

    /// Loads what is new in `snapshot` and says which deployments could not be loaded. A unit that fails
    /// keeps its version that runs; the services of a new unit that fails answer that they are not
    /// available.
    pub(crate) async fn load(
        &mut self,
        snapshot: Snapshot,
        source: &dyn ArtifactSource,
    ) -> (Live, Vec<FailedUnit>) {
        let library = snapshot.units.get(LIBRARY_UNIT).cloned();
        let mut failed = Vec::new();
        for (name, active) in &snapshot.units {
            let library = library.as_ref().filter(|_| !active.manifest.library_modules.is_empty());
            if name.as_str() == LIBRARY_UNIT || self.is_loaded(name, active, library) {
                continue;
            }
            match self.load_unit(name, active, library, source).await {
                Ok(unit) => {
                    self.loaded.insert(name.clone(), Arc::new(unit));
                }
                Err(error) => {
                    tracing::error!(unit = %name, digest = %active.digest.short(), reason = error.message,
                        detail = error.detail, "a deployment could not be loaded");
                    failed.push(FailedUnit {
                        unit: name.clone(),
                        digest: active.digest,
                        message: error.message,
                    });
                }
            }
        }
        self.loaded.retain(|name, _| snapshot.units.contains_key(name));
        (self.assemble(snapshot), failed)
    }

    fn is_loaded(&self, name: &UnitName, active: &ActiveUnit, library: Option<&ActiveUnit>) -> bool {
        let library: Option<Digest> = library.map(|unit| unit.digest);
        self.loaded.get(name).is_some_and(|unit| unit.digest == active.digest && unit.library == library)
    }

    async fn load_unit(
        &self,
        name: &UnitName,
        active: &ActiveUnit,
        library: Option<&ActiveUnit>,
        source: &dyn ArtifactSource,
    ) -> Result<LoadedUnit, LoadError> {
        let runtime =
            self.runtimes.iter().find(|runtime| runtime.kinds().contains(&active.kind)).ok_or_else(|| {
                LoadError { message: format!("no runtime loads {}", active.kind), detail: String::new() }
            })?;
        if (self.is_quarantined)(name) {
            let message =
                format!("workers died while loading it; `crosstie service release {name}` lets it try again");
            return Err(LoadError { message, detail: String::new() });
        }
        let artifact = source.fetch(name, active).await?;
        let library = match (library, UnitName::new(LIBRARY_UNIT)) {
            (Some(library), Ok(name)) => Some(source.fetch(&name, library).await?),
            _ => None,
        };
        runtime.load(&artifact, &active.manifest, library.as_ref()).await
    }

    fn assemble(&self, snapshot: Snapshot) -> Live {
        let services = self
            .loaded
            .values()
            .flat_map(|unit| &unit.services)
            .map(|service| (service.description().name.clone(), Arc::clone(service)))
            .collect();
        let dictionaries = snapshot
            .definitions
            .iter()
            .filter_map(|(id, body)| match body {
                DefinitionBody::Dictionary(table) if id.kind == DefinitionKind::Dictionary => {
                    Some((id.name.to_string(), Arc::new(Value::Object(table.entries.clone()))))
                }
                _ => None,
            })
            .collect();
        let stylesheets = snapshot
            .definitions
            .iter()
            .filter_map(|(id, body)| match body {
                DefinitionBody::Stylesheet(definition) => {
                    Some((id.name.to_string(), compiled(id.name.as_str(), definition)))
                }
                _ => None,
            })
            .collect();
        let outgoings = OpenOutgoings::default();
        Live { snapshot: Arc::new(snapshot), services, dictionaries, stylesheets, outgoings }
    }
}

/// A stylesheet, compiled unless the previous snapshot has it. Checks keep one that does not compile out of the ODB;
/// should one be there all the same, what uses it is not available, and nothing else.
fn compiled(name: &str, definition: &StylesheetDefinition) -> FoundStylesheet {
    match Sheet::open(definition) {
        Ok(sheet) => Ok(Arc::new(sheet)),
        Err(faults) => {
            let reason: Vec<_> = faults.into_iter().map(|fault| fault.detail).collect();
            let reason = reason.join("; ");
            tracing::error!(stylesheet = name, reason, "a stylesheet does not compile");
            Err(reason.into())
        }
    }
}
