//! Calls of other systems: from services to real servers, with credentials that nobody else learns.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crosstie_test_support::environment::Builder;
use crosstie_test_support::{Asked, Environment, Said, Upstream, wait_for, wait_until};
use serde_json::{Value, json};

const SECRETS: [&str; 4] = ["pw-7f3a9c", "key-51d0e2", "token-c4b8aa", "client-9e6f10"];

fn apply(environment: &Environment, text: &str) {
    environment.command(&["apply", "-f", "-"]).unwrap().input(text).run().unwrap().success().unwrap();
}

fn with_metrics() -> Builder {
    Environment::builder().setting("telemetry.metrics_path", "\"/metrics\"")
}

fn metrics(environment: &Environment) -> String {
    let reply = environment.http().get("/metrics").unwrap();
    assert_eq!(reply.status, 200);
    reply.text()
}

fn started() -> Environment {
    with_metrics().start().unwrap()
}

/// A system that answers with what it was asked.
fn echo() -> Upstream {
    Upstream::start(|asked: &Asked| {
        let fields = |name: &str| asked.header(name).to_owned();
        Said::json(
            200,
            &json!({
                "method": asked.method, "target": asked.target, "body": asked.text(),
                "type": fields("content-type"), "authorization": fields("authorization"),
                "key": fields("x-api-key"), "tenant": fields("x-tenant"), "accept": fields("accept"),
            }),
        )
    })
    .unwrap()
}

const RELAY: &str = r#"
from crosstie import Service, rest

class Relay(Service):
    name = "relay"
    channels = [rest("GET", "/relay/{name}")]
    def handle(self):
        return self.out.rest[self.request.http.params["name"]].conn.get(self.cid, {"id": "7"}).data
"#;

/// Every file below `path`, as one text.
fn everything_below(path: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            text.push_str(&everything_below(&path));
        } else if let Ok(content) = fs::read(&path) {
            text.push_str(&String::from_utf8_lossy(&content));
        }
    }
    text
}

#[test]
fn credentials_reach_the_other_system_and_no_log_export_commit_or_answer() {
    let environment = started();
    let upstream = Upstream::start(|asked| {
        if asked.target == "/token" {
            return Said::json(200, &json!({"access_token": "granted-22aa31", "expires_in": 3600}));
        }
        // A system that tells its callers nothing.
        Said::json(200, &json!({"ok": true}))
    })
    .unwrap();
    let (url, [password, key, token, client]) = (upstream.url(), SECRETS);
    apply(
        &environment,
        &format!(
            "security:\n  login: {{type: basic_auth, username: ada, password: {password}}}\n  \
             key: {{type: api_key, key: {key}}}\n  \
             query: {{type: api_key, in: query, name: apikey, key: {key}}}\n  \
             bearer: {{type: bearer, token: {token}}}\n  \
             oauth: {{type: oauth2_client_credentials, token_url: '{url}/token', client_id: me, \
             client_secret: {client}}}\n\
             outgoing:\n  login: {{type: rest, address: '{url}', path: '/a/{{id}}', security: login}}\n  \
             key: {{type: rest, address: '{url}', security: key}}\n  \
             query: {{type: rest, address: '{url}', security: query}}\n  \
             bearer: {{type: rest, address: '{url}', security: bearer}}\n  \
             oauth: {{type: rest, address: '{url}', security: oauth}}\n"
        ),
    );
    environment.drop_file("relay.py", RELAY).unwrap();
    environment.wait_for_json("/relay/login", &json!({"ok": true}));
    let asked = upstream.last().unwrap();
    assert_eq!(asked.target, "/a/7");
    assert_eq!(asked.header("authorization"), "Basic YWRhOnB3LTdmM2E5Yw==");
    let mut presented = Vec::new();
    for name in ["key", "query", "bearer", "oauth"] {
        assert_eq!(environment.http().get(&format!("/relay/{name}")).unwrap().status, 200, "{name}");
        let asked = upstream.last().unwrap();
        presented.push((
            asked.header("x-api-key").to_owned(),
            asked.target.clone(),
            asked.header("authorization").to_owned(),
        ));
    }
    let of = |key: &str, target: &str, authorization: &str| (key.into(), target.into(), authorization.into());
    assert_eq!(presented[0], of(key, "/?id=7", ""));
    assert_eq!(presented[1], of("", &format!("/?id=7&apikey={key}"), ""));
    assert_eq!(presented[2], of("", "/?id=7", &format!("Bearer {token}")));
    assert_eq!(presented[3], of("", "/?id=7", "Bearer granted-22aa31"));

    // Failures are where secrets get out elsewhere.
    let gone = upstream.address();
    drop(upstream);
    for name in ["login", "key", "query", "bearer", "oauth"] {
        let reply = wait_for("the system is gone", || {
            let reply = environment.http().get(&format!("/relay/{name}")).unwrap();
            (reply.status == 502).then_some(reply)
        });
        assert!(!reply.text().contains(&gone.to_string()), "{}", reply.text());
        environment.run(&["ping", name]).unwrap();
    }
    let mut told = environment.run(&["export"]).unwrap().success().unwrap().stdout;
    for kind in ["outgoing", "security"] {
        told += &environment.run(&["get", kind, "-o", "json"]).unwrap().success().unwrap().stdout;
    }
    told += &environment.run(&["status", "-o", "json"]).unwrap().success().unwrap().stdout;
    told += &environment.run(&["config", "log", "-o", "json"]).unwrap().success().unwrap().stdout;
    told += &metrics(&environment);
    told += &everything_below(&environment.server().join("logs"));
    for repository in ["config", "config/cluster"] {
        let log = std::process::Command::new("git")
            .args(["-c", "safe.directory=*", "log", "-p", "--all"])
            .current_dir(environment.server().join(repository))
            .output()
            .unwrap();
        told += &String::from_utf8_lossy(&log.stdout);
    }
    assert!(
        told.contains("oauth2_client_credentials"),
        "the commits and the export are among what is searched"
    );
    for secret in SECRETS.iter().chain(&["granted-22aa31", "YWRhOnB3LTdmM2E5Yw"]) {
        assert!(!told.contains(secret), "{secret} got out");
    }
}

