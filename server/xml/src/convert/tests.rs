use crosstie_model::Fault;
use serde_json::{Value, json};

use super::{Attach, ReadOptions, Scalars, UnknownMembers, WriteOptions, Zoneless};
use crate::{Attachment, Document, Limits, SchemaSet, Writer};

/// A schema of the namespace `urn:t`, whose elements are qualified.
pub(crate) fn schema(body: &str) -> SchemaSet {
    schema_with("elementFormDefault='qualified'", body)
}

fn schema_with(attributes: &str, body: &str) -> SchemaSet {
    let text = format!(
        "<xs:schema xmlns:xs='http://www.w3.org/2001/XMLSchema' xmlns:t='urn:t' targetNamespace='urn:t' \
         xmlns:json='urn:crosstie:json' {attributes}>{body}</xs:schema>"
    );
    SchemaSet::read("t.xsd", &mut |_| Ok(text.clone().into_bytes())).unwrap()
}

pub(crate) fn read_with(set: &SchemaSet, xml: &str, options: ReadOptions<'_>) -> Result<Value, Vec<Fault>> {
    let document = Document::parse(xml, &Limits::default()).unwrap();
    let root = document.root();
    let id = set.element(root.namespace(), root.local()).unwrap();
    set.element_to_json(id, root, options)
}

pub(crate) fn read(set: &SchemaSet, xml: &str) -> Result<Value, Vec<Fault>> {
    read_with(set, xml, ReadOptions::default())
}

pub(crate) fn write(set: &SchemaSet, local: &str, value: &Value) -> Result<String, Vec<Fault>> {
    let mut writer = Writer::new();
    writer.prefer("t", "urn:t");
    let id = set.element("urn:t", local).unwrap();
    set.element_to_xml(id, value, &mut writer, &mut WriteOptions::default())?;
    Ok(writer.finish())
}

fn told(faults: Vec<Fault>) -> Vec<(String, String)> {
    faults.into_iter().map(|fault| (fault.pointer, fault.detail)).collect()
}

fn faults(outcome: Result<impl std::fmt::Debug, Vec<Fault>>) -> Vec<(String, String)> {
    told(outcome.unwrap_err())
}

fn pair(pointer: &str, detail: &str) -> (String, String) {
    (pointer.to_owned(), detail.to_owned())
}

const ORDER: &str = "
<xs:simpleType name='Size'><xs:restriction base='xs:token'><xs:enumeration value='S'/><xs:enumeration value='L'/>
</xs:restriction></xs:simpleType>
<xs:complexType name='Line'><xs:sequence><xs:element name='article' type='xs:string'/>
<xs:element name='count' type='xs:int'/><xs:element name='price' type='xs:decimal' minOccurs='0'/></xs:sequence>
<xs:attribute name='size' type='t:Size'/><xs:attribute name='unit' default='piece'/></xs:complexType>
<xs:complexType name='Gift'><xs:complexContent><xs:extension base='t:Line'><xs:sequence>
<xs:element name='card' type='xs:string' nillable='true'/></xs:sequence></xs:extension></xs:complexContent></xs:complexType>
<xs:element name='order'><xs:complexType><xs:sequence><xs:element name='id' type='xs:unsignedLong'/>
<xs:element name='line' type='t:Line' maxOccurs='unbounded'/><xs:element name='paid' type='xs:boolean'/>
<xs:element name='wanted' type='xs:date' minOccurs='0' nillable='true'/>
<xs:element name='tags' minOccurs='0'><xs:simpleType><xs:list itemType='xs:int'/></xs:simpleType></xs:element>
</xs:sequence></xs:complexType></xs:element>";

