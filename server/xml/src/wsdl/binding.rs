//! Bindings: how the messages of a port type look.

use super::model::{Binding, Body, FaultMessage, HeaderPart, Holds, Message, Operation, Part};
use super::read::{Definitions, Placed};
use crate::chars::trim;
use crate::lexical::words;
use crate::namespace::QName;
use crate::soap::Version;
use crate::sources::{DescriptionError, WSDL};
use crate::xsd::{JSON_ANNOTATIONS, SchemaSet};

/// Where WS-Addressing says what a message's action is.
pub(super) const METADATA: &str = "http://www.w3.org/2007/05/addressing/metadata";

/// Namespaces in which descriptions give actions: that, and the one of the WSDL binding before it.
const ACTIONS: [&str; 2] = [METADATA, "http://www.w3.org/2006/05/addressing/wsdl"];

const MIME: &str = "http://schemas.xmlsoap.org/wsdl/mime/";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Document,
    Rpc,
}

/// One direction of an operation: what is bound, how, and to which message.
struct Direction<'d> {
    /// `wsdl:input` or `wsdl:output` of the port type.
    abstraction: Placed<'d>,
    /// Its counterpart in the binding.
    concretion: Option<Placed<'d>>,
    version: Version,
    style: Style,
    /// The element of an rpc/literal message.
    wrapper: String,
    /// What its action is derived from.
    default_action: String,
}

/// Why an operation is left out, or the whole description refused.
enum Unfit {
    LeftOut(String),
    Refused(DescriptionError),
}

impl From<DescriptionError> for Unfit {
    fn from(error: DescriptionError) -> Self {
        Self::Refused(error)
    }
}

impl<'d> Definitions<'d> {
    /// The binding at `place`; `None` when it does not speak SOAP over HTTP.
    pub(super) fn binding(
        &mut self,
        name: &QName,
        place: Placed<'d>,
        schemas: &SchemaSet,
    ) -> Result<Option<Binding>, DescriptionError> {
        let bound = Version::ALL.into_iter().find_map(|version| {
            place.element.child(version.binding_namespace(), "binding").map(|element| (version, element))
        });
        let Some((version, element)) = bound else { return Ok(None) };
        let transport = element.attribute("", "transport").map(trim).unwrap_or_default();
        if !transport.to_ascii_lowercase().ends_with("/http") && !transport.ends_with("/HTTP/") {
            self.warn(place, format!("the binding is left out: its transport {transport:?} is not HTTP"));
            return Ok(None);
        }
        let style = style(element.attribute("", "style")).unwrap_or(Style::Document);
        let port_type = place.reference("type")?;
        let Some(abstraction) = self.port_types.get(&port_type).copied() else {
            return Err(place.invalid(format!("the port type {port_type} is not defined")));
        };
        let mut operations: Vec<Operation> = Vec::new();
        for operation in place.children("operation") {
            match self.operation(operation, abstraction, &port_type, (version, style), schemas) {
                Ok(read) if operations.iter().any(|known| known.name == read.name) => {
                    self.warn(
                        operation,
                        format!("the operation {:?} is left out: it is overloaded", read.name),
                    );
                }
                Ok(read) => operations.push(read),
                Err(Unfit::LeftOut(reason)) => {
                    let name = operation.name()?;
                    self.warn(operation, format!("the operation {name:?} is left out: {reason}"));
                }
                Err(Unfit::Refused(error)) => return Err(error),
            }
        }
        Ok(Some(Binding { name: name.clone(), version, operations }))
    }