const CALLS: &str = r#"
import io
from crosstie import Model, Service, rest

class Order(Model):
    id: int
    items: list[str]

class Calls(Service):
    name = "calls"
    channels = [rest("POST", "/calls")]
    def handle(self):
        conn, plain = self.out.rest["echo"].conn, self.out.http["plain"]
        form = self.rest["form"]
        calls = {
            "get": conn.get(self.cid, {"id": 7, "tag": ["a", "b"], "none": None, "flag": True}),
            "short": self.rest["echo"].get(params={"id": "a/b"}, query={"q": "x y"}, headers={"X-Tenant": "acme"}),
            "post": conn.post(self.cid, {"name": "Ada", "at": [1, 2.5, None]}, params={"id": 1}),
            "model": conn.put(Order(id=1, items=["x"]), {"id": 1}),
            "text": conn.patch('{"a": 1}', {"id": 1}),
            "delete": conn.delete(params={"id": 1}),
            "send": conn.send("REPORT", params={"id": 1}, json=[1]),
            "options": conn.options(params={"id": 1}),
            "form": form.post({"a": "b c", "d": [1, 2]}),
            "raw": plain.post(b"\x01\x02", headers={"Content-Type": "application/x-own"}),
            "plain": plain.post("grüße"),
            "json": plain.post(json={"a": 1}),
            "files": plain.post({"note": "n"}, files={"doc": ("a.txt", "content", "text/plain"), "b": b"bytes"}),
            "iterator": plain.post(iter([b"one ", "two ", b"three"])),
            "file": plain.post(io.BytesIO(b"x" * 200_000)),
        }
        assert all(answer.ok and answer.status_code == 200 for answer in calls.values())
        answers = {name: answer.data for name, answer in calls.items()}
        answers["file"]["body"] = len(answers["file"]["body"])
        answers["head"] = [conn.head(params={"id": 1}).status_code, conn.head(params={"id": 1}).data]
        return answers