#[test]
fn an_element_becomes_what_its_type_says_whatever_its_prefixes() {
    let set = schema(ORDER);
    let xml = "<o:order xmlns:o='urn:t'><id xmlns='urn:t'> 18446744073709551615 </id>
        <o:line size=' L '><o:article> a  b </o:article><o:count>+2</o:count><o:price>12.50</o:price></o:line>
        <q:line xmlns:q='urn:t' unit='kg'><q:article/><q:count>1</q:count></q:line>
        <o:paid>1</o:paid><o:wanted xmlns:i='http://www.w3.org/2001/XMLSchema-instance' i:nil='true'/>
        <o:tags>1 2
        3</o:tags></o:order>";
    let value = json!({
        "id": 18_446_744_073_709_551_615_u64,
        "line": [
            {"@size": "L", "@unit": "piece", "article": " a  b ", "count": 2, "price": "12.50"},
            {"@unit": "kg", "article": "", "count": 1}
        ],
        "paid": true, "wanted": null, "tags": [1, 2, 3]
    });
    assert_eq!(read(&set, xml).unwrap(), value);
    let written = write(&set, "order", &value).unwrap();
    assert_eq!(
        written,
        "<t:order xmlns:t=\"urn:t\"><t:id>18446744073709551615</t:id>\
         <t:line size=\"L\" unit=\"piece\"><t:article> a  b </t:article><t:count>2</t:count><t:price>12.50</t:price></t:line>\
         <t:line unit=\"kg\"><t:article/><t:count>1</t:count></t:line><t:paid>true</t:paid>\
         <t:wanted xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:nil=\"true\"/><t:tags>1 2 3</t:tags></t:order>"
    );
    assert_eq!(read(&set, &written).unwrap(), value);
}

#[test]
fn members_are_written_in_the_order_of_the_schema() {
    let set = schema(ORDER);
    let value = json!({"paid": false, "tags": 7, "line": {"count": "3", "article": 5}, "id": 1});
    let expected = "<t:order xmlns:t=\"urn:t\"><t:id>1</t:id><t:line><t:article>5</t:article><t:count>3</t:count>\
        </t:line><t:paid>false</t:paid><t:tags>7</t:tags></t:order>";
    assert_eq!(write(&set, "order", &value).unwrap(), expected);
}

#[test]
fn every_fault_of_a_document_is_told_with_its_place() {
    let set = schema(ORDER);
    let xml = "<order xmlns='urn:t' extra='1'><id>-1</id><line size='M'><count>x</count></line>
        <line><article>a<b/></article><count>99999999999</count><price>1e5</price><color/></line>
        text<paid>yes</paid><wanted>2023-02-29</wanted><tags>1 b</tags><tags/></order>";
    assert_eq!(
        faults(read(&set, xml)),
        [
            pair("/@extra", "is not known here"),
            pair("", "there is text where only elements may stand"),
            pair("/id", "the value is less than 0"),
            pair("/line/0/@size", "the value is not one of \"S\", \"L\""),
            pair("/line/0/article", "is required"),
            pair("/line/0/count", "the value is not an integer"),
            pair("/line/1/color", "is not known here"),
            pair("/line/1/article", "the element \"b\" stands where there is text only"),
            pair("/line/1/count", "the value is greater than 2147483647"),
            pair("/line/1/price", "the value is not a decimal number"),
            pair("/paid", "the value is not a boolean"),
            pair("/wanted", "the value is not a date"),
            pair("/tags", "the value is not an integer"),
            pair("/tags", "is not allowed here: it is out of order or there are too many"),
        ]
    );
    let wrong_namespace = "<order xmlns='urn:t'><id xmlns=''>1</id></order>";
    assert_eq!(
        faults(read(&set, wrong_namespace)),
        [
            pair("/id", "is not known here"),
            pair("/id", "is required"),
            pair("/line", "is required"),
            pair("/paid", "is required"),
        ]
    );
}

#[test]
fn every_fault_of_a_value_is_told_with_its_place() {
    let set = schema(ORDER);
    let value = json!({"id": 1.5, "line": [{"article": "\u{1}", "count": null, "@size": "M", "colour": 1}, 3],
        "paid": "yes", "wanted": "soon", "extra/": {}, "tags": ["a b"]});
    assert_eq!(
        faults(write(&set, "order", &value)),
        [
            pair("/id", "the value is not an integer"),
            pair("/line/0/@size", "the value is not one of \"S\", \"L\""),
            pair("/line/0/article", "the value holds a character that XML cannot hold"),
            pair("/line/0/count", "is required"),
            pair("/line/0/colour", "is not known here"),
            pair("/line/1", "the value is not an object"),
            pair("/paid", "the value is not a boolean"),
            pair("/wanted", "the value is not a date"),
            pair("/tags", "the value is not an integer"),
            pair("/extra~1", "is not known here"),
        ]
    );
    assert_eq!(faults(write(&set, "order", &json!([]))), [pair("", "the value is not an object")]);
}

