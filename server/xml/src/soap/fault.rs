//! Faults of both versions (SOAP 1.1, section 4.4; SOAP 1.2 part 1, section 5.4).

use crosstie_model::{Failure, Origin};
use serde_json::Value;

use super::Version;
use super::envelope::listed;
use crate::chars::trim;
use crate::document::Element;
use crate::namespace::{QName, XML};
use crate::writer::Writer;
use crate::wsdl::FAULT_ELEMENT;

/// How deep subcodes nest; more is read past.
const MAX_SUBCODES: usize = 8;

/// A fault.
#[derive(Debug, Clone)]
pub struct SoapFault<'d> {
    /// Who is to blame, in the terms of SOAP.
    pub code: FaultCode,
    /// What exactly, the broadest first. In SOAP 1.1 the first of them takes the place of the code, as one with
    /// dots does that was read: `Client.Authentication` (section 4.4.1).
    pub subcodes: Vec<QName>,
    /// What went wrong, for a person, each with its language. SOAP 1.1 knows one, without language.
    pub reasons: Vec<(String, String)>,
    /// Who found out: `faultactor` or `Node`.
    pub node: Option<String>,
    /// In which role; only SOAP 1.2 says.
    pub role: Option<String>,
    /// What the application says about it.
    pub detail: Detail<'d>,
}

/// The code of a fault, by its name in SOAP 1.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultCode {
    /// The version of SOAP is not supported.
    VersionMismatch,
    /// A header block that has to be understood was not.
    MustUnderstand,
    /// Data in an encoding that is not known. SOAP 1.1 calls that the client's fault.
    DataEncodingUnknown,
    /// The message is wrong; `Client` in SOAP 1.1.
    Sender,
    /// The message may be right; `Server` in SOAP 1.1.
    Receiver,
    /// What a sender of SOAP 1.1 made up.
    Other(QName),
}

/// The detail of a fault.
#[derive(Debug, Clone)]
pub enum Detail<'d> {
    /// There is none.
    None,
    /// The element that holds it, of a fault that was read.
    Element(Element<'d>),
    /// What the element holds, of a fault to be written: elements that declare the prefixes they use.
    Xml(String),
}

impl FaultCode {
    fn local(&self, version: Version) -> &str {
        match (self, version) {
            (Self::VersionMismatch, _) => "VersionMismatch",
            (Self::MustUnderstand, _) => "MustUnderstand",
            (Self::Sender, Version::V12) => "Sender",
            (Self::Sender | Self::DataEncodingUnknown, Version::V11) => "Client",
            (Self::Receiver | Self::Other(_), Version::V12) => "Receiver",
            (Self::Receiver | Self::Other(_), Version::V11) => "Server",
            (Self::DataEncodingUnknown, Version::V12) => "DataEncodingUnknown",
        }
    }

    fn of(name: &QName) -> Self {
        let is_soap = name.namespace.is_empty() || Version::of_namespace(&name.namespace).is_some();
        // SOAP 1.1 appends what exactly after a dot: `Client.Authentication`.
        let local = name.local.split('.').next().unwrap_or_default();
        match local {
            "VersionMismatch" if is_soap => Self::VersionMismatch,
            "MustUnderstand" if is_soap => Self::MustUnderstand,
            "DataEncodingUnknown" if is_soap => Self::DataEncodingUnknown,
            "Sender" | "Client" if is_soap => Self::Sender,
            "Receiver" | "Server" if is_soap => Self::Receiver,
            _ => Self::Other(name.clone()),
        }
    }
}

impl<'d> SoapFault<'d> {
    /// A fault with a code and a reason in English.
    #[must_use]
    pub fn new(code: FaultCode, reason: impl Into<String>) -> Self {
        Self {
            code,
            subcodes: Vec::new(),
            reasons: vec![("en".to_owned(), reason.into())],
            node: None,
            role: None,
            detail: Detail::None,
        }
    }