    fn operation(
        &mut self,
        place: Placed<'d>,
        port_type: Placed<'d>,
        port_type_name: &QName,
        (version, style): (Version, Style),
        schemas: &SchemaSet,
    ) -> Result<Operation, Unfit> {
        let name = place.name()?;
        let abstraction = matching(place, port_type, name)?;
        let soap = place.element.child(version.binding_namespace(), "operation");
        let attribute = |attribute| soap.and_then(|soap| soap.attribute("", attribute));
        let style = self::style(attribute("style")).unwrap_or(style);
        let first = abstraction
            .element
            .elements()
            .find(|child| child.namespace() == WSDL && child.local() != "documentation");
        let (Some(input), true) =
            (abstraction.children("input").next(), first.is_some_and(|f| f.local() == "input"))
        else {
            return Err(Unfit::LeftOut("it does not begin with a request".to_owned()));
        };
        let direction = |abstraction: Placed<'d>, kind: &'static str, suffix: &str, default_name: String| {
            let named =
                abstraction.element.attribute("", "name").map_or(default_name, |name| trim(name).to_owned());
            let separator = if port_type_name.namespace.ends_with('/') { "" } else { "/" };
            Direction {
                abstraction,
                concretion: place.children(kind).next(),
                version,
                style,
                wrapper: format!("{name}{suffix}"),
                default_action: format!(
                    "{}{separator}{}/{named}",
                    port_type_name.namespace, port_type_name.local
                ),
            }
        };
        let output = abstraction.children("output").next();
        let request = if output.is_some() { format!("{name}Request") } else { name.to_owned() };
        let input = self.message(&direction(input, "input", "", request), schemas)?;
        let output = match output {
            Some(output) => {
                let answer = format!("{name}Response");
                Some(self.message(&direction(output, "output", "Response", answer), schemas)?)
            }
            None => None,
        };
        Ok(Operation {
            name: name.to_owned(),
            documentation: abstraction.documentation(),
            soap_action: attribute("soapAction").map(trim).unwrap_or_default().to_owned(),
            input,
            output,
            faults: self.faults(abstraction, schemas)?,
        })
    }

    fn message(&mut self, direction: &Direction<'d>, schemas: &SchemaSet) -> Result<Message, Unfit> {
        let namespace = direction.version.binding_namespace();
        let abstraction = direction.abstraction;
        let name = abstraction.reference("message")?;
        let Some(message) = self.messages.get(&name).copied() else {
            return Err(abstraction.invalid(format!("the message {name} is not defined")).into());
        };
        // In a description of MIME parts, body and headers stand in the first of them.
        let bound = direction.concretion.map(|bound| bound.element);
        let multipart = bound.and_then(|bound| bound.child(MIME, "multipartRelated"));
        let mut mime_parts = multipart.into_iter().flat_map(|multipart| multipart.elements());
        let root = mime_parts.find(|part| part.child(namespace, "body").is_some());
        let body = root.or(bound).and_then(|bound| bound.child(namespace, "body"));
        let attribute = |attribute| body.and_then(|body| body.attribute("", attribute)).map(trim);
        if attribute("use") == Some("encoded") {
            return Err(Unfit::LeftOut("SOAP encoding is not supported: use literal".to_owned()));
        }
        let mut headers = Vec::new();
        let mut taken = Vec::new();
        for header in bound.into_iter().chain(root).flat_map(|bound| bound.elements()) {
            if !header.is(namespace, "header") {
                continue;
            }
            let header = direction.abstraction.at(header);
            let part = header.element.attribute("", "part").map(trim).unwrap_or_default();
            let of = header.reference("message")?;
            if of == name {
                taken.push(part.to_owned());
            }
            headers.extend(self.header(header, &of, part, schemas)?);
        }
        let chosen = attribute("parts").map(|parts| words(parts).map(str::to_owned).collect::<Vec<_>>());
        let mut parts = Vec::new();
        for part in message.children("part") {
            let part_name = part.name()?;
            let is_in_body = match &chosen {
                Some(chosen) => chosen.iter().any(|one| one == part_name),
                None => !taken.iter().any(|one| one == part_name),
            };
            if is_in_body {
                let (name, member) = (part_name.to_owned(), member(part, part_name));
                parts.push(Part { name, member, holds: holds(part, schemas)? });
            }
        }
        let action = ACTIONS.iter().find_map(|namespace| abstraction.element.attribute(namespace, "Action"));
        Ok(Message {
            body: body_of(direction, parts, attribute("namespace"))?,
            headers,
            action: action.map_or_else(|| direction.default_action.clone(), |action| trim(action).to_owned()),
        })
    }

