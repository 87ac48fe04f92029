//! Requests, made by the description.

use bytes::{Bytes, BytesMut};
use crosstie_model::Fault;
use crosstie_model::outgoing::{OutgoingError, SoapCallHeader, SoapError, Trouble};
use crosstie_xml::convert::{Attach, WriteOptions};
use crosstie_xml::soap::addressing::{ANONYMOUS, Addressing, Endpoint};
use crosstie_xml::soap::{Package, write_envelope};
use crosstie_xml::wsdl::Operation;
use crosstie_xml::{Document, Limits, SchemaSet, Writer};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::description::Description;
use super::token::Token;

pub(super) const SOAP_ACTION: HeaderName = HeaderName::from_static("soapaction");

/// How an outgoing makes its messages.
#[derive(Debug)]
pub(super) struct Style {
    pub(super) token: Option<Token>,
    /// Where messages go, as WS-Addressing is told; `None` without it.
    pub(super) address: Option<String>,
    /// From which size on binary values stand beside the envelope.
    pub(super) mtom_from: Option<usize>,
}

/// A message that is ready to be sent.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) fields: HeaderMap,
    pub(super) body: Bytes,
}

impl Request {
    /// The request of `operation` with `message`, JSON text, and `headers`.
    pub(super) fn make(
        description: &Description,
        style: &Style,
        operation: &Operation,
        message: &[u8],
        headers: &[SoapCallHeader],
    ) -> Result<Self, SoapError> {
        let message: Value = serde_json::from_slice(message).map_err(|error| {
            OutgoingError::new(Trouble::Misuse, format!("the message is no JSON: {error}"))
        })?;
        let (version, schemas) = (description.version, &*description.schemas);
        let unique = random_id()?;
        let mut attach = style.mtom_from.map(|from_bytes| Attach {
            from_bytes,
            id: unique.clone(),
            attachments: Vec::new(),
        });
        let mut options = WriteOptions { attach: attach.as_mut(), ..WriteOptions::default() };
        let blocks = |writer: &mut Writer| {
            if let Some(token) = &style.token {
                token.write(version, writer)?;
            }
            if let Some(address) = &style.address {
                addressing(operation, address, &unique).write(version, writer);
            }
            headers.iter().try_for_each(|header| write_header(schemas, operation, header, writer))
        };
        let body = |writer: &mut Writer| {
            let written = operation.input.to_xml(schemas, &message, writer, &mut options);
            written.map_err(|faults| unfit(&operation.name, faults))
        };
        let envelope = write_envelope(version, blocks, body)?;
        let attachments = attach.map(|attach| attach.attachments).unwrap_or_default();
        let action = match (operation.soap_action.as_str(), &style.address) {
            ("", Some(_)) => operation.input.action.as_str(),
            (action, _) => action,
        };
        let package = Package::new(version, Some(action), envelope, &attachments, &unique);
        Ok(Self { fields: fields(&package)?, body: joined(package.body) })
    }
}

/// The header fields that a message is sent with.
fn fields(package: &Package) -> Result<HeaderMap, OutgoingError> {
    let value = |text: &str| {
        HeaderValue::from_str(text)
            .map_err(|_| OutgoingError::new(Trouble::Misuse, "the action holds what a header field cannot"))
    };
    let mut fields = HeaderMap::new();
    fields.insert(CONTENT_TYPE, value(&package.content_type)?);
    if let Some(action) = &package.soap_action {
        fields.insert(SOAP_ACTION, value(action)?);
    }
    Ok(fields)
}

fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.pop().unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| all.extend_from_slice(piece));
    all.freeze()
}

fn addressing(operation: &Operation, address: &str, unique: &str) -> Addressing {
    Addressing {
        action: operation.input.action.clone(),
        message_id: Some(format!("urn:uuid:{unique}")),
        to: Some(address.to_owned()),
        reply_to: operation.output.as_ref().map(|_| Endpoint::new(ANONYMOUS)),
        ..Addressing::default()
    }
}

fn write_header(
    schemas: &SchemaSet,
    operation: &Operation,
    header: &SoapCallHeader,
    writer: &mut Writer,
) -> Result<(), SoapError> {
    match header {
        SoapCallHeader::Xml(xml) => {
            let document = Document::parse(xml.as_str(), &Limits::default()).map_err(|error| {
                OutgoingError::new(Trouble::Misuse, format!("a header is no XML element: {error}"))
            })?;
            if document.root().namespace().is_empty() {
                let detail = "a header stands in a namespace";
                return Err(OutgoingError::new(Trouble::Misuse, detail).into());
            }
            writer.raw(&document.root().to_source());
            Ok(())
        }
        SoapCallHeader::Declared { name, value } => {
            let is_meant = |part: &&crosstie_xml::wsdl::HeaderPart| {
                part.name == *name || *schemas.declaration(part.element).name.local == **name
            };
            let part = operation.input.headers.iter().find(is_meant).ok_or_else(|| {
                let detail =
                    format!("the description has no header {name:?} for {}: give it as XML", operation.name);
                OutgoingError::new(Trouble::Misuse, detail)
            })?;
            schemas
                .element_to_xml(part.element, value, writer, &mut WriteOptions::default())
                .map_err(|faults| unfit(name, faults))
        }
    }
}

/// That a value does not fit what is described as `what`.
fn unfit(what: &str, faults: Vec<Fault>) -> SoapError {
    let shown: Vec<_> =
        faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail).trim().to_owned()).collect();
    let detail = format!("the message does not fit {what}: {}", shown.join("; "));
    SoapError { error: OutgoingError::new(Trouble::Misuse, detail), fault: None, faults }
}

/// A random UUID (RFC 9562, section 5.4).
fn random_id() -> Result<String, OutgoingError> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)
        .map_err(|_| OutgoingError::new(Trouble::Misuse, "the system has no random numbers"))?;
    let number = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let text = format!("{number:032x}");
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    Ok([part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_random_uuids() {
        let (one, other) = (random_id().unwrap(), random_id().unwrap());
        assert_ne!(one, other);
        for id in [one, other] {
            let letters: Vec<char> = id.chars().collect();
            assert_eq!((id.len(), letters[14]), (36, '4'), "{id}");
            assert!(matches!(letters[19], '8' | '9' | 'a' | 'b'), "{id}");
            assert_eq!(id.matches('-').count(), 4, "{id}");
        }
    }
}