    /// What a failure is in terms of SOAP: the sender's fault when HTTP would say 4xx. Nothing internal is in a
    /// [`Failure`], so nothing internal can be here.
    #[must_use]
    pub fn of_failure(failure: &Failure) -> Self {
        let is_senders = match failure.http_status() {
            400..=499 => true,
            500..=599 => false,
            _ => failure.origin == Origin::Client,
        };
        Self::new(if is_senders { FaultCode::Sender } else { FaultCode::Receiver }, failure.text.clone())
    }

    /// The fault for header blocks that were not understood.
    #[must_use]
    pub fn not_understood(headers: &[QName]) -> Self {
        Self::new(FaultCode::MustUnderstand, format!("header blocks not understood: {}", listed(headers)))
    }

    /// Its reason in English, or whichever comes first; may be empty.
    #[must_use]
    pub fn reason(&self) -> &str {
        let english = self.reasons.iter().find(|(language, _)| language.starts_with("en"));
        english.or(self.reasons.first()).map_or("", |(_, text)| text)
    }

    /// Reads the fault that `element` is. What is missing is empty: a broken fault is still a fault.
    #[must_use]
    pub fn read(element: Element<'d>, version: Version) -> Self {
        match version {
            Version::V11 => Self::read_11(element),
            Version::V12 => Self::read_12(element),
        }
    }

    fn read_11(element: Element<'d>) -> Self {
        // Not qualified by the standard; some qualify them all the same.
        let child = |local: &str| element.elements().find(|child| child.local() == local);
        let text = |local: &str| child(local).map(|child| trim(&child.text()).to_owned());
        let name = child("faultcode").map(|code| name_in(code)).unwrap_or_else(|| QName::new("", ""));
        let code = FaultCode::of(&name);
        let is_exact = name.local.contains('.') && !matches!(code, FaultCode::Other(_));
        Self {
            code,
            subcodes: is_exact.then_some(name).into_iter().collect(),
            reasons: text("faultstring").map(|text| (String::new(), text)).into_iter().collect(),
            node: text("faultactor"),
            role: None,
            detail: child("detail").map_or(Detail::None, Detail::Element),
        }
    }

    fn read_12(element: Element<'d>) -> Self {
        let namespace = Version::V12.namespace();
        let text = |local: &str| element.child(namespace, local).map(|child| trim(&child.text()).to_owned());
        let value = |parent: Element<'d>| parent.child(namespace, "Value").map(name_in);
        let code = element.child(namespace, "Code");
        let name = code.and_then(value).unwrap_or_else(|| QName::new("", ""));
        let mut subcodes = Vec::new();
        let mut next = code.and_then(|code| code.child(namespace, "Subcode"));
        while let Some(subcode) = next.filter(|_| subcodes.len() < MAX_SUBCODES) {
            subcodes.extend(value(subcode));
            next = subcode.child(namespace, "Subcode");
        }
        let reason = element.child(namespace, "Reason");
        let texts =
            reason.into_iter().flat_map(|reason| reason.elements()).filter(|text| text.is(namespace, "Text"));
        Self {
            code: FaultCode::of(&name),
            subcodes,
            reasons: texts
                .map(|text| {
                    let language = text.attribute(XML, "lang").unwrap_or_default();
                    (language.to_owned(), trim(&text.text()).to_owned())
                })
                .collect(),
            node: text("Node"),
            role: text("Role"),
            detail: element.child(namespace, "Detail").map_or(Detail::None, Detail::Element),
        }
    }

    /// Writes it as the content of a body.
    pub fn write(&self, version: Version, writer: &mut Writer) {
        writer.start(version.namespace(), "Fault");
        match version {
            Version::V11 => self.write_11(writer),
            Version::V12 => self.write_12(writer),
        }
        writer.end();
    }

