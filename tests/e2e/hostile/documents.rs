//! Hostile documents on every entrance, and in the answers of other systems.

use std::io::Write as _;
use std::process::Command;

use crosstie_test_support::{Environment, Said, Upstream, wait_until};
use serde_json::json;

use super::{Raw, Watched, apply, post, until_closed, with_one_worker};

const V11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const WSA: &str = "http://www.w3.org/2005/08/addressing";

const SERVICES: &str = r#"
from crosstie import Model, Service, http, jsonrpc, rest, soap

def size_of(value):
    return len(value) if isinstance(value, (list, dict, str, bytes)) else 1

class Take(Service):
    """Takes anything."""
    name = "hostile.take"
    channels = [rest("POST", "/rest"), http("/http"), jsonrpc("/rpc", method="take"),
                soap("/soap", namespace="urn:hostile", service_name="Hostile", operation="Take")]
    def handle(self):
        return {"size": size_of(self.request.payload)}

class Scans(Model):
    scan: list[bytes]

class Store(Service):
    name = "hostile.store"
    channels = [soap("/soap", namespace="urn:hostile", service_name="Hostile", operation="Store")]
    input = Scans
    def handle(self):
        return {"size": sum(len(scan) for scan in self.request.input.scan)}

class Rows(Model):
    rows: list[str]
    more: dict[str, list[int | None]] = {}

class Typed(Service):
    name = "hostile.typed"
    channels = [rest("POST", "/typed"), jsonrpc("/rpc", method="typed")]
    input = Rows
    def handle(self):
        return {"size": len(self.request.input.rows)}

class Ask(Service):
    """Asks another system, and looks at its answer."""
    name = "hostile.ask"
    channels = [rest("GET", "/ask/{name}")]
    def handle(self):
        name = self.request.params["name"]
        if name in self.out.soap:
            return {"size": self.out.soap[name].call("Store", {"name": "a", "content": [b"x"]})["size"]}
        return {"size": size_of(self.rest[name].get().data)}
"#;

/// XML that no parser should take, each with a root element `a`. `reach` is an address that nobody must ask.
fn xml_bombs(reach: &str) -> Vec<(&'static str, String)> {
    let mut laughs = "<!ENTITY l0 'ha'>".to_owned();
    for level in 1..10 {
        laughs += &format!("<!ENTITY l{level} '{}'>", format!("&l{};", level - 1).repeat(10));
    }
    let nested = |count: usize| "<a>".repeat(count) + &"</a>".repeat(count);
    let attributes: String = (0..100_000).map(|number| format!(" x{number}=''")).collect();
    let long = "u".repeat(1_000_000);
    vec![
        ("a billion laughs", format!("<!DOCTYPE a [{laughs}]><a>&l9;</a>")),
        (
            "a long entity many times",
            format!("<!DOCTYPE a [<!ENTITY e '{}'>]><a>{}</a>", "x".repeat(100_000), "&e;".repeat(20_000)),
        ),
        ("a file", "<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><a>&e;</a>".to_owned()),
        ("an address", format!("<!DOCTYPE a [<!ENTITY e SYSTEM '{reach}/entity'>]><a>&e;</a>")),
        ("a DTD elsewhere", format!("<!DOCTYPE a SYSTEM '{reach}/a.dtd'><a/>")),
        ("a parameter entity", format!("<!DOCTYPE a [<!ENTITY % e SYSTEM '{reach}/p'> %e;]><a/>")),
        ("10,000 elements deep", nested(10_000)),
        ("100,000 elements deep, never closed", "<a>".repeat(100_000)),
        ("100,000 attributes", format!("<a{attributes}/>")),
        (
            "a namespace of megabytes for many names",
            format!("<a xmlns:n='{long}'>{}</a>", "<n:b/>".repeat(100_000)),
        ),
        (
            "attributes of two namespaces of megabytes",
            format!("<a xmlns:n='{long}1' xmlns:m='{long}2'>{}</a>", "<b n:x='' m:x=''/>".repeat(10_000)),
        ),
        ("a text that never ends", format!("<a><![CDATA[{}", "x".repeat(1_000_000))),
        ("a name of megabytes", format!("<a><{}/></a>", "b".repeat(1_000_000))),
    ]
}

