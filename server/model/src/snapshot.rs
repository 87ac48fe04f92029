//! The immutable form of all definitions and active deployments at one revision.
//!
//! A worker builds its routes and loads its code from one snapshot and swaps both at once. The same shape is
//! what the singleton keeps on disk as the last good one, with secrets still sealed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::definition::{
    ChannelDefinition, Definition, DefinitionBody, DefinitionId, DefinitionKind, DefinitionName,
    SecurityDefinition, ServiceSettings, WsdlDefinition,
};
use crate::failure::Fault;
use crate::names::{Digest, Revision, ServiceName, UnitName};
use crate::unit::{ArtifactKind, CodeChannel, ServiceDescription, UnitManifest};

/// Everything the servers of a cluster serve at one revision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// Which state this is.
    pub revision: Revision,
    /// All definitions, explicit ones only.
    pub definitions: BTreeMap<DefinitionId, DefinitionBody>,
    /// The active deployment of every unit.
    pub units: BTreeMap<UnitName, ActiveUnit>,
    /// Sealed secrets that the definitions refer to, by name and version.
    pub secrets: BTreeMap<(String, u32), Vec<u8>>,
    /// Serial numbers, in hexadecimal, of component certificates that are worth nothing any more.
    pub revoked: BTreeSet<String>,
}

/// A unit's active deployment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActiveUnit {
    /// The artifact.
    pub digest: Digest,
    /// What the artifact is.
    pub kind: ArtifactKind,
    /// What it defines.
    pub manifest: UnitManifest,
}

/// A channel of a snapshot: an explicit definition, or one declared in code that none overrides.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectiveChannel {
    /// Its name.
    pub name: DefinitionName,
    /// What it says.
    pub definition: ChannelDefinition,
    /// Whether it comes from code and so is read-only and left out of exports.
    pub in_code: bool,
}

/// Why a declaration in code is no channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the channel {name} of service {service} is not valid: {}", list(.faults))]
pub struct CodeChannelError {
    /// The service that declares it.
    pub service: ServiceName,
    /// The name it would have.
    pub name: String,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

fn list(faults: &[Fault]) -> String {
    let texts: Vec<_> =
        faults.iter().map(|f| format!("{} {}", f.pointer, f.detail).trim().to_owned()).collect();
    texts.join("; ")
}

impl Snapshot {
    /// The services of all active deployments, with their units.
    pub fn services(&self) -> impl Iterator<Item = (&UnitName, &ServiceDescription)> {
        self.units
            .iter()
            .flat_map(|(unit, active)| active.manifest.services.iter().map(move |service| (unit, service)))
    }

    /// The unit that owns `service`.
    #[must_use]
    pub fn owner(&self, service: &str) -> Option<&UnitName> {
        self.services().find(|(_, found)| found.name.as_str() == service).map(|(unit, _)| unit)
    }

    /// The run-time settings of `service`: its definition, or the defaults.
    #[must_use]
    pub fn service_settings(&self, service: &ServiceName) -> ServiceSettings {
        let Ok(name) = DefinitionName::new(service.as_str()) else { return ServiceSettings::default() };
        match self.definitions.get(&DefinitionId { kind: DefinitionKind::Service, name }) {
            Some(DefinitionBody::Service(settings)) => settings.clone(),
            _ => ServiceSettings::default(),
        }
    }

    /// The security definition called `name`.
    #[must_use]
    pub fn security(&self, name: &DefinitionName) -> Option<&SecurityDefinition> {
        match self.definitions.get(&DefinitionId { kind: DefinitionKind::Security, name: name.clone() }) {
            Some(DefinitionBody::Security(security)) => Some(security),
            _ => None,
        }
    }

    /// The `wsdl` definition called `name`.
    #[must_use]
    pub fn wsdl(&self, name: &DefinitionName) -> Option<&WsdlDefinition> {
        match self.definitions.get(&DefinitionId { kind: DefinitionKind::Wsdl, name: name.clone() }) {
            Some(DefinitionBody::Wsdl(wsdl)) => Some(wsdl),
            _ => None,
        }
    }

    /// The definitions whose credentials open a channel that demands `name`, in the order in which they are
    /// tried: the one of that name, or the members of a group. Those that do not exist are left out.
    #[must_use]
    pub fn credentials_for<'s>(
        &'s self,
        name: &'s DefinitionName,
    ) -> Vec<(&'s DefinitionName, &'s SecurityDefinition)> {
        match self.security(name) {
            None => Vec::new(),
            Some(SecurityDefinition::Group(group)) => group
                .any_of
                .iter()
                .filter_map(|name| Some((name, self.security(name)?)))
                .filter(|(_, member)| !matches!(member, SecurityDefinition::Group(_)))
                .collect(),
            Some(definition) => vec![(name, definition)],
        }
    }

