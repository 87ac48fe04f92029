//! WS-Addressing 1.0: where a message goes, what it is and what it answers.

use super::fault::{FaultCode, SoapFault};
use super::{Envelope, Version, must_understand};
use crate::chars::trim;
use crate::document::Element;
use crate::namespace::QName;
use crate::writer::Writer;

/// The namespace of WS-Addressing 1.0.
pub const NAMESPACE: &str = "http://www.w3.org/2005/08/addressing";
/// The address of whoever is at the other end of the connection.
pub const ANONYMOUS: &str = "http://www.w3.org/2005/08/addressing/anonymous";
/// The address of nobody: what is sent there is dropped.
pub const NONE: &str = "http://www.w3.org/2005/08/addressing/none";
/// The action of faults of WS-Addressing itself.
pub const FAULT_ACTION: &str = "http://www.w3.org/2005/08/addressing/fault";
/// Most reference parameters of an endpoint. Each is kept as a document of its own, with all namespaces that are
/// declared around it, and is a header block of the answer.
pub const MAX_PARAMETERS: usize = 32;
/// The action of faults of SOAP itself.
pub const SOAP_FAULT_ACTION: &str = "http://www.w3.org/2005/08/addressing/soap/fault";

/// The addressing headers of one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addressing {
    /// What the message means; required by the standard.
    pub action: String,
    /// Its own id, which answers refer to.
    pub message_id: Option<String>,
    /// Where it goes; anonymous when nothing is said.
    pub to: Option<String>,
    /// What it answers, with the kind of relationship where that is not an answer.
    pub relates_to: Vec<(String, Option<String>)>,
    /// Who gets the answer; anonymous when nothing is said.
    pub reply_to: Option<Endpoint>,
    /// Who gets a fault; who gets the answer when nothing is said.
    pub fault_to: Option<Endpoint>,
    /// Reference parameters of where it goes: whole header blocks, sent back as they came.
    pub parameters: Vec<String>,
}

/// An endpoint reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The address, a URI.
    pub address: String,
    /// Header blocks that messages to it carry, each a document of its own.
    pub parameters: Vec<String>,
}

/// Addressing headers that break the rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressingError {
    /// A header that may be there once is there twice.
    #[error("the addressing header {0} is there twice")]
    Cardinality(&'static str),
    /// A header has no value, or an endpoint has no address.
    #[error("the addressing header {0} has no value")]
    Empty(&'static str),
    /// An endpoint has too many reference parameters.
    #[error("the addressing header {0} has more than {MAX_PARAMETERS} reference parameters")]
    TooMany(&'static str),
    /// There are addressing headers but no action.
    #[error("the addressing header Action is missing")]
    NoAction,
    /// The `SOAPAction` says something else than the action.
    #[error("SOAPAction and the addressing header Action differ")]
    ActionMismatch,
}

impl Endpoint {
    /// The endpoint at `address`.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), parameters: Vec::new() }
    }

    /// Whether it is at the other end of the connection.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.address == ANONYMOUS
    }

    /// Whether nothing is to be sent to it.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.address == NONE
    }

    fn read(element: Element<'_>, name: &'static str) -> Result<Self, AddressingError> {
        let address = element.child(NAMESPACE, "Address").ok_or(AddressingError::Empty(name))?;
        let address = trim(&address.text()).to_owned();
        if address.is_empty() {
            return Err(AddressingError::Empty(name));
        }
        let parameters = element.child(NAMESPACE, "ReferenceParameters");
        let mut parameters = parameters.into_iter().flat_map(|parameters| parameters.elements());
        let kept = parameters.by_ref().take(MAX_PARAMETERS).map(|parameter| parameter.to_source()).collect();
        match parameters.next() {
            Some(_) => Err(AddressingError::TooMany(name)),
            None => Ok(Self { address, parameters: kept }),
        }
    }

    fn write(&self, local: &str, writer: &mut Writer) {
        writer.start(NAMESPACE, local);
        writer.leaf(NAMESPACE, "Address", &self.address);
        if !self.parameters.is_empty() {
            writer.start(NAMESPACE, "ReferenceParameters");
            self.parameters.iter().for_each(|parameter| writer.raw(parameter));
            writer.end();
        }
        writer.end();
    }
}

