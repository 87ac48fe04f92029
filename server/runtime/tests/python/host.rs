//! What services get from the server: each other, data, dictionaries, configuration, the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crosstie_model::FailureKind;
use crosstie_model::settings::PythonSettings;
use serde_json::json;

use crate::support::{World, get, post};

const CALLERS: &str = r#"
from crosstie import *
class Add(Service):
    name = "add"
    def handle(self):
        p = self.request.input
        return {"sum": p["a"] + p["b"], "cid": self.cid, "channel": self.channel.type, "method": self.request.http.method}
class AddAsync(Service):
    name = "add.async"
    async def handle(self):
        import asyncio
        await asyncio.sleep(0.001)
        p = self.request.payload
        return p["a"] + p["b"]
class Caller(Service):
    name = "caller"
    def handle(self):
        first = self.invoke("add", {"a": 1, "b": 2})
        second = self.invoke(Add, a=3, b=4)
        third = self.invoke("add.async", {"a": 5, "b": 6})
        return [first["sum"], first["cid"] == self.cid, first["channel"], first["method"], second["sum"], third]
class CallerAsync(Service):
    name = "caller.async"
    async def handle(self):
        import asyncio
        first = await self.invoke("add", a=1, b=2)
        many = await asyncio.gather(*[self.invoke("add.async", a=n, b=n) for n in range(5)])
        return [first["sum"], many]
class Loop(Service):
    name = "loop"
    def handle(self):
        return self.invoke("loop")
class LoopAsync(Service):
    name = "loop.async"
    async def handle(self):
        return await self.invoke("loop.mixed")
class LoopMixed(Service):
    name = "loop.mixed"
    def handle(self):
        return self.invoke("loop.async")
class Fails(Service):
    name = "fails"
    def handle(self):
        raise NotFound("no such thing") if self.request.payload else ValueError("boom")
class Catches(Service):
    name = "catches"
    def handle(self):
        found = []
        for payload in (1, 0):
            try:
                self.invoke("fails", payload)
            except ServiceError as error:
                found.append([type(error).__name__, error.message, error.status])
        try:
            self.invoke("nobody")
        except NotFound as error:
            found.append(error.message)
        return found
class Passes(Service):
    name = "passes"
    def handle(self):
        self.invoke("fails", 1)
class Streams(Service):
    name = "streams"
    def handle(self):
        yield 1
class Takes(Service):
    name = "takes"
    input = type("In", (Model,), {"__annotations__": {"n": int}})
    def handle(self):
        return self.request.input.n
class TakesWrong(Service):
    name = "takes.wrong"
    def handle(self):
        try:
            self.invoke("takes", n="x")
        except BadRequest as error:
            return [error.message, error.faults]
"#;

#[tokio::test]
async fn services_call_each_other() {
    let world = World::new();
    world.deploy("callers", CALLERS).await;
    assert_eq!(world.json("caller", get()).await, json!([3, true, "invoke", "", 7, 11]));
    assert_eq!(world.json("caller.async", get()).await, json!([3, [0, 2, 4, 6, 8]]));
    assert_eq!(
        world.json("catches", get()).await,
        json!([
            ["NotFound", "no such thing", 404],
            ["InternalServerError", "The service failed", 500],
            "There is no service named nobody"
        ])
    );
    assert_eq!(world.call("passes", get()).await.unwrap_err().kind, FailureKind::NotFound);
    let wrong = world.json("takes.wrong", get()).await;
    assert_eq!(wrong[1][0][0], "/n");
}

