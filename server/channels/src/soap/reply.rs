//! Writing an answer: what the service answered as the body that the description says, with the header blocks and
//! attachments it added.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crosstie_model::cid::Cid;
use crosstie_model::definition::Mtom;
use crosstie_model::message::{Reply, ReplyBody};
use crosstie_model::soap::{SoapReply, SoapReplyHeader};
use crosstie_model::{Failure, FailureKind, Fault, Origin, TraceContext};
use crosstie_xml::convert::{Attach, WriteOptions};
use crosstie_xml::soap::{Package, Version, must_understand, write_envelope};
use crosstie_xml::untyped::{self, Scalars};
use crosstie_xml::wsdl::Operation;
use crosstie_xml::{Attachment, Writer};
use futures_util::StreamExt;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use serde_json::{Map, Value};
use std::sync::Arc;

use super::Soap;
use super::fault::Spoken;
use crate::aside::aside_if_large;
use crate::response::Outgoing;
use crate::rest::is_ours;

/// The answer to a request for `operation`.
///
/// # Errors
/// 500 when the service's answer does not fit the description; what does not is in the log.
pub(super) async fn write(
    channel: &Arc<Soap>,
    spoken: &Spoken,
    operation: &str,
    reply: Reply,
    cid: Cid,
) -> Result<Response<Outgoing>, Failure> {
    let Reply { headers, body, soap, .. } = reply;
    let (size, body) = match body {
        ReplyBody::Stream(_) => {
            tracing::error!(%cid, operation, "a SOAP answer cannot be streamed");
            return Err(Failure::service());
        }
        ReplyBody::Bytes(bytes) => (bytes.len(), ReplyBody::Text(STANDARD.encode(&bytes))),
        ReplyBody::Json(bytes) => (bytes.len(), ReplyBody::Json(bytes)),
        ReplyBody::Text(text) => (text.len(), ReplyBody::Text(text)),
        ReplyBody::Empty => (0, ReplyBody::Empty),
    };
    let soap = soap.map(|soap| *soap).unwrap_or_default();
    let work = Work { channel: Arc::clone(channel), spoken: spoken.clone(), operation: operation.to_owned() };
    let outcome = aside_if_large(size, move || work.package(&body, soap)).await?;
    let package = outcome.map_err(|faults| {
        let told: Vec<_> = faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect();
        tracing::error!(%cid, operation, faults = told.join("; "), "the answer does not fit its description");
        Failure::new(FailureKind::Internal, Origin::Service)
    })?;
    let mut response = Response::new(content(package.body));
    let fields = response.headers_mut();
    if let Ok(content_type) = HeaderValue::from_str(&package.content_type) {
        fields.insert(CONTENT_TYPE, content_type);
    }
    for (name, value) in headers {
        if !is_ours(&name) {
            fields.append(name, value);
        }
    }
    Ok(response)
}

/// The body: one piece as it is, several without joining them.
fn content(mut pieces: Vec<Bytes>) -> Outgoing {
    match (pieces.pop(), pieces.is_empty()) {
        (None, _) => Outgoing::empty(),
        (Some(only), true) => Outgoing::Whole(only),
        (Some(last), false) => {
            pieces.push(last);
            Outgoing::Stream(futures_util::stream::iter(pieces.into_iter().map(Ok)).boxed())
        }
    }
}

/// An id for a message: a UUID URN, as WS-Addressing advises.
pub(super) fn message_id() -> String {
    let digits = TraceContext::new_root().cid.to_string();
    let part = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!("urn:uuid:{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// Everything an answer is made by.
struct Work {
    channel: Arc<Soap>,
    spoken: Spoken,
    operation: String,
}

impl Work {
    fn package(&self, body: &ReplyBody, soap: SoapReply) -> Result<Package, Vec<Fault>> {
        let version = self.spoken.version;
        let whole = |detail: String| vec![Fault { pointer: String::new(), detail }];
        let value = body.to_value().map_err(|error| whole(error.to_string()))?.unwrap_or(Value::Null);
        let operation = self.channel.compiled.operation(version, &self.operation);
        let operation = operation.ok_or_else(|| whole("the operation is gone".to_owned()))?;
        let id = TraceContext::new_root().cid.to_string();
        let mut attach = self.attaches().then(|| Attach {
            from_bytes: self.channel.mtom_from,
            id: id.clone(),
            attachments: Vec::new(),
        });
        let header = |writer: &mut Writer| self.headers(operation, &soap.headers, writer);
        let envelope =
            write_envelope(version, header, |writer| self.body(operation, &value, writer, attach.as_mut()))?;
        let mut attachments = attach.map(|attach| attach.attachments).unwrap_or_default();
        attachments.extend(soap.attachments.into_iter().map(|attachment| Attachment {
            content_id: attachment.content_id,
            content_type: attachment.content_type,
            content: attachment.content,
        }));
        let action = operation.output.as_ref().map(|output| output.action.as_str());
        let action = action.filter(|_| self.spoken.addressing.is_some());
        Ok(Package::new(version, action, envelope, &attachments, &id))
    }

    fn attaches(&self) -> bool {
        match self.channel.mtom {
            Mtom::AsAsked => self.spoken.is_multipart,
            Mtom::Always => true,
            Mtom::Never => false,
        }
    }

    fn body(
        &self,
        operation: &Operation,
        value: &Value,
        writer: &mut Writer,
        attach: Option<&mut Attach>,
    ) -> Result<(), Vec<Fault>> {
        let Some(output) = &operation.output else { return Ok(()) };
        let schemas = &self.channel.compiled.wsdl.schemas;
        let options = &mut WriteOptions { attach, ..WriteOptions::default() };
        let outcome = output.to_xml(schemas, value, writer, options);
        match outcome {
            // A service that answers nothing answers an element without content, where there may be one.
            Err(faults) if value.is_null() => {
                let empty = Value::Object(Map::new());
                output.to_xml(schemas, &empty, writer, &mut WriteOptions::default()).map_err(|_| faults)
            }
            outcome => outcome,
        }
    }

    fn headers(
        &self,
        operation: &Operation,
        headers: &[SoapReplyHeader],
        writer: &mut Writer,
    ) -> Result<(), Vec<Fault>> {
        let version = self.spoken.version;
        if let (Some(addressing), Some(output)) = (&self.spoken.addressing, &operation.output) {
            addressing.reply(&output.action, &message_id()).write(version, writer);
        }
        let schemas = &self.channel.compiled.wsdl.schemas;
        let declared = operation.output.iter().flat_map(|output| &output.headers);
        let declared: Vec<_> = declared.map(|part| part.element).collect();
        for header in headers {
            let is_meant = |id: &&_| schemas.declaration(**id).name.is(&header.namespace, &header.name);
            match declared.iter().find(is_meant) {
                Some(id) if !header.must_understand => {
                    schemas.element_to_xml(*id, &header.value, writer, &mut WriteOptions::default())?;
                }
                _ => undeclared(version, header, writer),
            }
        }
        Ok(())
    }
}

/// A header block of which the description says nothing.
fn undeclared(version: Version, header: &SoapReplyHeader, writer: &mut Writer) {
    writer.start(&header.namespace, &header.name);
    if header.must_understand {
        must_understand(writer, version);
    }
    untyped::write_content(writer, &header.value, Scalars::Plain);
    writer.end();
}