    fn write_11(&self, writer: &mut Writer) {
        let version = Version::V11;
        writer.start("", "faultcode");
        let code = match (self.subcodes.first(), &self.code) {
            (Some(name), _) | (None, FaultCode::Other(name)) => writer.name(&name.namespace, &name.local),
            (None, code) => writer.name(version.namespace(), code.local(version)),
        };
        writer.text(&code);
        writer.end();
        writer.leaf("", "faultstring", self.reason());
        if let Some(node) = &self.node {
            writer.leaf("", "faultactor", node);
        }
        self.write_detail("", "detail", writer);
    }

    fn write_12(&self, writer: &mut Writer) {
        let version = Version::V12;
        let namespace = version.namespace();
        writer.start(namespace, "Code");
        writer.start(namespace, "Value");
        let code = writer.name(namespace, self.code.local(version));
        writer.text(&code);
        writer.end();
        // What SOAP 1.1 has for a code is what exactly went wrong.
        let other = match &self.code {
            FaultCode::Other(name) => Some(name),
            _ => None,
        };
        let subcodes: Vec<_> =
            other.into_iter().chain(&self.subcodes).filter(|name| !name.local.is_empty()).collect();
        for name in &subcodes {
            writer.start(namespace, "Subcode");
            writer.start(namespace, "Value");
            let name = writer.name(&name.namespace, &name.local);
            writer.text(&name);
            writer.end();
        }
        subcodes.iter().for_each(|_| writer.end());
        writer.end();
        writer.start(namespace, "Reason");
        let none = [("en".to_owned(), String::new())];
        let reasons = if self.reasons.is_empty() { &none[..] } else { &self.reasons };
        for (language, text) in reasons {
            writer.start(namespace, "Text");
            writer.attribute(XML, "lang", if language.is_empty() { "en" } else { language });
            writer.text(text);
            writer.end();
        }
        writer.end();
        for (name, value) in [("Node", &self.node), ("Role", &self.role)] {
            if let Some(value) = value {
                writer.leaf(namespace, name, value);
            }
        }
        self.write_detail(namespace, "Detail", writer);
    }

    fn write_detail(&self, namespace: &str, local: &str, writer: &mut Writer) {
        match &self.detail {
            Detail::None => {}
            Detail::Xml(xml) => {
                writer.start(namespace, local);
                writer.raw(xml);
                writer.end();
            }
            Detail::Element(element) => {
                writer.start(namespace, local);
                for child in element.elements() {
                    writer.raw(&child.to_source());
                }
                writer.end();
            }
        }
    }
}

fn name_in(element: Element<'_>) -> QName {
    let text = element.text();
    element.resolve(&text).unwrap_or_else(|| QName::new("", trim(&text)))
}

/// The detail that generated descriptions declare, as XML: `problem` is the problem document that a REST
/// channel would answer with (`type`, `status`, `detail`, `cid`, `faults`); its other members are left out.
#[must_use]
pub fn write_fault_detail(namespace: &str, problem: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut writer = Writer::new();
    writer.prefer("tns", namespace);
    writer.start(namespace, FAULT_ELEMENT);
    for key in ["type", "status", "detail", "cid"] {
        if let Some(value) = problem.get(key) {
            writer.leaf(namespace, key, &text(value));
        }
    }
    for fault in problem.get("faults").and_then(Value::as_array).into_iter().flatten() {
        writer.start(namespace, "faults");
        for key in ["pointer", "detail"] {
            writer.leaf(namespace, key, &text(fault.get(key).unwrap_or(&Value::Null)));
        }
        writer.end();
    }
    writer.finish()
}

/// Writes the header blocks that tell which blocks were not understood (SOAP 1.2 part 1, section 5.4.8).
pub fn write_not_understood(writer: &mut Writer, headers: &[QName]) {
    for header in headers {
        writer.start(Version::V12.namespace(), "NotUnderstood");
        writer.name_attribute("", "qname", (&header.namespace, &header.local));
        writer.end();
    }
}