/// JSON that is refused, too.
fn json_bombs() -> Vec<(&'static str, String)> {
    vec![
        ("10,000 arrays deep", "[".repeat(10_000) + &"]".repeat(10_000)),
        ("10,000 objects deep", "{\"a\":".repeat(10_000) + "1" + &"}".repeat(10_000)),
        ("100,000 arrays deep, never closed", "[".repeat(100_000)),
        ("half a character", "\"\\ud800\"".to_owned()),
        ("a string that never ends", format!("\"{}", "x".repeat(1_000_000))),
    ]
}

/// JSON that does not fit what a service takes in very many places, and what it gets.
fn misfits() -> Vec<(&'static str, String, u16)> {
    let (ones, texts) = ("1,".repeat(400_000), "\"x\",".repeat(100_000));
    let (long, nulls) = ("n".repeat(1_000_000), "null,".repeat(100_000));
    vec![
        ("400,000 numbers for texts", format!("{{\"rows\": [{ones}1]}}"), 400),
        (
            "100,000 texts for numbers below a name of megabytes",
            format!("{{\"rows\": [], \"more\": {{\"{long}\": [{texts}1]}}}}"),
            400,
        ),
        (
            "what fits, below a name of megabytes",
            format!("{{\"rows\": [], \"more\": {{\"{long}\": [{nulls}1]}}}}"),
            200,
        ),
    ]
}

/// Forms with a boundary `x` that are no forms.
fn form_bombs() -> Vec<(&'static str, String)> {
    let part = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n";
    vec![
        ("a part that is cut off", format!("{part}\r\nhal")),
        ("headers that are cut off", part.to_owned()),
        ("100,000 parts", format!("{part}\r\nb\r\n").repeat(100_000) + "--x--\r\n"),
        ("a header of megabytes", format!("--x\r\nA: {}\r\n\r\nb\r\n--x--\r\n", "b".repeat(1_000_000))),
        ("a part with 100,000 headers", format!("{part}{}\r\nb\r\n--x--\r\n", "A: b\r\n".repeat(100_000))),
        ("a part without name", "--x\r\nA: b\r\n\r\nc\r\n--x--\r\n".to_owned()),
        ("nothing but boundaries", "--x".repeat(300_000)),
        ("no boundary", "hello".to_owned()),
    ]
}

/// Messages with a boundary `x` whose parts are not put together as they say.
fn package_bombs() -> Vec<(&'static str, String)> {
    let envelope = format!("<s:Envelope xmlns:s='{V11}'><s:Body/></s:Envelope>");
    let part = |headers: &str, body: &str| format!("--x\r\n{headers}\r\n{body}\r\n");
    let root = part("Content-Type: application/xop+xml; type=\"text/xml\"\r\n", &envelope);
    vec![
        ("a package that is cut off", root.clone()),
        ("10,000 parts beside it", root.clone() + &part("A: b\r\n", "c").repeat(10_000) + "--x--"),
        ("headers of megabytes beside it", root.clone() + &part(&"A: b\r\n".repeat(100_000), "c") + "--x--"),
        (
            "a transfer encoding that is none",
            root.clone() + &part("Content-Transfer-Encoding: x-own\r\n", "c") + "--x--",
        ),
        ("base64 that is none", root + &part("Content-Transfer-Encoding: base64\r\n", "=?=") + "--x--"),
        ("nothing but boundaries", "--x".repeat(300_000)),
    ]
}

/// A document with the root `a` as what an operation is given.
fn in_envelope(document: &str) -> String {
    let (prolog, root) = document.split_at(document.find("<a").unwrap());
    format!(
        "{prolog}<s:Envelope xmlns:s='{V11}'><s:Body><Take xmlns='urn:hostile'>{root}</Take></s:Body></s:Envelope>"
    )
}

