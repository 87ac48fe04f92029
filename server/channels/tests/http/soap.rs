use std::io::Write as _;
use std::net::TcpStream;

use crosstie_model::DefinitionKind;
use serde_json::json;

use crate::support::client::Answer;
use crate::support::{Server, Setup};

const V11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const V12: &str = "http://www.w3.org/2003/05/soap-envelope";
const WSA: &str = "http://www.w3.org/2005/08/addressing";
const WSSE: &str = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";

fn setup() -> Setup {
    Setup::new()
        .channel(
            "crm",
            json!({"type": "soap", "path": "/crm", "namespace": "urn:crm", "one_way": ["Notify", "Lose"],
                "understands": ["{urn:crm}Session"], "operations": {"Echo": "echo", "Typed": "typed", "Fail": "fail",
                    "Notify": "echo", "Lose": "fail", "Stream": "stream", "Gone": "not.there"}}),
        )
        .channel(
            "old",
            json!({"type": "soap", "path": "/old", "versions": ["1.1"], "describe": false,
                "operations": {"Echo": "echo"}}),
        )
        .define(
            DefinitionKind::Security,
            "partners",
            json!({"type": "wss_username_token", "username": "shop", "password": "env:PATH"}),
        )
        .channel(
            "guarded",
            json!({"type": "soap", "path": "/guarded", "namespace": "urn:crm", "security": "partners",
                "operations": {"Echo": "echo"}}),
        )
}

fn envelope(namespace: &str, header: &str, body: &str) -> String {
    format!(
        "<s:Envelope xmlns:s='{namespace}'><s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
    )
}

fn send(server: &Server, path: &str, content_type: &str, body: impl AsRef<[u8]>) -> Answer {
    server.connect().post(path, &format!("Content-Type: {content_type}\r\n"), body)
}

fn old(server: &Server, header: &str, body: &str) -> Answer {
    send(server, "/crm", "text/xml", envelope(V11, header, body))
}

fn new(server: &Server, header: &str, body: &str) -> Answer {
    send(server, "/crm", "application/soap+xml", envelope(V12, header, body))
}

fn has(answer: &Answer, status: u16, texts: &[&str]) {
    assert_eq!(answer.status, status, "{}", answer.text());
    for text in texts {
        assert!(answer.text().contains(text), "{text} in {}", answer.text());
    }
}

#[test]
fn both_versions_are_answered_in_their_own_words() {
    let server = setup().start();
    let answer = old(&server, "", "<Typed xmlns='urn:crm'><n>7</n></Typed>");
    has(&answer, 200, &[V11, "TypedResponse"]);
    assert_eq!(answer.header("content-type"), Some("text/xml; charset=utf-8"));
    let answer = new(&server, "", "<c:Echo xmlns:c='urn:crm'><a>1</a></c:Echo>");
    has(&answer, 200, &[V12, "EchoResponse", ">crm</channel>", ">POST</method>"]);
    assert!(answer.header("content-type").unwrap().starts_with("application/soap+xml; charset=utf-8"));
    let seen = server.fakes().seen();
    assert_eq!((seen[0].channel.as_str(), seen[0].service.as_deref()), ("crm", Some("typed")));
}

#[test]
fn failures_are_faults_with_what_a_problem_document_says() {
    let server = setup().start();
    let wrong = "<Typed xmlns='urn:crm'><n>x</n></Typed>";
    has(
        &old(&server, "", wrong),
        500,
        &[
            "<faultcode>soap:Client</faultcode>",
            "<detail><",
            "ServiceFault xmlns",
            "pointer>/n</",
            "status>400</",
        ],
    );
    has(&new(&server, "", wrong), 400, &["soap:Sender</", "pointer>/n</", "cid>"]);
    for answer in [old(&server, "", "<Fail xmlns='urn:crm'/>"), new(&server, "", "<Fail xmlns='urn:crm'/>")] {
        has(&answer, 500, &["The service failed", "urn:crosstie:problem:internal"]);
    }
    has(&new(&server, "", "<Stream xmlns='urn:crm'/>"), 500, &["soap:Receiver</"]);
    has(&new(&server, "", "<Gone xmlns='urn:crm'/>"), 500, &["is not deployed", "status>503</"]);
    has(&new(&server, "", "<Other xmlns='urn:crm'/>"), 400, &["no operation for the element {urn:crm}Other"]);
    has(&old(&server, "", ""), 500, &["no operation for an empty body"]);
}

