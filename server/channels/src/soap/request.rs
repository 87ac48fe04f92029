//! Reading a request: transport, envelope, headers, operation, body. Pure: what it costs is bounded by the body's
//! size, the depth and the limits of XML.

use bytes::Bytes;
use crosstie_model::soap::{SoapAttachment, SoapHeader, SoapRequest};
use crosstie_model::{Failure, FailureKind, Origin};
use crosstie_xml::convert::{ReadOptions, Zoneless};
use crosstie_xml::soap::addressing::NAMESPACE as WSA;
use crosstie_xml::soap::security::WSSE;
use crosstie_xml::soap::{
    Addressing, Envelope, EnvelopeError, FaultCode, HeaderBlock, MessageError, Received, SoapFault, Target,
    Version,
};
use crosstie_xml::wsdl::Operation;
use crosstie_xml::{Limits, QName, untyped};
use serde_json::Value;

use super::fault::{Refused, Spoken};
use super::token::{Token, is_security};
use super::{Soap, model_version};

/// A request whose envelope was read.
pub(super) struct Read {
    /// What its answer looks like.
    pub(super) spoken: Spoken,
    /// What it holds to say who sent it.
    pub(super) token: Token,
    /// What it asks for, or why it cannot be answered.
    pub(super) asked: Result<Asked, Refused>,
}

/// What a request asks for.
pub(super) struct Asked {
    /// The body as JSON.
    pub(super) value: Value,
    /// The rest.
    pub(super) soap: SoapRequest,
}

/// Reads a request.
pub(super) fn read(
    channel: &Soap,
    content_type: &str,
    soap_action: Option<&str>,
    body: &Bytes,
    depth: usize,
) -> Result<Box<Read>, Refused> {
    let received = Received::new(content_type, soap_action, body, &channel.limits()).map_err(|error| {
        let kind = match error {
            MessageError::MediaType(_) => FailureKind::UnsupportedMediaType,
            MessageError::Multipart(_) => FailureKind::BadRequest,
        };
        let failure = Failure::new(kind, Origin::Client).with_text(error.to_string());
        Refused::by_transport(Spoken::default(), failure)
    })?;
    let guessed = Spoken { version: received.version.unwrap_or(Version::V11), ..Spoken::default() };
    // The body's limit bounds text; the limits of XML bound what is made of it.
    let limits = Limits { bytes: usize::MAX, text_bytes: usize::MAX, depth, ..Limits::default() };
    let document = received.document(&limits).map_err(|error| {
        Refused::sender(guessed.clone(), format!("The message is no XML that is taken here: {error}"))
    })?;
    let envelope = Envelope::read(&document).map_err(|error| match &error {
        EnvelopeError::Other(_) => Refused::sender(guessed.clone(), error.to_string()),
        EnvelopeError::Version(_) => Refused::version_mismatch(guessed.clone(), &error.to_string()),
        EnvelopeError::Malformed { version, .. } => {
            Refused::sender(Spoken { version: *version, ..Spoken::default() }, error.to_string())
        }
    })?;
    let mut spoken = Spoken { version: envelope.version, ..Spoken::default() };
    if !channel.speaks(envelope.version) || channel.compiled.binding(envelope.version).is_none() {
        // In the version that is spoken here (SOAP 1.2 part 1, appendix A).
        let other = Version::ALL.into_iter().find(|version| channel.speaks(*version));
        spoken.version = other.unwrap_or(envelope.version);
        return Err(Refused::version_mismatch(spoken, "This version of SOAP is not spoken here"));
    }
    spoken.is_multipart = content_type.trim_start().to_ascii_lowercase().starts_with("multipart/");
    let token = Token::read(&envelope);
    let asked = ask(channel, &received, &envelope, &mut spoken);
    Ok(Box::new(Read { spoken, token, asked }))
}

