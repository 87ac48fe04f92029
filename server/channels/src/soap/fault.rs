//! Failures as faults of SOAP 1.1 and 1.2.
//!
//! The detail of a fault says what the problem document of a REST channel says: the kind of failure, the status,
//! the cid, and everything that is wrong with the request.

use bytes::Bytes;
use crosstie_model::cid::Cid;
use crosstie_model::refusal::RefusalReason;
use crosstie_model::{Failure, FailureKind, Origin};
use crosstie_xml::soap::addressing::{FAULT_ACTION, NAMESPACE as WSA, SOAP_FAULT_ACTION};
use crosstie_xml::soap::security::WSSE;
use crosstie_xml::soap::{
    Addressing, Detail, FaultCode, SoapFault, Version, write_envelope, write_fault_detail,
    write_not_understood, write_upgrade,
};
use crosstie_xml::{QName, Writer};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::json;

use super::description::FAULTS;
use super::token::error_of;
use super::{Answer, Soap};
use crate::problem;
use crate::response::Outgoing;
use crate::target::Target;

/// What an answer has to be like, as far as the request says.
#[derive(Debug, Clone)]
pub(super) struct Spoken {
    pub(super) version: Version,
    /// Its WS-Addressing headers.
    pub(super) addressing: Option<Box<Addressing>>,
    /// Whether it came with attachments, or as if it had some.
    pub(super) is_multipart: bool,
    /// Header blocks that had to be understood and were not.
    pub(super) not_understood: Vec<QName>,
}

impl Default for Spoken {
    fn default() -> Self {
        Self { version: Version::V11, addressing: None, is_multipart: false, not_understood: Vec::new() }
    }
}

impl Spoken {
    /// Whether the answer is to be sent to nobody.
    pub(super) fn wants_no_answer(&self) -> bool {
        self.addressing.as_ref().and_then(|a| a.reply_to.as_ref()).is_some_and(|to| to.is_none())
    }

    fn wants_no_fault(&self) -> bool {
        let to = self.addressing.as_ref().and_then(|a| a.fault_to.as_ref().or(a.reply_to.as_ref()));
        to.is_some_and(|to| to.is_none())
    }
}

/// A request that gets a fault.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) spoken: Spoken,
    failure: Failure,
    /// The fault where SOAP has one of its own.
    fault: Option<Box<SoapFault<'static>>>,
    /// Whether HTTP says what is wrong: there was no envelope to answer.
    is_transports: bool,
}

impl Refused {
    /// A failed invocation.
    pub(super) fn of(spoken: Spoken, failure: Failure) -> Self {
        Self { spoken, failure, fault: None, is_transports: false }
    }

    /// What is refused before there is an envelope.
    pub(super) fn by_transport(spoken: Spoken, failure: Failure) -> Self {
        Self { is_transports: true, ..Self::of(spoken, failure) }
    }

    /// A message that is wrong as a whole.
    pub(super) fn sender(spoken: Spoken, text: String) -> Self {
        Self::of(spoken, Failure::bad_request(text))
    }

    /// A fault of SOAP's own.
    pub(super) fn of_fault(spoken: Spoken, fault: SoapFault<'static>, kind: FailureKind) -> Self {
        let failure = Failure::new(kind, Origin::Client).with_text(fault.reason());
        Self { fault: Some(Box::new(fault)), ..Self::of(spoken, failure) }
    }

    /// A version of SOAP that is not spoken here.
    pub(super) fn version_mismatch(spoken: Spoken, text: &str) -> Self {
        let fault = SoapFault::new(FaultCode::VersionMismatch, text);
        Self::of_fault(spoken, fault, FailureKind::BadRequest)
    }