#[test]
fn members_that_nobody_knows_may_be_dropped() {
    let set = schema(ORDER);
    let value = json!({"id": 1, "line": [], "paid": true, "extra": 1});
    let mut writer = Writer::new();
    let mut options = WriteOptions { unknown: UnknownMembers::Drop, attach: None };
    let id = set.element("urn:t", "order").unwrap();
    let refused = set.element_to_xml(id, &value, &mut writer, &mut options).unwrap_err();
    assert_eq!(told(refused), [pair("/line", "is required")]);
    assert!(writer.is_empty(), "what was written is taken back");
}

#[test]
fn derived_types_name_themselves() {
    let set = schema(ORDER);
    let xml = "<order xmlns='urn:t' xmlns:i='http://www.w3.org/2001/XMLSchema-instance' xmlns:z='urn:t'><id>1</id>
        <line i:type='z:Gift'><article>a</article><count>1</count><card i:nil='1'/></line><paid>0</paid></order>";
    let value = json!({"id": 1, "line": [{"@unit": "piece", "article": "a", "count": 1, "card": null,
        "@xsi:type": "{urn:t}Gift"}], "paid": false});
    assert_eq!(read(&set, xml).unwrap(), value);
    let written = write(&set, "order", &value).unwrap();
    assert!(written.contains("xsi:type=\"t:Gift\""), "{written}");
    assert_eq!(read(&set, &written).unwrap(), value);
    let short = json!({"id": 1, "line": [{"article": "a", "count": 1, "card": "c", "@xsi:type": "Gift"}], "paid": false});
    assert!(write(&set, "order", &short).unwrap().contains("xsi:type=\"t:Gift\""));
    for wrong in ["z:Size", "z:Nothing", "q:Gift", "i:Gift"] {
        let xml = xml.replace("z:Gift", wrong);
        let (pointer, detail) = faults(read(&set, &xml)).remove(0);
        assert!(pointer == "/line/0" && detail.contains("xsi:type"), "{wrong}: {pointer} {detail}");
    }
    let wrong = json!({"id": 1, "line": [{"@xsi:type": "Size"}], "paid": true});
    assert_eq!(faults(write(&set, "order", &wrong))[0].0, "/line/0/@xsi:type");
}

#[test]
fn choices_groups_and_repetitions_are_matched() {
    let set = schema(
        "<xs:group name='G'><xs:sequence><xs:element name='x' type='xs:int'/><xs:element name='y' type='xs:int'/>
        </xs:sequence></xs:group>
        <xs:element name='c'><xs:complexType><xs:sequence>
          <xs:choice><xs:sequence><xs:element name='a' type='xs:int'/><xs:element name='n' type='xs:int' minOccurs='0'/></xs:sequence>
            <xs:sequence><xs:element name='b' type='xs:int'/><xs:element name='n' type='xs:int'/></xs:sequence></xs:choice>
          <xs:group ref='t:G' minOccurs='0' maxOccurs='unbounded'/>
          <xs:choice minOccurs='0' maxOccurs='3'><xs:element name='p' type='xs:int'/><xs:element name='q' type='xs:int'/></xs:choice>
        </xs:sequence></xs:complexType></xs:element>
        <xs:element name='all'><xs:complexType><xs:all><xs:element name='one' type='xs:int'/>
          <xs:element name='two' type='xs:int' minOccurs='0'/></xs:all></xs:complexType></xs:element>",
    );
    let both = |xml: &str, value: Value| {
        assert_eq!(read(&set, xml).unwrap(), value, "{xml}");
        assert_eq!(read(&set, &write(&set, "c", &value).unwrap()).unwrap(), value);
    };
    both("<c xmlns='urn:t'><a>1</a></c>", json!({"a": 1, "x": [], "y": []}));
    both(
        "<c xmlns='urn:t'><b>1</b><n>2</n><x>1</x><y>2</y><x>3</x><y>4</y><q>1</q><p>2</p><q>3</q></c>",
        json!({"b": 1, "n": 2, "x": [1, 3], "y": [2, 4], "p": [2], "q": [1, 3]}),
    );
    assert_eq!(
        faults(read(&set, "<c xmlns='urn:t'><b>1</b><x>1</x></c>")),
        [pair("/n", "is required"), pair("/y", "is required")]
    );
    assert_eq!(
        faults(read(&set, "<c xmlns='urn:t'><p>1</p></c>")),
        [pair("", "one of \"a\", \"b\" is required")]
    );
    assert_eq!(
        faults(write(&set, "c", &json!({"a": 1, "b": 1, "n": 1, "p": [1, 2], "q": [3, 4]}))),
        [pair("/b", "may not stand beside the others"), pair("/q", "there are more of it than may be")]
    );
    assert_eq!(
        read(&set, "<all xmlns='urn:t'><two>2</two><one>1</one></all>").unwrap(),
        json!({"two": 2, "one": 1})
    );
    assert_eq!(faults(read(&set, "<all xmlns='urn:t'><two>2</two></all>")), [pair("/one", "is required")]);
    assert!(read(&set, "<all xmlns='urn:t'><one>2</one><one>2</one></all>").is_err());
}

