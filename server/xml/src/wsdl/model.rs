//! What a description says, resolved.

use std::sync::Arc;

use crate::namespace::QName;
use crate::soap::Version;
use crate::xsd::{ElementId, SchemaSet, TypeId};

/// A description of services, compiled once and then only read.
#[derive(Debug)]
pub struct Wsdl {
    /// The target namespace of the document that was asked for.
    pub namespace: String,
    /// All types and elements.
    pub schemas: Arc<SchemaSet>,
    /// The services in document order, each with at least one port that speaks SOAP. A description without any
    /// has one, called after its file, with a port without address for each of its bindings.
    pub services: Vec<Service>,
    /// What was read and is not obeyed, for a person.
    pub warnings: Vec<String>,
}

/// A service: the same operations at one or more ports.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: QName,
    /// What it is for, as its author says; may be empty.
    pub documentation: String,
    /// Where it is found.
    pub ports: Vec<Port>,
}

/// An address with the protocol spoken there.
#[derive(Debug, Clone)]
pub struct Port {
    /// Its name, unique in the service.
    pub name: String,
    /// The URL; empty when the description gives none.
    pub address: String,
    /// How messages look there.
    pub binding: Arc<Binding>,
}

/// How the messages of operations look in one version of SOAP.
#[derive(Debug)]
pub struct Binding {
    /// Its name.
    pub name: QName,
    /// The version of SOAP.
    pub version: Version,
    /// The operations in document order.
    pub operations: Vec<Operation>,
}

/// What can be asked for.
#[derive(Debug)]
pub struct Operation {
    /// Its name.
    pub name: String,
    /// What it does, as its author says; may be empty.
    pub documentation: String,
    /// The `SOAPAction`; empty when the description gives none.
    pub soap_action: String,
    /// The request.
    pub input: Message,
    /// The answer; `None` for a one-way operation.
    pub output: Option<Message>,
    /// The faults it says it may answer with.
    pub faults: Vec<FaultMessage>,
}

/// A message of an operation.
#[derive(Debug, Clone)]
pub struct Message {
    /// What stands in the body.
    pub body: Body,
    /// Header blocks that belong to it.
    pub headers: Vec<HeaderPart>,
    /// Its `wsa:Action`: the one given, or the one that WS-Addressing derives from the names (Metadata,
    /// section 4.4.4).
    pub action: String,
}

/// What the body of a message holds.
#[derive(Debug, Clone)]
pub enum Body {
    /// Nothing.
    Empty,
    /// One element: document/literal.
    Element(ElementId),
    /// One element called after the operation, with one child for each part: rpc/literal.
    Call {
        /// The name of the element.
        wrapper: QName,
        /// Its children, which are in no namespace.
        parts: Vec<Part>,
    },
}

/// A parameter or a result of an rpc/literal operation.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// The member of the message's JSON that it is; `None` where it is all of it.
    pub member: Option<String>,
    /// What it holds.
    pub holds: Holds,
}

/// What the part of a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// A value of a type, in an element called after the part.
    Type(TypeId),
    /// An element.
    Element(ElementId),
}

/// A header block of a message.
#[derive(Debug, Clone)]
pub struct HeaderPart {
    /// The name of the message part that describes it.
    pub name: String,
    /// The block.
    pub element: ElementId,
}

/// A fault that an operation says it may answer with.
#[derive(Debug, Clone)]
pub struct FaultMessage {
    /// Its name.
    pub name: String,
    /// What its detail holds.
    pub element: ElementId,
}

impl Wsdl {
    /// The service `name` (local), or the only one when no name is given.
    #[must_use]
    pub fn service(&self, name: Option<&str>) -> Option<&Service> {
        match name {
            Some(name) => self.services.iter().find(|service| *service.name.local == *name),
            None => self.services.first().filter(|_| self.services.len() == 1),
        }
    }
}

impl Service {
    /// The port `name`; without a name the first that speaks `version`, or the first at all.
    #[must_use]
    pub fn port(&self, name: Option<&str>, version: Option<Version>) -> Option<&Port> {
        self.ports.iter().find(|port| {
            name.is_none_or(|name| port.name == name)
                && version.is_none_or(|version| port.binding.version == version)
        })
    }
}

impl Binding {
    /// The operation `name`.
    #[must_use]
    pub fn operation(&self, name: &str) -> Option<&Operation> {
        self.operations.iter().find(|operation| operation.name == name)
    }

    /// The operation that a request is for. What is in the body tells, and where several take the same, or
    /// nothing, `action` does (`SOAPAction` or `wsa:Action`, without quotes).
    #[must_use]
    pub fn operation_of(
        &self,
        schemas: &SchemaSet,
        body: Option<(&str, &str)>,
        action: Option<&str>,
    ) -> Option<&Operation> {
        let takes = |operation: &&Operation| match (&operation.input.body, body) {
            (Body::Empty, None) => true,
            (Body::Element(id), Some((namespace, local))) => {
                schemas.declaration(*id).name.is(namespace, local)
            }
            (Body::Call { wrapper, .. }, Some((namespace, local))) => wrapper.is(namespace, local),
            _ => false,
        };
        let mut candidates = self.operations.iter().filter(takes);
        let first = candidates.next()?;
        let Some(second) = candidates.next() else { return Some(first) };
        let is_meant = |operation: &&Operation| {
            action.is_some_and(|action| {
                !action.is_empty() && (operation.soap_action == action || operation.input.action == action)
            })
        };
        [first, second].into_iter().chain(candidates).find(is_meant)
    }
}