/// Writes the header block that tells which versions are understood (SOAP 1.2 part 1, section 5.4.7).
pub fn write_upgrade(writer: &mut Writer) {
    let namespace = Version::V12.namespace();
    writer.start(namespace, "Upgrade");
    for version in Version::ALL.into_iter().rev() {
        writer.start(namespace, "SupportedEnvelope");
        writer.name_attribute("", "qname", (version.namespace(), "Envelope"));
        writer.end();
    }
    writer.end();
}

#[cfg(test)]
mod tests {
    use crosstie_model::FailureKind;
    use serde_json::json;

    use super::*;
    use crate::soap::{Envelope, write_envelope};
    use crate::{Document, Limits};

    fn written(fault: &SoapFault<'_>, version: Version) -> String {
        let none = |_: &mut Writer| Ok::<(), ()>(());
        write_envelope(version, none, |writer| {
            fault.write(version, writer);
            Ok(())
        })
        .unwrap()
    }

    fn again<T>(fault: &SoapFault<'_>, version: Version, look: impl FnOnce(SoapFault<'_>) -> T) -> T {
        let text = written(fault, version);
        let document = Document::parse(text.as_str(), &Limits::default()).unwrap();
        let envelope = Envelope::read(&document).unwrap();
        look(envelope.fault().unwrap())
    }

    #[test]
    fn faults_survive_both_versions() {
        let mut fault = SoapFault::new(FaultCode::Sender, "wrong <thing>");
        fault.node = Some("urn:me".into());
        fault.detail = Detail::Xml("<a xmlns=\"urn:a\">1</a>".into());
        for version in Version::ALL {
            again(&fault, version, |read| {
                assert_eq!((read.code.clone(), read.reason()), (FaultCode::Sender, "wrong <thing>"));
                assert_eq!(read.node.as_deref(), Some("urn:me"));
                let Detail::Element(detail) = read.detail else { panic!("{read:?}") };
                assert_eq!(detail.child("urn:a", "a").unwrap().text(), "1");
            });
        }
        assert_eq!(
            written(&fault, Version::V11).lines().last().unwrap(),
            "<soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\"><soap:Body><soap:Fault>\
             <faultcode>soap:Client</faultcode><faultstring>wrong &lt;thing&gt;</faultstring><faultactor>urn:me</faultactor>\
             <detail><a xmlns=\"urn:a\">1</a></detail></soap:Fault></soap:Body></soap:Envelope>"
        );
    }

    #[test]
    fn codes_are_translated_between_versions() {
        for (code, old, new) in [
            (FaultCode::VersionMismatch, "soap:VersionMismatch", "soap:VersionMismatch"),
            (FaultCode::MustUnderstand, "soap:MustUnderstand", "soap:MustUnderstand"),
            (FaultCode::Sender, "soap:Client", "soap:Sender"),
            (FaultCode::Receiver, "soap:Server", "soap:Receiver"),
            (FaultCode::DataEncodingUnknown, "soap:Client", "soap:DataEncodingUnknown"),
        ] {
            let fault = SoapFault::new(code, "");
            assert!(written(&fault, Version::V11).contains(&format!("<faultcode>{old}</faultcode>")));
            assert!(written(&fault, Version::V12).contains(&format!("<soap:Value>{new}</soap:Value>")));
        }
        let mut fault = SoapFault::new(FaultCode::Sender, "");
        fault.subcodes = vec![QName::new("urn:w", "A"), QName::new("urn:w", "B")];
        again(&fault, Version::V12, |read| assert_eq!(read.subcodes, fault.subcodes));
        again(&fault, Version::V11, |read| assert_eq!(read.code, FaultCode::Other(QName::new("urn:w", "A"))));
        let own = SoapFault::new(FaultCode::Other(QName::new("urn:w", "Own")), "x");
        again(&own, Version::V12, |read| {
            assert_eq!((read.code, read.subcodes), (FaultCode::Receiver, vec![QName::new("urn:w", "Own")]));
        });
    }

    #[test]
    fn faults_of_careless_senders_are_understood() {
        let read = |inside: &str| {
            let text = format!(
                "<s:Envelope xmlns:s='http://schemas.xmlsoap.org/soap/envelope/'><s:Body><s:Fault>{inside}</s:Fault></s:Body></s:Envelope>"
            );
            let document = Document::parse(text, &Limits::default()).unwrap();
            let fault = Envelope::read(&document).unwrap().fault().unwrap();
            (fault.code.clone(), fault.reason().to_owned(), fault.subcodes)
        };
        assert_eq!(
            read("<faultcode>Server</faultcode><faultstring/>"),
            (FaultCode::Receiver, String::new(), vec![])
        );
        assert_eq!(
            read("<faultcode>s:Client.Auth</faultcode><s:faultstring> no </s:faultstring>"),
            (FaultCode::Sender, "no".into(), vec![QName::new(Version::V11.namespace(), "Client.Auth")])
        );
        assert_eq!(read("<faultcode>x:Gone</faultcode>").0, FaultCode::Other(QName::new("", "x:Gone")));
        assert_eq!(read("").0, FaultCode::Other(QName::new("", "")));
    }

    #[test]
    fn a_failure_is_the_fault_of_who_caused_it() {
        let of = |kind, origin| SoapFault::of_failure(&Failure::new(kind, origin)).code;
        assert_eq!(of(FailureKind::BadRequest, Origin::Client), FaultCode::Sender);
        assert_eq!(of(FailureKind::NotFound, Origin::Service), FaultCode::Sender);
        assert_eq!(of(FailureKind::Internal, Origin::Service), FaultCode::Receiver);
        assert_eq!(of(FailureKind::Timeout, Origin::Service), FaultCode::Receiver);
    }

    #[test]
    fn the_detail_is_what_generated_descriptions_declare() {
        let problem = json!({"type": "urn:p", "title": "Bad Request", "status": 400, "detail": "a<b", "cid": "c",
            "faults": [{"pointer": "/a", "detail": "is required"}]});
        let service = crate::wsdl::ServiceDescription::new("S", "urn:s", "");
        let mut service = service;
        let none = crate::wsdl::OperationDescription {
            name: "A",
            documentation: "",
            input: None,
            output: None,
            one_way: false,
        };
        service.operation(&none).unwrap();
        let wsdl = service.compile().unwrap();
        let xml = write_fault_detail("urn:s", &problem);
        let document = Document::parse(xml.as_str(), &Limits::default()).unwrap();
        let id = wsdl.schemas.element("urn:s", FAULT_ELEMENT).unwrap();
        let value = wsdl.schemas.element_to_json(id, document.root(), Default::default()).unwrap();
        let mut expected = problem;
        expected.as_object_mut().unwrap().remove("title");
        assert_eq!(value, expected);
    }

    #[test]
    fn headers_tell_what_was_not_understood() {
        let names = [QName::new("urn:a", "a")];
        let header = |writer: &mut Writer| {
            write_not_understood(writer, &names);
            write_upgrade(writer);
            Ok::<(), ()>(())
        };
        let fault = SoapFault::not_understood(&names);
        let text = write_envelope(Version::V12, header, |writer| {
            fault.write(Version::V12, writer);
            Ok(())
        })
        .unwrap();
        assert!(text.contains("header blocks not understood: {urn:a}a"), "{text}");
        let document = Document::parse(text.as_str(), &Limits::default()).unwrap();
        let envelope = Envelope::read(&document).unwrap();
        let block = envelope.header(Version::V12.namespace(), "NotUnderstood").unwrap().element;
        assert_eq!(block.resolve(block.attribute("", "qname").unwrap()), Some(names[0].clone()));
        let upgrade = envelope.header(Version::V12.namespace(), "Upgrade").unwrap().element;
        assert_eq!(upgrade.elements().count(), 2);
    }
}
