//! What a handler sees and gives.

use std::sync::Arc;

use crosstie_model::message::{Certificate, Part, ReplyBody};
use crosstie_model::{FailureKind, Payload, Principal};
use serde_json::json;
use time::OffsetDateTime;

use crate::support::{World, get, post, request, value_of};

const HELLO: &str = r#"
from crosstie import Model, Service, rest

class Greeting(Model):
    text: str
    visits: int = 0

class Hello(Service):
    """Greets a caller by name."""
    name = "demo.hello"
    channels = [rest("GET", "/hello/{name}")]
    output = Greeting

    def handle(self):
        self.response.payload = Greeting(text=f"Hello {self.request.http.params['name']}")
"#;

#[tokio::test]
async fn the_service_of_the_guide_answers() {
    let world = World::new();
    let unit = world.deploy("hello", HELLO).await;
    let description = unit.services[0].description();
    assert_eq!(description.doc, "Greets a caller by name.");
    assert_eq!(description.class, "hello.Hello");
    assert_eq!(description.channels[0].path, "/hello/{name}");
    let answer = world.json("demo.hello", get().param("name", "Ada")).await;
    assert_eq!(answer, json!({"text": "Hello Ada", "visits": 0}));
}

#[tokio::test]
async fn an_exception_is_a_500_that_tells_nothing() {
    let world = World::new();
    let source = r#"
from crosstie import Service
class Bad(Service):
    def handle(self):
        raise ValueError('secret')
class Exits(Service):
    def handle(self):
        import sys
        sys.exit(3)
class Deep(Service):
    def handle(self):
        return self.handle()
"#;
    world.deploy("bad", source).await;
    for service in ["bad.bad", "bad.exits", "bad.deep"] {
        let failure = world.call(service, post(json!({}))).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Internal, "{service}");
        assert_eq!(failure.text, "The service failed");
    }
}

#[tokio::test]
async fn a_request_shows_everything_that_came() {
    let world = World::new();
    let source = r#"
from crosstie import Service
class Show(Service):
    name = "show"
    def certificate(self, it):
        return [it.subject, it.issuer, it.sans, it.serial, it.fingerprint, it.not_before.isoformat(), str(it.not_after)]
    def handle(self):
        r, h = self.request, self.request.http
        self.response.payload = {
            "payload": r.payload, "input": r.input, "raw": r.raw.decode(), "text": r.text,
            "method": h.method, "path": h.path, "params": h.params, "short": r.params, "query": h.query,
            "GET": h.GET, "agent": h.user_agent, "accept": r.headers["ACCEPT"], "all": r.headers.get_all("x-a"),
            "joined": h.headers["x-a"], "missing": r.headers.get("nope", "default"), "has": "X-A" in r.headers,
            "names": sorted(h.headers), "client": h.client, "secure": h.secure,
            "cid": [self.cid == r.cid, len(self.cid)], "channel": [self.channel.name, self.channel.type],
            "security": [r.security.name, r.security.type, r.security.username, self.channel.security.username],
            "token": [r.security.claims, r.security.scopes, r.security.claims is r.security.claims],
            "certificate": self.certificate(r.security.certificate),
        }
"#;
    world.deploy("show", source).await;
    let mut asked = post(json!({"a": 1, "b": [true, null, 1.5, "ü", 12345678901234567890u64]}))
        .param("id", "7")
        .query("q", "x")
        .query("r", "1")
        .query("r", "2")
        .header("accept", "text/plain")
        .header("user-agent", "tests")
        .header("x-a", "1")
        .header("x-a", "2");
    let mut principal = Principal::new("crm.clients", "basic_auth").named("crm");
    principal.claims.insert("roles".into(), json!(["a", {"b": 1}]));
    principal.scopes = vec!["read".into(), "write".into()];
    principal.certificate = Some(Certificate {
        subject: "CN=shop".into(),
        issuer: "CN=ca".into(),
        sans: vec!["dns:shop.example".into()],
        serial: "0a".into(),
        fingerprint: "ff".into(),
        not_before: OffsetDateTime::UNIX_EPOCH,
        not_after: OffsetDateTime::UNIX_EPOCH + time::Duration::days(1),
    });
    asked.message.principal = Some(Arc::new(principal));
    let body = r#"{"a":1,"b":[true,null,1.5,"ü",12345678901234567890]}"#;
    assert_eq!(
        world.json("show", asked).await,
        json!({
            "payload": {"a": 1, "b": [true, null, 1.5, "ü", 12345678901234567890u64]},
            "input": {
                "a": 1, "b": [true, null, 1.5, "ü", 12345678901234567890u64], "q": "x", "r": ["1", "2"], "id": "7"
            },
            "raw": body, "text": body, "method": "POST", "path": "/path",
            "params": {"id": "7"}, "short": {"id": "7"}, "query": {"q": "x", "r": ["1", "2"]},
            "GET": {"q": "x", "r": ["1", "2"]}, "agent": "tests", "accept": "text/plain", "all": ["1", "2"],
            "joined": "1, 2", "missing": "default", "has": true,
            "names": ["accept", "user-agent", "x-a"], "client": "127.0.0.1", "secure": false,
            "cid": [true, 32], "channel": ["test.channel", "rest"],
            "security": ["crm.clients", "basic_auth", "crm", "crm"],
            "token": [{"roles": ["a", {"b": 1}]}, ["read", "write"], true],
            "certificate": ["CN=shop", "CN=ca", ["dns:shop.example"], "0a", "ff", "1970-01-01T00:00:00+00:00",
                "1970-01-02 00:00:00+00:00"],
        })
    );
}

