//! Envelopes: read, and written.

use std::fmt::Write as _;

use super::{SoapFault, Version};
use crate::chars::trim;
use crate::document::{Document, Element};
use crate::namespace::QName;
use crate::writer::Writer;

/// Roles that stand for whoever receives a message next.
const NEXT: [&str; 2] =
    ["http://schemas.xmlsoap.org/soap/actor/next", "http://www.w3.org/2003/05/soap-envelope/role/next"];
const ULTIMATE: &str = "http://www.w3.org/2003/05/soap-envelope/role/ultimateReceiver";
const NONE: &str = "http://www.w3.org/2003/05/soap-envelope/role/none";

/// Most header blocks of a message. Each is named in faults, and given to services as a document of its own with all
/// namespaces that are declared around it: without a limit a small message would become a thousand times as large.
const MAX_HEADER_BLOCKS: usize = 128;

/// A SOAP envelope.
#[derive(Debug)]
pub struct Envelope<'d> {
    /// The version of SOAP.
    pub version: Version,
    /// The header blocks in document order.
    pub headers: Vec<HeaderBlock<'d>>,
    /// The body.
    pub body: Element<'d>,
}

/// A header block.
#[derive(Debug, Clone, Copy)]
pub struct HeaderBlock<'d> {
    /// The block itself.
    pub element: Element<'d>,
    /// Whether whoever it is for has to understand it, or answer with a fault.
    pub must_understand: bool,
    /// Who it is for.
    pub target: Target<'d>,
}

/// Who a header block is for (SOAP 1.1, section 4.2.2; SOAP 1.2 part 1, section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'d> {
    /// Who the message is for in the end, which is the case when nothing is said.
    UltimateReceiver,
    /// Who receives it next.
    Next,
    /// Nobody.
    Nobody,
    /// Who acts in that role.
    Role(&'d str),
}

/// A document that is no envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Its root is something else.
    #[error("the document is no SOAP envelope: its root is {0}")]
    Other(QName),
    /// It is an envelope of a version of SOAP that is not understood.
    #[error("the version of SOAP in the namespace {0:?} is not supported: use 1.1 or 1.2")]
    Version(String),
    /// It breaks the rules of its version.
    #[error("the SOAP envelope {detail}")]
    Malformed {
        /// The version it is of.
        version: Version,
        /// What is wrong, as the rest of a sentence.
        detail: String,
    },
}

impl<'d> Envelope<'d> {
    /// Reads the envelope that `document` is.
    ///
    /// # Errors
    /// [`EnvelopeError`].
    pub fn read(document: &'d Document<'d>) -> Result<Self, EnvelopeError> {
        let root = document.root();
        if root.local() != "Envelope" {
            return Err(EnvelopeError::Other(root.qname()));
        }
        let namespace = root.namespace();
        let version =
            Version::of_namespace(namespace).ok_or_else(|| EnvelopeError::Version(namespace.to_owned()))?;
        let malformed = |detail: &str| EnvelopeError::Malformed { version, detail: detail.to_owned() };
        let mut children = root.elements().peekable();
        let header = children.next_if(|child| child.is(namespace, "Header"));
        let body = children.next().filter(|child| child.is(namespace, "Body"));
        let body = body.ok_or_else(|| malformed("has no body where it should be"))?;
        if children.any(|child| version == Version::V12 || child.namespace() == namespace) {
            return Err(malformed("holds something after its body"));
        }
        let mut headers = Vec::new();
        for element in header.into_iter().flat_map(|header| header.elements()) {
            if element.namespace().is_empty() {
                return Err(malformed("has a header block in no namespace"));
            }
            if headers.len() == MAX_HEADER_BLOCKS {
                return Err(malformed(&format!("has more than {MAX_HEADER_BLOCKS} header blocks")));
            }
            headers.push(block(element, version)?);
        }
        Ok(Self { version, headers, body })
    }