#[test]
fn text_may_have_attributes_and_stand_beside_elements() {
    let set = schema(
        "<xs:element name='m'><xs:complexType><xs:simpleContent><xs:extension base='xs:decimal'>
        <xs:attribute name='currency' use='required' type='xs:NMTOKEN'/></xs:extension></xs:simpleContent></xs:complexType></xs:element>
        <xs:element name='p'><xs:complexType mixed='true'><xs:sequence><xs:element name='b' minOccurs='0' type='xs:string'/>
        </xs:sequence></xs:complexType></xs:element>
        <xs:element name='e'><xs:complexType/></xs:element>",
    );
    let money = json!({"@currency": "EUR", "#text": "1.10"});
    assert_eq!(read(&set, "<m xmlns='urn:t' currency='EUR'>1.10</m>").unwrap(), money);
    assert_eq!(write(&set, "m", &money).unwrap(), "<t:m xmlns:t=\"urn:t\" currency=\"EUR\">1.10</t:m>");
    assert_eq!(faults(read(&set, "<m xmlns='urn:t'>x</m>")).len(), 2);
    assert_eq!(faults(write(&set, "m", &json!({"#text": 1, "@c": 2})))[0], pair("/@currency", "is required"));
    let mixed = json!({"#text": "a", "b": "c"});
    assert_eq!(read(&set, "<p xmlns='urn:t'>a <b>c</b></p>").unwrap(), mixed);
    assert_eq!(write(&set, "p", &mixed).unwrap(), "<t:p xmlns:t=\"urn:t\">a<t:b>c</t:b></t:p>");
    assert_eq!(write(&set, "e", &Value::Null).unwrap(), "<t:e xmlns:t=\"urn:t\"/>");
    assert_eq!(read(&set, "<e xmlns='urn:t'/>").unwrap(), json!({}));
    assert_eq!(faults(read(&set, "<e xmlns='urn:t'><f/></e>")), [pair("/f", "is not known here")]);
}

#[test]
fn what_is_not_qualified_is_in_no_namespace() {
    let set = schema_with(
        "attributeFormDefault='qualified'",
        "<xs:element name='a' type='xs:int'/><xs:element name='r'><xs:complexType><xs:sequence>
        <xs:element name='b' type='xs:int'/><xs:element name='c' type='xs:int' form='qualified'/><xs:element ref='t:a'/>
        </xs:sequence><xs:attribute name='d'/><xs:attribute name='e' form='unqualified'/></xs:complexType></xs:element>",
    );
    let value = json!({"@d": "1", "@e": "2", "b": 1, "c": 2, "a": 3});
    let written = write(&set, "r", &value).unwrap();
    assert_eq!(written, "<t:r xmlns:t=\"urn:t\" t:d=\"1\" e=\"2\"><b>1</b><t:c>2</t:c><t:a>3</t:a></t:r>");
    assert_eq!(read(&set, &written).unwrap(), value);
    assert!(read(&set, "<r xmlns='urn:t'><b>1</b><c>2</c><a>3</a></r>").is_err());
}