#[tokio::test]
async fn bodies_of_every_kind_are_decoded() {
    let world = World::new();
    let source = r#"
from crosstie import Service
class Echo(Service):
    name = "echo"
    def handle(self):
        p = self.request.payload
        if isinstance(p, dict) and "file" in p:
            f = p["file"]
            p = {**p, "file": [f.name, f.file_name, f.content_type, f.content.decode(), f.text], "shown": repr(f)}
        self.response.payload = {"type": type(p).__name__, "value": p, "form": len(self.request.http.form)}
"#;
    world.deploy("echo", source).await;
    let form =
        Payload::Form(vec![("a".into(), "1".into()), ("b".into(), "2".into()), ("a".into(), "3".into())]);
    let part = |name: &str, file: Option<&str>, content: &'static str| Part {
        name: name.into(),
        file_name: file.map(str::to_owned),
        content_type: Some("text/plain".into()),
        content: content.into(),
    };
    let multipart =
        Payload::Multipart(vec![part("text", None, "hi"), part("file", Some("a'\n.txt"), "data")]);
    for (payload, expected) in [
        (Payload::Empty, json!({"type": "NoneType", "value": null, "form": 0})),
        (Payload::Json(json!([1, 2])), json!({"type": "list", "value": [1, 2], "form": 0})),
        (Payload::Text("text".into()), json!({"type": "str", "value": "text", "form": 0})),
        (Payload::Bytes(vec![0, 255].into()), json!({"type": "bytes", "value": "AP8=", "form": 0})),
        (form, json!({"type": "dict", "value": {"a": ["1", "3"], "b": "2"}, "form": 2})),
        (
            multipart,
            json!({
                "type": "dict",
                "value": {"text": "hi", "file": ["file", "a'\n.txt", "text/plain", "data", "data"],
                    "shown": "Part(name='file', file_name=\"a'\\n.txt\", content_type='text/plain', 4 bytes)"
                }, "form": 2
            }),
        ),
    ] {
        assert_eq!(world.json("echo", request(payload)).await, expected);
    }
}