    /// The header block `local` of `namespace`, the first if there are several.
    #[must_use]
    pub fn header(&self, namespace: &str, local: &str) -> Option<&HeaderBlock<'d>> {
        self.headers.iter().find(|block| block.element.is(namespace, local))
    }

    /// The first element of the body; what an operation is found by.
    #[must_use]
    pub fn content(&self) -> Option<Element<'d>> {
        self.body.elements().next()
    }

    /// The fault that the body holds instead of an answer.
    #[must_use]
    pub fn fault(&self) -> Option<SoapFault<'d>> {
        let content = self.content()?;
        content.is(self.version.namespace(), "Fault").then(|| SoapFault::read(content, self.version))
    }

    /// The header blocks that have to be understood here and are not (SOAP 1.2 part 1, section 2.4): no
    /// message that has one may be processed.
    #[must_use]
    pub fn not_understood(&self, understood: impl Fn(&HeaderBlock<'d>) -> bool) -> Vec<QName> {
        let is_mine =
            |block: &&HeaderBlock<'d>| matches!(block.target, Target::UltimateReceiver | Target::Next);
        let blocks = self.headers.iter().filter(|block| block.must_understand).filter(is_mine);
        blocks.filter(|block| !understood(block)).map(|block| block.element.qname()).collect()
    }
}

