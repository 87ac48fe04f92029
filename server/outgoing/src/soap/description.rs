//! What is described of the other system: the port that is called, and the schema of its messages.

use std::sync::Arc;

use crosstie_model::definition::{SoapEndpoint, SoapVersion, WsdlDefinition};
use crosstie_model::outgoing::{OutgoingError, Trouble};
use crosstie_xml::soap::Version;
use crosstie_xml::wsdl::{Binding, Operation};
use crosstie_xml::{SchemaSet, Wsdl};

use crate::blueprint::{Blueprint, OpenError};

/// See the module.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) schemas: Arc<SchemaSet>,
    binding: Arc<Binding>,
    /// The version of SOAP that is spoken.
    pub(super) version: Version,
    /// The names of its operations.
    pub(super) operations: Vec<String>,
}

impl Description {
    /// What the description of `blueprint` says of the port that `soap` means.
    ///
    /// # Errors
    /// It is no description, or has no such port.
    pub(super) fn compile(blueprint: &Blueprint, soap: &SoapEndpoint) -> Result<Self, OpenError> {
        let definition = blueprint.wsdl().ok_or_else(|| OpenError::Undescribed(soap.wsdl.clone()))?;
        let mut document =
            |location: &str| definition.document(location).map(|text| text.as_bytes().to_vec());
        let wsdl = Wsdl::read(WsdlDefinition::LOCATION, &mut document)
            .map_err(|error| OpenError::field("wsdl", error.to_string()))?;
        for warning in &wsdl.warnings {
            tracing::warn!(outgoing = %blueprint.name(), wsdl = %soap.wsdl, warning, "a description is not obeyed in full");
        }
        let service = wsdl.service(soap.service.as_deref()).ok_or_else(|| {
            let names: Vec<_> = wsdl.services.iter().map(|service| &*service.name.local).collect();
            OpenError::field("service", format!("is one of those described: {}", names.join(", ")))
        })?;
        let version = soap.version.map(version_of);
        let port = service.port(soap.port.as_deref(), version).ok_or_else(|| {
            let ports: Vec<_> = service
                .ports
                .iter()
                .map(|port| format!("{} (SOAP {})", port.name, number_of(port.binding.version)))
                .collect();
            OpenError::field("port", format!("is one of those described: {}", ports.join(", ")))
        })?;
        let binding = Arc::clone(&port.binding);
        Ok(Self {
            schemas: wsdl.schemas,
            version: binding.version,
            operations: binding.operations.iter().map(|operation| operation.name.clone()).collect(),
            binding,
        })
    }

    /// The operation `name`.
    pub(super) fn operation(&self, name: &str) -> Result<&Operation, OutgoingError> {
        self.binding.operation(name).ok_or_else(|| {
            let known = self.operations.join(", ");
            OutgoingError::new(Trouble::Misuse, format!("there is no operation {name:?}; there are {known}"))
        })
    }
}

fn version_of(version: SoapVersion) -> Version {
    match version {
        SoapVersion::V11 => Version::V11,
        SoapVersion::V12 => Version::V12,
    }
}

fn number_of(version: Version) -> &'static str {
    match version {
        Version::V11 => "1.1",
        Version::V12 => "1.2",
    }
}
