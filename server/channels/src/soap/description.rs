//! What a SOAP channel offers: made of what its services declare, or read from a `wsdl` definition.
//!
//! Compiling costs milliseconds for a large description. What was compiled is kept for as long as a channel uses
//! it, so that a snapshot which changes something else costs nothing here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crosstie_model::definition::{SoapChannel, SoapStyle, SoapVersion, WsdlDefinition};
use crosstie_model::names::Digest;
use crosstie_model::unit::ServiceDescription as Declared;
use crosstie_model::{Fault, Snapshot};
use crosstie_xml::soap::Version;
use crosstie_xml::wsdl::{Binding, MessageStyle, Operation, OperationDescription, ServiceDescription};
use crosstie_xml::{Wsdl, encode_name};

use super::model_version;

/// The service's name where nobody gave it one.
const SERVICE: &str = "Service";
/// The namespace of the detail of faults where a description says nothing of it.
pub(super) const FAULTS: &str = "urn:crosstie:fault";
/// How many descriptions are kept before those that no channel uses are forgotten.
const KEPT: usize = 64;

/// What keeps a description from being used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescriptionFault {
    /// JSON Pointer into the channel's definition.
    pub pointer: String,
    /// What is wrong, for a person.
    pub detail: String,
}

/// A description, ready to read and write messages by.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) wsdl: Wsdl,
    pub(super) source: Source,
    /// Which of the services of `wsdl`.
    service: usize,
    /// The namespace of the detail of faults.
    pub(super) fault_namespace: String,
}

/// Where a description comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// What the services declare.
    Declared(Box<ServiceDescription>),
    /// A `wsdl` definition.
    Written(Box<WsdlDefinition>),
}

impl Compiled {
    /// How messages of a version look.
    pub(super) fn binding(&self, version: Version) -> Option<&Binding> {
        let service = self.wsdl.services.get(self.service)?;
        service.port(None, Some(version)).map(|port| &*port.binding)
    }

    pub(super) fn operation(&self, version: Version, name: &str) -> Option<&Operation> {
        self.binding(version)?.operation(name)
    }

    /// What the description calls the channel's operation `name`.
    pub(super) fn operation_name(&self, name: &str) -> String {
        match self.source {
            Source::Declared(_) => encode_name(name).into_owned(),
            Source::Written(_) => name.to_owned(),
        }
    }

    /// The addresses that the description gives for the service, to be replaced by the channel's.
    pub(super) fn addresses(&self) -> Vec<&str> {
        let ports = self.wsdl.services.get(self.service).map(|service| &service.ports[..]);
        ports.unwrap_or_default().iter().map(|port| port.address.as_str()).collect()
    }
}

static COMPILED: LazyLock<Mutex<HashMap<Digest, Arc<Compiled>>>> = LazyLock::new(Mutex::default);

/// What was compiled of a text before, or what `make` makes of it.
fn kept(
    key: Digest,
    make: impl FnOnce() -> Result<Compiled, Vec<DescriptionFault>>,
) -> Result<Arc<Compiled>, Vec<DescriptionFault>> {
    let known = || COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known().get(&key) {
        return Ok(Arc::clone(found));
    }
    let made = Arc::new(make()?);
    let mut known = known();
    if known.len() >= KEPT {
        known.retain(|_, compiled| Arc::strong_count(compiled) > 1);
    }
    known.insert(key, Arc::clone(&made));
    Ok(made)
}

/// Compiles the description of a channel.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn compile(
    snapshot: &Snapshot,
    channel: &SoapChannel,
) -> Result<Arc<Compiled>, Vec<DescriptionFault>> {
    let compiled = match &channel.wsdl {
        None => declared(snapshot, channel)?,
        Some(name) => match snapshot.wsdl(name) {
            Some(wsdl) => written(wsdl, channel)?,
            None => return Err(vec![fault("/wsdl", format!("there is no wsdl definition {name}"))]),
        },
    };
    let described: Vec<SoapVersion> = Version::ALL
        .into_iter()
        .filter(|version| compiled.binding(*version).is_some())
        .map(model_version)
        .collect();
    let mut faults = Vec::new();
    if !channel.versions.iter().any(|version| described.contains(version)) {
        faults.push(fault("/versions", "the wsdl definition describes none of them".to_owned()));
    }
    for name in channel.operations.keys() {
        let known = compiled.operation_name(name);
        let is_described = Version::ALL.into_iter().any(|v| compiled.operation(v, &known).is_some());
        if !is_described {
            let pointer = format!("/operations/{}", name.replace('~', "~0").replace('/', "~1"));
            faults.push(fault(&pointer, "the wsdl definition describes no such operation".to_owned()));
        }
    }
    if faults.is_empty() { Ok(compiled) } else { Err(faults) }
}