    /// All channels: the explicit ones, then those declared in code that no explicit one of the same name
    /// overrides, each in the order of their names. Several services that declare JSON-RPC, or SOAP, at one
    /// path share one channel, named after the path.
    ///
    /// # Errors
    /// A declaration in code that is not valid; checks refuse such a deployment, so a stored one has none.
    pub fn effective_channels(&self) -> Result<Vec<EffectiveChannel>, CodeChannelError> {
        let mut channels: BTreeMap<DefinitionName, EffectiveChannel> = BTreeMap::new();
        for (_, service) in self.services() {
            for declared in &service.channels {
                let (name, definition) = code_channel(&service.name, declared)?;
                match (channels.get_mut(&name).map(|known| &mut known.definition), &definition) {
                    (Some(ChannelDefinition::Jsonrpc(known)), ChannelDefinition::Jsonrpc(more))
                        if known.entrance == more.entrance && known.openrpc == more.openrpc =>
                    {
                        known.methods.extend(more.methods.clone());
                    }
                    (Some(ChannelDefinition::Rest(known)), ChannelDefinition::Rest(more))
                        if known.entrance == more.entrance
                            && known.data_format == more.data_format
                            && known.transforms == more.transforms =>
                    {
                        known.methods.extend(more.methods.clone());
                    }
                    (Some(ChannelDefinition::Soap(known)), ChannelDefinition::Soap(more))
                        if known.agrees_with(more)
                            && !more.operations.keys().any(|name| known.operations.contains_key(name)) =>
                    {
                        known.operations.extend(more.operations.clone());
                        known.one_way.extend(more.one_way.iter().cloned());
                    }
                    (Some(_), _) => return Err(clash(&service.name, &name)),
                    (None, _) => {
                        channels.insert(name.clone(), EffectiveChannel { name, definition, in_code: true });
                    }
                }
            }
        }
        for (id, body) in &self.definitions {
            if let DefinitionBody::Channel(definition) = body {
                let (name, definition) = (id.name.clone(), definition.clone());
                channels.insert(name.clone(), EffectiveChannel { name, definition, in_code: false });
            }
        }
        Ok(channels.into_values().collect())
    }
}

fn clash(service: &ServiceName, name: &DefinitionName) -> CodeChannelError {
    let detail = "it is declared twice, with different settings".to_owned();
    CodeChannelError {
        service: service.clone(),
        name: name.to_string(),
        faults: vec![Fault { pointer: String::new(), detail }],
    }
}