#[tokio::test]
async fn a_response_is_what_the_handler_left() {
    let world = World::new();
    let source = r#"
from crosstie import Service
class Full(Service):
    def handle(self):
        self.response.payload = {"a": 1}
        self.response.status_code = 201
        self.response.headers["X-One"] = 1
        self.response.headers["Set-Cookie"] = ["a=1", "b=2"]
        self.response.content_type = "application/vnd.x+json"
class Text(Service):
    def handle(self):
        self.response.payload = "plain"
class Raw(Service):
    def handle(self):
        return b"\x00\x01"
class Nothing(Service):
    def handle(self):
        pass
class Returns(Service):
    def handle(self):
        return [1, "two"]
class Vivid(Service):
    def handle(self):
        self.response.payload.name = "x"
        self.response.payload["other"] = [1]
class Looked(Service):
    def handle(self):
        self.response.payload
        return 5
class BadHeader(Service):
    def handle(self):
        self.response.headers["X"] = "a\r\nEvil: 1"
class BadStatus(Service):
    def handle(self):
        try:
            self.response.status_code = 99
        except ValueError as error:
            return str(error)
class Nan(Service):
    def handle(self):
        return {"x": float("nan")}
class Circle(Service):
    def handle(self):
        a = []
        a.append(a)
        return a
class Strange(Service):
    def handle(self):
        return {"x": object()}
"#;
    world.deploy("r", source).await;
    let full = world.call("r.full", get()).await.unwrap();
    assert_eq!(full.status, Some(201));
    assert_eq!(full.content_type.as_ref().unwrap(), "application/vnd.x+json");
    let headers: Vec<_> =
        full.headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
    assert_eq!(headers, ["x-one=1", "set-cookie=a=1", "set-cookie=b=2"]);
    assert!(matches!(world.call("r.text", get()).await.unwrap().body, ReplyBody::Text(t) if t == "plain"));
    assert!(
        matches!(world.call("r.raw", get()).await.unwrap().body, ReplyBody::Bytes(b) if b == [0u8, 1][..])
    );
    assert!(matches!(world.call("r.nothing", get()).await.unwrap().body, ReplyBody::Empty));
    assert_eq!(world.json("r.returns", get()).await, json!([1, "two"]));
    assert_eq!(world.json("r.vivid", get()).await, json!({"name": "x", "other": [1]}));
    assert_eq!(world.json("r.looked", get()).await, json!(5));
    assert!(
        value_of(&world.call("r.bad-status", get()).await.unwrap()).as_str().unwrap().contains("200 to 599")
    );
    for service in ["r.bad-header", "r.nan", "r.circle", "r.strange"] {
        assert_eq!(world.call(service, get()).await.unwrap_err().kind, FailureKind::Internal, "{service}");
    }
}

#[tokio::test]
async fn exceptions_tell_the_caller_what_the_service_says() {
    let world = World::new();
    let source = r#"
import crosstie
from crosstie import *
class Raise(Service):
    name = "raise"
    def handle(self):
        p = self.request.payload
        kind, more = p["kind"], p.get("more", {})
        args = [self.cid if a == "CID" else a for a in p.get("args", [])]
        raise getattr(crosstie, kind)(*args, **more)
"#;
    world.deploy("raising", source).await;
    let ask = async |value| world.call("raise", post(value)).await.unwrap_err();
    let not_found = ask(json!({"kind": "NotFound", "args": ["CID", "no such customer"]})).await;
    assert_eq!((not_found.kind, not_found.text.as_str()), (FailureKind::NotFound, "no such customer"));
    let plain = ask(json!({"kind": "Conflict"})).await;
    assert_eq!(
        (plain.kind, plain.text.as_str()),
        (FailureKind::Conflict, FailureKind::Conflict.default_text())
    );
    let faults =
        ask(json!({"kind": "BadRequest", "args": ["wrong"], "more": {"faults": [["/a", "is odd"]]}})).await;
    assert_eq!((faults.faults[0].pointer.as_str(), faults.faults[0].detail.as_str()), ("/a", "is odd"));
    let unauthorized =
        ask(json!({"kind": "Unauthorized", "args": ["CID", "who?", "Basic realm=\"x\""]})).await;
    assert_eq!(unauthorized.challenges, ["Basic realm=\"x\""]);
    let busy =
        ask(json!({"kind": "ServiceUnavailable", "args": ["later"], "more": {"retry_after": 2.5}})).await;
    assert_eq!(busy.retry_after, Some(std::time::Duration::from_millis(2500)));
    let gone = ask(json!({"kind": "ServiceError", "args": ["gone"], "more": {"status": 410}})).await;
    assert_eq!((gone.http_status(), gone.text.as_str()), (410, "gone"));
    for (name, status) in [
        ("Forbidden", 403),
        ("MethodNotAllowed", 405),
        ("TooManyRequests", 429),
        ("InternalServerError", 500),
        ("BadGateway", 502),
        ("GatewayTimeout", 504),
    ] {
        assert_eq!(ask(json!({"kind": name})).await.http_status(), status, "{name}");
    }
}