    fn header(
        &mut self,
        place: Placed<'d>,
        message: &QName,
        part: &str,
        schemas: &SchemaSet,
    ) -> Result<Option<HeaderPart>, DescriptionError> {
        let Some(message) = self.messages.get(message).copied() else {
            return Err(place.invalid(format!("the message {message} is not defined")));
        };
        let found =
            message.children("part").find(|one| one.element.attribute("", "name").map(trim) == Some(part));
        let Some(found) = found else { return Err(place.invalid(format!("the part {part:?} is not there"))) };
        match holds(found, schemas)? {
            Holds::Element(element) => Ok(Some(HeaderPart { name: part.to_owned(), element })),
            Holds::Type(_) => {
                self.warn(place, format!("the header {part:?} is left out: it is described by no element"));
                Ok(None)
            }
        }
    }

    fn faults(
        &mut self,
        operation: Placed<'d>,
        schemas: &SchemaSet,
    ) -> Result<Vec<FaultMessage>, DescriptionError> {
        let mut faults = Vec::new();
        for fault in operation.children("fault") {
            let name = fault.reference("message")?;
            let Some(message) = self.messages.get(&name).copied() else {
                return Err(fault.invalid(format!("the message {name} is not defined")));
            };
            let Some(part) = message.children("part").next() else { continue };
            match holds(part, schemas)? {
                Holds::Element(element) => {
                    let name = fault.element.attribute("", "name").map_or(&*name.local, trim).to_owned();
                    faults.push(FaultMessage { name, element });
                }
                Holds::Type(_) => self.warn(fault, "the fault is left out: it is described by no element"),
            }
        }
        Ok(faults)
    }
}

fn style(text: Option<&str>) -> Option<Style> {
    match text.map(trim) {
        Some("rpc") => Some(Style::Rpc),
        Some("document") => Some(Style::Document),
        _ => None,
    }
}

/// The operation of the port type that is bound: by its name and, when it is overloaded, by those of its
/// messages.
fn matching<'d>(
    place: Placed<'d>,
    port_type: Placed<'d>,
    name: &str,
) -> Result<Placed<'d>, DescriptionError> {
    let named = |placed: &Placed<'d>| placed.element.attribute("", "name").map(trim) == Some(name);
    let message_names = |placed: Placed<'d>| {
        ["input", "output"]
            .map(|kind| placed.children(kind).next().and_then(|m| m.element.attribute("", "name")))
    };
    let mut candidates: Vec<_> = port_type.children("operation").filter(named).collect();
    if candidates.len() > 1 {
        candidates.sort_by_key(|candidate| message_names(*candidate) != message_names(place));
    }
    candidates
        .first()
        .copied()
        .ok_or_else(|| place.invalid(format!("the port type has no operation {name:?}")))
}

/// The member of the JSON that a part is: called like it, unless the description says something else.
fn member(part: Placed<'_>, name: &str) -> Option<String> {
    let annotation = |name| part.element.attribute(JSON_ANNOTATIONS, name);
    (annotation("shape") != Some("value")).then(|| annotation("key").unwrap_or(name).to_owned())
}

fn holds(part: Placed<'_>, schemas: &SchemaSet) -> Result<Holds, DescriptionError> {
    if part.element.attribute("", "element").is_some() {
        let name = part.reference("element")?;
        let element = schemas.element(&name.namespace, &name.local);
        return element
            .map(Holds::Element)
            .ok_or_else(|| part.invalid(format!("the element {name} is not defined")));
    }
    let name = part.reference("type")?;
    let found = schemas.type_named(&name.namespace, &name.local);
    found.map(Holds::Type).ok_or_else(|| part.invalid(format!("the type {name} is not defined")))
}

fn body_of(direction: &Direction<'_>, parts: Vec<Part>, namespace: Option<&str>) -> Result<Body, Unfit> {
    if direction.style == Style::Rpc {
        if parts.iter().any(|part| matches!(part.holds, Holds::Element(_))) {
            return Err(Unfit::LeftOut("the parts of an rpc operation are described by types".to_owned()));
        }
        let wrapper = QName::new(namespace.unwrap_or_default(), direction.wrapper.as_str());
        return Ok(Body::Call { wrapper, parts });
    }
    match parts.as_slice() {
        [] => Ok(Body::Empty),
        [Part { holds: Holds::Element(element), .. }] => Ok(Body::Element(*element)),
        [_] => Err(Unfit::LeftOut("the part of a document operation is described by no element".to_owned())),
        _ => Err(Unfit::LeftOut("a document operation has more than one part in its body".to_owned())),
    }
}
