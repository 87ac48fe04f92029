//! Other systems that hang, reset, talk nonsense, never end, or redirect to themselves: each costs its callers the
//! deadline at most and everybody else nothing; the circuit opens and closes, and the metrics tell.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crosstie_test_support::{Environment, wait_for, wait_until};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};

use super::{Raw, Watched, apply, post, until_closed, with_one_worker};

const SERVICES: &str = r#"
from crosstie import Service, ServiceError, rest

class Good(Service):
    name = "good"
    channels = [rest("GET", "/good")]
    def handle(self):
        return "fine"

class Ask(Service):
    name = "ask"
    channels = [rest("GET", "/ask/{name}")]
    def handle(self):
        name = self.request.params["name"]
        if name in self.out.soap:
            return self.out.soap[name].call("Store", {"name": "a", "content": [b"x"]})["size"]
        if name in self.out.sql:
            return self.out.sql[name].one("SELECT 1 AS n").n
        if name in self.out.amqp:
            return self.out.amqp[name].publish("x", "", "q")
        answer = self.rest[name].get()
        answer.raise_for_status()
        return answer.data

class AskAsync(Service):
    name = "ask.async"
    channels = [rest("GET", "/async/{name}")]
    async def handle(self):
        answer = await self.rest[self.request.params["name"]].get()
        return answer.data
"#;

const FILES: &str = include_str!("../../../server/outgoing/tests/soap/files.wsdl");

const STORED: &str = "<s:Envelope xmlns:s='http://schemas.xmlsoap.org/soap/envelope/'><s:Body>\
    <StoreResponse xmlns='urn:files'><size>1</size></StoreResponse></s:Body></s:Envelope>";

/// How a system misbehaves, what callers of services get for it, and how the metrics count it.
const MOODS: [(&str, u16, &str); 10] = [
    ("hang", 504, "deadline"),
    ("trickle", 504, "deadline"),
    ("reset", 502, "broken"),
    ("half", 502, "broken"),
    ("garbage", 502, "protocol"),
    ("headers", 502, "protocol"),
    ("two", 502, "protocol"),
    ("endless", 502, "too_large"),
    ("declared", 502, "too_large"),
    ("itself", 502, "redirect"),
];

