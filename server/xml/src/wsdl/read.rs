//! Reading descriptions.

use std::collections::HashMap;
use std::sync::Arc;

use super::model::{Binding, Port, Service, Wsdl};
use crate::chars::trim;
use crate::document::Element;
use crate::namespace::QName;
use crate::soap::Version;
use crate::sources::{DescriptionError, Resolver, Sources, WSDL};
use crate::xsd::SchemaSet;

/// A component and the document it stands in.
#[derive(Clone, Copy)]
pub(super) struct Placed<'d> {
    pub(super) location: &'d str,
    pub(super) element: Element<'d>,
}

/// The components of all documents by kind and name.
pub(super) struct Definitions<'d> {
    pub(super) messages: HashMap<QName, Placed<'d>>,
    pub(super) port_types: HashMap<QName, Placed<'d>>,
    bindings: HashMap<QName, Placed<'d>>,
    services: Vec<(QName, Placed<'d>)>,
    pub(super) warnings: Vec<String>,
}

impl Wsdl {
    /// Reads the description at `location` and all that it imports.
    ///
    /// # Errors
    /// A document is missing, is no XML or no WSDL 1.1, breaks its rules or those of XML Schema, or describes
    /// nothing that speaks SOAP.
    pub fn read(location: &str, resolver: Resolver<'_>) -> Result<Self, DescriptionError> {
        let sources = Sources::load(location, resolver)?;
        let mut definitions = Definitions::collect(&sources)?;
        let schemas = SchemaSet::compile(&sources)?;
        definitions.warnings.extend(schemas.warnings().iter().cloned());
        let mut services = definitions.services(&schemas)?;
        if services.is_empty() {
            services.extend(definitions.unplaced(location, &schemas)?);
        }
        let root = sources.all.first().map(|source| source.document.root());
        let Some(root) = root.filter(|_| !services.is_empty()) else {
            return Err(DescriptionError::Missing {
                location: location.to_owned(),
                detail: "no service that speaks SOAP 1.1 or 1.2 is described".to_owned(),
            });
        };
        Ok(Self {
            namespace: target(root).to_owned(),
            schemas: Arc::new(schemas),
            services,
            warnings: definitions.warnings,
        })
    }
}

impl<'d> Placed<'d> {
    pub(super) fn at(self, element: Element<'d>) -> Self {
        Self { element, ..self }
    }

    pub(super) fn invalid(self, detail: impl Into<String>) -> DescriptionError {
        let (line, column) = self.element.place();
        DescriptionError::Invalid { location: self.location.to_owned(), line, column, detail: detail.into() }
    }

    /// The name that the attribute refers to.
    pub(super) fn reference(self, attribute: &str) -> Result<QName, DescriptionError> {
        let Some(text) = self.element.attribute("", attribute) else {
            return Err(self.invalid(format!("{:?} is missing", attribute)));
        };
        self.element
            .resolve(text)
            .ok_or_else(|| self.invalid(format!("the prefix of {text:?} is not declared")))
    }

    pub(super) fn name(self) -> Result<&'d str, DescriptionError> {
        self.element.attribute("", "name").map(trim).ok_or_else(|| self.invalid("a name is missing"))
    }

    /// Its child elements of WSDL called `local`.
    pub(super) fn children(self, local: &'static str) -> impl Iterator<Item = Self> {
        self.element.elements().filter(move |child| child.is(WSDL, local)).map(move |child| self.at(child))
    }

    pub(super) fn documentation(self) -> String {
        self.children("documentation")
            .next()
            .map(|text| trim(&text.element.text()).to_owned())
            .unwrap_or_default()
    }
}

fn target(root: Element<'_>) -> &str {
    root.attribute("", "targetNamespace").map(trim).unwrap_or_default()
}