#[test]
fn what_is_no_message_is_refused() {
    let server = setup().start();
    has(&send(&server, "/crm", "application/json", "{}"), 415, &["soap:Client", "status>415</"]);
    for body in ["", "nonsense", "<a/>", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", &"<a>".repeat(100_000)] {
        has(&send(&server, "/crm", "text/xml", body), 500, &["<faultcode>soap:Client</faultcode>"]);
        has(&send(&server, "/crm", "application/soap+xml", body), 400, &["soap:Sender</"]);
    }
    let cut = "multipart/related; boundary=b; type=\"application/xop+xml\"";
    has(&send(&server, "/crm", cut, "--b\r\n\r\n<a/>"), 400, &["cut off"]);
    assert_eq!(server.connect().request("PUT", "/crm", "", b"").status, 405);
}

#[test]
fn versions_that_are_not_spoken_are_told_so() {
    let server = setup().start();
    let unknown = envelope("urn:soap:9", "", "");
    has(&send(&server, "/crm", "text/xml", &unknown), 500, &["soap:VersionMismatch"]);
    has(
        &send(&server, "/crm", "application/soap+xml", &unknown),
        500,
        &["soap:VersionMismatch", "Upgrade", "SupportedEnvelope"],
    );
    let newer = envelope(V12, "", "<Echo xmlns='urn:crosstie:old'/>");
    has(&send(&server, "/old", "application/soap+xml", newer), 500, &[V11, "soap:VersionMismatch"]);
    let older = envelope(V11, "", "<Echo xmlns='urn:crosstie:old'/>");
    assert_eq!(send(&server, "/old", "text/xml", older).status, 200);
}

#[test]
fn headers_that_must_be_understood_are() {
    let server = setup().start();
    let body = "<Echo xmlns='urn:crm'/>";
    let known = "<c:Session xmlns:c='urn:crm' s:mustUnderstand='1'>a</c:Session>";
    assert_eq!(old(&server, known, body).status, 200);
    let unknown = "<c:Other xmlns:c='urn:crm' s:mustUnderstand='1'>a</c:Other>";
    has(&old(&server, unknown, body), 500, &["<faultcode>soap:MustUnderstand</faultcode>", "{urn:crm}Other"]);
    has(&new(&server, unknown, body), 500, &["soap:MustUnderstand</", "NotUnderstood", "qname="]);
    let others = "<c:Other xmlns:c='urn:crm' s:mustUnderstand='1' s:actor='urn:somebody'>a</c:Other>";
    assert_eq!(old(&server, others, body).status, 200);
    let security = format!("<w:Security xmlns:w='{WSSE}' s:mustUnderstand='1'/>");
    has(&old(&server, &security, body), 500, &["soap:MustUnderstand"]);
}

