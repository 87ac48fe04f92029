//! Channels that hand requests straight on: bodies as they come, paths and fields changed on the way, routes,
//! services that look on, and what happens when the other system does not do its part.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crosstie_test_support::http::raw;
use crosstie_test_support::{Asked, Environment, Said, Upstream, wait_until};
use serde_json::{Value, json};

fn apply(environment: &Environment, definitions: &Value) {
    let apply = environment.command(&["apply", "-f", "-"]).unwrap();
    apply.input(definitions.to_string()).run().unwrap().success().unwrap();
}

/// A system that answers with its name and what it was asked.
fn echo(name: &'static str) -> Upstream {
    Upstream::start(move |asked: &Asked| {
        let field = |name: &str| asked.header(name).to_owned();
        let mut said = Said::json(
            if asked.target.contains("teapot") { 418 } else { 200 },
            &json!({
                "system": name, "method": asked.method, "target": asked.target, "size": asked.body.len(),
                "body": asked.text().chars().take(200).collect::<String>(), "type": field("content-type"),
                "authorization": field("authorization"), "key": field("x-api-key"), "host": field("host"),
                "for": field("x-forwarded-for"), "forwarded_host": field("x-forwarded-host"),
                "traceparent": field("traceparent"), "tenant": field("x-tenant"), "version": field("x-version"),
                "cookie": field("cookie"), "seen": field("x-seen"),
            }),
        );
        said.headers.push(("X-Backend".into(), name.into()));
        said.headers.push(("Set-Cookie".into(), "a=1".into()));
        said.headers.push(("Set-Cookie".into(), "b=2".into()));
        said
    })
    .unwrap()
}

/// Opens channels to two systems.
fn started(channels: &Value) -> (Environment, Upstream, Upstream) {
    let environment = Environment::start().unwrap();
    let (one, two) = (echo("one"), echo("two"));
    apply(
        &environment,
        &json!({
            "security": {"keys": {"type": "api_key", "key": "caller-key"}, "token": {"type": "bearer", "token": "own-token"}},
            "outgoing": {
                "one": {"type": "http", "address": format!("{}/base", one.url()), "query": {"own": "q"}},
                "two": {"type": "rest", "address": two.url(), "path": "/fixed/{id}", "security": "token"},
            },
            "channel": channels,
        }),
    );
    (environment, one, two)
}

#[test]
fn a_request_and_its_answer_are_handed_on_as_they_are() {
    let (environment, one, _two) = started(&json!({
        "all": {"type": "passthrough", "path": "/all/{rest:path}", "outgoing": "one"},
        "fixed": {"type": "passthrough", "path": "/things/{id}", "outgoing": "two", "security": "keys"},
        "moved": {"type": "passthrough", "path": "/old/{id}/{rest:path}", "outgoing": "one",
            "forward_path": "/new/{rest:path}/of/{id}",
            "request_headers": {"set": {"X-Tenant": "acme"}, "remove": ["Cookie"]},
            "response_headers": {"set": {"X-Own": "y"}, "remove": ["X-Backend"]}},
    }));
    environment.wait_for_status("/all/x", 200);
    let http = environment.http();
    let reply = http.get("/all/a%20b/c?x=1&y=%2F").unwrap();
    let said = reply.json();
    assert_eq!(said["target"], "/base/all/a%20b/c?own=q&x=1&y=%2F");
    assert_eq!((&said["method"], &said["for"]), (&json!("GET"), &json!("127.0.0.1")));
    assert_eq!(said["host"], json!(one.address().to_string()));
    assert_eq!(said["forwarded_host"], json!(environment.address().to_string()));
    assert_eq!(reply.headers.get_all("set-cookie").iter().count(), 2);
    assert_eq!(reply.header("x-backend"), "one");
    let cid = reply.header("x-crosstie-cid").to_owned();
    assert!(said["traceparent"].as_str().unwrap().contains(&cid), "{said}");
    assert_eq!(http.get("/all/teapot").unwrap().status, 418);
    let posted = http.post_json("/all/p", &json!({"a": [1, 2.50]})).unwrap().json();
    assert_eq!((&posted["method"], &posted["type"]), (&json!("POST"), &json!("application/json")));
    assert_eq!(posted["body"], "{\"a\":[1,2.5]}");

    // Credentials of the caller end at the channel; the outgoing shows its own.
    assert_eq!(http.get("/things/7").unwrap().status, 401);
    let said = environment.http().header("X-API-Key", "caller-key").get("/things/7").unwrap().json();
    assert_eq!((&said["target"], &said["authorization"]), (&json!("/fixed/7"), &json!("Bearer own-token")));
    assert_eq!(said["key"], "");

    let moved = environment.http().header("Cookie", "c=1").get("/old/7/a/b?q").unwrap();
    let said = moved.json();
    assert_eq!(said["target"], "/base/new/a/b/of/7?own=q&q");
    assert_eq!((&said["tenant"], &said["cookie"]), (&json!("acme"), &json!("")));
    assert_eq!((moved.header("x-own"), moved.header("x-backend")), ("y", ""));

    // What has no body says how long it would be.
    let own = format!("http://{}", environment.address());
    apply(
        &environment,
        &json!({
            "outgoing": {"own": {"type": "http", "address": own}},
            "channel": {"own": {"type": "passthrough", "path": "/own/{rest:path}", "outgoing": "own",
                "forward_path": "/{rest:path}"}},
        }),
    );
    let whole = environment.wait_for_status("/own/health/live", 200).text().len();
    let ask = b"HEAD /own/health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let head = raw(environment.address(), ask, Duration::from_secs(60)).unwrap();
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.contains(&format!("\r\ncontent-length: {whole}\r\n")), "{head}");
}