/// Everything that is wrong with the description of a channel.
#[must_use]
pub fn faults(snapshot: &Snapshot, channel: &SoapChannel) -> Vec<DescriptionFault> {
    compile(snapshot, channel).err().unwrap_or_default()
}

/// What is wrong with a `wsdl` definition on its own.
#[must_use]
pub fn wsdl_faults(wsdl: &WsdlDefinition) -> Vec<Fault> {
    match read(wsdl) {
        Ok(_) => Vec::new(),
        Err(detail) => vec![Fault { pointer: "/text".to_owned(), detail }],
    }
}

fn fault(pointer: &str, detail: String) -> DescriptionFault {
    DescriptionFault { pointer: pointer.to_owned(), detail }
}

/// The description made of what services declare. One that is not deployed takes and answers anything.
fn declared(snapshot: &Snapshot, channel: &SoapChannel) -> Result<Arc<Compiled>, Vec<DescriptionFault>> {
    let services: BTreeMap<&str, &Declared> =
        snapshot.services().map(|(_, service)| (service.name.as_str(), service)).collect();
    let namespace = channel.generated_namespace();
    let name = channel.service_name.as_deref().unwrap_or(SERVICE);
    let style = match channel.style {
        SoapStyle::Document => MessageStyle::Document,
        SoapStyle::Rpc => MessageStyle::Rpc,
    };
    let mut described = ServiceDescription::new(name, &namespace, "").in_style(style);
    let mut faults = Vec::new();
    for (operation, service) in &channel.operations {
        let declared = services.get(service.as_str());
        let outcome = described.operation(&OperationDescription {
            name: operation,
            documentation: declared.map(|service| service.doc.as_str()).unwrap_or_default(),
            input: declared.and_then(|service| service.input.as_ref()),
            output: declared.and_then(|service| service.output.as_ref()),
            one_way: channel.one_way.contains(operation),
        });
        if let Err(error) = outcome {
            let pointer = format!("/operations/{}", operation.replace('~', "~0").replace('/', "~1"));
            faults.push(fault(&pointer, format!("the service {service} has no form in XML: {error}")));
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    kept(Digest::of(described.document("").as_bytes()), || {
        let wsdl = described.compile().map_err(|error| vec![fault("/operations", error.to_string())])?;
        Ok(Compiled {
            wsdl,
            source: Source::Declared(Box::new(described)),
            service: 0,
            fault_namespace: namespace,
        })
    })
}

/// The description that somebody else wrote.
fn written(wsdl: &WsdlDefinition, channel: &SoapChannel) -> Result<Arc<Compiled>, Vec<DescriptionFault>> {
    // Lengths keep two documents apart that would read the same one after the other.
    let mut text = format!("wsdl {:?} {}\n{}", channel.service_name, wsdl.text.len(), wsdl.text);
    for (location, document) in &wsdl.documents {
        text.push_str(&format!("\n{location:?} {}\n{document}", document.len()));
    }
    kept(Digest::of(text.as_bytes()), || {
        let source = Source::Written(Box::new(wsdl.clone()));
        let wsdl = read(wsdl).map_err(|detail| vec![fault("/wsdl", detail)])?;
        let named = |index: &usize| {
            let service = wsdl.services.get(*index);
            channel
                .service_name
                .as_deref()
                .is_none_or(|name| service.is_some_and(|service| *service.name.local == *name))
        };
        let mut found = (0..wsdl.services.len()).filter(named);
        let (first, second) = (found.next(), found.next());
        let names: Vec<_> = wsdl.services.iter().map(|service| service.name.local.to_string()).collect();
        let names = names.join(", ");
        let refuse = |detail| Err(vec![fault("/service_name", detail)]);
        match (first, second) {
            (Some(service), None) => {
                Ok(Compiled { wsdl, source, service, fault_namespace: FAULTS.to_owned() })
            }
            (Some(_), Some(_)) => refuse(format!("the wsdl definition describes several services: {names}")),
            (None, _) => refuse(format!("the wsdl definition describes no such service, but {names}")),
        }
    })
}

fn read(wsdl: &WsdlDefinition) -> Result<Wsdl, String> {
    let mut resolver = |location: &str| wsdl.document(location).map(|text| text.as_bytes().to_vec());
    Wsdl::read(WsdlDefinition::LOCATION, &mut resolver).map_err(|error| error.to_string())
}