#[test]
fn addressing_is_answered_with_addressing() {
    let server = setup().start();
    let headers = |more: &str| {
        format!(
            "<a:Action xmlns:a='{WSA}'>urn:crm/Echo</a:Action><a:MessageID xmlns:a='{WSA}'>urn:1</a:MessageID>{more}"
        )
    };
    let body = "<Echo xmlns='urn:crm'/>";
    let answer = new(&server, &headers(""), body);
    has(&answer, 200, &[">urn:1</wsa:RelatesTo>", ">urn:crm/EchoResponse</wsa:Action>", ">urn:uuid:"]);
    assert!(answer.header("content-type").unwrap().contains("action=\"urn:crm/EchoResponse\""));
    has(
        &new(&server, &headers(""), "<Fail xmlns='urn:crm'/>"),
        500,
        &[">urn:1</wsa:RelatesTo>", "addressing/soap/fault"],
    );
    let nobody = format!("<a:ReplyTo xmlns:a='{WSA}'><a:Address>{WSA}/none</a:Address></a:ReplyTo>");
    has(&new(&server, &headers(&nobody), body), 202, &[]);
    let elsewhere = "<a:ReplyTo xmlns:a='http://www.w3.org/2005/08/addressing'><a:Address>http://x/</a:Address></a:ReplyTo>";
    has(&new(&server, &headers(elsewhere), body), 400, &["OnlyAnonymousAddressSupported"]);
    let differing = envelope(V11, &headers(""), body);
    let answer = server.connect().post(
        "/crm",
        "Content-Type: text/xml\r\nSOAPAction: \"urn:crm/Typed\"\r\n",
        differing,
    );
    has(&answer, 500, &["InvalidAddressingHeader"]);
}

#[test]
fn a_channel_of_rpc_style_takes_and_gives_parts() {
    let server = Setup::new()
        .channel(
            "calls",
            json!({"type": "soap", "path": "/calls", "namespace": "urn:calls", "style": "rpc",
                "operations": {"Typed": "typed", "Echo": "echo"}}),
        )
        .start();
    let call = |version, body: &str| send(&server, "/calls", "text/xml", envelope(version, "", body));
    has(&call(V11, "<c:Typed xmlns:c='urn:calls'><n>7</n></c:Typed>"), 200, &[":TypedResponse", "<result>"]);
    has(&call(V11, "<c:Typed xmlns:c='urn:calls'/>"), 500, &["pointer>/n</", "is required"]);
    has(&call(V11, "<c:Typed xmlns:c='urn:calls'><n>x</n></c:Typed>"), 500, &["pointer>/n</"]);
    has(
        &call(V11, "<c:Echo xmlns:c='urn:calls'><n>7</n></c:Echo>"),
        500,
        &["pointer>/n</", "is not known here"],
    );
    has(&call(V11, "<Typed><n>7</n></Typed>"), 500, &["no operation for the element Typed"]);
    let answer = server.connect().get("/calls?wsdl", "");
    has(&answer, 200, &["style=\"rpc\"", "part name=\"n\" type=\"xs:long\"", "namespace=\"urn:calls\""]);
}

#[test]
fn nobody_waits_for_a_one_way_operation() {
    let server = setup().start();
    for operation in ["Notify", "Lose"] {
        let answer = old(&server, "", &format!("<{operation} xmlns='urn:crm'/>"));
        assert_eq!((answer.status, answer.text()), (202, ""));
    }
    has(&old(&server, "", "<NotifyResponse xmlns='urn:crm'/>"), 500, &["no operation"]);
}

/// PHP's client, for one, closes its connection as soon as it has sent such a message.
#[test]
fn who_leaves_once_a_one_way_message_is_sent_is_heard() {
    let server = setup().start();
    let message = envelope(V11, "", "<Notify xmlns='urn:crm'/>");
    let head = format!(
        "POST /crm HTTP/1.1\r\nHost: t\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\r\n",
        message.len()
    );
    let open = |_| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let count = 200;
    // The server waits for the rest, which comes with the end of the connection.
    for mut stream in (0..count).map(open).collect::<Vec<_>>() {
        stream.write_all(message.as_bytes()).unwrap();
    }
    let seen = server.fakes().seen_at_least(count);
    assert!(seen.iter().all(|seen| seen.status == 202), "{:?}", seen.iter().map(|seen| seen.status));
}

#[test]
fn the_description_says_where_it_was_asked_for() {
    let server = setup().start();
    let answer = server.connect().get("/crm?wsdl", "");
    has(&answer, 200, &["location=\"http://test/crm\"", "name=\"Typed\"", "targetNamespace=\"urn:crm\""]);
    assert_eq!(answer.header("content-type"), Some("text/xml; charset=utf-8"));
    let answer = server.connect().get("/crm", "");
    assert_eq!(answer.status, 404);
    assert!(answer.json()["detail"].as_str().unwrap().contains("?wsdl"));
    assert_eq!(server.connect().get("/old?wsdl", "").status, 405);
    assert_eq!(server.connect().get("/guarded?wsdl", "").status, 200, "a GET has no message to hold a token");
}