/// The definition that a declaration in code stands for, named `SERVICE:KIND:PATH`. JSON-RPC and SOAP channels
/// are shared per path and named `jsonrpc:PATH` and `soap:PATH`. A service that declares REST twice at one path, once per
/// method, has one channel with both methods.
///
/// # Errors
/// The declaration has an unknown type or option, or one out of range.
pub fn code_channel(
    service: &ServiceName,
    declared: &CodeChannel,
) -> Result<(DefinitionName, ChannelDefinition), CodeChannelError> {
    let shared = matches!(declared.r#type.as_str(), "jsonrpc" | "soap");
    let name = if shared {
        format!("{}:{}", declared.r#type, declared.path)
    } else {
        format!("{service}:{}:{}", declared.r#type, declared.path)
    };
    let refuse = |faults| CodeChannelError { service: service.clone(), name: name.clone(), faults };
    let parsed = DefinitionName::new(&name)
        .map_err(|error| refuse(vec![Fault { pointer: "/path".into(), detail: error.to_string() }]))?;
    let mut body: serde_json::Map<String, Value> =
        declared.options.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    body.insert("type".into(), declared.r#type.clone().into());
    let place = if declared.r#type == "amqp" { "queue" } else { "path" };
    body.insert(place.into(), declared.path.clone().into());
    let named = |body: &mut serde_json::Map<String, Value>, key: &str| {
        let name = body.remove(key).unwrap_or_else(|| service.as_str().into());
        name.as_str().unwrap_or(service.as_str()).to_owned()
    };
    let led = |name: String| Value::from_iter([(name, Value::from(service.as_str()))]);
    match declared.r#type.as_str() {
        "jsonrpc" => {
            let method = named(&mut body, "method");
            body.insert("methods".into(), led(method));
        }
        "soap" => {
            let operation = named(&mut body, "operation");
            if let Some(Value::Bool(one_way)) = body.get("one_way").cloned() {
                let names = one_way.then(|| Value::from(operation.as_str()));
                body.insert("one_way".into(), names.into_iter().collect());
            }
            body.insert("operations".into(), led(operation));
        }
        _ => {
            body.insert("service".into(), service.as_str().into());
        }
    }
    let id = DefinitionId { kind: DefinitionKind::Channel, name: parsed.clone() };
    match Definition::from_value(id, Value::Object(body)).map_err(refuse)?.body {
        DefinitionBody::Channel(definition) => Ok((parsed, definition)),
        _ => Err(clash(service, &parsed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn unit(service: &str, channels: Value) -> (UnitName, ActiveUnit) {
        let manifest = serde_json::from_value(json!({
            "services": [{"name": service, "class": "m.C", "channels": channels}]
        }))
        .unwrap();
        let active =
            ActiveUnit { digest: Digest::of(service.as_bytes()), kind: ArtifactKind::PythonFile, manifest };
        (UnitName::new(service).unwrap(), active)
    }

    #[test]
    fn an_explicit_definition_overrides_the_one_in_code() {
        let declared = json!([{"type": "rest", "path": "/a", "options": {"methods": ["GET"]}}]);
        let mut snapshot = Snapshot { units: [unit("demo.a", declared)].into(), ..Snapshot::default() };
        let channels = snapshot.effective_channels().unwrap();
        assert_eq!(channels[0].name.as_str(), "demo.a:rest:/a");
        assert!(channels[0].in_code);

        let id = DefinitionId {
            kind: DefinitionKind::Channel,
            name: DefinitionName::new("demo.a:rest:/a").unwrap(),
        };
        let body = json!({"type": "rest", "path": "/b", "service": "demo.a"});
        let definition = Definition::from_value(id, body).unwrap();
        snapshot.definitions.insert(definition.id, definition.body);
        let channels = snapshot.effective_channels().unwrap();
        assert_eq!(channels.len(), 1);
        assert_eq!(channels[0].definition.place(), "/b");
        assert!(!channels[0].in_code);
    }

    #[test]
    fn services_share_a_jsonrpc_path() {
        let declared = json!([{"type": "jsonrpc", "path": "/rpc"}]);
        let units = [unit("demo.a", declared.clone()), unit("demo.b", declared)].into();
        let channels = Snapshot { units, ..Snapshot::default() }.effective_channels().unwrap();
        assert_eq!(channels.len(), 1);
        assert_eq!(channels[0].definition.services().len(), 2);
    }

    #[test]
    fn services_share_a_soap_path_as_operations() {
        let declared = |name: &str, one_way: bool| json!([{"type": "soap", "path": "/crm", "options": {"operation": name, "one_way": one_way}}]);
        let units = [unit("demo.a", declared("Get", false)), unit("demo.b", declared("Notify", true))].into();
        let channels = Snapshot { units, ..Snapshot::default() }.effective_channels().unwrap();
        assert_eq!((channels.len(), channels[0].name.as_str()), (1, "soap:/crm"));
        let ChannelDefinition::Soap(soap) = &channels[0].definition else { panic!("{channels:?}") };
        assert_eq!(soap.operations.keys().collect::<Vec<_>>(), ["Get", "Notify"]);
        assert!(soap.one_way.contains("Notify") && soap.one_way.len() == 1);
        assert_eq!(soap.generated_namespace(), "urn:crosstie:crm");
        let other = json!([{"type": "soap", "path": "/crm", "options": {"namespace": "urn:other"}}]);
        let units = [unit("demo.a", declared("Get", false)), unit("demo.b", other)].into();
        assert!(Snapshot { units, ..Snapshot::default() }.effective_channels().is_err());
    }

    #[test]
    fn a_queue_can_be_declared_in_code() {
        let declared = json!([{"type": "amqp", "path": "orders", "options": {"connection": "broker"}}]);
        let channels = Snapshot { units: [unit("demo.a", declared)].into(), ..Snapshot::default() }
            .effective_channels()
            .unwrap();
        assert_eq!(channels[0].name.as_str(), "demo.a:amqp:orders");
        let ChannelDefinition::Amqp(amqp) = &channels[0].definition else { panic!("{channels:?}") };
        assert_eq!((amqp.queue.as_str(), amqp.service.as_str()), ("orders", "demo.a"));
    }

    #[test]
    fn a_wrong_declaration_in_code_is_named() {
        let declared = json!([{"type": "rest", "path": "no-slash", "options": {"colour": 1}}]);
        let error = Snapshot { units: [unit("demo.a", declared)].into(), ..Snapshot::default() }
            .effective_channels()
            .unwrap_err();
        assert!(error.to_string().contains("demo.a") && error.to_string().contains("colour"), "{error}");
    }
}
