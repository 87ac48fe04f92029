//! XML as it comes from outside: documents, messages with attachments, schemas and descriptions. The first byte
//! chooses.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use crosstie_xml::convert::{ReadOptions, WriteOptions};
use crosstie_xml::soap::{Addressing, Envelope, MultipartLimits, Received, Timestamp, UsernameToken, security};
use crosstie_xml::{Document, Limits, SchemaSet, Wsdl, Writer, decode, untyped};
use libfuzzer_sys::fuzz_target;

const SCHEMA: &str = r#"<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
<xs:element name="a"><xs:complexType><xs:sequence maxOccurs="3"><xs:element name="i" type="xs:int" nillable="true"/>
<xs:choice minOccurs="0"><xs:element name="d" type="xs:decimal"/><xs:element name="t" type="xs:dateTime"/>
<xs:element name="b" type="xs:base64Binary"/></xs:choice><xs:element ref="a" minOccurs="0" maxOccurs="unbounded"/>
<xs:element name="y" type="xs:anyType" minOccurs="0"/></xs:sequence><xs:attribute name="l"><xs:simpleType>
<xs:list itemType="xs:token"/></xs:simpleType></xs:attribute></xs:complexType></xs:element></xs:schema>"#;

static SET: LazyLock<SchemaSet> =
    LazyLock::new(|| SchemaSet::read("a", &mut |_| Ok(SCHEMA.as_bytes().to_vec())).expect("a schema"));

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    match choice % 4 {
        0 => document(body),
        1 => message(body),
        2 => drop(SchemaSet::read("a", &mut |_| Ok(body.to_vec()))),
        _ => drop(Wsdl::read("a", &mut |_| Ok(body.to_vec()))),
    }
});

fn document(body: &[u8]) {
    let Ok(text) = decode(body, None) else { return };
    let Ok(document) = Document::parse(text, &Limits::default()) else { return };
    let _ = untyped::to_json(document.root());
    // A document is its own part, and as well-formed as the whole.
    Document::parse(document.root().to_source(), &Limits::default()).expect("a part is a document");
    let id = SET.element("", "a").expect("declared");
    if let Ok(value) = SET.element_to_json(id, document.root(), ReadOptions::default()) {
        // What was read can be written, and is read as the same.
        let mut writer = Writer::new();
        SET.element_to_xml(id, &value, &mut writer, &mut WriteOptions::default()).expect("can be written");
        let written = writer.finish();
        let again = Document::parse(written.as_str(), &Limits::default()).expect("well-formed");
        let again = SET.element_to_json(id, again.root(), ReadOptions::default()).expect("valid");
        // A list where anything may stand comes back as what holds its items; only xsi:type makes one.
        assert!(again == value || document.source().contains("type"), "{value} {again}");
    }
}

fn message(body: &[u8]) {
    let body = Bytes::copy_from_slice(body);
    let limits = MultipartLimits::default();
    for content_type in ["multipart/related; boundary=x", "text/xml"] {
        let Ok(received) = Received::new(content_type, None, &body, &limits) else { continue };
        let Ok(document) = received.document(&Limits::default()) else { continue };
        let Ok(envelope) = Envelope::read(&document) else { continue };
        let _ = Addressing::read(&envelope, None);
        let _ = envelope.fault();
        if let Some(block) = envelope.header(security::WSSE, "Security") {
            let _ = Timestamp::read(block.element);
            let _ = UsernameToken::read(block.element);
        }
    }
}
