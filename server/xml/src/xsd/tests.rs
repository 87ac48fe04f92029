use std::collections::HashMap;

use serde_json::json;

use crate::convert::tests::{read, schema};
use crate::{DescriptionError, SchemaSet};

const XS: &str = "xmlns:xs='http://www.w3.org/2001/XMLSchema'";

fn documents(parts: &[(&str, &str)]) -> Result<SchemaSet, DescriptionError> {
    let parts: HashMap<_, _> = parts.iter().map(|(name, text)| (*name, text.replace("$XS", XS))).collect();
    SchemaSet::read("main.xsd", &mut |location| {
        parts.get(location).map(|text| text.clone().into_bytes()).ok_or_else(|| "no such document".to_owned())
    })
}

fn refused(body: &str) -> String {
    let text = format!("<xs:schema $XS xmlns:t='urn:t' targetNamespace='urn:t'>{body}</xs:schema>");
    documents(&[("main.xsd", &text)]).expect_err(body).to_string()
}

fn value_of(facets: &str, base: &str, text: &str) -> Result<serde_json::Value, String> {
    let body = format!(
        "<xs:element name='v'><xs:simpleType><xs:restriction base='{base}'>{facets}</xs:restriction></xs:simpleType></xs:element>"
    );
    let set = schema(&body);
    assert!(set.warnings().is_empty(), "{:?}", set.warnings());
    read(&set, &format!("<v xmlns='urn:t'>{text}</v>")).map_err(|mut faults| faults.remove(0).detail)
}

#[test]
fn each_facet_is_obeyed() {
    for (facets, base, good, bad, detail) in [
        ("<xs:minLength value='2'/>", "xs:string", "éé", "é", "shorter than 2 characters"),
        ("<xs:maxLength value='1'/>", "xs:string", "é", "ab", "longer than 1 character"),
        ("<xs:length value='2'/>", "xs:hexBinary", "0aFF", "0a", "shorter than 2 bytes"),
        ("<xs:maxLength value='2'/>", "xs:base64Binary", "AA E=", "AAEC", "longer than 2 bytes"),
        ("<xs:length value='2'/>", "xs:NMTOKENS", "a b", "a", "shorter than 2 items"),
        ("<xs:pattern value='[A-Z]+'/><xs:pattern value='\\d'/>", "xs:token", "5", "a", "pattern"),
        (
            "<xs:enumeration value='1.0'/><xs:enumeration value='2'/>",
            "xs:decimal",
            "1",
            "3",
            "one of \"1.0\", \"2\"",
        ),
        ("<xs:minInclusive value='-5'/>", "xs:int", "-5", "-6", "less than -5"),
        ("<xs:minExclusive value='0'/>", "xs:decimal", "0.00000000000000000001", "0.0", "not greater than 0"),
        ("<xs:maxExclusive value='1e3'/>", "xs:double", "999", "1000", "not less than 1e3"),
        (
            "<xs:maxInclusive value='2024-01-01'/>",
            "xs:date",
            "2024-01-01",
            "2024-01-02",
            "greater than 2024-01-01",
        ),
        ("<xs:totalDigits value='3'/>", "xs:decimal", "12.30", "12.34", "more than 3 digits"),
        ("<xs:fractionDigits value='1'/>", "xs:decimal", "1.50", "1.55", "more than 1 digits after"),
    ] {
        assert!(value_of(facets, base, good).is_ok(), "{facets} {good}: {:?}", value_of(facets, base, good));
        let told = value_of(facets, base, bad).unwrap_err();
        assert!(told.contains(detail), "{facets} {bad}: {told}");
    }
    assert_eq!(value_of("<xs:whiteSpace value='collapse'/>", "xs:string", " a  b\n").unwrap(), json!("a b"));
    assert_eq!(value_of("", "xs:normalizedString", " a\tb").unwrap(), json!(" a b"));
}

#[test]
fn facets_of_bases_stay_in_force() {
    let set = schema(
        "<xs:simpleType name='A'><xs:restriction base='xs:int'><xs:minInclusive value='1'/><xs:pattern value='\\d+'/></xs:restriction></xs:simpleType>
        <xs:simpleType name='B'><xs:restriction base='t:A'><xs:maxInclusive value='9'/><xs:minInclusive value='0'/></xs:restriction></xs:simpleType>
        <xs:simpleType name='U'><xs:union memberTypes='t:B xs:boolean'><xs:simpleType><xs:restriction base='xs:token'>
        <xs:enumeration value='none'/></xs:restriction></xs:simpleType></xs:union></xs:simpleType>
        <xs:simpleType name='L'><xs:list itemType='t:U'/></xs:simpleType>
        <xs:element name='b' type='t:B'/><xs:element name='l'><xs:simpleType><xs:restriction base='t:L'><xs:maxLength value='4'/>
        </xs:restriction></xs:simpleType></xs:element>",
    );
    let outcome = |text: &str| read(&set, &format!("<b xmlns='urn:t'>{text}</b>")).is_ok();
    assert!(outcome("9") && !outcome("10") && !outcome("0") && !outcome("+5"));
    assert_eq!(read(&set, "<l xmlns='urn:t'> 5 true  none 12 </l>").unwrap_err().len(), 1);
    assert_eq!(read(&set, "<l xmlns='urn:t'> 5 true  none 1 </l>").unwrap(), json!([5, true, "none", 1]));
    assert!(read(&set, "<l xmlns='urn:t'>1 1 1 1 1</l>").is_err());
}

