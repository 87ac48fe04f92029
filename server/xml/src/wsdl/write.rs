//! Writing the description of a service that declares its input and output by JSON Schema.

use serde_json::{Value, json};

use super::binding::METADATA;
use super::model::Wsdl;
use crate::soap::Version;
use crate::sources::{DescriptionError, WSDL};
use crate::writer::Writer;
use crate::xsd::{GenerateError, JSON_ANNOTATIONS, MessagePart, Role, SchemaWriter};

/// The name of the element that the detail of each fault holds.
pub const FAULT_ELEMENT: &str = "ServiceFault";

/// Where a description is read from when it was never anywhere.
const NOWHERE: &str = "generated.wsdl";

/// An operation to be described.
#[derive(Debug, Clone)]
pub struct OperationDescription<'a> {
    /// Its name, also that of its request's element; its answer's is this and `Response`.
    pub name: &'a str,
    /// What it does; may be empty.
    pub documentation: &'a str,
    /// JSON Schema of what it takes; `None` takes anything.
    pub input: Option<&'a Value>,
    /// JSON Schema of what it answers; `None` answers anything.
    pub output: Option<&'a Value>,
    /// Whether nobody waits for an answer.
    pub one_way: bool,
}

/// How the messages of a service look that is described here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageStyle {
    /// document/literal wrapped: one element holds everything.
    Document,
    /// rpc/literal: each parameter and each result is a part of its message.
    Rpc,
}

impl MessageStyle {
    fn word(self) -> &'static str {
        match self {
            Self::Document => "document",
            Self::Rpc => "rpc",
        }
    }
}

/// A service to be described, both versions of SOAP as two ports.
#[derive(Debug)]
pub struct ServiceDescription {
    style: MessageStyle,
    name: String,
    namespace: String,
    documentation: String,
    schema: SchemaWriter,
    operations: Vec<Described>,
}

#[derive(Debug)]
struct Described {
    name: String,
    documentation: String,
    action: String,
    one_way: bool,
    /// The parts of its request and of its answer, in rpc style.
    parts: [Vec<MessagePart>; 2],
}

impl ServiceDescription {
    /// The service `name` in `namespace`, without operations, in document style.
    #[must_use]
    pub fn new(name: &str, namespace: &str, documentation: &str) -> Self {
        let mut schema = SchemaWriter::new(namespace);
        // The schema is fixed, so it has a counterpart or never has.
        let made = schema.element(FAULT_ELEMENT, Some(&fault_schema()), Role::Request);
        debug_assert!(made.is_ok(), "{made:?}");
        Self {
            style: MessageStyle::Document,
            name: crate::encode_name(name).into_owned(),
            namespace: namespace.to_owned(),
            documentation: documentation.to_owned(),
            schema,
            operations: Vec::new(),
        }
    }

    /// The service in another style, which counts for the operations that are added from here on.
    #[must_use]
    pub fn in_style(mut self, style: MessageStyle) -> Self {
        if style == MessageStyle::Rpc {
            self.schema.leave_unqualified();
        }
        Self { style, ..self }
    }

    /// Adds an operation.
    ///
    /// # Errors
    /// Its schemas have no counterpart in XML Schema or in the style, or its elements are called like those of
    /// another.
    pub fn operation(&mut self, operation: &OperationDescription<'_>) -> Result<(), GenerateError> {
        let name = crate::encode_name(operation.name).into_owned();
        let answer = format!("{name}Response");
        for element in [&name, &answer] {
            if self.schema.has_element(element) || self.operations.iter().any(|known| known.has(element)) {
                let detail = "another operation has an element of that name".to_owned();
                return Err(GenerateError { element: element.clone(), detail });
            }
        }
        let mut parts = [Vec::new(), Vec::new()];
        let directions = [
            (Role::Request, &name, operation.input, true),
            (Role::Response, &answer, operation.output, !operation.one_way),
        ];
        for ((role, element, declared, is_there), parts) in directions.into_iter().zip(&mut parts) {
            match self.style {
                _ if !is_there => {}
                MessageStyle::Document => self.schema.element(element, declared, role)?,
                MessageStyle::Rpc => *parts = self.schema.parts(element, declared, role)?,
            }
        }
        let separator = if self.namespace.ends_with(['/', '#', ':']) { "" } else { "/" };
        self.operations.push(Described {
            action: format!("{}{separator}{name}", self.namespace),
            name,
            documentation: operation.documentation.to_owned(),
            one_way: operation.one_way,
            parts,
        });
        Ok(())
    }

