use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Body, FAULT_ELEMENT, MessageStyle, OperationDescription, ServiceDescription, Wsdl};
use crate::convert::{ReadOptions, WriteOptions};
use crate::soap::Version;
use crate::{DescriptionError, Document, Limits, Writer};

fn operation<'a>(
    name: &'a str,
    input: Option<&'a Value>,
    output: Option<&'a Value>,
) -> OperationDescription<'a> {
    OperationDescription { name, documentation: "", input, output, one_way: false }
}

/// One of everything that can be declared.
fn matrix() -> Value {
    json!({
        "type": "object", "title": "Matrix",
        "properties": {
            "text": {"type": "string"}, "short": {"type": "string", "minLength": 1, "maxLength": 5},
            "whole": {"type": "integer"}, "small": {"type": "integer", "minimum": 0, "maximum": 100},
            "large": {"type": "integer", "minimum": 0, "maximum": u64::MAX},
            "ratio": {"type": "number"}, "flag": {"type": "boolean"},
            "price": {"type": ["string", "number"], "pattern": "^x$"},
            "day": {"type": "string", "format": "date"}, "moment": {"type": "string", "format": "date-time"},
            "hour": {"type": "string", "format": "time"}, "span": {"type": "string", "format": "duration"},
            "id": {"type": "string", "format": "uuid"}, "bytes": {"type": "string", "contentEncoding": "base64"},
            "kind": {"enum": ["retail", "trade"]}, "level": {"enum": [1, 2]}, "odd": {"enum": [1, "x", true]},
            "maybe": {"type": ["string", "null"]}, "optional": {"type": "string"},
            "nested": {"$ref": "#/$defs/Node"}, "tags": {"type": "array", "items": {"type": "string"}},
            "nodes": {"type": "array", "items": {"$ref": "#/$defs/Node"}, "default": []},
            "rows": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
            "gone": {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]},
            "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": false},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
            "any": {}, "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "one_of": {"anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}
        },
        "required": ["text", "whole", "flag", "maybe", "tags", "rows"],
        "$defs": {
            "Node": {"type": "object", "title": "Node", "properties": {"name": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}, "default": []}}, "required": ["name"]},
            "Cat": {"type": "object", "title": "Cat", "properties": {"lives": {"type": "integer"}}, "required": ["lives"]},
            "Dog": {"type": "object", "title": "Dog", "properties": {"name": {"type": "string"}}, "required": ["name"]}
        }
    })
}

fn value() -> Value {
    json!({
        "text": " a<b ", "short": "abc", "whole": -5, "small": 7, "large": u64::MAX, "ratio": 1.5, "flag": true,
        "price": "12.50", "day": "2024-02-29", "moment": "2024-02-29T12:00:00Z", "hour": "12:00:00Z",
        "span": "P1DT2H", "id": "4bf92f35-77b3-4da6-a3ce-929d0e0e4736", "bytes": "AAEC", "kind": "trade", "level": 2,
        "odd": true, "maybe": null, "nested": {"name": "n", "children": [{"name": "m", "children": []}]},
        "tags": ["a", ""], "nodes": [], "rows": [[1.0, 2.5], []], "gone": [1, 2], "pair": ["x", 1],
        "map": {"k 1": 1}, "any": {"x": [1, "2"]}, "either": 5, "one_of": {"name": "Rex"}
    })
}