#[tokio::test]
async fn each_method_has_its_own_handler() {
    let world = World::new();
    let source = r#"
from crosstie import Service
class M(Service):
    name = "m"
    def handle_GET(self):
        return "get"
    def handle_POST(self):
        return "post"
"#;
    let unit = world.deploy("m", source).await;
    assert_eq!(unit.services[0].description().methods, ["GET", "POST"]);
    assert_eq!(world.json("m", get()).await, json!("get"));
    assert_eq!(world.json("m", get().method("HEAD")).await, json!("get"));
    assert_eq!(world.json("m", get().method("POST")).await, json!("post"));
    let failure = world.call("m", get().method("DELETE")).await.unwrap_err();
    assert_eq!(
        (failure.kind, failure.allow),
        (FailureKind::MethodNotAllowed, vec!["GET".into(), "POST".into()])
    );
}

#[tokio::test]
async fn hooks_run_around_the_handler() {
    let world = World::new();
    let source = r#"
from crosstie import Service
class Base(Service):
    def before_handle(self):
        self.seen = ["before"]
    def after_handle(self):
        self.response.payload = self.seen + ["after"]
class H(Base):
    name = "h"
    def handle(self):
        self.seen.append("handle")
class A(Service):
    name = "a"
    async def before_handle(self):
        self.seen = ["before"]
    async def handle(self):
        self.seen.append("handle")
    def after_handle(self):
        self.response.payload = self.seen + ["after"]
class Picky(Service):
    name = "picky"
    def accept(self):
        return self.request.payload == 1
    def handle(self):
        return "taken"
"#;
    world.deploy("hooks", source).await;
    assert_eq!(world.json("h", get()).await, json!(["before", "handle", "after"]));
    assert_eq!(world.json("a", get()).await, json!(["before", "handle", "after"]));
    assert_eq!(world.json("picky", post(json!(1))).await, json!("taken"));
    assert_eq!(world.call("picky", post(json!(2))).await.unwrap_err().kind, FailureKind::BadRequest);
}

#[tokio::test]
async fn a_generator_is_sent_piece_by_piece() {
    let world = World::new();
    let source = r#"
from crosstie import Service
log = []
class Lines(Service):
    def handle(self):
        for n in range(3):
            yield {"n": n}
class Text(Service):
    async def handle(self):
        import asyncio
        for n in range(3):
            await asyncio.sleep(0)
            yield f"piece {n} "
class Set(Service):
    def handle(self):
        def make():
            try:
                while True:
                    yield b"x"
            finally:
                log.append("closed")
        self.response.content_type = "text/event-stream"
        self.response.payload = make()
class Early(Service):
    def handle(self):
        raise KeyError(1)
        yield 1
class Late(Service):
    def handle(self):
        yield "a"
        raise KeyError(1)
class Empty(Service):
    def handle(self):
        return iter(())
class Log(Service):
    def handle(self):
        return log
"#;
    world.deploy("s", source).await;
    let (text, kind, failed) = read(&world, "s.lines").await;
    assert_eq!(
        (text.as_str(), kind.as_deref(), failed),
        ("{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n", Some("application/x-ndjson"), false)
    );
    let (text, kind, _) = read(&world, "s.text").await;
    assert_eq!((text.as_str(), kind), ("piece 0 piece 1 piece 2 ", None));
    assert_eq!(world.call("s.early", get()).await.unwrap_err().kind, FailureKind::Internal);
    let (text, _, failed) = read(&world, "s.late").await;
    assert_eq!((text.as_str(), failed), ("a", true));
    assert_eq!(read(&world, "s.empty").await.0, "");
    let endless = world.call("s.set", get()).await.unwrap();
    assert_eq!(endless.content_type.as_ref().unwrap(), "text/event-stream");
    drop(endless);
    for _ in 0..1000 {
        if world.json("s.log", get()).await == json!(["closed"]) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("the generator of a dropped stream was never closed");
}

async fn read(world: &World, service: &str) -> (String, Option<String>, bool) {
    let reply = world.call(service, get()).await.unwrap();
    let kind = reply.content_type.map(|kind| kind.to_str().unwrap().to_owned());
    let ReplyBody::Stream(mut stream) = reply.body else { panic!("no stream") };
    let mut text = String::new();
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => text.push_str(std::str::from_utf8(&piece).unwrap()),
            Err(_) => return (text, kind, true),
        }
    }
    (text, kind, false)
}