#[test]
fn values_keep_every_digit_and_byte() {
    let set = schema(
        "<xs:element name='v'><xs:complexType><xs:choice maxOccurs='unbounded'>
        <xs:element name='dec' type='xs:decimal'/><xs:element name='int' type='xs:integer'/><xs:element name='dbl' type='xs:double'/>
        <xs:element name='hex' type='xs:hexBinary'/><xs:element name='bin' type='xs:base64Binary'/><xs:element name='q' type='xs:QName'/>
        <xs:element name='at' type='xs:dateTime'/><xs:element name='time' type='xs:time'/><xs:element name='str' type='xs:string'/>
        </xs:choice></xs:complexType></xs:element>",
    );
    let cases = [
        (
            "dec",
            json!("123456789012345678901234567890.12345678901234567890"),
            "123456789012345678901234567890.12345678901234567890",
        ),
        ("dec", json!(1e-7), "0.0000001"),
        ("dec", json!("1.5E2"), "150"),
        ("int", json!("123456789012345678901234567890"), "123456789012345678901234567890"),
        ("int", json!(5.0), "5"),
        ("dbl", json!("INF"), "INF"),
        ("dbl", json!(0.1), "0.1"),
        ("hex", json!("00Ff"), "00Ff"),
        ("bin", json!("AAE="), "AAE="),
        ("at", json!("2024-02-29t10:00:00.5z"), "2024-02-29T10:00:00.5Z"),
        ("at", json!("2024-02-29 10:00+01:00"), "2024-02-29T10:00:00+01:00"),
        ("time", json!("12:00"), "12:00:00"),
        ("time", json!("12:00Z"), "12:00:00Z"),
        ("str", json!(" <&>\r\n\u{85}\t"), " &lt;&amp;&gt;&#13;\n\u{85}\t"),
    ];
    for (name, value, text) in cases {
        let written = write(&set, "v", &json!({name: value.clone()})).unwrap();
        assert_eq!(written, format!("<t:v xmlns:t=\"urn:t\"><t:{name}>{text}</t:{name}></t:v>"));
        let again = &read(&set, &written).unwrap()[name][0];
        let same = write(&set, "v", &json!({name: again})).unwrap();
        assert_eq!(same, written);
    }
    for (name, wrong) in [
        ("dec", json!("1e99999999")),
        ("dec", json!(true)),
        ("int", json!(1.5)),
        ("dbl", json!("inf")),
        ("hex", json!(12)),
        ("bin", json!("AAE")),
        ("at", json!("2024-02-30T00:00:00Z")),
        ("time", json!("1")),
        ("str", json!({})),
        ("q", json!("a:b:c")),
    ] {
        assert_eq!(faults(write(&set, "v", &json!({name: [wrong.clone()]}))).len(), 1, "{name} {wrong}");
    }
    let name = read(&set, "<v xmlns='urn:t' xmlns:p='urn:p'><q>p:a</q><q>b</q></v>").unwrap();
    assert_eq!(name, json!({"q": ["{urn:p}a", "{urn:t}b"]}));
    assert_eq!(read(&set, &write(&set, "v", &name).unwrap()).unwrap(), name);
    assert!(read(&set, "<v xmlns='urn:t'><q>p:a</q></v>").is_err());
}

#[test]
fn a_time_without_zone_is_what_the_reader_says() {
    let set = schema("<xs:element name='at' type='xs:dateTime'/>");
    let xml = "<at xmlns='urn:t'>2024-01-01T00:00:00</at>";
    assert_eq!(read(&set, xml).unwrap(), json!("2024-01-01T00:00:00"));
    let options = ReadOptions { zoneless: Zoneless::Utc, ..ReadOptions::default() };
    assert_eq!(read_with(&set, xml, options).unwrap(), json!("2024-01-01T00:00:00Z"));
}

