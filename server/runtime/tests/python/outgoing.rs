//! What services say to other systems and hear from them, with systems in memory: real ones are called by the
//! tests of the outgoings themselves and by the end-to-end tests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use crosstie_model::definition::OutgoingFormat;
use crosstie_model::message::ReplyBody;
use crosstie_model::outgoing::{
    CallBody, Connection, ExpandError, FoundOutgoing, HttpAnswer, HttpCall, HttpOutgoing, Outgoing,
    OutgoingError, Pace, PathTemplate, Ping, Pong, Trouble,
};
use crosstie_model::{FailureKind, Origin};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::json;

use crate::support::{World, get};

/// Method, target, and the body or why it broke off.
type SeenCall = (Method, String, Result<Bytes, String>);

/// What one system saw.
#[derive(Default)]
struct Seen {
    calls: Mutex<Vec<SeenCall>>,
    running: AtomicUsize,
    most: AtomicUsize,
    cut_off: AtomicUsize,
}

/// A system in memory. What it does is in the path: `/hang`, `/slow`, or the media type and text of its answer.
struct System {
    seen: Arc<Seen>,
    template: PathTemplate,
}

/// Counts a call that ended without an answer.
struct Running(Arc<Seen>, bool);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
        if !self.1 {
            self.0.cut_off.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[async_trait]
impl Connection for System {
    fn name(&self) -> &str {
        "system"
    }

    async fn ping(&self, _: Ping) -> Result<Pong, OutgoingError> {
        Ok(Pong { detail: "it is there".into(), elapsed: Duration::ZERO })
    }
}

#[async_trait]
impl HttpOutgoing for System {
    fn data_format(&self) -> OutgoingFormat {
        OutgoingFormat::Json
    }

    fn base_path(&self) -> &str {
        ""
    }

    fn target(&self, params: &[(String, String)], query: &[(String, String)]) -> Result<String, ExpandError> {
        let mut target = String::new();
        let value_of = |name: &str| params.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        self.template.expand(value_of, &mut target)?;
        let rest: Vec<_> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok(if rest.is_empty() { target } else { format!("{target}?{}", rest.join("&")) })
    }

    async fn send(&self, call: HttpCall) -> Result<HttpAnswer, OutgoingError> {
        let mut running = Running(Arc::clone(&self.seen), false);
        let now = self.seen.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.most.fetch_max(now, Ordering::SeqCst);
        let body = match call.body {
            CallBody::Empty => Ok(Bytes::new()),
            CallBody::Full(bytes) => Ok(bytes),
            CallBody::Stream(pieces) => pieces.collect().await.map(|all| all.to_bytes()),
        };
        let body = body.map_err(|failure| failure.to_string());
        self.seen.calls.lock().unwrap().push((call.method, call.target.clone(), body));
        match call.target.as_str() {
            "/hang" => std::future::pending::<()>().await,
            "/slow" => tokio::time::sleep(Duration::from_millis(200)).await,
            "/refused" => return Err(OutgoingError::new(Trouble::Connect, "10.0.0.7 refused")),
            _ => {}
        }
        running.1 = true;
        Ok(answer(&call.target, call.pace))
    }
}

fn answer(target: &str, pace: Pace) -> HttpAnswer {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = HeaderMap::new();
    let fields: HashMap<_, _> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    if let Some(media_type) = fields.get("type") {
        headers.insert("content-type", HeaderValue::from_str(media_type).unwrap());
    }
    let body = match path {
        "/latin" => Bytes::from_static(b"gr\xfc\xdfe"),
        _ => Bytes::from(fields.get("body").map_or_else(String::new, |body| (*body).to_owned())),
    };
    let size = if pace == Pace::Pieces { 2 } else { body.len().max(1) };
    let pieces: Vec<_> =
        body.chunks(size).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
    let status = fields.get("status").map_or(200, |status| status.parse().unwrap());
    HttpAnswer {
        status: StatusCode::from_u16(status).unwrap(),
        version: Version::HTTP_11,
        headers,
        body: Box::pin(StreamBody::new(futures_util::stream::iter(pieces))),
    }
}

/// A world with the outgoings `system` (its path is a parameter) and `closed`.
fn world() -> (World, Arc<Seen>) {
    let world = World::new();
    let seen = Arc::new(Seen::default());
    let template = PathTemplate::parse("/{path}").unwrap();
    let system = Outgoing::Http(Arc::new(System { seen: Arc::clone(&seen), template }));
    let closed = OutgoingError::new(Trouble::Closed, "its key is missing");
    let mut outgoings = world.directory.outgoings.lock().unwrap();
    outgoings.insert("system".into(), FoundOutgoing { type_name: "rest", state: Ok(system) });
    outgoings.insert("closed".into(), FoundOutgoing { type_name: "rest", state: Err(closed) });
    drop(outgoings);
    (world, seen)
}

const SERVICES: &str = r#"
from crosstie import *

def error_of(work):
    try:
        work()
    except Exception as error:
        return type(error).__name__

class Misuse(Service):
    name = "misuse"
    def handle(self):
        conn = self.rest["system"]
        return [error_of(work) for work in (
            lambda: conn.get(params={}),
            lambda: conn.get({"path": ".."}),
            lambda: conn.get({"path": ""}),
            lambda: conn.get({"path": "a"}, {"data": 1}),
            lambda: conn.post({}, {"path": "a"}, data={}),
            lambda: conn.post({"path": "a"}, colour="red"),
            lambda: conn.post(1, {"path": "a"}, json=2),
            lambda: conn.get({"path": "a"}, headers={"a b": "c"}),
            lambda: conn.get({"path": "a"}, headers={"a": "b\nc"}),
            lambda: conn.get({"path": "a"}, timeout=0),
            lambda: conn.get(["path"]),
            lambda: conn.send("NO METHOD", params={"path": "a"}),
            lambda: conn.post(object(), {"path": "a"}),
            lambda: self.rest["absent"],
            lambda: self.out.http["system"],
            lambda: self.rest["closed"].get(),
        )] + ["system" in self.out.rest, "system" in self.out.http, self.rest.get("absent")]

class Answers(Service):
    name = "answers"
    def handle(self):
        def data(path, media_type, body="", status=200):
            query = {"body": body, "status": status}
            if media_type:
                query["type"] = media_type
            return self.rest["system"].get({"path": path}, query=query)
        shown = [
            data("a", "application/json", "[1]").data,
            data("a", "application/problem+json", "{}", 404).data,
            data("a", "", "7").data,
            data("a", "text/plain", "hi").data,
            data("latin", "text/plain; charset=ISO-8859-1").text,
            data("a", "application/pdf", "x").data == b"x",
            data("a", "application/json").data,
            data("a", "text/html", "[2]").json(),
            error_of(lambda: data("a", "application/json", "{").data),
            error_of(lambda: data("a", "", "", 500).raise_for_status()),
            data("a", "", "", 302).ok, data("a", "", "", 400).ok, bool(data("a", "", "", 500)),
            data("a", "text/plain; charset=no-such", "x").text,
            data("a", "X-Y/Z", "x").headers["Content-Type"],
            data("a", "", "x").reason,
            self.rest["system"].ping(),
        ]
        assert data("a", "", "x").raise_for_status() is None
        return shown

class Pieces(Service):
    name = "pieces"
    def handle(self):
        def broken():
            # More than may wait: the call has begun by then.
            for _ in range(10):
                yield b"one"
            raise KeyError("no more")
        conn = self.rest["system"]
        caught = error_of(lambda: conn.post(broken(), {"path": "a"}))
        wrong = error_of(lambda: conn.post(iter([1]), {"path": "a"}))
        empty = conn.post(iter([]), {"path": "a"}).status_code
        answer = conn.get({"path": "a"}, query={"body": "abcde"}, stream=True)
        return [caught, wrong, empty, [piece.decode() for piece in answer], answer.content.decode()]

class Passed(Service):
    name = "passed"
    def handle(self):
        return self.rest["system"].get({"path": "a"}, query={"body": "abcde"}, stream=True)

class PassedAsync(Service):
    name = "passed.async"
    async def handle(self):
        return await self.rest["system"].get({"path": "a"}, query={"body": "abcde"}, stream=True)

class Hangs(Service):
    name = "hangs"
    def handle(self):
        return self.rest["system"].get({"path": "hang"}).data

class HangsAsync(Service):
    name = "hangs.async"
    async def handle(self):
        return (await self.rest["system"].get({"path": "hang"})).data

class Slow(Service):
    name = "slow"
    def handle(self):
        return self.rest["system"].get({"path": "slow"}).status_code

class Refused(Service):
    name = "refused"
    def handle(self):
        return self.rest["system"].get({"path": "refused"}).data

class Threads(Service):
    name = "threads"
    def handle(self):
        from threading import Thread
        found = []
        threads = [Thread(target=lambda: found.append(self.rest["system"].get({"path": "a"}).status_code)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found
"#;

#[tokio::test]
async fn misuse_is_told_to_the_service_as_what_it_is() {
    let (world, seen) = world();
    world.deploy("services", SERVICES).await;
    let told = world.json("misuse", get()).await;
    assert_eq!(
        told,
        json!([
            "ValueError",
            "ValueError",
            "ValueError",
            "TypeError",
            "TypeError",
            "TypeError",
            "TypeError",
            "ValueError",
            "ValueError",
            "ValueError",
            "TypeError",
            "ValueError",
            "TypeError",
            "KeyError",
            "KeyError",
            "ServiceUnavailable",
            true,
            false,
            null
        ])
    );
    assert!(seen.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn answers_are_given_by_their_type() {
    let (world, _) = world();
    world.deploy("services", SERVICES).await;
    assert_eq!(
        world.json("answers", get()).await,
        json!([
            [1],
            {},
            7,
            "hi",
            "grüße",
            true,
            null,
            [2],
            "BadGateway",
            "UpstreamError",
            true,
            false,
            false,
            "x",
            "X-Y/Z",
            "OK",
            "it is there"
        ])
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_whole() {
    let (world, seen) = world();
    world.deploy("services", SERVICES).await;
    let told = world.json("pieces", get()).await;
    assert_eq!(told, json!(["KeyError", "TypeError", 200, ["ab", "cd", "e"], ""]));
    world
        .until("the call that broke off is cut off or failed", |_| {
            let calls = seen.calls.lock().unwrap();
            let failed = calls.iter().filter(|(_, _, body)| body.is_err()).count();
            failed + seen.cut_off.load(Ordering::SeqCst) >= 1
        })
        .await;
    let calls = seen.calls.lock().unwrap();
    let whole: Vec<_> = calls.iter().filter_map(|(_, _, body)| body.clone().ok()).collect();
    assert_eq!(whole, [Bytes::new(), Bytes::new()], "the empty one, and the one without a body");
}

#[tokio::test]
async fn an_answer_can_be_passed_on_as_it_comes() {
    let (world, _) = world();
    world.deploy("services", SERVICES).await;
    for service in ["passed", "passed.async"] {
        let reply = world.call(service, get()).await.unwrap();
        let ReplyBody::Stream(mut stream) = reply.body else { panic!("{:?}", reply.body) };
        let mut pieces = Vec::new();
        while let Some(piece) = stream.next().await {
            pieces.push(piece.unwrap());
        }
        assert_eq!(pieces, ["ab", "cd", "e"], "{service}");
    }
}

#[tokio::test]
async fn a_call_ends_with_its_service() {
    let (world, seen) = world();
    world.deploy("services", SERVICES).await;
    for (number, service) in ["hangs", "hangs.async"].into_iter().enumerate() {
        let failure = world.call(service, get().within(Duration::from_millis(200))).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Timeout, "{service}");
        world.until("the call is cut off", |_| seen.cut_off.load(Ordering::SeqCst) == number + 1).await;
    }
    assert_eq!(seen.running.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn waiting_for_another_system_keeps_no_other_service_from_running() {
    let (world, seen) = world();
    world.deploy("services", SERVICES).await;
    let service = crosstie_model::ports::ServiceDirectory::find(&*world.directory, "slow").unwrap();
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let service = Arc::clone(&service);
            tokio::spawn(async move { service.invoke(get().message).await.is_ok() })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap());
    }
    assert!(seen.most.load(Ordering::SeqCst) >= 2, "calls ran one after the other");
}

#[tokio::test]
async fn a_failure_outside_is_told_as_one_and_without_its_detail() {
    let (world, _) = world();
    world.deploy("services", SERVICES).await;
    let failure = world.call("refused", get()).await.unwrap_err();
    assert_eq!((failure.kind, failure.origin), (FailureKind::BadGateway, Origin::Upstream));
    assert!(!failure.text.contains("10.0.0.7"), "{failure}");
}

#[tokio::test]
async fn threads_of_a_service_may_call_too() {
    let (world, _) = world();
    world.deploy("services", SERVICES).await;
    assert_eq!(world.json("threads", get()).await, json!([200, 200, 200, 200]));
}