fn token(username: &str, password: &str) -> String {
    let password = password.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<w:Security xmlns:w='{WSSE}' s:mustUnderstand='1'><w:UsernameToken><w:Username>{username}</w:Username>\
         <w:Password>{password}</w:Password></w:UsernameToken></w:Security>"
    )
}

#[test]
fn a_username_token_lets_in_who_it_should() {
    let server = setup().start();
    let ask = |header: &str| {
        let message = envelope(V11, header, "<Echo xmlns='urn:crm'/>");
        send(&server, "/guarded", "text/xml", message)
    };
    let secret = std::env::var("PATH").unwrap();
    has(&ask(&token("shop", &secret)), 200, &[">partners</principal>"]);
    for header in [String::new(), token("shop", "wrong"), token("other", &secret)] {
        let answer = ask(&header);
        has(&answer, 500, &["wsse:FailedAuthentication"]);
        assert_eq!(answer.header("www-authenticate"), None);
    }
    let twice = token("shop", &secret).replace("</w:UsernameToken>", "</w:UsernameToken><w:UsernameToken/>");
    has(&ask(&twice), 500, &["wsse:InvalidSecurity"]);
    let newer = envelope(V12, &token("shop", "wrong"), "<Echo xmlns='urn:crm'/>");
    has(&send(&server, "/guarded", "application/soap+xml", newer), 400, &["wsse:FailedAuthentication"]);
    // What is wrong with a message is told before anything is asked of who sent it.
    has(&send(&server, "/guarded", "text/xml", "<a/>"), 500, &["is no SOAP envelope"]);
    let refused: Vec<_> = server.fakes().seen().iter().map(|seen| seen.refused.is_some()).collect();
    assert_eq!(refused, [false, true, true, true, true, true, false]);
}

