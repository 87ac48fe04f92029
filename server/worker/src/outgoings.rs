//! The outgoings of this worker: opened when their definitions appear, kept from one snapshot to the next for as
//! long as nothing they are made of changes.
//!
//! Works on the control thread. One that is gone, or was replaced, lives on until its last call ended: calls
//! hold it. One that cannot be opened is closed and nothing else: its calls fail, and the reasons are told.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use crosstie_model::Snapshot;
use crosstie_model::definition::{DefinitionBody, DefinitionName, OutgoingDefinition};
use crosstie_model::event::ClosedOutgoing;
use crosstie_model::outgoing::{FoundOutgoing, Outgoing, OutgoingError, Trouble};
use crosstie_outgoing::{Blueprint, Environment, OpenError, open};
use crosstie_security::SecretResolver;

use crate::closed::bounded;

/// What is open now.
pub(crate) struct Outgoings {
    resolver: SecretResolver,
    /// The server's directory, below which files are.
    directory: PathBuf,
    environment: Environment,
    open: BTreeMap<DefinitionName, Kept>,
}

/// An open outgoing with what it is made of.
struct Kept {
    blueprint: Blueprint,
    outgoing: Outgoing,
}

/// The outgoings of one snapshot.
#[derive(Default)]
pub(crate) struct OpenOutgoings {
    /// By name.
    pub(crate) found: HashMap<String, FoundOutgoing>,
    /// The names of those that are open, as metrics show them.
    pub(crate) names: Vec<Arc<str>>,
    /// Those that should be open and are not.
    pub(crate) closed: Vec<ClosedOutgoing>,
}

impl Outgoings {
    /// None yet.
    pub(crate) fn new(resolver: SecretResolver, directory: PathBuf, environment: Environment) -> Self {
        Self { resolver, directory, environment, open: BTreeMap::new() }
    }