    /// The description as a document, for a service that is found at `address`.
    #[must_use]
    pub fn document(&self, address: &str) -> String {
        let mut writer = Writer::document();
        writer.prefer("wsdl", WSDL);
        writer.prefer("xs", crate::namespace::XSD);
        writer.prefer("tns", &self.namespace);
        writer.prefer("soap", Version::V11.binding_namespace());
        writer.prefer("soap12", Version::V12.binding_namespace());
        writer.prefer("wsam", METADATA);
        writer.start(WSDL, "definitions");
        for namespace in [
            crate::namespace::XSD,
            &self.namespace,
            Version::V11.binding_namespace(),
            Version::V12.binding_namespace(),
            METADATA,
        ] {
            writer.declare(namespace);
        }
        writer.attribute("", "name", &self.name);
        writer.attribute("", "targetNamespace", &self.namespace);
        writer.start(WSDL, "types");
        self.schema.write(&mut writer);
        writer.end();
        self.messages(&mut writer);
        self.port_type(&mut writer);
        Version::ALL.into_iter().for_each(|version| self.binding(&mut writer, version));
        self.service(&mut writer, address);
        writer.finish()
    }

    /// The description as it is read: what messages are matched and converted by.
    ///
    /// # Errors
    /// Never, unless what is written here cannot be read here.
    pub fn compile(&self) -> Result<Wsdl, DescriptionError> {
        let text = self.document("http://localhost/");
        Wsdl::read(NOWHERE, &mut |location| match location {
            NOWHERE => Ok(text.clone().into_bytes()),
            other => Err(format!("a generated description refers to {other}")),
        })
    }

    fn messages(&self, writer: &mut Writer) {
        for operation in &self.operations {
            let Described { name, parts: [request, answer], .. } = operation;
            self.message(writer, &format!("{name}Request"), "parameters", name, request);
            if !operation.one_way {
                let name = format!("{name}Response");
                self.message(writer, &name, "parameters", &name, answer);
            }
        }
        // A fault is an element in both styles (WS-I Basic Profile 1.1, R2205).
        writer.start(WSDL, "message");
        writer.attribute("", "name", &format!("{FAULT_ELEMENT}Message"));
        self.element_part(writer, "fault", FAULT_ELEMENT);
        writer.end();
    }

    fn message(&self, writer: &mut Writer, name: &str, part: &str, element: &str, parts: &[MessagePart]) {
        writer.start(WSDL, "message");
        writer.attribute("", "name", name);
        if self.style == MessageStyle::Document {
            self.element_part(writer, part, element);
        }
        for part in parts {
            writer.start(WSDL, "part");
            writer.attribute("", "name", &part.name);
            writer.name_attribute("", "type", (&part.holds.namespace, &part.holds.local));
            match &part.member {
                None => writer.attribute(JSON_ANNOTATIONS, "shape", "value"),
                Some(member) if *member != part.name => {
                    writer.attribute(JSON_ANNOTATIONS, "key", member);
                }
                Some(_) => {}
            }
            writer.end();
        }
        writer.end();
    }

    fn element_part(&self, writer: &mut Writer, name: &str, element: &str) {
        writer.start(WSDL, "part");
        writer.attribute("", "name", name);
        writer.name_attribute("", "element", (&self.namespace, element));
        writer.end();
    }

    fn port_type(&self, writer: &mut Writer) {
        writer.start(WSDL, "portType");
        writer.attribute("", "name", &format!("{}PortType", self.name));
        for operation in &self.operations {
            writer.start(WSDL, "operation");
            writer.attribute("", "name", &operation.name);
            document(writer, &operation.documentation);
            let mut direction = |kind: &str, name: Option<&str>, message: &str, action: &str| {
                writer.start(WSDL, kind);
                if let Some(name) = name {
                    writer.attribute("", "name", name);
                }
                writer.name_attribute("", "message", (&self.namespace, message));
                // One action for both SOAPAction and WS-Addressing, which has to be the same (Metadata, 4.4.1).
                writer.attribute(METADATA, "Action", action);
                writer.end();
            };
            let Described { name, action, .. } = operation;
            direction("input", None, &format!("{name}Request"), action);
            if !operation.one_way {
                direction("output", None, &format!("{name}Response"), &format!("{action}Response"));
                let fault = format!("{action}/{FAULT_ELEMENT}");
                direction("fault", Some(FAULT_ELEMENT), &format!("{FAULT_ELEMENT}Message"), &fault);
            }
            writer.end();
        }
        writer.end();
    }