#[test]
fn what_json_has_no_type_for_is_marked_when_asked_for() {
    let set = schema(
        "<xs:complexType name='V'><xs:sequence><xs:element name='dec' type='xs:decimal'/>
        <xs:element name='int' type='xs:integer' maxOccurs='2'/><xs:element name='dbl' type='xs:double' maxOccurs='2'/>
        <xs:element name='at' type='xs:dateTime'/><xs:element name='on' type='xs:date'/><xs:element name='time' type='xs:time'/>
        <xs:element name='bin' type='xs:base64Binary'/><xs:element name='hex' type='xs:hexBinary'/>
        <xs:element name='list'><xs:simpleType><xs:list itemType='xs:decimal'/></xs:simpleType></xs:element>
        </xs:sequence><xs:attribute name='d' type='xs:date'/></xs:complexType><xs:element name='v' type='t:V'/>",
    );
    let xml = "<v xmlns='urn:t' d='2024-01-02Z'><dec>1.50</dec><int>7</int><int>18446744073709551616</int><dbl>1.5</dbl>\
        <dbl>INF</dbl><at>2024-01-01T00:00:00Z</at><on>2024-01-01</on><time>10:00:00</time><bin>AA ==</bin><hex>00ff</hex>\
        <list>1 2.0</list></v>";
    let tagged = ReadOptions { scalars: Scalars::Tagged, ..ReadOptions::default() };
    assert_eq!(
        read_with(&set, xml, tagged).unwrap(),
        json!({"@d": {"#date": "2024-01-02Z"}, "dec": {"#decimal": "1.50"},
            "int": [7, {"#integer": "18446744073709551616"}], "dbl": [1.5, {"#double": "INF"}],
            "at": {"#dateTime": "2024-01-01T00:00:00Z"}, "on": {"#date": "2024-01-01"}, "time": {"#time": "10:00:00"},
            "bin": {"#base64Binary": "AA=="}, "hex": "00ff", "list": [{"#decimal": "1"}, {"#decimal": "2.0"}]})
    );
}

#[test]
fn an_integer_that_lost_digits_is_none() {
    let set = schema("<xs:element name='i' type='xs:integer'/>");
    let lost: Value = serde_json::from_str("18446744073709551616").unwrap();
    assert_eq!(faults(write(&set, "i", &lost)), [pair("", "the value is not an integer")]);
    let kept = write(&set, "i", &json!("18446744073709551616")).unwrap();
    assert_eq!(kept, "<t:i xmlns:t=\"urn:t\">18446744073709551616</t:i>");
    assert_eq!(write(&set, "i", &json!(5.0)).unwrap(), "<t:i xmlns:t=\"urn:t\">5</t:i>");
}

#[test]
fn defaults_and_fixed_values_count() {
    let set = schema(
        "<xs:element name='d'><xs:complexType><xs:sequence><xs:element name='a' type='xs:int' default='7'/>
        <xs:element name='b' type='xs:decimal' fixed='1.0'/></xs:sequence><xs:attribute name='v' fixed='2' type='xs:int'/>
        </xs:complexType></xs:element>",
    );
    assert_eq!(read(&set, "<d xmlns='urn:t'><a/><b/></d>").unwrap(), json!({"@v": 2, "a": 7, "b": "1.0"}));
    assert_eq!(faults(read(&set, "<d xmlns='urn:t' v='3'><a>1</a><b>1.5</b></d>")).len(), 2);
}