#[tokio::test]
async fn services_that_call_each_other_in_a_circle_end() {
    let world = World::with(PythonSettings { handler_threads: 2, ..PythonSettings::default() });
    world.deploy("callers", CALLERS).await;
    let failure = world.call("loop", get()).await.unwrap_err();
    assert!(failure.text.contains("more than 32 deep"), "{failure:?}");
    // A circle that needs a new thread in every round is ended by the pool or by the deadline.
    let started = Instant::now();
    let failure = world.call("loop.async", get().within(Duration::from_secs(2))).await.unwrap_err();
    assert!(failure.http_status() >= 500, "{failure:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(world.json("caller", get()).await[0], 3);
}

#[tokio::test]
async fn one_handler_thread_is_enough_for_nested_calls() {
    let world = World::with(PythonSettings { handler_threads: 1, queue: 100, ..PythonSettings::default() });
    world.deploy("callers", CALLERS).await;
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let service = world.directory.services.lock().unwrap()
                [if n % 2 == 0 { "caller" } else { "caller.async" }]
            .clone();
            tokio::spawn(async move { service.invoke(get().message).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn data_is_written_read_and_compared() {
    let world = World::new();
    let source = r#"
from crosstie import *
class Use(Service):
    name = "use"
    def handle(self):
        d, found = self.data, []
        found.append(d.get("k", "none"))
        found.append(d.set("k", {"x": [1]}, ttl=60))
        found.append(d.get("k"))
        found.append(d.entry("k"))
        found.append(d.cas("k", 2, 5))
        found.append(d.cas("k", 2, 1))
        try:
            d.set("k", 3, expected=0)
        except Conflict as error:
            found.append(error.message)
        found.append(d.set("k2", 1))
        found.append(d.keys("k"))
        found.append(d.keys("k", 1))
        found.append([d.delete("k2"), d.delete("k2")])
        try:
            d.get("unreachable")
        except ServiceUnavailable as error:
            found.append(error.status)
        try:
            d.set("k", 1, ttl=-1)
        except ValueError as error:
            found.append("ttl")
        return found
class UseAsync(Service):
    name = "use.async"
    async def handle(self):
        version = await self.data.set("async", 1)
        return [version, await self.data.get("async"), await self.data.cas("async", 2, 9), await self.data.delete("async")]
"#;
    world.deploy("data", source).await;
    assert_eq!(
        world.json("use", get()).await,
        json!([
            "none", 1, {"x": [1]}, [{"x": [1]}, 1], false, true, "the entry has version 2, not 0", 1,
            ["k", "k2"], ["k"], [true, false], 503, "ttl"
        ])
    );
    assert_eq!(world.json("use.async", get()).await, json!([1, 1, false, true]));
}

#[tokio::test]
async fn dictionaries_and_configuration_are_read_only() {
    let world = World::new();
    world
        .directory
        .dictionaries
        .lock()
        .unwrap()
        .insert("countries".into(), Arc::new(json!({"de": {"name": "Germany"}, "fr": "France"})));
    let source = r#"
from crosstie import Service
from collections.abc import Mapping
class Look(Service):
    name = "look"
    def handle(self):
        t = self.dictionary["countries"]
        t["de"]["name"] = "changed"
        c = self.config
        found = [t["de"]["name"], t.get("xx", 1), len(t), sorted(t), "fr" in t, dict(t.items())["fr"], t]
        try:
            self.dictionary["nope"]
        except KeyError as error:
            found.append(str(error))
        found += [c.app.limits.depth, c["app"]["limits"]["names"][0], "app" in c, "nope" in self.dictionary]
        for wrong in (lambda: setattr(c.app, "x", 1), lambda: c.app.nope):
            try:
                wrong()
            except AttributeError as error:
                found.append(str(error))
        return found
"#;
    world.deploy("look", source).await;
    assert_eq!(
        world.json("look", get()).await,
        json!([
            "Germany", 1, 2, ["de", "fr"], true, "France", {"de": {"name": "Germany"}, "fr": "France"},
            "'there is no dictionary named \"nope\"'", 3, "a", true, false,
            "the configuration is read-only", "the configuration has no 'nope' here"
        ])
    );
    world.runtime.set_user_config(&json!({"app": {"limits": {"depth": 4, "names": ["z"]}}}));
    assert_eq!(world.json("look", get()).await[8], 4);
}

#[tokio::test]
async fn log_records_carry_the_cid() {
    use std::io::Write;
    use std::sync::Mutex;
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let sink = Sink::default();
    let writer = sink.clone();
    let _ = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .try_init();
    let world = World::new();
    let source = r#"
import logging, sys, threading
from crosstie import Service
log = logging.getLogger(__name__)
class Speak(Service):
    name = "speak"
    def handle(self):
        self.logger.info("one %s %d", "text", 5)
        self.logger.debug("hidden")
        log.warning("two %s", {"a": 1})
        print("three", "four")
        try:
            1 / 0
        except ZeroDivisionError:
            self.logger.exception("five")
        t = threading.Thread(target=lambda: {}["six"])
        t.start(); t.join()
        return self.logger.isEnabledFor(logging.DEBUG)
"#;
    world.deploy("speak", source).await;
    let asked = post(json!(1));
    let cid = asked.message.trace.cid.to_string();
    let debug = world.json("speak", asked).await;
    let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    if text.is_empty() {
        // Under `cargo test` another test was first to say where the log goes.
        return;
    }
    assert_eq!(debug, json!(false));
    for (needle, has_cid) in [
        ("one text 5", true),
        ("two {'a': 1}", true),
        ("three four", true),
        ("five", true),
        ("ZeroDivisionError", false),
        ("KeyError: 'six'", false),
    ] {
        let start = text.find(needle).unwrap_or_else(|| panic!("{needle}: {text}"));
        // A record's fields follow its message, which may have several lines.
        let record = text[start..].split("\n20").next().unwrap();
        assert!(!has_cid || (record.contains(&cid) && record.contains("speak")), "{record}");
    }
    assert!(!text.contains("hidden") && !text.contains("_ct"), "{text}");
}
