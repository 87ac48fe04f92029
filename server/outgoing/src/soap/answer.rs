//! Answers, read by the description.

use bytes::Bytes;
use crosstie_model::outgoing::{AnsweredFault, OutgoingError, SoapAnswer, SoapError, Trouble};
use crosstie_model::soap::{SoapAttachment, SoapHeader};
use crosstie_xml::convert::{ReadOptions, Scalars};
use crosstie_xml::soap::{
    Detail, Envelope, FaultCode, HeaderBlock, Received, SoapFault, addressing, security,
};
use crosstie_xml::wsdl::Operation;
use crosstie_xml::{Attachment, Element, SchemaSet, untyped};
use crosstie_xml::{Limits, soap::MultipartLimits};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::description::Description;

/// How much of an answer that is none is told.
const MAX_TOLD: usize = 200;

/// What came over HTTP.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) status: StatusCode,
    pub(super) fields: HeaderMap,
    pub(super) body: Bytes,
}

impl Arrived {
    /// What is the answer of `operation`, as `name` gave it.
    ///
    /// # Errors
    /// It is a fault, no message, or not the operation's.
    pub(super) fn read(
        self,
        name: &str,
        description: &Description,
        operation: &Operation,
    ) -> Result<SoapAnswer, SoapError> {
        let content_type = self.fields.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if operation.output.is_none() && self.status.is_success() {
            // Some send an envelope without need; nothing in it is an answer.
            return Ok(self.empty());
        }
        let limits = MultipartLimits::default();
        let received = Received::new(content_type.unwrap_or_default(), None, &self.body, &limits)
            .map_err(|error| self.no_message(name, &error.to_string()))?;
        let limits = Limits { bytes: self.body.len().max(1), ..Limits::default() };
        let document =
            received.document(&limits).map_err(|error| self.no_message(name, &error.to_string()))?;
        let envelope =
            Envelope::read(&document).map_err(|error| self.no_message(name, &error.to_string()))?;
        let schemas = &*description.schemas;
        if let Some(fault) = envelope.fault() {
            return Err(faulted(name, schemas, &fault, envelope.content()));
        }
        if !self.status.is_success() {
            return Err(self.no_message(name, "there is no fault in it").into());
        }
        let unknown = envelope.not_understood(|block| is_understood(schemas, block));
        if let Some(header) = unknown.first() {
            let detail = format!("{name} sent a header that must be understood and is not: {header}");
            return Err(OutgoingError::new(Trouble::Protocol, detail).into());
        }
        let options = options(&received.attachments);
        let Some(output) = &operation.output else { return Ok(self.empty()) };
        let message = output.to_json(schemas, envelope.body, options).map_err(|faults| {
            let shown: Vec<_> =
                faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect();
            let detail =
                format!("the answer of {name} does not fit {}: {}", operation.name, shown.join("; "));
            OutgoingError::new(Trouble::Protocol, detail)
        })?;
        let headers = envelope.headers.iter().filter(|block| !is_machinery(block));
        let headers = headers.map(|block| header(schemas, block)).collect();
        let attachments = received.attachments.iter().map(attachment).collect();
        Ok(SoapAnswer { message, headers, attachments, ..self.empty() })
    }

    fn empty(&self) -> SoapAnswer {
        SoapAnswer {
            status: self.status,
            fields: self.fields.clone(),
            message: Value::Null,
            headers: Vec::new(),
            attachments: Vec::new(),
        }
    }

    /// The error for what is no SOAP message.
    fn no_message(&self, name: &str, why: &str) -> OutgoingError {
        let status = self.status.as_u16();
        let trouble = match status {
            401 | 403 | 407 => Trouble::Credentials,
            400.. => Trouble::Refused,
            _ => Trouble::Protocol,
        };
        let begin = self.body.get(..self.body.len().min(MAX_TOLD)).unwrap_or_default();
        let begin = String::from_utf8_lossy(begin);
        let begin: String = begin.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        OutgoingError::new(
            trouble,
            format!("{name} answered {status} with no SOAP message: {why}; {begin:?}"),
        )
    }
}

fn options(attachments: &[Attachment]) -> ReadOptions<'_> {
    ReadOptions { attachments, scalars: Scalars::Tagged, ..ReadOptions::default() }
}

/// Header blocks that are no data of an application.
fn is_machinery(block: &HeaderBlock<'_>) -> bool {
    matches!(block.element.namespace(), addressing::NAMESPACE | security::WSSE)
}

fn is_understood(schemas: &SchemaSet, block: &HeaderBlock<'_>) -> bool {
    let (namespace, local) = (block.element.namespace(), block.element.local());
    is_machinery(block) || schemas.element(namespace, local).is_some()
}

fn header(schemas: &SchemaSet, block: &HeaderBlock<'_>) -> SoapHeader {
    SoapHeader {
        namespace: block.element.namespace().to_owned(),
        name: block.element.local().to_owned(),
        must_understand: block.must_understand,
        value: value_of(schemas, block.element),
        xml: block.element.to_source(),
    }
}

/// What an element holds: by its declaration, where there is one that it obeys.
fn value_of(schemas: &SchemaSet, element: Element<'_>) -> Value {
    let declared = schemas.element(element.namespace(), element.local());
    let read = declared.and_then(|id| schemas.element_to_json(id, element, options(&[])).ok());
    read.unwrap_or_else(|| untyped::to_json(element))
}

fn attachment(attachment: &Attachment) -> SoapAttachment {
    SoapAttachment {
        content_id: attachment.content_id.clone(),
        content_type: attachment.content_type.clone(),
        content: attachment.content.clone(),
    }
}

/// The error that a fault is.
fn faulted(
    name: &str,
    schemas: &SchemaSet,
    fault: &SoapFault<'_>,
    element: Option<Element<'_>>,
) -> SoapError {
    let code = match &fault.code {
        FaultCode::VersionMismatch => "VersionMismatch".to_owned(),
        FaultCode::MustUnderstand => "MustUnderstand".to_owned(),
        FaultCode::DataEncodingUnknown => "DataEncodingUnknown".to_owned(),
        FaultCode::Sender => "Sender".to_owned(),
        FaultCode::Receiver => "Receiver".to_owned(),
        FaultCode::Other(name) => name.to_string(),
    };
    let detail = match &fault.detail {
        Detail::Element(detail) => {
            let mut members = Map::new();
            for child in detail.elements() {
                members.insert(child.local().to_owned(), value_of(schemas, child));
            }
            match (members.is_empty(), detail.is_blank()) {
                (true, true) => Value::Null,
                // Some put plain text there.
                (true, false) => Value::String(detail.text().trim().to_owned()),
                _ => Value::Object(members),
            }
        }
        _ => Value::Null,
    };
    let text = fault.reason().to_owned();
    let error = OutgoingError::new(Trouble::Refused, format!("{name} answered with a fault: {code}: {text}"));
    let answered = AnsweredFault {
        code,
        subcodes: fault.subcodes.iter().map(ToString::to_string).collect(),
        text,
        node: fault.node.clone(),
        detail,
        xml: element.map(|element| element.to_source()).unwrap_or_default(),
    };
    SoapError { error, fault: Some(Box::new(answered)), faults: Vec::new() }
}