#[test]
fn anything_is_read_without_a_schema_and_scalars_by_their_type() {
    let set = schema(
        "<xs:complexType name='P'><xs:sequence><xs:element name='n' type='xs:int'/></xs:sequence></xs:complexType>
        <xs:element name='a' type='xs:anyType' nillable='true'/><xs:element name='i' type='xs:int'/>
        <xs:element name='w'><xs:complexType><xs:sequence><xs:element name='n' type='xs:int'/>
        <xs:any namespace='##other' processContents='lax' minOccurs='0' maxOccurs='unbounded'/></xs:sequence>
        <xs:anyAttribute namespace='##any' processContents='lax'/></xs:complexType></xs:element>
        <xs:element name='s'><xs:complexType><xs:sequence><xs:any/></xs:sequence></xs:complexType></xs:element>",
    );
    for value in [
        json!({"n": 1, "big": 18_446_744_073_709_551_615_u64, "f": 1.5, "t": "x", "b": true, "none": null, "deep": {"l": [1, "2"]}}),
        json!("x"),
        json!(""),
        json!(7),
        Value::Null,
        json!({"@xsi:type": "{urn:t}P", "n": 5}),
    ] {
        assert_eq!(read(&set, &write(&set, "a", &value).unwrap()).unwrap(), value);
    }
    assert_eq!(read(&set, "<a xmlns='urn:t' x='1'><n>1</n></a>").unwrap(), json!({"@x": "1", "n": "1"}));
    let unknown =
        "<a xmlns='urn:t' xmlns:i='http://www.w3.org/2001/XMLSchema-instance' i:type='i:Nothing'>1</a>";
    assert_eq!(read(&set, unknown).unwrap(), json!("1"));
    let wild = "<w xmlns='urn:t' xmlns:o='urn:o' o:x='1' y='2'><n>1</n><o:m>1</o:m><o:k/><o:m>2</o:m></w>";
    let value = json!({"@{urn:o}x": "1", "@y": "2", "{urn:o}m": ["1", "2"], "{urn:o}k": "", "n": 1});
    assert_eq!(read(&set, wild).unwrap(), value);
    assert_eq!(read(&set, &write(&set, "w", &value).unwrap()).unwrap(), value);
    assert_eq!(faults(read(&set, "<w xmlns='urn:t'><n>1</n><m/></w>"))[0].0, "/m");
    assert_eq!(faults(write(&set, "w", &json!({"n": 1, "m": 1})))[0].0, "/m");
    assert_eq!(read(&set, "<s xmlns='urn:t'><i>5</i></s>").unwrap(), json!({"{urn:t}i": 5}));
    assert_eq!(
        faults(read(&set, "<s xmlns='urn:t'><u>5</u></s>"))[0].1,
        "the element is not declared anywhere"
    );
}

#[test]
fn machinery_may_mark_elements() {
    let set = schema(ORDER);
    let xml = "<order xmlns='urn:t' xmlns:i='http://www.w3.org/2001/XMLSchema-instance' xml:lang='en'
        xmlns:u='http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd' u:Id='x'
        i:schemaLocation='urn:t t.xsd'><id xmlns:s='http://schemas.xmlsoap.org/soap/envelope/' s:encodingStyle=''>1</id>
        <line><article>a</article><count>1</count></line><paid>1</paid></order>";
    assert!(read(&set, xml).is_ok());
}

#[test]
fn binary_values_may_stand_beside_the_envelope() {
    let set = schema(
        "<xs:element name='f'><xs:complexType><xs:sequence><xs:element name='small' type='xs:base64Binary'/>
        <xs:element name='large' type='xs:base64Binary' maxOccurs='2'/></xs:sequence></xs:complexType></xs:element>",
    );
    let value = json!({"small": "AAE=", "large": ["AAECAwQF", "BQQDAgEA"]});
    let mut attach = Attach { from_bytes: 6, id: "m1".into(), attachments: Vec::new() };
    let mut writer = Writer::new();
    let id = set.element("urn:t", "f").unwrap();
    let mut options = WriteOptions { attach: Some(&mut attach), ..WriteOptions::default() };
    set.element_to_xml(id, &value, &mut writer, &mut options).unwrap();
    let xml = writer.finish();
    let ids: Vec<_> = attach.attachments.iter().map(|part| part.content_id.as_str()).collect();
    assert_eq!(ids, ["m1-1@crosstie", "m1-2@crosstie"]);
    assert_eq!(&attach.attachments[0].content[..], [0, 1, 2, 3, 4, 5]);
    assert!(xml.contains("href=\"cid:m1-1@crosstie\"") && xml.contains(">AAE=<"), "{xml}");
    let options = ReadOptions { attachments: &attach.attachments, ..ReadOptions::default() };
    assert_eq!(read_with(&set, &xml, options).unwrap(), value);
    let escaped = xml.replace("m1-1@crosstie", "m1%2D1%40crosstie");
    assert_eq!(read_with(&set, &escaped, options).unwrap(), value);
    assert_eq!(faults(read(&set, &xml)).len(), 2, "without the parts");
    let other =
        [Attachment { content_id: "m1-1@crosstie".into(), content_type: String::new(), content: "x".into() }];
    assert_eq!(faults(read_with(&set, &xml, ReadOptions { attachments: &other, ..options })).len(), 1);
}