    /// Opens what is new in `snapshot` and lets go of what is not in it any more.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) -> OpenOutgoings {
        let mut before = std::mem::take(&mut self.open);
        let (mut all, mut closed) = (OpenOutgoings::default(), BTreeMap::new());
        for (id, body) in &snapshot.definitions {
            let DefinitionBody::Outgoing(definition) = body else { continue };
            let name = &id.name;
            let state = if definition.is_active() {
                match self.keep_or_open(name, definition, snapshot, before.remove(name)) {
                    Ok(outgoing) => {
                        all.names.push(name.to_shared());
                        Ok(outgoing)
                    }
                    Err(error) => {
                        let reason = error.to_string();
                        tracing::error!(outgoing = %name, reason, "an outgoing does not open");
                        let error =
                            OutgoingError::new(Trouble::Closed, format!("{name} is closed: {reason}"));
                        closed.insert(name.clone(), vec![reason]);
                        Err(error)
                    }
                }
            } else {
                Err(OutgoingError::new(Trouble::Closed, format!("{name} is not active")))
            };
            let type_name = definition.type_name();
            all.found.insert(name.to_string(), FoundOutgoing { type_name, state });
        }
        all.closed =
            bounded(closed).map(|(outgoing, reasons)| ClosedOutgoing { outgoing, reasons }).collect();
        all
    }

    fn keep_or_open(
        &mut self,
        name: &DefinitionName,
        definition: &OutgoingDefinition,
        snapshot: &Snapshot,
        before: Option<Kept>,
    ) -> Result<Outgoing, OpenError> {
        let blueprint = Blueprint::draw(name, definition, snapshot, &self.resolver, &self.directory)?;
        let outgoing = match before.filter(|kept| kept.blueprint == blueprint) {
            Some(kept) => kept.outgoing,
            None => open(&blueprint, &self.environment)?,
        };
        self.open.insert(name.clone(), Kept { blueprint, outgoing: outgoing.clone() });
        Ok(outgoing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::SharedGauges;
    use crosstie_model::{Definition, DefinitionId, DefinitionKind};
    use crosstie_process::shm::Segment;
    use crosstie_security::ClusterKey;
    use crosstie_telemetry::Metrics;
    use serde_json::{Value, json};

    fn put(snapshot: &mut Snapshot, kind: DefinitionKind, name: &str, body: Value) {
        let id = DefinitionId { kind, name: name.parse().unwrap() };
        let definition = Definition::from_value(id, body).unwrap();
        snapshot.definitions.insert(definition.id, definition.body);
    }

    fn outgoings(directory: &std::path::Path) -> Outgoings {
        let segment = Segment::create().unwrap();
        let environment = Environment {
            metrics: Metrics::new(Arc::clone(&segment) as _),
            gauges: Arc::new(SharedGauges::new(segment, 0)),
            tracer: None,
            messages: None,
        };
        let resolver = SecretResolver::new(Arc::new(ClusterKey::generate().unwrap()), directory.to_owned());
        Outgoings::new(resolver, directory.to_owned(), environment)
    }

    fn address_of(all: &OpenOutgoings, name: &str) -> usize {
        match &all.found[name].state {
            Ok(Outgoing::Http(outgoing)) => Arc::as_ptr(outgoing).cast::<()>() as usize,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_outgoing_lives_as_long_as_nothing_it_is_made_of_changes() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("key"), "first").unwrap();
        let mut outgoings = outgoings(directory.path());
        let mut snapshot = Snapshot::default();
        let key = json!({"type": "api_key", "key": "file:key"});
        put(&mut snapshot, DefinitionKind::Security, "key", key);
        let body = json!({"type": "rest", "address": "http://127.0.0.1:1", "security": "key"});
        put(&mut snapshot, DefinitionKind::Outgoing, "crm", body.clone());
        put(&mut snapshot, DefinitionKind::Outgoing, "other", json!({"type": "http", "address": "http://a"}));
        let first = outgoings.follow(&snapshot);
        let again = outgoings.follow(&snapshot);
        assert_eq!(address_of(&first, "crm"), address_of(&again, "crm"));

        std::fs::write(directory.path().join("key"), "second").unwrap();
        let changed = outgoings.follow(&snapshot);
        assert_ne!(address_of(&again, "crm"), address_of(&changed, "crm"));
        assert_eq!(address_of(&again, "other"), address_of(&changed, "other"));

        snapshot.definitions.retain(|id, _| id.name.as_str() != "crm");
        let gone = outgoings.follow(&snapshot);
        assert!(!gone.found.contains_key("crm"));
    }

    #[test]
    fn one_that_cannot_be_opened_is_closed_alone_and_opens_when_it_can() {
        let directory = tempfile::tempdir().unwrap();
        let mut outgoings = outgoings(directory.path());
        let mut snapshot = Snapshot::default();
        let token = json!({"type": "bearer", "token": "file:token"});
        put(&mut snapshot, DefinitionKind::Security, "token", token);
        let body = json!({"type": "rest", "address": "http://127.0.0.1:1", "security": "token"});
        put(&mut snapshot, DefinitionKind::Outgoing, "a", body);
        put(&mut snapshot, DefinitionKind::Outgoing, "b", json!({"type": "http", "address": "http://a"}));
        let off = json!({"type": "http", "address": "http://a", "active": false});
        put(&mut snapshot, DefinitionKind::Outgoing, "c", off);
        let all = outgoings.follow(&snapshot);
        let closed: Vec<_> = all.closed.iter().map(|closed| closed.outgoing.as_str()).collect();
        assert_eq!(closed, ["a"]);
        assert!(all.closed[0].reasons[0].contains("token"), "{:?}", all.closed);
        for (name, is_open) in [("a", false), ("b", true), ("c", false)] {
            assert_eq!(all.found[name].state.is_ok(), is_open, "{name}");
        }
        std::fs::write(directory.path().join("token"), "t0ken").unwrap();
        assert_eq!(outgoings.follow(&snapshot).closed, []);
    }
}