#[test]
fn types_are_derived_and_may_hold_themselves() {
    let set = schema(
        "<xs:complexType name='C'><xs:complexContent><xs:restriction base='t:B'><xs:sequence><xs:element name='a' type='xs:int'/>
        </xs:sequence><xs:attribute name='x' use='prohibited'/><xs:attribute name='y' use='required'/></xs:restriction></xs:complexContent></xs:complexType>
        <xs:complexType name='B'><xs:complexContent><xs:extension base='t:A'><xs:choice><xs:element name='b' type='t:B' minOccurs='0'/></xs:choice>
        <xs:attributeGroup ref='t:G'/></xs:extension></xs:complexContent></xs:complexType>
        <xs:attributeGroup name='G'><xs:attribute name='y' type='xs:int'/><xs:attribute ref='xml:lang'/></xs:attributeGroup>
        <xs:complexType name='A'><xs:sequence><xs:element name='a' type='xs:int'/></xs:sequence><xs:attribute name='x'/></xs:complexType>
        <xs:import namespace='http://www.w3.org/XML/1998/namespace'/>
        <xs:element name='b' type='t:B'/><xs:element name='c' type='t:C'/>
        <xs:complexType name='S'><xs:simpleContent><xs:restriction base='t:T'><xs:maxInclusive value='5'/></xs:restriction></xs:simpleContent></xs:complexType>
        <xs:complexType name='T'><xs:simpleContent><xs:extension base='xs:int'><xs:attribute name='x'/></xs:extension></xs:simpleContent></xs:complexType>
        <xs:element name='s' type='t:S'/>",
    );
    assert_eq!(
        read(&set, "<b xmlns='urn:t' x='1' y='2' xml:lang='en'><a>1</a><b><a>2</a></b></b>").unwrap(),
        json!({"@x": "1", "@y": 2, "@lang": "en", "a": 1, "b": {"a": 2}})
    );
    assert_eq!(read(&set, "<c xmlns='urn:t' y='2'><a>1</a></c>").unwrap(), json!({"@y": "2", "a": 1}));
    assert_eq!(read(&set, "<c xmlns='urn:t' x='1'><a>1</a></c>").unwrap_err().len(), 2);
    assert_eq!(read(&set, "<s xmlns='urn:t' x='1'>5</s>").unwrap(), json!({"@x": "1", "#text": 5}));
    assert!(read(&set, "<s xmlns='urn:t'>6</s>").is_err());
}

#[test]
fn schemas_span_documents() {
    let set = documents(&[
        (
            "main.xsd",
            "<xs:schema $XS xmlns:a='urn:a' xmlns:b='urn:b' targetNamespace='urn:a' elementFormDefault='qualified'>
            <xs:include schemaLocation='part/common.xsd'/><xs:import namespace='urn:b' schemaLocation='b.xsd'/>
            <xs:import schemaLocation='bare.xsd'/>
            <xs:element name='r'><xs:complexType><xs:sequence><xs:element name='c' type='a:Code'/><xs:element ref='b:e'/>
            <xs:element ref='bare'/></xs:sequence></xs:complexType></xs:element></xs:schema>",
        ),
        (
            // Without a namespace of its own: it takes that of who includes it.
            "part/common.xsd",
            "<xs:schema $XS><xs:include schemaLocation='more.xsd'/><xs:simpleType name='Code'><xs:restriction base='Short'>
            <xs:minLength value='1'/></xs:restriction></xs:simpleType></xs:schema>",
        ),
        (
            "part/more.xsd",
            "<xs:schema $XS><xs:include schemaLocation='common.xsd'/><xs:simpleType name='Short'><xs:restriction base='xs:string'>
            <xs:maxLength value='3'/></xs:restriction></xs:simpleType></xs:schema>",
        ),
        (
            "b.xsd",
            "<xs:schema $XS xmlns='urn:b' targetNamespace='urn:b'><xs:include schemaLocation='part/more.xsd'/>
            <xs:import namespace='urn:a' schemaLocation='main.xsd'/>
            <xs:element name='e'><xs:complexType><xs:sequence><xs:element name='s' type='Short'/></xs:sequence></xs:complexType></xs:element></xs:schema>",
        ),
        ("bare.xsd", "<xs:schema $XS><xs:element name='bare' type='xs:int'/></xs:schema>"),
    ])
    .unwrap();
    let xml = "<r xmlns='urn:a'><c>abc</c><e xmlns='urn:b'><s xmlns=''>x</s></e><bare xmlns=''>1</bare></r>";
    assert_eq!(read(&set, xml).unwrap(), json!({"c": "abc", "e": {"s": "x"}, "bare": 1}));
    assert!(read(&set, &xml.replace("abc", "abcd")).is_err());
    assert!(set.type_named("urn:b", "Short").is_some() && set.type_named("", "Short").is_none());
}