#[test]
fn messages_of_soap_are_handed_on_to_the_address_of_their_system() {
    let environment = Environment::start().unwrap();
    let (billing, gifts) = (echo("billing"), echo("gifts"));
    let outgoing = |address: String| json!({"type": "soap", "wsdl": "files", "address": address, "security": "login", "query": {"v": "2"}});
    let at = "/s:Envelope/s:Body/f:Store/f:name";
    let namespaces = json!({"s": "http://schemas.xmlsoap.org/soap/envelope/", "f": "urn:files"});
    apply(
        &environment,
        &json!({
            "wsdl": {"files": {"text": include_str!("../../server/outgoing/tests/soap/files.wsdl")}},
            "security": {"login": {"type": "basic_auth", "username": "us", "password": "own-password"}},
            "outgoing": {
                "billing": outgoing(format!("{}/services/billing", billing.url())),
                "gifts": outgoing(format!("{}/gifts", gifts.url())),
            },
            "channel": {"soap": {"type": "passthrough", "path": "/soap/{rest:path}", "outgoing": "billing", "routes": [
                {"outgoing": "gifts", "xpath": {"at": at, "namespaces": namespaces, "one_of": ["gift"]}},
            ]}},
        }),
    );
    environment.wait_for_status("/soap/a", 200);
    let message = |name: &str| {
        format!(
            "<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'><e:Body><Store xmlns='urn:files'>\
             <name>{name}</name></Store></e:Body></e:Envelope>"
        )
    };
    let send = |name: &str| {
        let http = environment.http().header("SOAPAction", "\"urn:store\"");
        http.post("/soap/any/where", "text/xml; charset=utf-8", message(name).as_bytes()).unwrap().json()
    };
    let said = send("invoice");
    assert_eq!((&said["system"], &said["method"]), (&json!("billing"), &json!("POST")));
    assert_eq!(said["target"], "/services/billing?v=2", "it has one address, whatever was asked for");
    assert_eq!(
        (&said["body"], &said["type"]),
        (&json!(message("invoice")), &json!("text/xml; charset=utf-8"))
    );
    assert_eq!(said["authorization"], "Basic dXM6b3duLXBhc3N3b3Jk");
    assert_eq!(billing.last().unwrap().header("soapaction"), "\"urn:store\"");
    assert_eq!(
        (send("gift")["system"].as_str(), send("gift")["target"].as_str()),
        (Some("gifts"), Some("/gifts?v=2"))
    );
}