impl<'d> Definitions<'d> {
    fn collect(sources: &'d Sources) -> Result<Self, DescriptionError> {
        let mut found = Self {
            messages: HashMap::new(),
            port_types: HashMap::new(),
            bindings: HashMap::new(),
            services: Vec::new(),
            warnings: Vec::new(),
        };
        for (index, source) in sources.all.iter().enumerate() {
            let root = Placed { location: &source.location, element: source.document.root() };
            if !root.element.is(WSDL, "definitions") {
                // Schemas are imported beside descriptions; only the first document has to be one.
                if index == 0 {
                    return Err(root.invalid(what_else(root.element)));
                }
                continue;
            }
            for child in root.element.elements().filter(|child| child.namespace() == WSDL) {
                let child = root.at(child);
                let name = |child: Placed<'d>| Ok(QName::new(target(root.element), child.name()?));
                match child.element.local() {
                    "message" => drop(found.messages.insert(name(child)?, child)),
                    "portType" => drop(found.port_types.insert(name(child)?, child)),
                    "binding" => drop(found.bindings.insert(name(child)?, child)),
                    "service" => found.services.push((name(child)?, child)),
                    _ => {}
                }
            }
        }
        Ok(found)
    }

    pub(super) fn warn(&mut self, place: Placed<'_>, detail: impl Into<String>) {
        if self.warnings.len() < 100 {
            self.warnings.push(place.invalid(detail).to_string());
        }
    }

    fn services(&mut self, schemas: &SchemaSet) -> Result<Vec<Service>, DescriptionError> {
        let mut known: HashMap<QName, Option<Arc<Binding>>> = HashMap::new();
        let mut services = Vec::new();
        for (name, place) in std::mem::take(&mut self.services) {
            let mut ports = Vec::new();
            for port in place.children("port") {
                let binding = port.reference("binding")?;
                let compiled = match known.get(&binding) {
                    Some(compiled) => compiled.clone(),
                    None => {
                        let Some(definition) = self.bindings.get(&binding).copied() else {
                            self.warn(
                                port,
                                format!("the port is left out: the binding {binding} is not defined"),
                            );
                            continue;
                        };
                        let compiled = self.binding(&binding, definition, schemas)?.map(Arc::new);
                        known.insert(binding, compiled.clone());
                        compiled
                    }
                };
                // A port that speaks something else than SOAP.
                let Some(binding) = compiled else { continue };
                let address = port.element.child(binding.version.binding_namespace(), "address");
                let address = address.and_then(|address| address.attribute("", "location"));
                let Some(address) = address.map(trim) else {
                    return Err(port.invalid("a port needs the address of its own protocol"));
                };
                ports.push(Port { name: port.name()?.to_owned(), address: address.to_owned(), binding });
            }
            if !ports.is_empty() {
                services.push(Service { name, documentation: place.documentation(), ports });
            }
        }
        Ok(services)
    }
}

impl Definitions<'_> {
    /// What is bound and placed nowhere: some describe only how to speak, and leave it to others where.
    fn unplaced(&mut self, location: &str, schemas: &SchemaSet) -> Result<Option<Service>, DescriptionError> {
        let mut bindings: Vec<_> = self.bindings.iter().map(|(name, place)| (name.clone(), *place)).collect();
        bindings.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut ports = Vec::new();
        for (name, place) in bindings {
            if let Some(binding) = self.binding(&name, place, schemas)? {
                let binding = Arc::new(binding);
                ports.push(Port { name: name.local.to_string(), address: String::new(), binding });
            }
        }
        let stem =
            location.rsplit('/').next().unwrap_or(location).split(['.', '?']).next().unwrap_or(location);
        let name = QName::new("", stem);
        Ok((!ports.is_empty()).then(|| Service { name, documentation: String::new(), ports }))
    }
}

/// Why a document is no description, in the words of whoever took it for one.
fn what_else(root: Element<'_>) -> String {
    match (root.namespace(), root.local()) {
        ("http://www.w3.org/ns/wsdl", "description") => "WSDL 2.0 is not supported: use WSDL 1.1".to_owned(),
        (namespace, local) if Version::of_namespace(namespace).is_some() => {
            format!("a SOAP {local} is no description of a service")
        }
        (_, local) => {
            format!("the element {local:?} is no description of a service: definitions of WSDL 1.1 are")
        }
    }
}