#[test]
fn an_attachment_stands_for_no_more_values_than_there_is_reason_for() {
    let set = schema(
        "<xs:element name='f'><xs:complexType><xs:sequence><xs:element name='b' type='xs:base64Binary'
        maxOccurs='unbounded'/></xs:sequence></xs:complexType></xs:element><xs:element name='any'/>",
    );
    let include = "<x:Include xmlns:x='http://www.w3.org/2004/08/xop/include' href='cid:a'/>";
    let part = |bytes: usize| {
        [Attachment { content_id: "a".into(), content_type: String::new(), content: vec![0; bytes].into() }]
    };
    let read = |xml: &str, attachments: &[Attachment]| {
        read_with(&set, xml, ReadOptions { attachments, ..ReadOptions::default() })
    };
    let typed = |count: usize| format!("<f xmlns='urn:t'>{}</f>", format!("<b>{include}</b>").repeat(count));
    let small = read(&typed(1_000), &part(100)).unwrap();
    assert_eq!(small["b"].as_array().unwrap().len(), 1_000);
    let large = part(1024 * 1024);
    assert!(read(&typed(2), &large).is_ok());
    let told = faults(read(&typed(10_000), &large));
    assert_eq!(told[0], pair("/b/2", "the message refers to its attachments too often"));
    // Neither does a value that no schema describes and the message itself gives a type.
    let untyped = format!(
        "<any xmlns='urn:t' xmlns:i='http://www.w3.org/2001/XMLSchema-instance' \
         xmlns:s='http://www.w3.org/2001/XMLSchema'>{}</any>",
        format!("<b i:type='s:base64Binary'>{include}</b>").repeat(10_000)
    );
    assert!(faults(read(&untyped, &large))[0].1.contains("too often"));
}

#[test]
fn elements_may_stand_for_others() {
    let set = schema(
        "<xs:element name='shape' abstract='true' type='xs:string'/>
        <xs:element name='circle' substitutionGroup='t:shape'/><xs:element name='square' substitutionGroup='t:shape' type='xs:token'/>
        <xs:element name='tile' substitutionGroup='t:square' type='xs:token'/>
        <xs:element name='d'><xs:complexType><xs:sequence><xs:element ref='t:shape' maxOccurs='unbounded'/></xs:sequence></xs:complexType></xs:element>",
    );
    let value = read(&set, "<d xmlns='urn:t'><tile>1</tile><circle>2</circle><tile>3</tile></d>").unwrap();
    assert_eq!(value, json!({"circle": ["2"], "tile": ["1", "3"]}));
    assert!(read(&set, "<d xmlns='urn:t'><shape>1</shape></d>").is_err());
    assert!(write(&set, "d", &value).is_ok());
}

#[test]
fn depth_is_bounded_both_ways() {
    let set = schema(
        "<xs:complexType name='N'><xs:sequence><xs:element name='n' type='t:N' minOccurs='0'/></xs:sequence></xs:complexType>
        <xs:element name='n' type='t:N'/><xs:element name='a' type='xs:anyType'/>
        <xs:complexType name='Same' json:shape='value'><xs:sequence><xs:element name='s' type='t:Same'/></xs:sequence></xs:complexType>
        <xs:element name='s' type='t:Same'/>",
    );
    let mut value = json!({});
    for _ in 1..128 {
        value = json!({"n": value});
    }
    assert_eq!(read(&set, &write(&set, "n", &value).unwrap()).unwrap(), value);
    value = json!({"n": value});
    let told = faults(write(&set, "n", &value)).remove(0);
    assert_eq!((told.0.len(), told.1.as_str()), (256, "the value nests deeper than 128 elements"));
    assert_eq!(faults(write(&set, "s", &json!(1)))[0].1, "the value nests deeper than 128 elements");

    let limits = Limits { depth: 200, ..Limits::default() };
    for local in ["n", "a"] {
        let deep = format!("<{local} xmlns='urn:t'>{}{}</{local}>", "<n>".repeat(199), "</n>".repeat(199));
        let document = Document::parse(deep, &limits).unwrap();
        let id = set.element("urn:t", local).unwrap();
        assert!(set.element_to_json(id, document.root(), ReadOptions::default()).is_ok());
    }
}

#[test]
fn what_is_compiled_is_shared_between_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<SchemaSet>();
    is_shared::<crate::Wsdl>();
    is_shared::<Document<'_>>();
}