#[test]
fn what_cannot_be_obeyed_is_told() {
    let set = schema(
        "<xs:import namespace='urn:far'/><xs:element name='e'><xs:complexType><xs:sequence xmlns:f='urn:far'><xs:element name='x' type='f:T'/>
        <xs:element ref='f:y' minOccurs='0'/></xs:sequence></xs:complexType></xs:element>
        <xs:simpleType name='P'><xs:restriction base='xs:string'><xs:pattern value='(?i)a'/></xs:restriction></xs:simpleType>",
    );
    assert_eq!(set.warnings().len(), 3, "{:?}", set.warnings());
    let xml = "<e xmlns='urn:t'><x><any>1</any></x><y xmlns='urn:far'>2</y></e>";
    assert_eq!(read(&set, xml).unwrap(), json!({"{urn:far}y": "2", "x": {"any": "1"}}));
}

#[test]
fn schemas_that_break_the_rules_are_refused_with_their_place() {
    for (body, told) in [
        ("<xs:element name='a' type='t:None'/>", "main.xsd, line 1, column"),
        ("<xs:element name='a' type='xs:None'/>", "is not defined"),
        ("<xs:element name='a' type='u:None'/>", "is not declared"),
        ("<xs:element/>", "needs a name"),
        ("<xs:redefine schemaLocation='x'/>", "xs:redefine is not supported"),
        ("<xs:element name='a'/><xs:element name='a' type='xs:int'/>", "defined twice"),
        ("<xs:complexType name='A'><xs:complexContent><xs:extension base='t:A'/></xs:complexContent></xs:complexType>", "derived from itself"),
        ("<xs:simpleType name='A'><xs:union memberTypes='t:A'/></xs:simpleType>", "derived from itself"),
        ("<xs:simpleType name='A'/>", "is a restriction, a list or a union"),
        ("<xs:simpleType name='A'><xs:restriction base='xs:int'><xs:minInclusive value='x'/></xs:restriction></xs:simpleType>", "no value of the type"),
        ("<xs:simpleType name='A'><xs:restriction base='xs:int'><xs:maxLength value='-1'/></xs:restriction></xs:simpleType>", "is no count"),
        ("<xs:group name='G'><xs:sequence><xs:group ref='t:G'/></xs:sequence></xs:group><xs:complexType name='A'><xs:group ref='t:G'/></xs:complexType>", "holds itself"),
        ("<xs:complexType name='A'><xs:sequence><xs:element ref='t:none'/></xs:sequence></xs:complexType>", "is not defined"),
        ("<xs:complexType name='A'><xs:sequence><xs:element name='e' minOccurs='2' maxOccurs='1'/></xs:sequence></xs:complexType>", "less than minOccurs"),
        ("<xs:complexType name='A'><xs:sequence><xs:attribute name='e'/></xs:sequence></xs:complexType>", "among elements"),
        ("<xs:complexType name='A'><xs:attribute ref='t:none'/></xs:complexType>", "is not defined"),
        ("<xs:complexType name='A'><xs:simpleContent><xs:extension base='t:B'/></xs:simpleContent></xs:complexType>
          <xs:complexType name='B'><xs:sequence/></xs:complexType>", "holds elements"),
    ] {
        let error = refused(body);
        assert!(error.contains(told), "{body}: {error}");
    }
    let missing =
        documents(&[("main.xsd", "<xs:schema $XS><xs:include schemaLocation='gone.xsd'/></xs:schema>")]);
    assert_eq!(missing.unwrap_err().to_string(), "gone.xsd: no such document");
}

#[test]
fn a_schema_that_doubles_without_end_is_refused() {
    let mut body = String::from(
        "<xs:group name='g0'><xs:sequence><xs:element name='e' type='xs:int'/></xs:sequence></xs:group>",
    );
    for n in 1..40 {
        let inner = format!("<xs:group ref='t:g{}'/>", n - 1).repeat(2);
        body += &format!("<xs:group name='g{n}'><xs:sequence>{inner}</xs:sequence></xs:group>");
    }
    body += "<xs:complexType name='A'><xs:group ref='t:g39'/></xs:complexType>";
    assert!(refused(&body).contains("more than"));
    let chain: String = (1..200)
        .map(|n| format!("<xs:simpleType name='s{n}'><xs:restriction base='t:s{}'/></xs:simpleType>", n - 1))
        .collect();
    let chain = format!("{chain}<xs:simpleType name='s0'><xs:restriction base='xs:int'/></xs:simpleType>");
    assert!(refused(&chain).contains("derivations"));
}