class CallsAsync(Service):
    name = "calls.async"
    channels = [rest("GET", "/async")]
    async def handle(self):
        import asyncio
        conn = self.out.rest["echo"].conn
        answers = await asyncio.gather(*[conn.get(params={"id": n}) for n in range(10)])
        async def pieces():
            for n in range(3):
                await asyncio.sleep(0)
                yield f"{n} "
        posted = await self.out.http["plain"].post(pieces())
        async with await self.out.http["stream"].get(stream=True) as answer:
            parts = [piece.decode() async for piece in answer]
        rest = await self.out.http["stream"].get(stream=True)
        whole = await rest.read()
        return {"targets": [a.data["target"] for a in answers], "posted": posted.data["body"],
                "pieces": parts, "read": [whole.decode(), rest.text]}
"#;

#[test]
fn services_say_all_that_http_has_to_say() {
    let environment = started();
    let upstream = echo();
    let streaming = Upstream::start(|_| Said {
        status: 200,
        pieces: ["one", "two", "three"].map(|piece| piece.as_bytes().to_vec()).to_vec(),
        pause: Duration::from_millis(20),
        ..Said::default()
    })
    .unwrap();
    let (url, stream) = (upstream.url(), streaming.url());
    apply(
        &environment,
        &format!(
            "outgoing:\n  echo: {{type: rest, address: '{url}/v1', path: '/c/{{id}}'}}\n  \
             form: {{type: rest, address: '{url}', data_format: form}}\n  \
             plain: {{type: http, address: '{url}'}}\n  stream: {{type: http, address: '{stream}'}}\n"
        ),
    );
    environment.drop_file("calls.py", CALLS).unwrap();
    environment.wait_for_status("/async", 200);
    let reply = environment.http().post_json("/calls", &json!({})).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let said = reply.json();
    let check = |name: &str, method: &str, target: &str, media_type: &str, body: &str| {
        let found = ["method", "target", "type", "body"].map(|key| said[name][key].as_str().unwrap_or("?"));
        assert_eq!(found, [method, target, media_type, body], "{name}");
    };
    check("get", "GET", "/v1/c/7?tag=a&tag=b&flag=true", "", "");
    check("short", "GET", "/v1/c/a%2Fb?q=x%20y", "", "");
    check("post", "POST", "/v1/c/1", "application/json", r#"{"name":"Ada","at":[1,2.5,null]}"#);
    check("model", "PUT", "/v1/c/1", "application/json", r#"{"id":1,"items":["x"]}"#);
    check("text", "PATCH", "/v1/c/1", "application/json", r#"{"a": 1}"#);
    check("delete", "DELETE", "/v1/c/1", "", "");
    check("send", "REPORT", "/v1/c/1", "application/json", "[1]");
    check("options", "OPTIONS", "/v1/c/1", "", "");
    check("form", "POST", "/", "application/x-www-form-urlencoded", "a=b+c&d=1&d=2");
    check("raw", "POST", "/", "application/x-own", "\u{1}\u{2}");
    check("plain", "POST", "/", "text/plain; charset=utf-8", "grüße");
    check("json", "POST", "/", "application/json", r#"{"a":1}"#);
    check("iterator", "POST", "/", "application/octet-stream", "one two three");
    assert_eq!(said["file"]["body"], 200_000);
    assert_eq!(said["head"], json!([200, null]));
    assert_eq!(
        (&said["short"]["tenant"], &said["get"]["accept"]),
        (&json!("acme"), &json!("application/json"))
    );
    let files = said["files"]["body"].as_str().unwrap();
    for part in [
        "Content-Disposition: form-data; name=\"note\"\r\n\r\nn\r\n",
        "name=\"doc\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\ncontent\r\n",
        "name=\"b\"; filename=\"b\"\r\nContent-Type: application/octet-stream\r\n\r\nbytes\r\n",
    ] {
        assert!(files.contains(part), "{part} is missing in {files}");
    }

    let said = environment.http().get("/async").unwrap().json();
    let targets: Vec<Value> = (0..10).map(|n| format!("/v1/c/{n}").into()).collect();
    assert_eq!(said["targets"], json!(targets));
    assert_eq!((&said["posted"], &said["read"]), (&json!("0 1 2 "), &json!(["onetwothree", "onetwothree"])));
    assert_eq!(said["pieces"].as_array().unwrap().concat_text(), "onetwothree");
}

trait ConcatText {
    fn concat_text(&self) -> String;
}

impl ConcatText for Vec<Value> {
    fn concat_text(&self) -> String {
        self.iter().filter_map(Value::as_str).collect()
    }
}

const FAILING: &str = r#"
from crosstie import *

class Failing(Service):
    name = "failing"
    channels = [rest("GET", "/failing/{name}")]
    deadline_ms = 1500
    def handle(self):
        name = self.request.http.params["name"]
        if self.request.http.query.get("caught"):
            try:
                self.rest[name].get().raise_for_status()
            except ServiceError as error:
                return [type(error).__name__, error.origin, error.reason, bool(error.detail)]
        answer = self.rest[name].get()
        answer.raise_for_status()
        return answer.data

class Relayed(Service):
    name = "relayed"
    channels = [rest("GET", "/relayed")]
    def handle(self):
        with self.out.rest["pieces"].get(stream=True) as answer:
            for piece in answer:
                yield piece
"#;

#[test]
fn what_goes_wrong_outside_is_told_without_details() {
    let environment = started();
    let upstream = Upstream::start(|asked| match asked.target.as_str() {
        "/hang" => Said::json(200, &json!(1)).after(Duration::from_secs(30)),
        "/break" => Said::default(),
        "/nonsense" => Said::typed(200, "application/json", "{secret detail"),
        "/status" => Said::json(418, &json!({"secret": "detail"})),
        _ => Said {
            status: 200,
            pieces: vec![b"x".to_vec(); 12],
            pause: Duration::from_millis(200),
            ..Said::default()
        },
    })
    .unwrap();
    let url = upstream.url();
    let outgoing = |name: &str, more: &str| {
        format!("  {name}: {{type: rest, address: '{url}', path: /{name}, retry: {{max: 0}}{more}}}\n")
    };
    let refused = "  refused: {type: rest, address: 'http://127.0.0.1:1', retry: {max: 0}}\n";
    let off = "  off: {type: rest, address: 'http://127.0.0.1:1', active: false}\n";
    let all: String =
        ["hang", "break", "nonsense", "status", "pieces"].map(|name| outgoing(name, "")).concat();
    let quick = outgoing("hang", ", deadline_ms: 300").replace("  hang:", "  quick:");
    let circuit =
        outgoing("break", ", circuit: {failures: 1, pause_ms: 60000}").replace("  break:", "  circuit:");
    apply(&environment, &format!("outgoing:\n{all}{refused}{off}{quick}{circuit}"));
    environment.drop_file("failing.py", FAILING).unwrap();
    environment.wait_for_status("/failing/refused", 502);
    let http = environment.http();
    for (name, status) in [
        ("hang", 504),
        ("quick", 504),
        ("break", 502),
        ("nonsense", 502),
        ("status", 502),
        ("refused", 502),
        ("off", 503),
        ("absent", 500),
    ] {
        let reply = http.get(&format!("/failing/{name}")).unwrap();
        assert_eq!(reply.status, status, "{name}: {}", reply.text());
        for detail in ["127.0.0.1", "secret", "Traceback", "KeyError"] {
            assert!(!reply.text().contains(detail), "{name}: {}", reply.text());
        }
    }
    for (name, told) in [
        ("quick", json!(["GatewayTimeout", "upstream", "deadline", true])),
        ("break", json!(["BadGateway", "upstream", "broken", true])),
        ("status", json!(["UpstreamError", "upstream", "status", true])),
        ("refused", json!(["BadGateway", "upstream", "connect", true])),
        ("off", json!(["ServiceUnavailable", null, "closed", true])),
    ] {
        assert_eq!(http.get(&format!("/failing/{name}?caught=1")).unwrap().json(), told);
    }
    // Each worker judges by its own calls.
    wait_until("the circuit refuses", || http.get("/failing/circuit").unwrap().status == 503);
    let metrics = metrics(&environment);
    for line in [
        r#"crosstie_outgoing_calls_total{outgoing="quick",type="rest",outcome="deadline"} 2"#,
        r#"crosstie_outgoing_calls_total{outgoing="refused",type="rest",outcome="connect"}"#,
        r#"crosstie_outgoing_circuits_open{outgoing="circuit"} "#,
        r#"crosstie_outgoing_calls_in_flight{outgoing="hang"} 0"#,
        r#"crosstie_outgoing_call_duration_seconds_count{outgoing="status",type="rest"}"#,
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
    // Pieces go on long after the service's deadline: what counts is that they come.
    let reply = http.get("/relayed").unwrap();
    assert_eq!((reply.status, reply.text()), (200, "x".repeat(12)));
}

#[test]
fn a_call_goes_on_under_its_callers_cid() {
    let environment = started();
    let upstream = echo();
    apply(&environment, &format!("outgoing:\n  echo: {{type: rest, address: '{}'}}\n", upstream.url()));
    environment.drop_file("relay.py", RELAY).unwrap();
    let reply = environment.wait_for_status("/relay/echo", 200);
    let parent = upstream.last().unwrap().header("traceparent").to_owned();
    let cid = reply.header("x-crosstie-cid").to_owned();
    assert!(!cid.is_empty() && parent.starts_with(&format!("00-{cid}-")), "{parent} of {cid}");
    assert!(parent.ends_with("-00"), "nobody records this trace: {parent}");
}

const NESTED: &str = r#"
from crosstie import Service, rest

class Outer(Service):
    name = "outer"
    channels = [rest("GET", "/outer")]
    def handle(self):
        return self.invoke("inner")

class Inner(Service):
    name = "inner"
    def handle(self):
        return self.rest["echo"].get().status_code
"#;

#[test]
fn a_call_is_a_span_of_its_own_below_its_service() {
    let collector = Upstream::start(|_| Said::typed(200, "application/x-protobuf", "")).unwrap();
    let endpoint = format!("\"{}\"", collector.url());
    let environment = Environment::builder()
        .setting("telemetry.otlp_endpoint", &endpoint)
        .setting("telemetry.otlp_sample", "1.0")
        .start()
        .unwrap();
    let upstream = echo();
    apply(&environment, &format!("outgoing:\n  echo: {{type: rest, address: '{}'}}\n", upstream.url()));
    environment.drop_file("nested.py", NESTED).unwrap();
    let reply = environment.wait_for_status("/outer", 200);
    let parent = upstream.last().unwrap().header("traceparent").to_owned();
    assert!(parent.starts_with(&format!("00-{}-", reply.header("x-crosstie-cid"))), "{parent}");
    assert!(parent.ends_with("-01"), "this server records the trace: {parent}");
    let contains = |body: &[u8], text: &[u8]| body.windows(text.len()).any(|window| window == text);
    wait_until("the call's span is exported", || {
        let sent = collector.asked();
        sent.iter().any(|sent| contains(&sent.body, b"crosstie.outgoing") && contains(&sent.body, b"echo"))
    });
}

#[test]
fn connections_live_as_long_as_their_definition() {
    let environment = with_metrics().setting("server.workers", "1").start().unwrap();
    let upstream = echo();
    let definition = |path: &str| {
        format!("outgoing:\n  echo: {{type: rest, address: '{}', path: {path}}}\n", upstream.url())
    };
    apply(&environment, &definition("/a"));
    environment.drop_file("relay.py", RELAY).unwrap();
    environment.wait_for_status("/relay/echo", 200);
    assert_eq!(upstream.connections(), 1);
    for number in 0..3 {
        apply(&environment, &format!("dictionary:\n  d: {{entries: {{n: {number}}}}}\n"));
        environment.drop_file("relay.py", &format!("{RELAY}\n# {number}\n")).unwrap();
        assert_eq!(environment.http().get("/relay/echo").unwrap().status, 200);
    }
    assert_eq!(upstream.connections(), 1, "redeploys and other definitions leave it alone");
    apply(&environment, &definition("/b"));
    assert_eq!(environment.http().get("/relay/echo").unwrap().json()["target"], "/b?id=7");
    assert_eq!(upstream.connections(), 2);
    environment.run(&["delete", "outgoing", "echo"]).unwrap().success().unwrap();
    wait_until("nothing is left of it", || {
        environment.http().get("/relay/echo").unwrap().status == 500
            && !metrics(&environment).contains("connections{outgoing=\"echo\"}")
    });
}

#[test]
fn ping_tells_whether_the_other_end_answers_and_status_what_is_closed() {
    let environment = started();
    let upstream = echo();
    let token = environment.server().join("token");
    apply(
        &environment,
        &format!(
            "security:\n  token: {{type: bearer, token: 'file:token'}}\n\
             outgoing:\n  there: {{type: rest, address: '{0}'}}\n  \
             gone: {{type: rest, address: 'http://127.0.0.1:1', retry: {{max: 0}}}}\n  \
             closed: {{type: rest, address: '{0}', security: token}}\n",
            upstream.url()
        ),
    );
    let there = environment.run(&["ping", "there"]).unwrap().success().unwrap().stdout;
    assert!(there.contains("there: HEAD / answered 200"), "{there}");
    let answer = environment.json(&["ping", "there"]).unwrap();
    assert_eq!((&answer["ok"], &answer["type"]), (&json!(true), &json!("rest")));
    for (name, told) in [("gone", "refused"), ("closed", "token"), ("absent", "outgoing/absent")] {
        let refused = environment.run(&["ping", name]).unwrap();
        assert_eq!(refused.code, 1, "{name}");
        assert!(refused.stderr.contains(told), "{name}: {}", refused.stderr);
    }

    let rows = environment.json(&["get", "outgoing"]).unwrap();
    let states: Vec<_> = rows.as_array().unwrap().iter().map(|row| (&row["name"], &row["state"])).collect();
    let of = |name: &'static str, state: &'static str| (json!(name), json!(state));
    let expected = [of("closed", "closed"), of("gone", "open"), of("there", "open")];
    assert!(states.iter().zip(&expected).all(|(found, (name, state))| *found == (name, state)), "{states:?}");
    assert!(rows[0]["reasons"][0].as_str().unwrap().contains("token"));
    let status = environment.component().unwrap();
    assert_eq!(status["closed_outgoings"][0]["outgoing"], "closed");
    let shown = environment.run(&["status", environment.root().to_str().unwrap()]).unwrap().stdout;
    assert!(shown.contains("The outgoing closed is closed: "), "{shown}");
    assert!(metrics(&environment).contains("crosstie_closed_outgoings 1"));

    // It opens with the next change after its secret is there.
    fs::write(token, "t0ken").unwrap();
    apply(&environment, "dictionary:\n  d: {entries: {}}\n");
    assert_eq!(environment.component().unwrap()["closed_outgoings"], json!([]));
    environment.run(&["ping", "closed"]).unwrap().success().unwrap();
    assert_eq!(upstream.last().unwrap().header("authorization"), "Bearer t0ken");
}

#[test]
fn what_could_never_work_is_refused_with_its_place() {
    let environment = started();
    let text = "security:\n  keys: {type: api_key, key: k}\noutgoing:\n  \
                a: {type: rest, address: 'ftp://x'}\n  \
                b: {type: rest, address: 'https://x', path: '/{id'}\n  \
                c: {type: rest, address: 'https://x', security: nobody}\n  \
                d: {type: rest, address: 'https://x', proxy: {address: 'http://p', security: keys}}\n  \
                e: {type: magic, address: 'https://x'}\n";
    let refused = environment.command(&["apply", "-f", "-"]).unwrap().input(text).run().unwrap();
    assert_eq!(refused.code, 1);
    for place in ["address", "path", "security/nobody", "basic_auth", "magic"] {
        assert!(refused.stderr.contains(place), "{place}: {}", refused.stderr);
    }
    apply(&environment, "security:\n  token: {type: bearer, token: t}\n");
    let channel = "channel:\n  a: {type: http, path: /a, service: s, security: token}\n";
    let refused = environment.command(&["apply", "-f", "-"]).unwrap().input(channel).run().unwrap();
    assert!(refused.stderr.contains("only outgoings"), "{}", refused.stderr);
}