#[test]
fn routes_choose_by_field_body_and_chance() {
    let (environment, _one, _two) = started(&json!({
        "routed": {"type": "passthrough", "path": "/routed/{id}", "outgoing": "one", "routes": [
            {"outgoing": "two", "header": {"name": "X-Version", "one_of": ["2"]}},
            {"outgoing": "two", "pointer": {"at": "/customer/country", "one_of": ["PL"]}},
            {"outgoing": "two", "xpath": {"at": "/o:order/o:kind", "namespaces": {"o": "urn:o"}, "one_of": ["gift"]}},
        ]},
        "canary": {"type": "passthrough", "path": "/canary/{id}", "outgoing": "one", "routes": [
            {"outgoing": "two", "percent": 30, "percent_by": "X-Customer"},
        ]},
    }));
    environment.wait_for_status("/routed/1", 200);
    let http = environment.http();
    let system = |reply: crosstie_test_support::Reply| reply.json()["system"].as_str().unwrap().to_owned();
    assert_eq!(system(http.get("/routed/1").unwrap()), "one");
    assert_eq!(system(environment.http().header("X-Version", "2").get("/routed/1").unwrap()), "two");
    let post = |body: &str| system(http.post("/routed/1", "text/plain", body.as_bytes()).unwrap());
    assert_eq!(post(r#"{"customer": {"country": "PL"}}"#), "two");
    assert_eq!(post(r#"{"customer": {"country": "DE"}}"#), "one");
    assert_eq!(post("<o:order xmlns:o='urn:o'><o:kind>gift</o:kind></o:order>"), "two");
    assert_eq!(post("<order><kind>gift</kind></order>"), "one");

    let mut two = 0;
    for customer in 0..200 {
        let of = |n: u32| {
            system(environment.http().header("X-Customer", &n.to_string()).get("/canary/1").unwrap())
        };
        let first = of(customer);
        if customer < 20 {
            assert_eq!(of(customer), first, "customer {customer} is sent elsewhere the second time");
        }
        two += u32::from(first == "two");
    }
    assert!((30..=90).contains(&two), "{two} of 200 for 30 percent");
}

const LOOKING_ON: &str = r#"
from crosstie import Forbidden, Service

class Before(Service):
    name = "look.before"
    def handle(self):
        if self.request.headers.get("X-Refuse"):
            raise Forbidden("not through here")
        if self.request.headers.get("X-Answer"):
            self.response.status_code = 203
            self.response.payload = {"answered": self.request.http.path}
            return
        self.response.headers = {"X-Seen": f"{self.request.http.method} {self.request.params['id']} {len(self.request.raw)}"}
        if self.request.raw == b"replace":
            self.response.payload = b"replaced"

class After(Service):
    name = "look.after"
    def handle(self):
        answer = self.request.payload
        self.response.headers = {"X-After": f"{answer['status']} {answer['headers']['x-backend']} {len(self.request.raw) > 0}"}
        if self.request.http.query.get("hide"):
            self.response.status_code = 404
            self.response.payload = {"hidden": True}
"#;

#[test]
fn services_look_on_before_and_after() {
    let environment = Environment::start().unwrap();
    let one = echo("one");
    environment.drop_file("look.py", LOOKING_ON).unwrap();
    wait_until("the services are there", || {
        environment.run(&["service", "list"]).unwrap().stdout.contains("look.after")
    });
    let channel = |path: &str, bodies: &str| {
        json!({"type": "passthrough", "path": path, "outgoing": "one", "before": "look.before", "after": "look.after",
            "bodies": bodies})
    };
    apply(
        &environment,
        &json!({
            "outgoing": {"one": {"type": "http", "address": one.url()}},
            "channel": {"look": channel("/look/{id}", "none"), "whole": channel("/whole/{id}", "both")},
        }),
    );
    environment.wait_for_status("/look/1", 200);
    let http = environment.http();
    let reply = http.post("/look/7", "text/plain", b"four").unwrap();
    assert_eq!((reply.header("x-after"), reply.json()["seen"].as_str()), ("200 one False", Some("POST 7 0")));
    assert_eq!(reply.json()["body"], "four");
    let reply = http.post("/whole/7", "text/plain", b"four").unwrap();
    assert_eq!((reply.header("x-after"), reply.json()["seen"].as_str()), ("200 one True", Some("POST 7 4")));
    let replaced = http.post("/whole/7", "text/plain", b"replace").unwrap().json();
    assert_eq!((&replaced["body"], &replaced["type"]), (&json!("replaced"), &json!("text/plain")));
    let hidden = http.get("/look/1?hide=1").unwrap();
    assert_eq!((hidden.status, hidden.json()), (404, json!({"hidden": true})));

    let asked = one.asked().len();
    let refused = environment.http().header("X-Refuse", "1").get("/look/1").unwrap();
    assert_eq!((refused.status, refused.json()["detail"].as_str()), (403, Some("not through here")));
    let answered = environment.http().header("X-Answer", "1").get("/look/1").unwrap();
    assert_eq!((answered.status, answered.json()), (203, json!({"answered": "/look/1"})));
    assert_eq!(one.asked().len(), asked, "neither reached the other system");
}

#[test]
fn bodies_are_handed_on_while_they_come() {
    let environment = Environment::start().unwrap();
    let slow = Upstream::start(|asked| Said {
        status: 200,
        pieces: vec![b"one ".to_vec(), format!("{} ", asked.body.len()).into_bytes(), b"three".to_vec()],
        pause: Duration::from_millis(300),
        ..Said::default()
    })
    .unwrap();
    apply(
        &environment,
        &json!({
            "outgoing": {"slow": {"type": "http", "address": slow.url()}},
            "channel": {"slow": {"type": "passthrough", "path": "/slow", "outgoing": "slow", "max_body_bytes": 3_000_000}},
        }),
    );
    environment.wait_for_status("/slow", 200);
    let mut stream = TcpStream::connect(environment.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = "POST /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..20 {
        stream.write_all(b"186A0\r\n").unwrap();
        stream.write_all(&[b'x'; 100_000]).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    // The first piece is there while the last is not made yet.
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains("one ") {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..read]);
    }
    assert!(!String::from_utf8_lossy(&seen).contains("three"));
    stream.read_to_end(&mut seen).unwrap();
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(seen.contains("2000000 ") && seen.contains("three"), "{seen}");

    // One that is larger than allowed is refused, whether it says so or not.
    let large = vec![b'x'; 3_000_001];
    let reply = environment.http().post("/slow", "text/plain", &large).unwrap();
    assert_eq!(reply.status, 413);
    let mut stream = TcpStream::connect(environment.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..31 {
        // It may be refused before all of it is sent.
        let _ = stream.write_all(b"186A0\r\n");
        let _ = stream.write_all(&[b'x'; 100_000]);
        let _ = stream.write_all(b"\r\n");
    }
    let mut refused = [0; 12];
    stream.read_exact(&mut refused).unwrap();
    assert_eq!(&refused, b"HTTP/1.1 413");
}

#[test]
fn a_system_that_fails_is_told_as_one_and_costs_the_others_nothing() {
    let environment = Environment::start().unwrap();
    let broken = Upstream::start(|asked| match asked.target.as_str() {
        "/f/hang" => Said::json(200, &json!(1)).after(Duration::from_secs(30)),
        "/f/break" => Said::default(),
        _ => Said::json(200, &json!("fine")),
    })
    .unwrap();
    apply(
        &environment,
        &json!({
            "outgoing": {
                "broken": {"type": "http", "address": broken.url(), "deadline_ms": 700, "retry": {"max": 0}},
                "gone": {"type": "http", "address": "http://127.0.0.1:1", "retry": {"max": 0}},
                "off": {"type": "http", "address": "http://127.0.0.1:1", "active": false},
            },
            "channel": {
                "f": {"type": "passthrough", "path": "/f/{x}", "outgoing": "broken"},
                "g": {"type": "passthrough", "path": "/g", "outgoing": "gone"},
                "o": {"type": "passthrough", "path": "/o", "outgoing": "off"},
            },
        }),
    );
    environment.wait_for_json("/f/fine", &json!("fine"));
    for (path, status) in [("/f/hang", 504), ("/f/break", 502), ("/g", 502), ("/o", 503), ("/f/fine", 200)] {
        let reply = environment.http().get(path).unwrap();
        assert_eq!(reply.status, status, "{path} {}", reply.text());
        assert!(!reply.text().contains("127.0.0.1"), "{}", reply.text());
    }

    // A channel to what is not there, or takes no requests, is refused; so is taking away what a channel needs.
    for (outgoing, word) in [("nothing", "outgoing/nothing"), ("db", "takes no requests")] {
        let body = json!({
            "outgoing": {"db": {"type": "sql", "engine": "sqlite", "database": "work/x.db", "create": true}},
            "channel": {"bad": {"type": "passthrough", "path": "/bad", "outgoing": outgoing}},
        });
        let apply = environment.command(&["apply", "-f", "-"]).unwrap();
        let refused = apply.input(body.to_string()).run().unwrap();
        assert!(refused.code != 0, "{}", refused.stdout);
        assert!(
            refused.stderr.contains(word) || refused.stderr.contains("no outgoing"),
            "{}",
            refused.stderr
        );
    }
    assert_ne!(environment.run(&["delete", "outgoing", "broken"]).unwrap().code, 0);
}