/// Messages that are well-formed, and would become many times as large.
fn envelope_bombs() -> Vec<(&'static str, String)> {
    let uri = "u".repeat(1_000);
    let with = |header: &str| {
        format!(
            "<s:Envelope xmlns:s='{V11}' xmlns:n='{uri}' xmlns:w='{WSA}'><s:Header>{header}</s:Header>\
             <s:Body><Take xmlns='urn:hostile'/></s:Body></s:Envelope>"
        )
    };
    let parameters = format!(
        "<w:Action>urn:hostile/Take</w:Action><w:ReplyTo><w:Address>{WSA}/anonymous</w:Address>\
         <w:ReferenceParameters>{}</w:ReferenceParameters></w:ReplyTo>",
        "<n:p/>".repeat(100_000)
    );
    vec![
        ("50,000 header blocks to be understood", with(&"<n:b s:mustUnderstand='1'/>".repeat(50_000))),
        ("100,000 header blocks", with(&"<n:b/>".repeat(100_000))),
        ("100,000 reference parameters", with(&parameters)),
    ]
}

/// A package whose one attachment stands for each of 5,000 values.
fn attachment_bombs() -> Vec<(&'static str, Vec<u8>)> {
    let include = "<o:Include xmlns:o='http://www.w3.org/2004/08/xop/include' href='cid:a'/>";
    let package = |operation: &str, value: &str| {
        let mut body = format!(
            "--x\r\nContent-Type: application/xop+xml; type=\"text/xml\"\r\n\r\n\
             <s:Envelope xmlns:s='{V11}' xmlns:i='http://www.w3.org/2001/XMLSchema-instance' \
             xmlns:b='http://www.w3.org/2001/XMLSchema'><s:Body><{operation} xmlns='urn:hostile'>{}</{operation}></s:Body>\
             </s:Envelope>\r\n--x\r\nContent-ID: <a>\r\n\r\n",
            value.repeat(5_000)
        )
        .into_bytes();
        body.extend(std::iter::repeat_n(b'z', 1_000_000));
        body.extend(b"\r\n--x--\r\n");
        body
    };
    vec![
        ("an attachment for 5,000 values", package("Store", &format!("<scan>{include}</scan>"))),
        (
            "an attachment for 5,000 values without schema",
            package("Take", &format!("<v i:type='b:base64Binary'>{include}</v>")),
        ),
    ]
}

/// So many MiB of zeros, packed by gzip.
fn zeros(mib: u32) -> Vec<u8> {
    let packed = Command::new("sh").args(["-c", &format!("head -c {mib}M /dev/zero | gzip -9")]).output();
    packed.unwrap().stdout
}

fn sized(media: &str, more: &str, body: &[u8]) -> String {
    format!("Content-Type: {media}\r\nContent-Length: {}\r\n{more}", body.len())
}

const PACKAGE: &str = "multipart/related; boundary=x; type=\"application/xop+xml\"";

/// One request after the other, each with what it must get.
struct Attack<'e> {
    environment: &'e Environment,
    watched: Watched,
}

impl Attack<'_> {
    fn send(&mut self, path: &str, what: &str, headers: &str, body: &[u8], expected: &[u16]) -> String {
        let name = format!("{what} at {path}");
        let environment = self.environment;
        let (status, text) =
            self.watched.during(&name, body.len(), || post(environment, path, headers, body));
        let shown: String = text.chars().take(600).collect();
        assert!(expected.contains(&status), "{name}: {status} {shown}");
        assert!(!text.contains("root:x:0"), "{name}: a file got out: {shown}");
        text
    }
}