/// Misbehaves as the end of `target` says; once it has `recovered`, answers.
fn misbehave(stream: &mut TcpStream, target: &str, recovered: bool) {
    let mood = target.rsplit('/').next().unwrap_or_default();
    let media = if target.starts_with("/soap") { "text/xml" } else { "application/json" };
    let mut say = |text: &str| stream.write_all(text.as_bytes()).is_ok();
    if recovered {
        let body = if target.starts_with("/soap") { STORED } else { "\"recovered\"" };
        let length = body.len();
        say(&format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ));
        return;
    }
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {media}\r\n");
    match mood {
        "half" => {
            say(&format!("{head}Content-Length: 100\r\n\r\n{{\"half"));
        }
        "garbage" => {
            say("\u{0}\u{1}\u{2} no protocol at all \r\n\r\n\u{7f}");
        }
        "headers" => {
            say(&head);
            while say(&format!("X-More: {}\r\n", "x".repeat(1_000))) {}
        }
        "two" => {
            say(&format!("{head}Content-Length: 1\r\nContent-Length: 2\r\n\r\n12"));
        }
        "endless" => {
            say(&format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
            while say(&format!("1000\r\n{}\r\n", "x".repeat(0x1000))) {}
        }
        "trickle" => {
            say(&format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
            while say("1\r\nx\r\n") {
                thread::sleep(Duration::from_millis(20));
            }
        }
        "declared" => {
            say(&format!("{head}Content-Length: 2147483648\r\n\r\n"));
            until_closed(stream);
        }
        "itself" => {
            say(&format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"));
        }
        // With no time to linger, closing resets.
        "reset" => {
            setsockopt(&*stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
        }
        _ => until_closed(stream),
    }
}

/// Outgoings to `hostile` for every mood: `rest.MOOD`, `soap.MOOD`, and `pass.MOOD` with a channel of its own; and
/// `sql.hang` and `amqp.hang`, which wait for a word of it.
fn definitions(hostile: &Raw) -> Value {
    let url = hostile.url();
    let (mut outgoings, mut channels) = (serde_json::Map::new(), serde_json::Map::new());
    for (mood, ..) in MOODS {
        let common = json!({"deadline_ms": 700, "retry": {"max": 0}, "redirects": "any", "max_response_bytes": 300_000,
            "circuit": {"failures": 0}});
        let mut add = |name: &str, more: Value| {
            let mut body = common.clone();
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            outgoings.insert(format!("{name}.{mood}"), body);
        };
        add("rest", json!({"type": "rest", "address": url, "path": format!("/rest/{mood}")}));
        add("soap", json!({"type": "soap", "wsdl": "files", "address": format!("{url}/soap/{mood}")}));
        add("pass", json!({"type": "rest", "address": url, "path": format!("/pass/{mood}")}));
        let channel = json!({"type": "passthrough", "path": format!("/pass/{mood}"), "outgoing": format!("pass.{mood}")});
        channels.insert(format!("pass.{mood}"), channel);
    }
    let sql = json!({"type": "sql", "engine": "postgresql", "host": "127.0.0.1", "port": hostile.address.port(),
        "database": "d", "username": "u", "password": "p", "connect_deadline_ms": 700});
    let amqp = json!({"type": "amqp", "address": format!("amqp://{}/v", hostile.address), "username": "u", "password": "p",
        "deadline_ms": 700});
    outgoings.extend([("sql.hang".to_owned(), sql), ("amqp.hang".to_owned(), amqp)]);
    json!({"wsdl": {"files": {"text": FILES}}, "outgoing": outgoings, "channel": channels})
}

fn metrics(environment: &Environment) -> String {
    environment.http().get("/metrics").unwrap().text()
}

#[test]
fn systems_that_misbehave_cost_their_callers_the_deadline_and_others_nothing() {
    let environment = with_one_worker().start().unwrap();
    let hostile = Raw::start(|stream, target| misbehave(stream, target, false));
    apply(&environment, &definitions(&hostile));
    environment.drop_file("ask.py", SERVICES).unwrap();
    environment.wait_for_status("/good", 200);
    let mut watched = Watched::of(&environment);
    let paths = |mood: &str| {
        [format!("/ask/rest.{mood}"), format!("/ask/soap.{mood}"), format!("/async/rest.{mood}")]
    };
    watched.during("all moods", 0, || {
        thread::scope(|scope| {
            let callers: Vec<_> = MOODS
                .iter()
                .flat_map(|(mood, status, _)| paths(mood).map(|path| (path, *status)))
                .chain([("/ask/sql.hang".to_owned(), 502), ("/ask/amqp.hang".to_owned(), 504)])
                .map(|(path, status)| {
                    let http = environment.http();
                    scope.spawn(move || {
                        let reply = http.get(&path).unwrap();
                        assert_eq!(reply.status, status, "{path}: {}", reply.text());
                        assert!(!reply.text().contains("127.0.0.1"), "{path}: {}", reply.text());
                    })
                })
                .collect();
            // One worker and one interpreter: whoever waited inside of it would be waited for by all.
            let good = environment.http();
            while callers.iter().any(|caller| !caller.is_finished()) {
                assert_eq!(good.get("/good").unwrap().status, 200);
            }
            callers.into_iter().for_each(|caller| caller.join().unwrap());
        });
    });
    let told = metrics(&environment);
    for (mood, _, outcome) in MOODS {
        for (family, calls) in [("rest", 2), ("soap", 1)] {
            let line = format!(
                "crosstie_outgoing_calls_total{{outgoing=\"{family}.{mood}\",type=\"{family}\",outcome=\"{outcome}\"}} {calls}"
            );
            assert!(told.contains(&line), "{line} is missing in\n{told}");
        }
    }

    // A database that does not let anybody in is none that is asked.
    for (family, outcome) in [("sql", "connect"), ("amqp", "deadline")] {
        let line = format!(
            "crosstie_outgoing_calls_total{{outgoing=\"{family}.hang\",type=\"{family}\",outcome=\"{outcome}\"}} 1"
        );
        assert!(told.contains(&line), "{line} is missing in\n{told}");
    }

    watched.during("all moods, handed on", 0, || {
        // One that trickles is handed on for as long as it does: the caller decides.
        for (mood, status, _) in MOODS.into_iter().filter(|(mood, ..)| *mood != "trickle") {
            let (found, text) = post(&environment, &format!("/pass/{mood}"), "Content-Length: 0\r\n", b"");
            match mood {
                // The head came in time: the body is handed on for as long as it comes, and cut off with it.
                "half" | "endless" => assert_eq!(found, 200, "{mood}: {text}"),
                _ => assert_eq!(found, status, "{mood}: {text}"),
            }
            assert!(!text.ends_with("\r\n0\r\n\r\n"), "{mood}: half an answer looks whole");
        }
    });
    wait_until("nothing is under way", || {
        let told = metrics(&environment);
        let mut lines = told.lines().filter(|line| line.starts_with("crosstie_outgoing_calls_in_flight"));
        lines.all(|line| line.ends_with(" 0"))
    });
    watched.finish(&environment);
}

#[test]
fn a_circuit_opens_for_a_system_that_misbehaves_and_closes_when_it_is_well() {
    let environment = with_one_worker().start().unwrap();
    let recovered = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&recovered);
    let hostile = Raw::start(move |stream, target| misbehave(stream, target, switch.load(Ordering::SeqCst)));
    let mut all = definitions(&hostile);
    let outgoings = all["outgoing"].as_object_mut().unwrap().iter_mut();
    for (_, outgoing) in outgoings.filter(|(name, _)| !name.starts_with("sql") && !name.starts_with("amqp")) {
        outgoing["circuit"] = json!({"failures": 3, "pause_ms": 200, "max_pause_ms": 200});
        outgoing["deadline_ms"] = json!(300);
    }
    apply(&environment, &all);
    environment.drop_file("ask.py", SERVICES).unwrap();
    environment.wait_for_status("/good", 200);
    let http = environment.http();
    let names = ["rest.hang", "rest.reset", "rest.garbage", "soap.hang", "soap.reset"];
    for name in names {
        let refused = wait_for(&format!("the circuit of {name} opens"), || {
            let reply = http.get(&format!("/ask/{name}")).unwrap();
            (reply.status == 503).then_some(reply)
        });
        assert!(!refused.header("retry-after").is_empty(), "{name}");
        let told = metrics(&environment);
        let family = name.split('.').next().unwrap();
        for line in [
            format!("crosstie_outgoing_circuits_open{{outgoing=\"{name}\"}} 1"),
            format!(
                "crosstie_outgoing_calls_total{{outgoing=\"{name}\",type=\"{family}\",outcome=\"circuit\"}}"
            ),
        ] {
            assert!(told.contains(&line), "{line} is missing in\n{told}");
        }
    }
    // A passthrough channel obeys the same circuit.
    wait_until("the circuit of a channel opens", || http.get("/pass/reset").unwrap().status == 503);

    recovered.store(true, Ordering::SeqCst);
    for name in names {
        wait_until(&format!("{name} is asked again"), || {
            http.get(&format!("/ask/{name}")).unwrap().status == 200
        });
        assert_eq!(http.get(&format!("/ask/{name}")).unwrap().status, 200, "{name}");
    }
    environment.wait_for_json("/pass/reset", &json!("recovered"));
    let told = metrics(&environment);
    let mut open = told.lines().filter(|line| line.starts_with("crosstie_outgoing_circuits_open"));
    assert!(open.all(|line| line.ends_with(" 0")), "{told}");
}