impl Addressing {
    /// The headers of `envelope`; `None` when it has none. `soap_action` is what the transport says, if
    /// anything.
    ///
    /// # Errors
    /// [`AddressingError`].
    pub fn read(envelope: &Envelope<'_>, soap_action: Option<&str>) -> Result<Option<Self>, AddressingError> {
        let mut found = Self::default();
        let mut action = None;
        let mut is_there = false;
        for block in envelope.headers.iter().map(|block| block.element) {
            if block.namespace() != NAMESPACE {
                continue;
            }
            is_there = true;
            let text = || trim(&block.text()).to_owned();
            match block.local() {
                "Action" => set(&mut action, text(), "Action")?,
                "MessageID" => set(&mut found.message_id, text(), "MessageID")?,
                "To" => set(&mut found.to, text(), "To")?,
                "ReplyTo" => set(&mut found.reply_to, Endpoint::read(block, "ReplyTo")?, "ReplyTo")?,
                "FaultTo" => set(&mut found.fault_to, Endpoint::read(block, "FaultTo")?, "FaultTo")?,
                "RelatesTo" => {
                    let kind = block.attribute("", "RelationshipType").map(|kind| trim(kind).to_owned());
                    found.relates_to.push((text(), kind));
                }
                _ => {}
            }
        }
        if !is_there {
            return Ok(None);
        }
        found.action = action.filter(|action| !action.is_empty()).ok_or(AddressingError::NoAction)?;
        match soap_action {
            Some(said) if !said.is_empty() && said != found.action => Err(AddressingError::ActionMismatch),
            _ => Ok(Some(found)),
        }
    }

    /// The headers of the answer to this message (WS-Addressing Core, section 3.4).
    #[must_use]
    pub fn reply(&self, action: &str, message_id: &str) -> Self {
        Self::answer(self, self.reply_to.as_ref(), action, message_id)
    }

    /// The headers of a fault that answers this message.
    #[must_use]
    pub fn fault(&self, action: &str, message_id: &str) -> Self {
        Self::answer(self, self.fault_to.as_ref().or(self.reply_to.as_ref()), action, message_id)
    }