#[test]
fn hostile_documents_are_refused_at_every_entrance_in_bounded_time_and_memory() {
    let environment = with_one_worker().start().unwrap();
    let upstream = Upstream::start(|asked| Said::json(200, &json!({"size": asked.body.len()}))).unwrap();
    let reach = Upstream::start(|_| Said::typed(200, "text/plain", "reached")).unwrap();
    environment.drop_file("hostile.py", SERVICES).unwrap();
    apply(
        &environment,
        &json!({
            "outgoing": {"up": {"type": "http", "address": upstream.url()}},
            "channel": {
                "passed": {"type": "passthrough", "path": "/passed", "outgoing": "up"},
                "routed": {"type": "passthrough", "path": "/routed", "outgoing": "up", "routes": [
                    {"outgoing": "up", "pointer": {"at": "/a/a/a"}},
                    {"outgoing": "up", "xpath": {"at": "//*:b", "one_of": ["x"]}},
                ]},
            },
        }),
    );
    environment.wait_for_status("/soap?wsdl", 200);
    environment.wait_for_status("/routed", 200);
    let ok = post(&environment, "/rest", &sized("application/json", "", b"[1]"), b"[1]");
    assert_eq!(ok.0, 200, "{}", ok.1);
    let mut attack = Attack { environment: &environment, watched: Watched::of(&environment) };

    for (what, body) in xml_bombs(&reach.url()) {
        let body = body.as_bytes();
        let (xml, text) = (sized("application/xml", "", body), sized("text/xml", "", body));
        attack.send("/rest", what, &xml, body, &[400]);
        attack.send("/routed", what, &xml, body, &[200]);
        attack.send("/soap", what, &text, body, &[500]);
        let enveloped = in_envelope(std::str::from_utf8(body).unwrap());
        let headers = sized("text/xml", "", enveloped.as_bytes());
        let fault = attack.send("/soap", what, &headers, enveloped.as_bytes(), &[500]);
        assert!(fault.contains("<faultcode>soap:Client</faultcode>"), "{what}: {fault}");
    }
    // Each element holds the text of all in it.
    let nested = "<b>".repeat(120) + &"y".repeat(2_000_000) + &"</b>".repeat(120);
    let headers = sized("application/xml", "", nested.as_bytes());
    attack.send("/routed", "a text in 120 elements", &headers, nested.as_bytes(), &[200]);
    for (what, body) in json_bombs() {
        let body = body.as_bytes();
        let headers = sized("application/json", "", body);
        attack.send("/rest", what, &headers, body, &[400]);
        attack.send("/routed", what, &headers, body, &[200]);
        let whole = attack.send("/rpc", what, &headers, body, &[200, 400]);
        assert!(whole.contains("\"error\""), "{what}: {whole}");
    }
    for (what, body, status) in misfits() {
        let headers = sized("application/json", "", body.as_bytes());
        let answer = attack.send("/typed", what, &headers, body.as_bytes(), &[status]);
        assert!(answer.len() < 100_000, "{what}: an answer of {} bytes", answer.len());
        let call = format!("{{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"typed\", \"params\": {body}}}");
        let headers = sized("application/json", "", call.as_bytes());
        let answer = attack.send("/rpc", what, &headers, call.as_bytes(), &[200]);
        assert!(answer.len() < 100_000, "{what}: an answer of {} bytes", answer.len());
    }
    for (what, body) in form_bombs() {
        let media =
            if what == "no boundary" { "multipart/form-data" } else { "multipart/form-data; boundary=x" };
        // One that ends with its first boundary is a form without fields.
        let expected: &[u16] = if what == "nothing but boundaries" { &[200, 400] } else { &[400, 415] };
        attack.send("/rest", what, &sized(media, "", body.as_bytes()), body.as_bytes(), expected);
    }
    for (what, body) in package_bombs() {
        attack.send("/soap", what, &sized(PACKAGE, "", body.as_bytes()), body.as_bytes(), &[400]);
    }
    for (what, body) in envelope_bombs() {
        let fault =
            attack.send("/soap", what, &sized("text/xml", "", body.as_bytes()), body.as_bytes(), &[500]);
        assert!(fault.len() < 100_000, "{what}: a fault of {} bytes", fault.len());
    }
    for (what, body) in attachment_bombs() {
        let fault = attack.send("/soap", what, &sized(PACKAGE, "", &body), &body, &[500]);
        assert!(fault.contains("too often"), "{what}: {fault}");
    }
    let packed = zeros(64);
    // A frame that says it looks back over 2 GiB (RFC 8878, section 3.1.1.1.2).
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
    for path in ["/rest", "/http", "/rpc", "/soap", "/routed"] {
        let media = if path == "/soap" { "text/xml" } else { "application/json" };
        let headers = sized(media, "Content-Encoding: gzip\r\n", &packed);
        attack.send(path, "64 MiB in some KiB", &headers, &packed, &[413]);
        let headers = sized(media, "Content-Encoding: zstd\r\n", &window);
        attack.send(path, "a window of 2 GiB", &headers, &window, &[400]);
    }
    // What is well-formed is read as what it is: nobody includes anything.
    let include = b"<a xmlns:i='http://www.w3.org/2001/XInclude'><i:include href='file:///etc/passwd' parse='text'/></a>";
    attack.send("/rest", "an XInclude", &sized("application/xml", "", include), include, &[200]);
    assert_eq!(reach.connections(), 0, "an address in a document was asked");

    let ok = post(&environment, "/rest", &sized("application/json", "", b"[1]"), b"[1]");
    assert_eq!(ok.0, 200, "{}", ok.1);
    attack.watched.finish(&environment);
}