    fn binding(&self, writer: &mut Writer, version: Version) {
        let soap = version.binding_namespace();
        writer.start(WSDL, "binding");
        writer.attribute("", "name", &self.port_name(version));
        writer.name_attribute("", "type", (&self.namespace, &format!("{}PortType", self.name)));
        writer.start(soap, "binding");
        writer.attribute("", "style", self.style.word());
        // The same URI for both versions (WSDL 1.1 Binding Extension for SOAP 1.2, section 4.2).
        writer.attribute("", "transport", "http://schemas.xmlsoap.org/soap/http");
        writer.end();
        for operation in &self.operations {
            writer.start(WSDL, "operation");
            writer.attribute("", "name", &operation.name);
            writer.start(soap, "operation");
            writer.attribute("", "soapAction", &operation.action);
            writer.attribute("", "style", self.style.word());
            writer.end();
            for kind in if operation.one_way { &["input"][..] } else { &["input", "output"][..] } {
                writer.start(WSDL, kind);
                writer.start(soap, "body");
                writer.attribute("", "use", "literal");
                if self.style == MessageStyle::Rpc {
                    // That of the element around the parts (WS-I Basic Profile 1.1, R2717).
                    writer.attribute("", "namespace", &self.namespace);
                }
                writer.end();
                writer.end();
            }
            if !operation.one_way {
                writer.start(WSDL, "fault");
                writer.attribute("", "name", FAULT_ELEMENT);
                writer.start(soap, "fault");
                writer.attribute("", "name", FAULT_ELEMENT);
                writer.attribute("", "use", "literal");
                writer.end();
                writer.end();
            }
            writer.end();
        }
        writer.end();
    }

    fn service(&self, writer: &mut Writer, address: &str) {
        writer.start(WSDL, "service");
        writer.attribute("", "name", &self.name);
        document(writer, &self.documentation);
        for version in Version::ALL {
            writer.start(WSDL, "port");
            writer.attribute("", "name", &self.port_name(version));
            writer.name_attribute("", "binding", (&self.namespace, &self.port_name(version)));
            writer.start(version.binding_namespace(), "address");
            writer.attribute("", "location", address);
            writer.end();
            writer.end();
        }
        writer.end();
    }

    /// The name of a version's port and of its binding.
    fn port_name(&self, version: Version) -> String {
        match version {
            Version::V11 => format!("{}Soap", self.name),
            Version::V12 => format!("{}Soap12", self.name),
        }
    }
}

impl Described {
    /// Whether its request or its answer has this element.
    fn has(&self, element: &str) -> bool {
        self.name == element || element.strip_suffix("Response") == Some(self.name.as_str())
    }
}

fn document(writer: &mut Writer, text: &str) {
    if !text.is_empty() {
        writer.leaf(WSDL, "documentation", text);
    }
}

/// What the detail of a fault says: the same as the problem document of a REST channel.
fn fault_schema() -> Value {
    json!({
        "type": "object", "description": "What went wrong.",
        "properties": {
            "type": {"type": "string", "description": "The kind of failure: a URN that does not change."},
            "status": {"type": "integer", "minimum": 400, "maximum": 599,
                "description": "What it would be as a status of HTTP."},
            "detail": {"type": "string", "description": "What went wrong, for a person."},
            "cid": {"type": "string", "description": "What the message is found by in the server's log."},
            "faults": {"type": "array", "default": [], "description": "Everything that is wrong with the request.",
                "items": {"type": "object", "title": "RequestFault", "required": ["pointer", "detail"], "properties": {
                    "pointer": {"type": "string", "description": "Where: a JSON Pointer into the request."},
                    "detail": {"type": "string", "description": "What is wrong there."}}}}
        },
        "required": ["type", "status", "detail", "cid"]
    })
}