    fn answer(&self, to: Option<&Endpoint>, action: &str, message_id: &str) -> Self {
        Self {
            action: action.to_owned(),
            message_id: Some(message_id.to_owned()),
            to: to.map(|to| to.address.clone()),
            relates_to: self.message_id.iter().map(|id| (id.clone(), None)).collect(),
            parameters: to.map(|to| to.parameters.clone()).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Writes them as header blocks.
    pub fn write(&self, version: Version, writer: &mut Writer) {
        writer.prefer("wsa", NAMESPACE);
        writer.start(NAMESPACE, "Action");
        must_understand(writer, version);
        writer.text(&self.action);
        writer.end();
        for (name, value) in [("MessageID", &self.message_id), ("To", &self.to)] {
            if let Some(value) = value {
                writer.leaf(NAMESPACE, name, value);
            }
        }
        for (id, kind) in &self.relates_to {
            writer.start(NAMESPACE, "RelatesTo");
            if let Some(kind) = kind {
                writer.attribute("", "RelationshipType", kind);
            }
            writer.text(id);
            writer.end();
        }
        for (name, endpoint) in [("ReplyTo", &self.reply_to), ("FaultTo", &self.fault_to)] {
            if let Some(endpoint) = endpoint {
                endpoint.write(name, writer);
            }
        }
        self.parameters.iter().for_each(|parameter| writer.raw(&marked(parameter)));
    }
}

/// A reference parameter as a header block says that it is one (WS-Addressing SOAP Binding, section 3.3). The
/// prefix is one that nobody else uses.
fn marked(parameter: &str) -> String {
    let end = parameter
        .find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>'))
        .unwrap_or(parameter.len());
    let (name, rest) = parameter.split_at(end);
    format!("{name} xmlns:crosstie-wsa=\"{NAMESPACE}\" crosstie-wsa:IsReferenceParameter=\"true\"{rest}")
}

fn set<T>(slot: &mut Option<T>, value: T, name: &'static str) -> Result<(), AddressingError> {
    match slot.replace(value) {
        Some(_) => Err(AddressingError::Cardinality(name)),
        None => Ok(()),
    }
}

impl AddressingError {
    /// The fault that the standard has for it (SOAP Binding, section 6).
    #[must_use]
    pub fn fault(&self) -> SoapFault<'static> {
        let mut fault = SoapFault::new(FaultCode::Sender, self.to_string());
        let name = |local: &'static str| QName::new(NAMESPACE, local);
        let invalid = || name("InvalidAddressingHeader");
        fault.subcodes = match self {
            Self::Cardinality(_) => vec![invalid(), name("InvalidCardinality")],
            Self::Empty(_) => vec![invalid(), name("MissingAddressInEPR")],
            Self::TooMany(_) => vec![invalid(), name("InvalidEPR")],
            Self::NoAction => vec![name("MessageAddressingHeaderRequired")],
            Self::ActionMismatch => vec![invalid(), name("ActionMismatch")],
        };
        fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soap::write_envelope;
    use crate::{Document, Limits};

    fn read(headers: &str, soap_action: Option<&str>) -> Result<Option<Addressing>, AddressingError> {
        let text = format!(
            "<s:Envelope xmlns:s='http://www.w3.org/2003/05/soap-envelope' xmlns:a='{NAMESPACE}'><s:Header>{headers}</s:Header>\
             <s:Body/></s:Envelope>"
        );
        let document = Document::parse(text, &Limits::default()).unwrap();
        Addressing::read(&Envelope::read(&document).unwrap(), soap_action)
    }

    const REQUEST: &str = "<a:Action s:mustUnderstand='1'> urn:do </a:Action><a:MessageID>urn:1</a:MessageID><a:To>http://x</a:To>
        <a:RelatesTo>urn:0</a:RelatesTo><a:RelatesTo RelationshipType='urn:k'>urn:00</a:RelatesTo>
        <a:ReplyTo><a:Address>http://www.w3.org/2005/08/addressing/anonymous</a:Address>
        <a:ReferenceParameters><k:key xmlns:k='urn:k'>5</k:key></a:ReferenceParameters></a:ReplyTo><a:From/><other xmlns='urn:o'/>";

    #[test]
    fn headers_are_read_and_answered() {
        let request = read(REQUEST, Some("urn:do")).unwrap().unwrap();
        assert_eq!((request.action.as_str(), request.message_id.as_deref()), ("urn:do", Some("urn:1")));
        assert_eq!(
            request.relates_to,
            [("urn:0".to_owned(), None), ("urn:00".to_owned(), Some("urn:k".to_owned()))]
        );
        assert!(request.reply_to.as_ref().unwrap().is_anonymous());
        let reply = request.reply("urn:done", "urn:2");
        assert_eq!(reply.to.as_deref(), Some(ANONYMOUS));
        assert_eq!(reply.relates_to, [("urn:1".to_owned(), None)]);
        let text = write_envelope(
            Version::V12,
            |writer| {
                reply.write(Version::V12, writer);
                Ok::<(), ()>(())
            },
            |_| Ok(()),
        )
        .unwrap();
        let document = Document::parse(text.as_str(), &Limits::default()).unwrap();
        let envelope = Envelope::read(&document).unwrap();
        let again = Addressing::read(&envelope, None).unwrap().unwrap();
        assert_eq!(again, Addressing { parameters: Vec::new(), ..reply });
        let key = envelope.header("urn:k", "key").unwrap().element;
        assert_eq!(
            (key.text().as_ref(), key.attribute(NAMESPACE, "IsReferenceParameter")),
            ("5", Some("true"))
        );
        assert!(envelope.header(NAMESPACE, "Action").unwrap().must_understand);
        assert!(read("<other xmlns='urn:o'/>", None).unwrap().is_none());
        let fault = Addressing { fault_to: Some(Endpoint::new(NONE)), ..request };
        assert!(Endpoint::new(fault.fault(FAULT_ACTION, "urn:3").to.unwrap()).is_none());
    }

    #[test]
    fn a_written_endpoint_is_read_again() {
        let request = read(REQUEST, None).unwrap().unwrap();
        let text = write_envelope(
            Version::V11,
            |writer| {
                request.write(Version::V11, writer);
                Ok::<(), ()>(())
            },
            |_| Ok(()),
        )
        .unwrap();
        let document = Document::parse(text.as_str(), &Limits::default()).unwrap();
        let again = Addressing::read(&Envelope::read(&document).unwrap(), None).unwrap().unwrap();
        assert_eq!(again.reply_to.unwrap().address, ANONYMOUS);
        assert_eq!(again.relates_to, request.relates_to);
    }

    #[test]
    fn headers_that_break_the_rules_have_their_own_faults() {
        for (headers, action, error, subcode) in [
            ("<a:To>x</a:To>", None, AddressingError::NoAction, "MessageAddressingHeaderRequired"),
            ("<a:Action> </a:Action>", None, AddressingError::NoAction, "MessageAddressingHeaderRequired"),
            (
                "<a:Action>a</a:Action><a:Action>a</a:Action>",
                None,
                AddressingError::Cardinality("Action"),
                "InvalidCardinality",
            ),
            ("<a:Action>a</a:Action>", Some("b"), AddressingError::ActionMismatch, "ActionMismatch"),
            (
                "<a:Action>a</a:Action><a:ReplyTo/>",
                None,
                AddressingError::Empty("ReplyTo"),
                "MissingAddressInEPR",
            ),
        ] {
            let found = read(headers, action).unwrap_err();
            assert_eq!(found, error);
            assert_eq!(&*found.fault().subcodes.last().unwrap().local, subcode);
        }
        assert!(read("<a:Action>a</a:Action>", Some("")).is_ok());
        let with = |count: usize| {
            let parameters = "<p/>".repeat(count);
            read(
                &format!(
                    "<a:Action>a</a:Action><a:ReplyTo><a:Address>{ANONYMOUS}</a:Address><a:ReferenceParameters>{parameters}\
                     </a:ReferenceParameters></a:ReplyTo>"
                ),
                None,
            )
        };
        let most = with(MAX_PARAMETERS).unwrap().unwrap();
        assert_eq!(most.reply_to.unwrap().parameters.len(), MAX_PARAMETERS);
        assert_eq!(with(MAX_PARAMETERS + 1).unwrap_err(), AddressingError::TooMany("ReplyTo"));
    }
}