#[test]
fn lengths_that_are_declared_and_never_come_take_no_memory() {
    let environment = with_one_worker().setting("http.body_timeout_ms", "500").start().unwrap();
    let upstream = Upstream::start(|_| Said::json(200, &json!({}))).unwrap();
    environment.drop_file("hostile.py", SERVICES).unwrap();
    apply(
        &environment,
        &json!({
            "outgoing": {"up": {"type": "http", "address": upstream.url()}},
            "channel": {"passed": {"type": "passthrough", "path": "/passed", "outgoing": "up"}},
        }),
    );
    environment.wait_for_status("/soap?wsdl", 200);
    environment.wait_for_status("/passed", 200);
    let mut attack = Attack { environment: &environment, watched: Watched::of(&environment) };
    for path in ["/rest", "/http", "/rpc", "/soap", "/passed"] {
        let media = if path == "/soap" { "text/xml" } else { "application/json" };
        let head = |more: &str| format!("Content-Type: {media}\r\n{more}\r\n");
        attack.send(path, "2 GiB", &head("Content-Length: 2147483648"), b"{", &[413]);
        attack.send(path, "16 EiB", &head("Content-Length: 18446744073709551615"), b"{", &[400, 413, 431]);
        attack.send(path, "more than any", &head("Content-Length: 18446744073709551616"), b"{", &[0, 400]);
        // Within what it may be, and never there: the time for a body is over.
        attack.send(path, "10 MiB", &head("Content-Length: 10485760"), b"{", &[408]);
        let chunk = b"80000000\r\n{";
        attack.send(path, "a chunk of 2 GiB", &head("Transfer-Encoding: chunked"), chunk, &[408, 413]);
        let chunk = b"ffffffffffffffff1\r\n{";
        attack.send(path, "a chunk beyond all", &head("Transfer-Encoding: chunked"), chunk, &[0, 400]);
    }
    let part = b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\nContent-Length: 2147483648\r\n\r\nb\r\n--x--\r\n";
    let headers = sized("multipart/form-data; boundary=x", "", part);
    attack.send("/rest", "a part of 2 GiB", &headers, part, &[200, 400]);
    attack.watched.finish(&environment);
}

#[test]
fn definitions_that_multiply_are_refused() {
    let environment = with_one_worker().start().unwrap();
    let mut watched = Watched::of(&environment);
    let mut laughs = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n".to_owned();
    for level in 1..10 {
        let again = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs += &format!("a{level}: &a{level} [{again}]\n");
    }
    let deep =
        "dictionary: {d: {entries: {a: ".to_owned() + &"[".repeat(10_000) + &"]".repeat(10_000) + "}}}\n";
    let objects = format!("{{\"dictionary\": {}1{}}}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    for (what, text) in [("aliases", laughs), ("deep YAML", deep), ("deep JSON", objects)] {
        let refused = watched.during(what, text.len(), || {
            environment.command(&["apply", "-f", "-"]).unwrap().input(text.clone()).run().unwrap()
        });
        assert!(refused.code == 1 || refused.code == 2, "{what}: {} {}", refused.code, refused.stderr);
        assert!(refused.stderr.len() < 100_000, "{what}: {} bytes of faults", refused.stderr.len());
    }
    watched.finish(&environment);
}

