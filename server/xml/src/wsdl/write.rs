//! Writing the description of a service that declares its input and output by JSON Schema.

use serde_json::{Value, json};

use super::binding::METADATA;
use super::model::Wsdl;
use crate::soap::Version;
use crate::sources::{DescriptionError, WSDL};
use crate::writer::Writer;
use crate::xsd::{GenerateError, Role, SchemaWriter};

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

/// A service to be described: document/literal wrapped, both versions of SOAP as two ports.
#[derive(Debug)]
pub struct ServiceDescription {
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
}

impl ServiceDescription {
    /// The service `name` in `namespace`, without operations.
    #[must_use]
    pub fn new(name: &str, namespace: &str, documentation: &str) -> Self {
        let mut schema = SchemaWriter::new(namespace);
        // The schema is fixed, so it has a counterpart or never has.
        let made = schema.element(FAULT_ELEMENT, Some(&fault_schema()), Role::Request);
        debug_assert!(made.is_ok(), "{made:?}");
        Self {
            name: crate::encode_name(name).into_owned(),
            namespace: namespace.to_owned(),
            documentation: documentation.to_owned(),
            schema,
            operations: Vec::new(),
        }
    }

    /// Adds an operation.
    ///
    /// # Errors
    /// Its schemas have no counterpart in XML Schema, or its elements are called like those of another.
    pub fn operation(&mut self, operation: &OperationDescription<'_>) -> Result<(), GenerateError> {
        let name = crate::encode_name(operation.name).into_owned();
        let answer = format!("{name}Response");
        for element in [&name, &answer] {
            if self.schema.has_element(element) {
                let detail = "another operation has an element of that name".to_owned();
                return Err(GenerateError { element: element.clone(), detail });
            }
        }
        self.schema.element(&name, operation.input, Role::Request)?;
        if !operation.one_way {
            self.schema.element(&answer, operation.output, Role::Response)?;
        }
        let separator = if self.namespace.ends_with(['/', '#', ':']) { "" } else { "/" };
        self.operations.push(Described {
            action: format!("{}{separator}{name}", self.namespace),
            name,
            documentation: operation.documentation.to_owned(),
            one_way: operation.one_way,
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
        let mut message = |name: &str, part: &str, element: &str| {
            writer.start(WSDL, "message");
            writer.attribute("", "name", name);
            writer.start(WSDL, "part");
            writer.attribute("", "name", part);
            writer.name_attribute("", "element", (&self.namespace, element));
            writer.end();
            writer.end();
        };
        for operation in &self.operations {
            message(&format!("{}Request", operation.name), "parameters", &operation.name);
            if !operation.one_way {
                let answer = format!("{}Response", operation.name);
                message(&answer, "parameters", &answer);
            }
        }
        message(&format!("{FAULT_ELEMENT}Message"), "fault", FAULT_ELEMENT);
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
        writer.attribute("", "style", "document");
        // The same URI for both versions (WSDL 1.1 Binding Extension for SOAP 1.2, section 4.2).
        writer.attribute("", "transport", "http://schemas.xmlsoap.org/soap/http");
        writer.end();
        for operation in &self.operations {
            writer.start(WSDL, "operation");
            writer.attribute("", "name", &operation.name);
            writer.start(soap, "operation");
            writer.attribute("", "soapAction", &operation.action);
            writer.attribute("", "style", "document");
            writer.end();
            for kind in if operation.one_way { &["input"][..] } else { &["input", "output"][..] } {
                writer.start(WSDL, kind);
                writer.start(soap, "body");
                writer.attribute("", "use", "literal");
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