fn described() -> ServiceDescription {
    let mut service = ServiceDescription::new("Everything", "urn:example:everything", "One of everything.");
    let matrix = matrix();
    let list = json!({"type": "array", "items": {"type": "string"}});
    let mut echo = operation("Echo", Some(&matrix), Some(&matrix));
    echo.documentation = "Answers what it is given.";
    service.operation(&echo).unwrap();
    service
        .operation(&operation(
            "Names",
            Some(&json!({"type": "object", "properties": {}, "additionalProperties": false})),
            Some(&list),
        ))
        .unwrap();
    service.operation(&operation("Count", Some(&list), Some(&json!({"type": "integer"})))).unwrap();
    service.operation(&operation("Loose", None, None)).unwrap();
    let notice = json!({"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]});
    service
        .operation(&OperationDescription { one_way: true, ..operation("Notify", Some(&notice), None) })
        .unwrap();
    service
}

/// The message that carries `value`, within the body it would have.
fn body(wsdl: &Wsdl, message: &super::Message, value: &Value) -> Result<String, Vec<crosstie_model::Fault>> {
    let mut writer = Writer::new();
    writer.start("", "Body");
    message.to_xml(&wsdl.schemas, value, &mut writer, &mut WriteOptions::default())?;
    Ok(writer.finish())
}

fn parsed(wsdl: &Wsdl, message: &super::Message, xml: &str) -> Result<Value, Vec<crosstie_model::Fault>> {
    let document = Document::parse(xml, &Limits::default()).unwrap();
    message.to_json(&wsdl.schemas, document.root(), ReadOptions::default())
}

#[test]
fn a_description_is_written_as_clients_expect_it() {
    insta::assert_snapshot!(described().document("https://example.org/soap").replace("><", ">\n<"));
}

#[test]
fn what_is_written_is_read_and_carries_messages() {
    let wsdl = described().compile().unwrap();
    assert!(wsdl.warnings.is_empty(), "{:?}", wsdl.warnings);
    let service = wsdl.service(None).unwrap();
    assert_eq!((&*service.name.local, service.documentation.as_str()), ("Everything", "One of everything."));
    let versions: Vec<_> = service.ports.iter().map(|port| port.binding.version).collect();
    assert_eq!(versions, Version::ALL);
    let binding = &service.port(None, Some(Version::V12)).unwrap().binding;
    let names: Vec<_> = binding.operations.iter().map(|operation| operation.name.as_str()).collect();
    assert_eq!(names, ["Echo", "Names", "Count", "Loose", "Notify"]);
    let echo = binding.operation("Echo").unwrap();
    assert_eq!(echo.soap_action, "urn:example:everything/Echo");
    assert_eq!(echo.input.action, echo.soap_action);
    assert_eq!(echo.output.as_ref().unwrap().action, "urn:example:everything/EchoResponse");
    assert_eq!(echo.documentation, "Answers what it is given.");
    assert_eq!(wsdl.schemas.declaration(echo.faults[0].element).name.local.as_ref(), FAULT_ELEMENT);
    for message in [&echo.input, echo.output.as_ref().unwrap()] {
        assert_eq!(parsed(&wsdl, message, &body(&wsdl, message, &value()).unwrap()).unwrap(), value());
    }
    let names = binding.operation("Names").unwrap();
    assert_eq!(
        parsed(&wsdl, &names.input, &body(&wsdl, &names.input, &json!({})).unwrap()).unwrap(),
        json!({})
    );
    let output = names.output.as_ref().unwrap();
    assert_eq!(parsed(&wsdl, output, &body(&wsdl, output, &json!(["a"])).unwrap()).unwrap(), json!(["a"]));
    assert!(binding.operation("Notify").unwrap().output.is_none());
    let found = binding.operation_of(&wsdl.schemas, Some(("urn:example:everything", "Count")), None);
    assert_eq!(found.unwrap().name, "Count");
    assert!(binding.operation_of(&wsdl.schemas, Some(("urn:other", "Count")), None).is_none());
}

#[test]
fn operations_whose_elements_clash_are_refused() {
    for style in [MessageStyle::Document, MessageStyle::Rpc] {
        let mut service = ServiceDescription::new("S", "urn:s", "").in_style(style);
        service.operation(&operation("A", None, None)).unwrap();
        for clash in ["A", "AResponse", FAULT_ELEMENT] {
            assert!(service.operation(&operation(clash, None, None)).is_err(), "{clash}");
        }
    }
}

/// What can be a part: everything but what may be null.
fn callable() -> Value {
    let mut matrix = matrix();
    for gone in ["maybe", "gone"] {
        matrix["properties"].as_object_mut().unwrap().remove(gone);
    }
    matrix["properties"]["with space"] = json!({"type": "string"});
    matrix
}

fn called() -> ServiceDescription {
    let mut service = ServiceDescription::new("Calls", "urn:example:calls", "").in_style(MessageStyle::Rpc);
    let (matrix, list) = (callable(), json!({"type": "array", "items": {"type": "string"}}));
    let (whole, map) =
        (json!({"type": "integer"}), json!({"type": "object", "additionalProperties": {"type": "integer"}}));
    for (name, input, output) in [
        ("Echo", Some(&matrix), Some(&matrix)),
        ("Count", Some(&list), Some(&whole)),
        ("Sums", Some(&map), Some(&map)),
        ("Loose", None, None),
    ] {
        service.operation(&operation(name, input, output)).unwrap();
    }
    service
        .operation(&OperationDescription { one_way: true, ..operation("Notify", Some(&list), None) })
        .unwrap();
    service
}

#[test]
fn a_description_of_calls_is_written_as_clients_expect_it() {
    insta::assert_snapshot!(called().document("https://example.org/soap").replace("><", ">\n<"));
}

#[test]
fn calls_carry_what_services_declare() {
    let wsdl = called().compile().unwrap();
    assert!(wsdl.warnings.is_empty(), "{:?}", wsdl.warnings);
    let binding = &wsdl.service(None).unwrap().port(None, Some(Version::V11)).unwrap().binding;
    let message = |name: &str, is_answer: bool| {
        let operation = binding.operation(name).unwrap();
        if is_answer { operation.output.as_ref().unwrap() } else { &operation.input }
    };
    let mut value = value();
    for gone in ["maybe", "gone"] {
        value.as_object_mut().unwrap().remove(gone);
    }
    value["with space"] = json!("x");
    value["optional"] = json!("o");
    for (name, is_answer, carried) in [
        ("Echo", false, value.clone()),
        ("Echo", true, value.clone()),
        ("Count", false, json!(["a", ""])),
        ("Count", true, json!(3)),
        ("Sums", false, json!({"a b": 1})),
        ("Sums", true, json!({})),
        ("Loose", false, json!({})),
        ("Loose", true, json!({"x": "1"})),
        ("Notify", false, json!([])),
    ] {
        let message = message(name, is_answer);
        let Body::Call { wrapper, .. } = &message.body else { panic!("{name}") };
        assert_eq!(&*wrapper.namespace, "urn:example:calls");
        assert_eq!(&*wrapper.local, if is_answer { format!("{name}Response") } else { name.to_owned() });
        let written = body(&wsdl, message, &carried).unwrap_or_else(|faults| panic!("{name} {faults:?}"));
        assert_eq!(parsed(&wsdl, message, &written).unwrap(), carried, "{written}");
    }
    let pointers = |faults: Vec<crosstie_model::Fault>| -> Vec<String> {
        faults.into_iter().map(|fault| fault.pointer).collect()
    };
    let mut lacking = value.clone();
    lacking.as_object_mut().unwrap().remove("with space");
    assert_eq!(pointers(body(&wsdl, message("Echo", true), &lacking).unwrap_err()), ["/with space"]);
    let written = body(&wsdl, message("Echo", false), &value).unwrap();
    let twice = written.replace("<whole>-5</whole>", "<whole>x</whole><flag>true</flag><other/>");
    let faults = pointers(parsed(&wsdl, message("Echo", false), &twice).unwrap_err());
    assert_eq!(faults, ["/whole", "/other", "/flag"]);
    assert!(body(&wsdl, message("Count", true), &json!(null)).is_err(), "a part is never nil");
}

#[test]
fn what_may_be_null_is_no_part_of_a_call() {
    let mut service = ServiceDescription::new("S", "urn:s", "").in_style(MessageStyle::Rpc);
    let maybe = json!({"type": "object", "properties": {"a": {"type": "string"},
        "b": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}, "required": ["a"]});
    let error = service.operation(&operation("A", Some(&maybe), None)).unwrap_err();
    assert!(error.detail.contains("\"b\" may be null"), "{error}");
    let whole = json!({"type": ["integer", "null"]});
    let error = service.operation(&operation("B", None, Some(&whole))).unwrap_err();
    assert!(error.detail.contains("the result may be null"), "{error}");
    // In a model it may.
    let model = json!({"type": "object", "properties": {"m": maybe}, "required": ["m"]});
    service.operation(&operation("C", Some(&model), Some(&json!({"type": "null"})))).unwrap();
}

fn read(parts: &[(&str, &str)]) -> Result<Wsdl, DescriptionError> {
    const NAMESPACES: &str = "xmlns:w='http://schemas.xmlsoap.org/wsdl/' xmlns:s='http://schemas.xmlsoap.org/wsdl/soap/' \
        xmlns:s12='http://schemas.xmlsoap.org/wsdl/soap12/' xmlns:xs='http://www.w3.org/2001/XMLSchema' xmlns:t='urn:t' \
        xmlns:m='http://schemas.xmlsoap.org/wsdl/mime/' xmlns:wsam='http://www.w3.org/2007/05/addressing/metadata'";
    let parts: HashMap<_, _> =
        parts.iter().map(|(name, text)| (*name, text.replace("$NS", NAMESPACES))).collect();
    Wsdl::read("main.wsdl", &mut |location| {
        parts.get(location).map(|text| text.clone().into_bytes()).ok_or_else(|| "no such document".to_owned())
    })
}

const BILLING: &[(&str, &str)] = &[
    (
        "main.wsdl",
        "<w:definitions $NS targetNamespace='urn:t'><w:import namespace='urn:t' location='sub/abstract.wsdl'/>
        <w:binding name='B' type='t:P'><s:binding transport='http://schemas.xmlsoap.org/soap/http' style='rpc'/>
          <w:operation name='Get'><s:operation soapAction=' urn:get ' style='document'/><w:input>
            <s:header message='t:GetIn' part='head' use='literal'/><m:multipartRelated><m:part><s:body use='literal'/></m:part>
            <m:part><m:content part='x' type='image/png'/></m:part></m:multipartRelated></w:input>
            <w:output><s:body use='literal'/></w:output><w:fault name='f'><s:fault name='f' use='literal'/></w:fault></w:operation>
          <w:operation name='Add'><w:input><s:body use='literal' namespace='urn:rpc'/></w:input>
            <w:output><s:body use='literal' namespace='urn:rpc'/></w:output></w:operation>
          <w:operation name='Old'><w:input><s:body use='encoded'/></w:input><w:output><s:body use='encoded'/></w:output></w:operation>
          <w:operation name='Ping'><s:operation style='document' soapAction=''/><w:input><s:body use='literal'/></w:input></w:operation>
        </w:binding>
        <w:binding name='H' type='t:P'><h:binding xmlns:h='http://schemas.xmlsoap.org/wsdl/http/' verb='GET'/></w:binding>
        <w:service name='Billing'><w:documentation> Bills. </w:documentation><w:port name='A' binding='t:B'><s:address location=' http://x/y '/></w:port>
          <w:port name='G' binding='t:H'><h:address xmlns:h='http://schemas.xmlsoap.org/wsdl/http/' location='http://x/g'/></w:port></w:service></w:definitions>",
    ),
    (
        "sub/abstract.wsdl",
        "<w:definitions $NS targetNamespace='urn:t'><w:types><xs:schema targetNamespace='urn:t'><xs:include schemaLocation='t.xsd'/>
        <xs:element name='Head' type='xs:string'/></xs:schema></w:types>
        <w:message name='GetIn'><w:part name='body' element='t:Get'/><w:part name='head' element='t:Head'/></w:message>
        <w:message name='GetOut'><w:part name='body' element='t:GetResult'/></w:message>
        <w:message name='Fail'><w:part name='d' element='t:Fail'/></w:message>
        <w:message name='AddIn'><w:part name='a' type='xs:int'/><w:part name='b' type='xs:int'/></w:message>
        <w:message name='AddOut'><w:part name='sum' type='xs:int'/></w:message><w:message name='None'/>
        <w:portType name='P'>
          <w:operation name='Get'><w:documentation>Gets.</w:documentation><w:input message='t:GetIn' wsam:Action='urn:in'/><w:output message='t:GetOut'/>
            <w:fault name='f' message='t:Fail'/></w:operation>
          <w:operation name='Add'><w:input message='t:AddIn'/><w:output message='t:AddOut'/></w:operation>
          <w:operation name='Old'><w:input message='t:AddIn'/><w:output message='t:AddOut'/></w:operation>
          <w:operation name='Ping'><w:input message='t:None'/></w:operation></w:portType></w:definitions>",
    ),
    (
        "sub/t.xsd",
        "<xs:schema $NS><xs:element name='Get'><xs:complexType><xs:sequence><xs:element name='id' type='xs:int'/></xs:sequence></xs:complexType></xs:element>
        <xs:element name='GetResult' type='xs:decimal'/><xs:element name='Fail' type='xs:string'/></xs:schema>",
    ),
];

#[test]
fn descriptions_span_documents_and_styles() {
    let wsdl = read(BILLING).unwrap();
    assert_eq!(wsdl.warnings.len(), 1, "{:?}", wsdl.warnings);
    assert!(wsdl.warnings[0].contains("\"Old\" is left out: SOAP encoding"));
    let service = wsdl.service(Some("Billing")).unwrap();
    assert_eq!(service.documentation, "Bills.");
    let [port] = service.ports.as_slice() else { panic!("{:?}", service.ports) };
    assert_eq!((port.name.as_str(), port.address.as_str()), ("A", "http://x/y"));
    let get = port.binding.operation("Get").unwrap();
    assert_eq!((get.soap_action.as_str(), get.input.action.as_str()), ("urn:get", "urn:in"));
    assert_eq!(get.output.as_ref().unwrap().action, "urn:t/P/GetResponse");
    assert_eq!((get.input.headers[0].name.as_str(), get.faults[0].name.as_str()), ("head", "f"));
    let sent = body(&wsdl, &get.input, &json!({"id": 5})).unwrap();
    assert_eq!(sent, "<Body><ns1:Get xmlns:ns1=\"urn:t\"><id>5</id></ns1:Get></Body>");
    let answer =
        parsed(&wsdl, get.output.as_ref().unwrap(), "<B><GetResult xmlns='urn:t'>1.50</GetResult></B>");
    assert_eq!(answer.unwrap(), json!("1.50"));
    let ping = port.binding.operation("Ping").unwrap();
    assert!(matches!(ping.input.body, Body::Empty));
    assert_eq!(body(&wsdl, &ping.input, &Value::Null).unwrap(), "<Body/>");
    assert_eq!(port.binding.operation_of(&wsdl.schemas, None, Some("")).unwrap().name, "Ping");
}

#[test]
fn calls_carry_their_parts() {
    let wsdl = read(BILLING).unwrap();
    let port = &wsdl.services[0].ports[0];
    let add = port.binding.operation("Add").unwrap();
    let sent = body(&wsdl, &add.input, &json!({"b": 2, "a": 1})).unwrap();
    assert_eq!(sent, "<Body><ns1:Add xmlns:ns1=\"urn:rpc\"><a>1</a><b>2</b></ns1:Add></Body>");
    assert_eq!(parsed(&wsdl, &add.input, &sent).unwrap(), json!({"a": 1, "b": 2}));
    let answer = "<B><r:AddResponse xmlns:r='urn:rpc'><sum>3</sum></r:AddResponse></B>";
    assert_eq!(parsed(&wsdl, add.output.as_ref().unwrap(), answer).unwrap(), json!({"sum": 3}));
    let pointers = |faults: Vec<crosstie_model::Fault>| {
        faults.into_iter().map(|fault| fault.pointer).collect::<Vec<_>>()
    };
    assert_eq!(
        pointers(body(&wsdl, &add.input, &json!({"a": "x", "c": 1})).unwrap_err()),
        ["/a", "/b", "/c"]
    );
    let wrong = "<B><r:Add xmlns:r='urn:rpc'><a>x</a><a>1</a><c/></r:Add></B>";
    assert_eq!(pointers(parsed(&wsdl, &add.input, wrong).unwrap_err()), ["/a", "/a", "/c", "/b"]);
    let found = port.binding.operation_of(&wsdl.schemas, Some(("urn:rpc", "Add")), None);
    assert_eq!(found.unwrap().name, "Add");
}

#[test]
fn a_body_that_holds_something_else_is_told() {
    let wsdl = read(BILLING).unwrap();
    let get = wsdl.services[0].ports[0].binding.operation("Get").unwrap();
    for (xml, told) in [
        ("<B/>", "the body is empty"),
        ("<B><Get/></B>", "the body holds Get instead of {urn:t}Get"),
        ("<B><Get xmlns='urn:t'/><Get xmlns='urn:t'/></B>", "the body holds more than one element"),
    ] {
        assert_eq!(parsed(&wsdl, &get.input, xml).unwrap_err()[0].detail, told);
    }
}

#[test]
fn what_is_bound_and_placed_nowhere_is_still_spoken() {
    let (name, text) = BILLING[0];
    let service = text.find("<w:service").unwrap();
    let without = format!("{}</w:definitions>", &text[..service]);
    let wsdl = read(&[(name, &without), BILLING[1], BILLING[2]]).unwrap();
    let service = wsdl.service(Some("main")).unwrap();
    assert_eq!((service.ports.len(), service.ports[0].address.as_str()), (1, ""));
    let elsewhere = text.replace("binding='t:H'", "binding='t:Gone'");
    let wsdl = read(&[(name, &elsewhere), BILLING[1], BILLING[2]]).unwrap();
    assert!(
        wsdl.warnings.iter().any(|warning| warning.contains("{urn:t}Gone is not defined")),
        "{:?}",
        wsdl.warnings
    );
}

#[test]
fn documents_that_describe_nothing_here_are_refused() {
    for (text, told) in [
        ("<d xmlns='http://www.w3.org/ns/wsdl'/>", "is no description"),
        ("<description xmlns='http://www.w3.org/ns/wsdl'/>", "WSDL 2.0 is not supported"),
        (
            "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'/>",
            "a SOAP Envelope is no description",
        ),
        ("<w:definitions $NS/>", "no service that speaks SOAP"),
        ("<w:definitions $NS><w:import location='x.wsdl'/></w:definitions>", "x.wsdl: no such document"),
        (
            "<w:definitions $NS targetNamespace='urn:t'><w:service name='S'><w:port name='P'/></w:service></w:definitions>",
            "\"binding\" is missing",
        ),
        ("<html><body>Not found</body></html>", "\"html\" is no description"),
    ] {
        let error = read(&[("main.wsdl", text)]).unwrap_err().to_string();
        assert!(error.contains(told), "{text}: {error}");
    }
}