/// Finds out what an envelope asks for.
fn ask(
    channel: &Soap,
    received: &Received,
    envelope: &Envelope<'_>,
    spoken: &mut Spoken,
) -> Result<Asked, Refused> {
    let addressing = Addressing::read(envelope, received.action.as_deref());
    let addressing = addressing
        .map_err(|error| Refused::of_fault(spoken.clone(), error.fault(), FailureKind::BadRequest))?;
    let action = addressing.as_ref().map(|addressing| addressing.action.clone()).or(received.action.clone());
    spoken.addressing = addressing.map(Box::new);
    let operation = operation_of(channel, envelope, action.as_deref());
    let names: Vec<QName> = envelope.not_understood(|block| understands(channel, operation, block));
    if !names.is_empty() {
        let fault = SoapFault::not_understood(&names);
        spoken.not_understood = names;
        return Err(Refused::of_fault(spoken.clone(), fault, FailureKind::BadRequest));
    }
    let Some(operation) = operation else {
        return Err(unknown_operation(envelope, spoken, action.as_deref()));
    };
    if let Some(to) = spoken.addressing.as_ref().and_then(|addressing| addressing.reply_to.as_ref())
        && !to.is_anonymous()
        && !to.is_none()
    {
        let mut fault =
            SoapFault::new(FaultCode::Sender, "Answers go to the other end of the connection only");
        fault.subcodes = vec![
            QName::new(WSA, "InvalidAddressingHeader"),
            QName::new(WSA, "OnlyAnonymousAddressSupported"),
        ];
        return Err(Refused::of_fault(spoken.clone(), fault, FailureKind::BadRequest));
    }
    let schemas = &channel.compiled.wsdl.schemas;
    let attachments = &received.attachments;
    let options = ReadOptions { attachments, zoneless: Zoneless::Utc, ..ReadOptions::default() };
    let value = operation.input.to_json(schemas, envelope.body, options).map_err(|faults| {
        let failure = Failure::bad_request("The message does not fit its description").with_faults(faults);
        Refused::of(spoken.clone(), failure)
    })?;
    let addressing = spoken.addressing.as_deref();
    let soap = SoapRequest {
        version: model_version(envelope.version),
        operation: operation.name.clone(),
        action,
        message_id: addressing.and_then(|addressing| addressing.message_id.clone()),
        to: addressing.and_then(|addressing| addressing.to.clone()),
        reply_to: addressing.and_then(|a| a.reply_to.as_ref()).map(|to| to.address.clone()),
        relates_to: addressing.and_then(|a| a.relates_to.first()).map(|(id, _)| id.clone()),
        headers: headers(channel, operation, envelope),
        attachments: received
            .attachments
            .iter()
            .map(|attachment| SoapAttachment {
                content_id: attachment.content_id.clone(),
                content_type: attachment.content_type.clone(),
                content: attachment.content.clone(),
            })
            .collect(),
    };
    Ok(Asked { value, soap })
}

fn operation_of<'c>(
    channel: &'c Soap,
    envelope: &Envelope<'_>,
    action: Option<&str>,
) -> Option<&'c Operation> {
    let binding = channel.compiled.binding(envelope.version)?;
    let content = envelope.content();
    let name = content.as_ref().map(|content| (content.namespace(), content.local()));
    binding.operation_of(&channel.compiled.wsdl.schemas, name, action)
}

fn unknown_operation(envelope: &Envelope<'_>, spoken: &Spoken, action: Option<&str>) -> Refused {
    let what = match envelope.content() {
        Some(content) => format!("the element {}", content.qname()),
        None => "an empty body".to_owned(),
    };
    let text = match action {
        Some(action) => format!("There is no operation for {what} and the action {action:?}"),
        None => format!("There is no operation for {what}"),
    };
    let mut fault = SoapFault::new(FaultCode::Sender, text);
    if spoken.addressing.is_some() {
        fault.subcodes = vec![QName::new(WSA, "ActionNotSupported")];
    }
    Refused::of_fault(spoken.clone(), fault, FailureKind::NotFound)
}

/// Whether a header block that has to be understood is.
fn understands(channel: &Soap, operation: Option<&Operation>, block: &HeaderBlock<'_>) -> bool {
    let element = block.element;
    element.namespace() == WSA
        || (channel.reads_security && is_security(block))
        || channel.understands.iter().any(|(namespace, local)| element.is(namespace, local))
        || operation.is_some_and(|operation| declared(channel, operation, block).is_some())
}

/// What the description says of a header block.
fn declared(
    channel: &Soap,
    operation: &Operation,
    block: &HeaderBlock<'_>,
) -> Option<crosstie_xml::xsd::ElementId> {
    let schemas = &channel.compiled.wsdl.schemas;
    let mut parts = operation.input.headers.iter();
    let named = |id| {
        let name = &schemas.declaration(id).name;
        name.is(block.element.namespace(), block.element.local())
    };
    parts.find(|part| named(part.element)).map(|part| part.element)
}

/// The header blocks for the service: none that carries credentials, and none that is for somebody else.
fn headers(channel: &Soap, operation: &Operation, envelope: &Envelope<'_>) -> Vec<SoapHeader> {
    let is_shown = |block: &&HeaderBlock<'_>| {
        let is_mine = matches!(block.target, Target::UltimateReceiver | Target::Next);
        is_mine && !matches!(block.element.namespace(), WSA | WSSE)
    };
    let blocks = envelope.headers.iter().filter(is_shown);
    blocks
        .map(|block| {
            let element = block.element;
            let typed = declared(channel, operation, block).and_then(|id| {
                let schemas = &channel.compiled.wsdl.schemas;
                let options = ReadOptions { zoneless: Zoneless::Utc, ..ReadOptions::default() };
                schemas.element_to_json(id, element, options).ok()
            });
            SoapHeader {
                namespace: element.namespace().to_owned(),
                name: element.local().to_owned(),
                must_understand: block.must_understand,
                value: typed.unwrap_or_else(|| {
                    let mut value = untyped::to_json(element);
                    strip(&mut value);
                    value
                }),
                xml: element.to_source(),
            }
        })
        .collect()
}

/// Takes the attributes of the block that are SOAP's own out of its value; a block with nothing else is its text.
fn strip(value: &mut Value) {
    let Value::Object(members) = value else { return };
    for name in ["@mustUnderstand", "@actor", "@role", "@relay", "@encodingStyle"] {
        members.remove(name);
    }
    if members.is_empty() {
        *value = Value::String(String::new());
    } else if let (1, Some(text)) = (members.len(), members.get_mut("#text")) {
        *value = text.take();
    }
}