#[test]
fn a_nonce_that_nobody_can_remember_lets_nobody_in() {
    let server = setup().start();
    let secret = std::env::var("PATH").unwrap();
    let header = token("shop", &secret).replace("</w:Password>", "</w:Password><w:Nonce>AAAA</w:Nonce>");
    let answer = send(&server, "/guarded", "text/xml", envelope(V11, &header, "<Echo xmlns='urn:crm'/>"));
    has(&answer, 500, &["status>503</"]);
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn only_soap_channels_take_username_tokens() {
    let rest = json!({"type": "rest", "path": "/rest", "service": "echo", "security": "partners"});
    let (_, faults) = setup().channel("rest", rest).routes_and_faults(false);
    assert_eq!(faults.len(), 1);
    assert!(faults[0].detail.contains("only SOAP channels"), "{faults:?}");
}

const WRITTEN: &str = r#"<?xml version="1.0" encoding="ISO-8859-1"?>
<definitions xmlns="http://schemas.xmlsoap.org/wsdl/" xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/"
    xmlns:t="urn:t" xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="urn:t">
  <types><xs:schema targetNamespace="urn:t"><xs:include schemaLocation='types/t.xsd'/></xs:schema></types>
  <message name="In"><part name="n" type="xs:int"/><part name="what" type="t:Kind"/></message>
  <message name="Out"><part name="payload" type="xs:anyType"/></message>
  <portType name="P"><operation name="Call"><input message="t:In"/><output message="t:Out"/></operation></portType>
  <binding name="B" type="t:P"><soap:binding style="rpc" transport="http://schemas.xmlsoap.org/soap/http"/>
    <operation name="Call"><soap:operation soapAction="urn:call"/>
      <input><soap:body use="literal" namespace="urn:rpc"/></input>
      <output><soap:body use="literal" namespace="urn:rpc"/></output></operation></binding>
  <service name="S"><port name="P" binding="t:B"><soap:address location="https://example.org/old"/></port></service>
</definitions>"#;

const TYPES: &str = "<xs:schema xmlns:xs='http://www.w3.org/2001/XMLSchema' targetNamespace='urn:t'>
    <xs:simpleType name='Kind'><xs:restriction base='xs:string'><xs:enumeration value='a'/></xs:restriction></xs:simpleType>
    </xs:schema>";

fn written(operations: serde_json::Value) -> Setup {
    Setup::new()
        .define(DefinitionKind::Wsdl, "theirs", json!({"text": WRITTEN, "documents": {"types/t.xsd": TYPES}}))
        .channel("rpc", json!({"type": "soap", "path": "/rpc", "wsdl": "theirs", "operations": operations}))
}

#[test]
fn a_description_of_somebody_else_s_is_spoken_and_shown_as_it_is_here() {
    let server = written(json!({"Call": "reply"})).start();
    let description = server.connect().get("/rpc?wsdl", "");
    has(
        &description,
        200,
        &["location=\"http://test/rpc\"", "schemaLocation='http://test/rpc?xsd=types/t.xsd'", "<definitions"],
    );
    assert!(!description.text().contains("ISO-8859-1"));
    has(&server.connect().get("/rpc?xsd=types/t.xsd", ""), 200, &["enumeration"]);
    assert_eq!(server.connect().get("/rpc?xsd=types/other.xsd", "").status, 404);
    let call = |kind: &str| {
        let body = format!("<r:Call xmlns:r='urn:rpc'><n>1</n><what>{kind}</what></r:Call>");
        send(&server, "/rpc", "text/xml", envelope(V11, "", &body))
    };
    has(&call("b"), 500, &["pointer>/what</", "soap:Client"]);
    // The service answers nothing, and the description asks for something.
    has(&call("a"), 500, &["soap:Server"]);
    let newer = envelope(V12, "", "<r:Call xmlns:r='urn:rpc'/>");
    has(&send(&server, "/rpc", "application/soap+xml", newer), 500, &["soap:VersionMismatch"]);
}

#[test]
fn a_description_that_cannot_be_used_closes_its_channel() {
    let faults = |setup: Setup| -> Vec<String> {
        let faults = setup.routes_and_faults(false).1;
        faults.into_iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect()
    };
    let told = faults(written(json!({"Call": "echo", "Other": "echo"})));
    assert_eq!(told, ["/operations/Other the wsdl definition describes no such operation"]);
    let channel = |more: serde_json::Value| {
        let mut body =
            json!({"type": "soap", "path": "/x", "wsdl": "theirs", "operations": {"Call": "echo"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        faults(written(json!({"Call": "echo"})).channel("x", body))
    };
    assert!(channel(json!({"wsdl": "none"}))[0].contains("there is no wsdl definition none"));
    assert!(channel(json!({"service_name": "T"}))[0].contains("describes no such service, but S"));
    assert!(channel(json!({"versions": ["1.2"]}))[0].contains("describes none of them"));
}

#[test]
fn attachments_come_and_go_beside_the_envelope() {
    let server = setup()
        .channel(
            "mtom",
            json!({"type": "soap", "path": "/mtom", "namespace": "urn:crm", "operations": {"Echo": "echo"}}),
        )
        .start();
    let envelope = envelope(
        V12,
        "",
        "<Echo xmlns='urn:crm'><d><x:Include xmlns:x='http://www.w3.org/2004/08/xop/include' href='cid:a@b'/></d></Echo>",
    );
    let body = format!(
        "--b\r\nContent-Type: application/xop+xml; charset=UTF-8; type=\"application/soap+xml\"\r\nContent-ID: <r>\r\n\r\n\
         {envelope}\r\n--b\r\nContent-ID: <a@b>\r\nContent-Type: image/png\r\n\r\nabc\r\n--b--\r\n"
    );
    let media = "multipart/related; boundary=b; type=\"application/xop+xml\"; start=\"<r>\"; start-info=\"application/soap+xml\"";
    let answer = send(&server, "/mtom", media, body);
    has(&answer, 200, &["EchoResponse"]);
}
