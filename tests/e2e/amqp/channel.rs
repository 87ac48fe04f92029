//! Messages reach services, and what cannot be worked on ends beside the queue with its reason.

use std::process::Command;

use crosstie_test_support::parts::TestPart;
use crosstie_test_support::{Environment, processes, wait_for, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{apply, metrics, outgoing, plain, run, with_metrics};

/// Notes each message under its id, and tells on request.
const SEEN: &str = r#"
import json, os, signal, time, uuid
from crosstie import BadRequest, Conflict, Model, Service, amqp, rest

def note(service, value):
    service.data.set(f"seen/{service.request.amqp.message_id}/{service.request.amqp.attempt}", value)

class Seen(Service):
    name = "seen"
    channels = [amqp("orders", connection="broker", exchange="shop", exchange_type="topic", routing_keys=["order.*"])]
    def handle(self):
        message = self.request.amqp
        payload = self.request.payload
        note(self, {
            "payload": payload.decode() if isinstance(payload, bytes) else payload, "raw": self.request.text,
            "queue": message.queue, "exchange": message.exchange, "routing_key": message.routing_key,
            "headers": {k: str(v) for k, v in message.headers.items() if k != "traceparent"},
            "type": message.type, "priority": message.priority, "correlation_id": message.correlation_id,
            "timestamp": message.timestamp.isoformat() if message.timestamp else None,
            "channel": [self.channel.name, self.channel.type], "http": self.request.headers.get("x"),
            "cid": self.cid})

class Order(Model):
    id: int

class Declared(Service):
    name = "declared"
    channels = [amqp("declared", connection="broker")]
    input = Order
    def handle(self):
        note(self, self.request.input.id)

class Failing(Service):
    name = "failing"
    channels = [amqp("failing", connection="broker", retry={"max": 3, "pause_ms": 50, "max_pause_ms": 100})]
    def handle(self):
        how = self.request.payload["how"]
        note(self, how)
        if how == "twice" and self.request.amqp.attempt <= 2:
            raise RuntimeError("not yet: secret-88ab")
        if how == "always":
            raise Conflict("the stock is empty")
        if how == "wrong":
            raise BadRequest("no such customer")

class Deadly(Service):
    name = "deadly"
    channels = [amqp("deadly", connection="broker", max_redeliveries=2, retry={"pause_ms": 300})]
    def handle(self):
        if self.request.payload == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        note(self, "lived")

class Question(Service):
    name = "question"
    channels = [amqp("questions", connection="broker", retry={"max": 0})]
    def handle(self):
        if self.request.payload == "bad":
            raise BadRequest("no answer to that")
        self.response.headers["X-Own"] = "y"
        return {"answer": self.request.payload * 2}

class Single(Service):
    name = "single"
    channels = [amqp("single", connection="broker", idempotency="message_id", consumers=1, consumers_per="cluster")]
    def handle(self):
        self.data.set(f"effect/{uuid.uuid4()}", self.request.amqp.message_id)

class Stuck(Service):
    name = "stuck"
    channels = [amqp("stuck", connection="broker", idempotency="message_id", prefetch=3, deadline_ms=120_000,
                     retry={"pause_ms": 100})]
    def handle(self):
        note(self, self.request.payload)
        if self.request.payload == "wait":
            time.sleep(1000)

class Slow(Service):
    name = "slow"
    channels = [amqp("slow", connection="broker", prefetch=5)]
    def handle(self):
        time.sleep(0.1)
        note(self, self.request.amqp.redelivered)

class Tell(Service):
    name = "tell"
    channels = [rest("GET", "/tell")]
    def handle(self):
        keys = self.data.keys("seen/", 10000)
        return {key[5:]: self.data.get(key) for key in keys}

class Count(Service):
    name = "count"
    channels = [rest("GET", "/count")]
    def handle(self):
        return len(self.data.keys("effect/"))
"#;

/// Publishes messages: each with queue or exchange and key, a body and properties.
const SEND: &str = r#"
import base64
channel.confirm_delivery()
for message in arguments:
    said = dict(message.get("said", {}))
    body = base64.b64decode(message["base64"]) if "base64" in message else message["body"].encode()
    channel.basic_publish(message.get("exchange", ""), message["key"], body,
                          pika.BasicProperties(delivery_mode=2, **said), mandatory=True)
"#;

/// Takes every message of a queue, with its headers.
const TAKE: &str = r#"
found = []
while True:
    method, said, body = channel.basic_get(arguments["queue"], auto_ack=True)
    if method is None: break
    headers = {k: (v if isinstance(v, (int, str)) else str(v)) for k, v in (said.headers or {}).items()}
    found.append({"body": body.decode(), "id": said.message_id, "mode": said.delivery_mode, "headers": headers})
print(json.dumps(found))
"#;

/// How many messages are ready, and how many consumers there are.
const LOOK: &str = r#"
found = channel.queue_declare(arguments["queue"], passive=True).method
print(json.dumps([found.message_count, found.consumer_count]))
"#;

fn served(broker: &TestPart, environment: &Environment) {
    apply(environment, &outgoing(broker, ""));
    environment.drop_file("seen.py", SEEN).unwrap();
    environment.wait_for_status("/tell", 200);
    wait_until("the queues are consumed", || {
        ["orders", "declared", "failing", "deadly", "questions", "single", "stuck", "slow"]
            .iter()
            .all(|queue| consumers(broker, queue) > 0)
    });
}

fn look(broker: &TestPart, queue: &str) -> Option<(u64, u64)> {
    let mut command = super::pika(broker, false, LOOK, &json!({"queue": queue}));
    let output = command.output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some((found[0].as_u64()?, found[1].as_u64()?))
}

fn consumers(broker: &TestPart, queue: &str) -> u64 {
    look(broker, queue).map_or(0, |(_, consumers)| consumers)
}

fn tell(environment: &Environment) -> Value {
    let reply = environment.http().get("/tell").unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// Waits until the attempt `key` was noted.
fn noted(environment: &Environment, key: &str) -> Value {
    wait_for(&format!("{key} was seen"), || tell(environment).get(key).cloned())
}

fn dead(broker: &TestPart, queue: &str, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    wait_until(&format!("{count} dead letters of {queue}"), || {
        let more = run(broker, TAKE, &json!({"queue": format!("{queue}.dead")}));
        found.extend(more.as_array().unwrap().iter().cloned());
        found.len() >= count
    });
    found
}

#[test]
fn a_message_reaches_its_service_by_queue_or_exchange_decoded_by_its_type() {
    let broker = plain();
    let environment = with_metrics().start().unwrap();
    served(&broker, &environment);
    let gzipped = "H4sIAAAAAAACA6tWSlSyMtRRSlKyMq4FAML/WtYNAAAA";
    run(
        &broker,
        SEND,
        &json!([
            {"exchange": "shop", "key": "order.made", "body": "{\"a\": 1}", "said": {"message_id": "m1",
                "content_type": "application/json", "headers": {"n": 1, "t": "x"}, "type": "made", "priority": 3,
                "correlation_id": "c", "timestamp": 1_772_280_000}},
            {"key": "orders", "body": "{\"b\": 2}", "said": {"message_id": "m2"}},
            {"key": "orders", "body": "<r><a>1</a></r>", "said": {"message_id": "m3", "content_type": "text/xml"}},
            {"key": "orders", "body": "gr\u{fc}\u{df}e", "said": {"message_id": "m4", "content_type": "text/plain"}},
            {"key": "orders", "base64": "AAE=", "said": {"message_id": "m5", "content_type": "application/octet-stream"}},
            {"key": "orders", "base64": gzipped, "said": {"message_id": "m6", "content_encoding": "gzip"}},
            {"key": "orders", "body": "{\"broken\": ", "said": {"message_id": "d1"}},
            {"key": "orders", "body": "x", "said": {"message_id": "d2", "content_type": "image/png"}},
            {"key": "declared", "body": "{\"id\": 7}", "said": {"message_id": "m7"}},
            {"key": "declared", "body": "{\"id\": \"x\"}", "said": {"message_id": "d3"}},
        ]),
    );
    let first = noted(&environment, "m1/1");
    assert_eq!(first["payload"], json!({"a": 1}));
    let of = |key: &str| first[key].clone();
    assert_eq!(
        [of("exchange"), of("routing_key"), of("queue")],
        [json!("shop"), json!("order.made"), json!("orders")]
    );
    assert_eq!(of("headers"), json!({"n": "1", "t": "x"}));
    assert_eq!([of("type"), of("priority"), of("correlation_id")], [json!("made"), json!(3), json!("c")]);
    assert_eq!(of("timestamp"), json!("2026-02-28T12:00:00+00:00"));
    assert_eq!(of("channel"), json!(["seen:amqp:orders", "amqp"]));
    for (key, payload) in [
        ("m2/1", json!({"b": 2})),
        ("m3/1", json!({"a": "1"})),
        ("m4/1", json!("grüße")),
        ("m5/1", json!("\u{0}\u{1}")),
        ("m6/1", json!({"a": 1, "b": 3})),
    ] {
        assert_eq!(noted(&environment, key)["payload"], payload, "{key}");
    }
    assert_eq!(noted(&environment, "m7/1"), json!(7));
    let letters = dead(&broker, "orders", 2);
    let reason = |id: &str| {
        let letter = letters.iter().find(|letter| letter["id"] == id).unwrap();
        (letter["headers"]["x-crosstie-failure"].clone(), letter["headers"]["x-crosstie-reason"].to_string())
    };
    assert_eq!(reason("d1").0, "bad_request");
    assert!(reason("d1").1.contains("not valid JSON"), "{letters:?}");
    assert_eq!(reason("d2").0, "unsupported_media_type");
    let letters = dead(&broker, "declared", 1);
    assert!(letters[0]["headers"]["x-crosstie-reason"].as_str().unwrap().contains("/id"), "{letters:?}");
    wait_until("all is acknowledged", || look(&broker, "orders").unwrap().0 == 0);
    // amqp-tools of rabbitmq-c, which say nothing of the type.
    let url = format!("amqp://crosstie:it%27s%20a%20secret@127.0.0.1:{}/crosstie", broker.address.port());
    let sent = Command::new("amqp-publish")
        .args(["-u", &url, "-e", "shop", "-r", "order.tool", "-p", "-b", "{\"tool\": true}"])
        .output()
        .unwrap();
    assert!(sent.status.success(), "{sent:?}");
    assert_eq!(noted(&environment, "None/1")["payload"], json!({"tool": true}));
    let shown = metrics(&environment);
    for line in [
        r#"crosstie_amqp_messages_total{channel="seen:amqp:orders",outcome="done"} 7"#,
        r#"crosstie_amqp_messages_total{channel="seen:amqp:orders",outcome="dead_letter"} 2"#,
        r#"crosstie_requests_total{channel="seen:amqp:orders",service="seen",code="200"} 7"#,
    ] {
        assert!(shown.contains(line), "{line} is missing in\n{shown}");
    }
}

#[test]
fn a_message_is_tried_again_and_ends_as_a_dead_letter_with_its_reason() {
    let broker = plain();
    let environment = Environment::start().unwrap();
    served(&broker, &environment);
    run(
        &broker,
        SEND,
        &json!([
            {"key": "failing", "body": "{\"how\": \"twice\"}", "said": {"message_id": "t", "expiration": "60000"}},
            {"key": "failing", "body": "{\"how\": \"always\"}", "said": {"message_id": "a", "headers": {"own": 1}}},
            {"key": "failing", "body": "{\"how\": \"wrong\"}", "said": {"message_id": "w", "user_id": "crosstie"}},
        ]),
    );
    noted(&environment, "t/3");
    noted(&environment, "a/4");
    let letters = dead(&broker, "failing", 2);
    assert_eq!(letters.len(), 2, "{letters:?}");
    let of = |id: &str| letters.iter().find(|letter| letter["id"] == id).unwrap()["headers"].clone();
    let always = of("a");
    assert_eq!(always["x-crosstie-reason"], "the stock is empty");
    assert_eq!(always["x-crosstie-failure"], "conflict");
    assert_eq!(always["x-crosstie-attempts"], 4);
    assert_eq!(always["own"], 1);
    assert_eq!(
        (&always["x-crosstie-queue"], &always["x-crosstie-service"]),
        (&json!("failing"), &json!("failing"))
    );
    assert_eq!(always["x-crosstie-cid"].as_str().unwrap().len(), 32);
    let wrong = of("w");
    assert_eq!(
        (&wrong["x-crosstie-reason"], &wrong["x-crosstie-attempts"]),
        (&json!("no such customer"), &json!(1))
    );
    assert_eq!(wrong["x-crosstie-user-id"], "crosstie");
    let seen = tell(&environment);
    assert!(seen.get("t/4").is_none() && seen.get("a/5").is_none() && seen.get("w/2").is_none(), "{seen}");
    assert!(!letters.iter().any(|letter| letter.to_string().contains("secret-88ab")));
    wait_until("nothing is left", || {
        ["failing", "failing.retry"]
            .iter()
            .all(|queue| look(&broker, queue).is_some_and(|(ready, _)| ready == 0))
    });
}

#[test]
fn a_message_that_kills_its_worker_ends_as_a_dead_letter_and_the_others_are_worked_on() {
    let broker = plain();
    let environment = Environment::start().unwrap();
    served(&broker, &environment);
    run(
        &broker,
        SEND,
        &json!([
            {"key": "deadly", "body": "\"die\"", "said": {"message_id": "poison"}},
            {"key": "deadly", "body": "\"live\"", "said": {"message_id": "good"}},
        ]),
    );
    let letters = dead(&broker, "deadly", 1);
    assert_eq!((letters.len(), &letters[0]["id"]), (1, &json!("poison")));
    assert_eq!(letters[0]["headers"]["x-crosstie-redeliveries"], 3);
    assert!(letters[0]["headers"]["x-crosstie-reason"].as_str().unwrap().contains("never acknowledged"));
    noted(&environment, "good/1");
    wait_until("nothing is left", || look(&broker, "deadly").is_some_and(|(ready, _)| ready == 0));
}

const ASK: &str = r#"
answers = {}
def answered(ch, method, said, body):
    answers[said.correlation_id] = {"body": json.loads(body), "type": said.content_type,
        "headers": {k: v for k, v in said.headers.items() if k != "traceparent"}}
channel.basic_consume("amq.rabbitmq.reply-to", answered, auto_ack=True)
for name, body in arguments.items():
    channel.basic_publish("", "questions", json.dumps(body),
        pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id=name))
began = time.monotonic()
while len(answers) < len(arguments) and time.monotonic() - began < 60:
    connection.process_data_events(1)
print(json.dumps(answers))
"#;

#[test]
fn who_asks_gets_an_answer_or_the_reason_why_there_is_none() {
    let broker = plain();
    let environment = Environment::start().unwrap();
    served(&broker, &environment);
    let answers = run(&broker, ASK, &json!({"one": 21, "two": "ab", "three": "bad"}));
    assert_eq!(
        answers["one"],
        json!({"body": {"answer": 42}, "type": "application/json", "headers": {"x-own": "y"}})
    );
    assert_eq!(answers["two"]["body"], json!({"answer": "abab"}));
    let problem = &answers["three"];
    assert_eq!(problem["type"], "application/problem+json");
    assert_eq!(
        (&problem["body"]["status"], &problem["body"]["detail"]),
        (&json!(400), &json!("no answer to that"))
    );
    assert_eq!(problem["headers"]["x-crosstie-status"], 400);
    assert_eq!(dead(&broker, "questions", 1).len(), 1);
}

#[test]
fn duplicates_of_a_message_with_a_key_have_one_effect_and_one_consumer_of_the_cluster_takes_them() {
    let broker = plain();
    let environment = with_metrics().start().unwrap();
    served(&broker, &environment);
    assert_eq!(consumers(&broker, "single"), 1, "of two workers one consumes");
    assert!(consumers(&broker, "orders") >= 2);
    let said = |id: &str| json!({"key": "single", "body": "1", "said": {"message_id": id}});
    let messages: Vec<_> = (0..5).flat_map(|_| ["x", "y", "z"]).map(said).collect();
    run(&broker, SEND, &json!(messages));
    run(&broker, SEND, &json!([{"key": "single", "body": "1"}]));
    wait_until("all are settled", || {
        metrics(&environment)
            .contains(r#"crosstie_amqp_messages_total{channel="single:amqp:single",outcome="duplicate"} 12"#)
    });
    environment.wait_for_json("/count", &json!(3));
    let letters = dead(&broker, "single", 1);
    assert!(letters[0]["headers"]["x-crosstie-reason"].as_str().unwrap().contains("message_id"));
    // Whoever consumes dies: another takes the place.
    for pid in environment.ready_workers().unwrap() {
        processes::send(pid, Signal::SIGKILL).unwrap();
        wait_until("somebody consumes again", || consumers(&broker, "single") == 1);
    }
    run(&broker, SEND, &json!([said("x"), said("new")]));
    environment.wait_for_json("/count", &json!(4));
}

/// Nobody knows for two minutes what became of those: they are all that the workers may have in hand.
#[test]
fn messages_with_a_key_in_the_hands_of_the_dead_hold_up_no_others() {
    let (broker, environment) = (plain(), with_metrics().start().unwrap());
    served(&broker, &environment);
    let workers = environment.ready_workers().unwrap();
    let said = |id: String, body: &str| json!({"key": "stuck", "body": body, "said": {"message_id": id}});
    let waiting: Vec<_> = (0..3 * workers.len()).map(|id| said(format!("wait-{id}"), "\"wait\"")).collect();
    run(&broker, SEND, &Value::from(waiting.clone()));
    let begun =
        || tell(&environment).as_object().unwrap().keys().filter(|key| key.starts_with("wait-")).count();
    wait_until("the workers have their hands full", || begun() == waiting.len());
    for worker in workers {
        processes::send(worker, Signal::SIGKILL).unwrap();
    }
    environment.wait_for_status("/tell", 200);
    run(&broker, SEND, &json!([said("go".into(), "\"go\"")]));
    wait_until("the next message is worked on", || noted(&environment, "go/1") == json!("go"));
    assert_eq!(begun(), waiting.len(), "none was worked on again");
    assert_eq!(look(&broker, "stuck.dead").map_or(0, |(ready, _)| ready), 0, "none is in doubt yet");
    let deferred = r#"crosstie_amqp_messages_total{channel="stuck:amqp:stuck",outcome="deferred"}"#;
    wait_until("each was put aside", || {
        let counted = metrics(&environment);
        let count = counted.lines().find_map(|line| line.strip_prefix(deferred));
        count.is_some_and(|count| count.trim().parse::<usize>().unwrap() >= waiting.len())
    });
}

#[test]
fn workers_that_are_replaced_finish_what_they_are_at_and_a_drained_server_takes_no_more() {
    let broker = plain();
    let environment = Environment::start().unwrap();
    served(&broker, &environment);
    let messages: Vec<_> = (0..200)
        .map(|n| json!({"key": "slow", "body": "1", "said": {"message_id": format!("s{n}")}}))
        .collect();
    run(&broker, SEND, &json!(messages));
    let before = environment.ready_workers().unwrap();
    environment.reload().unwrap();
    wait_until("the workers are others", || {
        environment
            .ready_workers()
            .is_ok_and(|now| now.len() == before.len() && now.iter().all(|pid| !before.contains(pid)))
    });
    wait_until("everything was seen", || {
        (0..200).all(|n| tell(&environment).get(format!("s{n}/1")).is_some())
    });
    wait_until("nothing is left", || look(&broker, "slow").is_some_and(|(ready, _)| ready == 0));
    let server = environment.json(&["server", "list"]).unwrap()[0]["name"].as_str().unwrap().to_owned();
    environment.run(&["server", "drain", &server]).unwrap().success().unwrap();
    wait_until("nobody consumes", || consumers(&broker, "slow") == 0);
    run(&broker, SEND, &json!([{"key": "slow", "body": "1", "said": {"message_id": "later"}}]));
    assert_eq!(look(&broker, "slow"), Some((1, 0)));
    environment.run(&["server", "undrain", &server]).unwrap().success().unwrap();
    noted(&environment, "later/1");
}

#[test]
fn a_channel_without_a_broker_of_its_own_is_refused_and_one_whose_broker_is_away_waits_for_it() {
    let broker = plain();
    let environment = Environment::start().unwrap();
    environment.drop_file("seen.py", SEEN).unwrap();
    wait_until("it is refused", || {
        let list = environment.run(&["deployment", "list", "-o", "json"]).unwrap().stdout;
        list.contains("there is no outgoing broker")
    });
    let pid = i32::try_from(broker.part.pid().unwrap()).unwrap();
    processes::send(pid, Signal::SIGKILL).unwrap();
    apply(&environment, &outgoing(&broker, ""));
    apply(&environment, "outgoing:\n  web: {type: http, address: 'http://127.0.0.1:1'}\n");
    let file = environment.root().join("seen.py");
    std::fs::write(&file, SEEN).unwrap();
    environment.run(&["deploy", file.to_str().unwrap()]).unwrap().success().unwrap();
    let wrong = "channel:\n  c: {type: amqp, service: seen, connection: web, queue: q}\n";
    let refused = environment.command(&["apply", "-f", "-"]).unwrap().input(wrong).run().unwrap();
    assert!(refused.stderr.contains("is of type http, not amqp"), "{}", refused.stderr);
    broker.part.start().unwrap();
    wait_until("the queue is consumed", || consumers(&broker, "orders") > 0);
    run(&broker, SEND, &json!([{"key": "orders", "body": "1", "said": {"message_id": "m"}}]));
    noted(&environment, "m/1");
    // One consumer on this server, not one on each of its workers.
    let own = "channel:\n  c: {type: amqp, service: declared, connection: broker, queue: by-definition, prefetch: 1, \
               consumers: 1}\n";
    apply(&environment, own);
    wait_until("the queue is consumed", || consumers(&broker, "by-definition") > 0);
    assert_eq!(environment.ready_workers().unwrap().len(), 2);
    run(
        &broker,
        SEND,
        &json!([{"key": "by-definition", "body": "{\"id\": 9}", "said": {"message_id": "n"}}]),
    );
    assert_eq!(noted(&environment, "n/1"), json!(9));
    assert_eq!(consumers(&broker, "by-definition"), 1);
    environment.run(&["delete", "channel", "c"]).unwrap().success().unwrap();
    wait_until("nobody consumes", || consumers(&broker, "by-definition") == 0);
}