fn block(element: Element<'_>, version: Version) -> Result<HeaderBlock<'_>, EnvelopeError> {
    let namespace = version.namespace();
    let must_understand = match element.attribute(namespace, "mustUnderstand").map(trim) {
        None | Some("0" | "false") => false,
        Some("1" | "true") => true,
        Some(_) => {
            let detail = "has a header block whose mustUnderstand is neither true nor false".to_owned();
            return Err(EnvelopeError::Malformed { version, detail });
        }
    };
    let role = match version {
        Version::V11 => element.attribute(namespace, "actor"),
        Version::V12 => element.attribute(namespace, "role"),
    };
    let target = match role.map(trim) {
        None | Some("" | ULTIMATE) => Target::UltimateReceiver,
        Some(NONE) => Target::Nobody,
        Some(role) if NEXT.contains(&role) => Target::Next,
        Some(role) => Target::Role(role),
    };
    Ok(HeaderBlock { element, must_understand, target })
}

/// Writes an envelope: `header` and `body` write what stands in its two parts. Without header blocks there is no
/// header.
///
/// # Errors
/// What `header` and `body` return.
pub fn write_envelope<E>(
    version: Version,
    header: impl FnOnce(&mut Writer) -> Result<(), E>,
    body: impl FnOnce(&mut Writer) -> Result<(), E>,
) -> Result<String, E> {
    let namespace = version.namespace();
    let mut writer = Writer::document();
    writer.prefer("soap", namespace);
    writer.start(namespace, "Envelope");
    let before = writer.mark();
    writer.start(namespace, "Header");
    let empty = writer.len();
    header(&mut writer)?;
    if writer.len() == empty {
        writer.rewind(before);
    } else {
        writer.end();
    }
    writer.start(namespace, "Body");
    body(&mut writer)?;
    writer.end();
    writer.end();
    Ok(writer.finish())
}

/// Marks the header block that was just begun as one that has to be understood.
pub fn must_understand(writer: &mut Writer, version: Version) {
    writer.attribute(version.namespace(), "mustUnderstand", "1");
}

/// `names` as a sentence lists them.
pub(super) fn listed(names: &[QName]) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        let _ = write!(text, "{}{name}", if index > 0 { ", " } else { "" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    fn document(text: &str) -> Document<'_> {
        Document::parse(text, &Limits::default()).unwrap()
    }

    const V11: &str = "<s:Envelope xmlns:s='http://schemas.xmlsoap.org/soap/envelope/'><s:Header>
        <a xmlns='urn:a' s:mustUnderstand='1'/><b xmlns='urn:a' s:mustUnderstand='0'/>
        <c xmlns='urn:a' s:mustUnderstand='1' s:actor='http://schemas.xmlsoap.org/soap/actor/next'/>
        <d xmlns='urn:a' s:mustUnderstand='1' s:actor='urn:other'/></s:Header><s:Body><x xmlns='urn:x'/></s:Body></s:Envelope>";

    #[test]
    fn headers_and_body_are_found() {
        let document = document(V11);
        let envelope = Envelope::read(&document).unwrap();
        assert_eq!(envelope.version, Version::V11);
        assert!(envelope.content().unwrap().is("urn:x", "x") && envelope.fault().is_none());
        let targets: Vec<_> = envelope.headers.iter().map(|block| block.target).collect();
        assert_eq!(
            targets,
            [Target::UltimateReceiver, Target::UltimateReceiver, Target::Next, Target::Role("urn:other")]
        );
        assert!(envelope.header("urn:a", "b").is_some_and(|block| !block.must_understand));
        let names = listed(&envelope.not_understood(|_| false));
        assert_eq!(names, "{urn:a}a, {urn:a}c");
        assert_eq!(listed(&envelope.not_understood(|block| block.element.local() == "a")), "{urn:a}c");
    }

    #[test]
    fn roles_of_the_newer_version_are_known() {
        let text = "<s:Envelope xmlns:s='http://www.w3.org/2003/05/soap-envelope'><s:Header>
            <a xmlns='urn:a' s:mustUnderstand='true' s:role='http://www.w3.org/2003/05/soap-envelope/role/none'/>
            <b xmlns='urn:a' s:mustUnderstand='true' s:role='http://www.w3.org/2003/05/soap-envelope/role/ultimateReceiver'/>
            </s:Header><s:Body/></s:Envelope>";
        let document = document(text);
        let envelope = Envelope::read(&document).unwrap();
        assert_eq!(listed(&envelope.not_understood(|_| false)), "{urn:a}b");
        assert!(envelope.content().is_none());
    }

    #[test]
    fn what_is_no_envelope_is_told_apart() {
        let refused = |text: &str| Envelope::read(&document(text)).unwrap_err();
        assert!(matches!(refused("<a/>"), EnvelopeError::Other(_)));
        assert!(matches!(refused("<Envelope/>"), EnvelopeError::Version(_)));
        assert!(matches!(
            refused("<Envelope xmlns='http://www.w3.org/2001/12/soap-envelope'/>"),
            EnvelopeError::Version(_)
        ));
        for inside in [
            "",
            "<s:Header/>",
            "<Body/>",
            "<s:Body/><s:Header/>",
            "<s:Body/><s:Body/>",
            "<s:Header><a/></s:Header><s:Body/>",
            "<s:Header><a xmlns='urn:a' s:mustUnderstand='yes'/></s:Header><s:Body/>",
        ] {
            for version in Version::ALL {
                let text = format!("<s:Envelope xmlns:s='{}'>{inside}</s:Envelope>", version.namespace());
                assert!(matches!(refused(&text), EnvelopeError::Malformed { .. }), "{text}");
            }
        }
    }

    #[test]
    fn a_message_has_only_so_many_header_blocks() {
        let text = |count: usize| {
            let blocks = "<a:b s:mustUnderstand='1'/>".repeat(count);
            format!(
                "<s:Envelope xmlns:s='{}' xmlns:a='urn:a'><s:Header>{blocks}</s:Header><s:Body/></s:Envelope>",
                Version::V11.namespace()
            )
        };
        let most = text(MAX_HEADER_BLOCKS);
        let document_of_most = document(&most);
        let envelope = Envelope::read(&document_of_most).unwrap();
        assert_eq!(envelope.not_understood(|_| false).len(), MAX_HEADER_BLOCKS);
        let more = text(MAX_HEADER_BLOCKS + 1);
        let refused = Envelope::read(&document(&more)).unwrap_err();
        assert!(refused.to_string().contains("more than 128 header blocks"), "{refused}");
    }

    #[test]
    fn envelopes_are_written_with_a_header_only_when_there_is_one() {
        let ok = |_: &mut Writer| Ok::<(), ()>(());
        let text = write_envelope(Version::V12, ok, |writer| {
            writer.leaf("urn:a", "a", "1");
            Ok(())
        });
        assert_eq!(
            text.unwrap().lines().last().unwrap(),
            "<soap:Envelope xmlns:soap=\"http://www.w3.org/2003/05/soap-envelope\"><soap:Body><ns1:a xmlns:ns1=\"urn:a\">1</ns1:a>\
             </soap:Body></soap:Envelope>"
        );
        let header = |writer: &mut Writer| {
            writer.start("urn:h", "h");
            must_understand(writer, Version::V11);
            writer.end();
            Ok::<(), ()>(())
        };
        let text = write_envelope(Version::V11, header, ok).unwrap();
        let document = document(&text);
        let envelope = Envelope::read(&document).unwrap();
        assert!(envelope.header("urn:h", "h").unwrap().must_understand);
        assert!(write_envelope(Version::V11, |_| Err(1), |_| Ok(())).is_err());
    }
}