    /// The response.
    pub(super) fn answer<'c>(self, channel: &Soap, cid: Cid, target: Option<&'c Target>) -> Answer<'c> {
        let namespace = channel.compiled.fault_namespace.as_str();
        let is_sent = !self.spoken.wants_no_fault();
        let response = if is_sent { self.render(namespace, cid) } else { super::accepted() };
        Answer { response, failure: Some(self.failure), target }
    }

    fn render(&self, namespace: &str, cid: Cid) -> Response<Outgoing> {
        let mut fault = match &self.fault {
            Some(fault) => (**fault).clone(),
            None => SoapFault::of_failure(&self.failure),
        };
        // Faults about header blocks have no detail (SOAP 1.1, section 4.4; SOAP 1.2 part 1, section 5.4.8).
        if !matches!(fault.code, FaultCode::MustUnderstand | FaultCode::VersionMismatch) {
            fault.detail = Detail::Xml(detail(namespace, &self.failure, cid));
        }
        let status = match (self.is_transports, &fault.code, self.spoken.version) {
            (true, _, _) => problem::status_of(&self.failure),
            (false, FaultCode::Sender | FaultCode::DataEncodingUnknown, Version::V12) => {
                StatusCode::BAD_REQUEST
            }
            (false, _, _) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        respond(status, &self.spoken, &fault, &self.failure)
    }
}

/// The fault for a request that was refused before its envelope was read, with the status that HTTP has for it.
pub(crate) fn render_failure(version: Version, failure: &Failure, cid: Cid) -> Response<Outgoing> {
    let spoken = Spoken { version, ..Spoken::default() };
    Refused::by_transport(spoken, failure.clone()).render(FAULTS, cid)
}

/// The version of SOAP that a request's header fields speak of.
pub(crate) fn version_of(headers: &HeaderMap) -> Version {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_newer = content_type.to_ascii_lowercase().contains("application/soap+xml");
    if is_newer { Version::V12 } else { Version::V11 }
}

/// The fault for credentials that were refused after the message was read.
pub(super) fn unauthorized(
    spoken: &Spoken,
    failure: &Failure,
    reason: Option<RefusalReason>,
    channel: &Soap,
    cid: Cid,
) -> Response<Outgoing> {
    let mut refused = Refused::of(spoken.clone(), failure.clone());
    if let (FailureKind::Unauthorized, Some(reason)) = (failure.kind, reason) {
        refused.fault = Some(Box::new(error_of(reason).fault()));
        // Other credentials would do as well, and HTTP has the words for those.
        refused.is_transports = !failure.challenges.is_empty();
    }
    refused.render(&channel.compiled.fault_namespace, cid)
}

fn detail(namespace: &str, failure: &Failure, cid: Cid) -> String {
    let problem = json!({
        "type": problem::type_of(failure.kind), "status": problem::status_of(failure).as_u16(),
        "detail": failure.text, "cid": cid, "faults": failure.faults,
    });
    write_fault_detail(namespace, &problem)
}

fn respond(
    status: StatusCode,
    spoken: &Spoken,
    fault: &SoapFault<'_>,
    failure: &Failure,
) -> Response<Outgoing> {
    let version = spoken.version;
    let header = |writer: &mut Writer| {
        if let Some(addressing) = &spoken.addressing {
            let is_addressings = fault.subcodes.iter().any(|name| *name.namespace == *WSA);
            let action = if is_addressings { FAULT_ACTION } else { SOAP_FAULT_ACTION };
            addressing.fault(action, &super::reply::message_id()).write(version, writer);
        }
        if version == Version::V12 && fault.code == FaultCode::MustUnderstand {
            write_not_understood(writer, &spoken.not_understood);
        }
        if fault.code == FaultCode::VersionMismatch && version == Version::V12 {
            write_upgrade(writer);
        }
        Ok::<(), std::convert::Infallible>(())
    };
    let envelope = write_envelope(version, header, |writer| {
        writer.prefer("wsse", WSSE);
        fault.write(version, writer);
        Ok(())
    });
    let envelope = match envelope {
        Ok(envelope) => envelope,
        Err(never) => match never {},
    };
    let mut response = Response::new(Outgoing::Whole(Bytes::from(envelope)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let content_type = match version {
        Version::V11 => "text/xml; charset=utf-8",
        Version::V12 => "application/soap+xml; charset=utf-8",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    problem::write_headers(failure, headers);
    response
}