const FILES: &str = include_str!("../../../server/outgoing/tests/soap/files.wsdl");

/// What another system answers to a target: a media type, and a document.
fn answers(reach: &str) -> Vec<(String, &'static str, Vec<u8>)> {
    let mut all = Vec::new();
    for (number, (_, body)) in json_bombs().into_iter().enumerate() {
        all.push((format!("json{number}"), "application/json", body.into_bytes()));
    }
    for (number, (_, body)) in xml_bombs(reach).into_iter().enumerate() {
        all.push((format!("soap{number}"), "text/xml", in_envelope(&body).into_bytes()));
    }
    for (number, (_, body)) in envelope_bombs().into_iter().enumerate() {
        all.push((format!("soap.header{number}"), "text/xml", body.into_bytes()));
    }
    for (number, (_, body)) in package_bombs().into_iter().enumerate() {
        all.push((format!("soap.package{number}"), PACKAGE, body.into_bytes()));
    }
    for (number, (_, body)) in attachment_bombs().into_iter().enumerate() {
        let text = String::from_utf8(body).unwrap();
        let renamed = text.replace("<Store xmlns='urn:hostile'>", "<StoreResponse xmlns='urn:files'>");
        let renamed = renamed.replace("</Store>", "</StoreResponse>").replace("scan>", "copy>");
        all.push((format!("soap.attached{number}"), PACKAGE, renamed.into_bytes()));
    }
    all
}

#[test]
fn hostile_answers_of_other_systems_are_refused_in_bounded_time_and_memory() {
    let environment = with_one_worker().start().unwrap();
    let reach = Upstream::start(|_| Said::typed(200, "text/plain", "reached")).unwrap();
    let documents = answers(&reach.url());
    let mut outgoings = serde_json::Map::new();
    let served = documents.clone();
    let hostile = Raw::start(move |stream, target| {
        let name = target.trim_start_matches('/');
        let head = |media: &str, length: usize| {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            )
        };
        // It may be cut off at any time: that is what this is about.
        match served.iter().find(|(known, ..)| known == name) {
            Some((_, media, body)) => {
                let _ = stream.write_all(head(media, body.len()).as_bytes());
                let _ = stream.write_all(body);
            }
            None => {
                let media = if name.starts_with("soap") { "text/xml" } else { "application/json" };
                let _ = stream.write_all(head(media, 2_147_483_648).as_bytes());
                until_closed(stream);
            }
        }
    });
    let names: Vec<_> = documents.iter().map(|(name, _, body)| (name.clone(), body.len())).collect();
    let names: Vec<_> =
        names.into_iter().chain([("json.declared".to_owned(), 0), ("soap.declared".to_owned(), 0)]).collect();
    for (name, _) in &names {
        let address = format!("{}/{name}", hostile.url());
        let outgoing = match name.starts_with("soap") {
            true => json!({"type": "soap", "wsdl": "files", "address": address, "retry": {"max": 0}}),
            false => {
                json!({"type": "rest", "address": hostile.url(), "path": format!("/{name}"), "retry": {"max": 0}})
            }
        };
        outgoings.insert(name.clone(), outgoing);
    }
    apply(&environment, &json!({"wsdl": {"files": {"text": FILES}}, "outgoing": outgoings}));
    environment.drop_file("hostile.py", SERVICES).unwrap();
    wait_until("the service is there", || {
        environment.http().get("/ask/absent").is_ok_and(|reply| reply.status == 500)
    });
    let mut watched = Watched::of(&environment);
    for (name, bytes) in &names {
        let reply = watched.during(name, *bytes, || environment.http().get(&format!("/ask/{name}")).unwrap());
        assert_eq!(reply.status, 502, "{name}: {} {}", reply.text(), environment.log_tail("server.log"));
        assert!(!reply.text().contains("root:x:0"), "{}", reply.text());
    }
    assert_eq!(reach.connections(), 0, "an address in a document was asked");
    watched.finish(&environment);
}
