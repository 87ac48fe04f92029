//! Services publish: with everything a message can say, and durably.

use std::fs;
use std::time::{Duration, Instant};

use crosstie_test_support::parts::TestPart;
use crosstie_test_support::{Environment, processes, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{apply, metrics, outgoing, pika, plain, printed, run, secured, secured_outgoing, with_metrics};

const SERVICES: &str = r#"
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from crosstie import Model, Service, rest

class Order(Model):
    id: int
    items: list[str]

MOMENT = datetime(2026, 2, 28, 12, 0, 0, tzinfo=timezone.utc)

class Everything(Service):
    name = "everything"
    channels = [rest("GET", "/everything")]
    def handle(self):
        broker = self.out.amqp["broker"].conn
        broker.publish({"a": [1, 2.5, None]}, "", "q", headers={"n": 1, "big": 2**40, "f": 2.0, "t": "grüße", "b": b"\x00",
                       "flag": True, "none": None, "list": [1, "x"], "table": {"a": 1}, "time": MOMENT},
                       priority=5, expiration=60, message_id="m-1", correlation_id="c-1", reply_to="answers",
                       timestamp=MOMENT, type="order.made", app_id="shop", content_encoding="identity")
        broker.publish("text", routing_key="q")
        broker.publish(b"\x01\x02", "", "q", persistent=False)
        broker.publish(Order(id=1, items=["x"]), "", "q", properties={"delivery_mode": 1, "priority": 3})
        self.out.amqp.publish("broker", "as in Zato", "", "q", headers={"x": "y"})
        broker.publish(None, "", "q", expiration=timedelta(seconds=30))
        return "done"

class EverythingAsync(Service):
    name = "everything.async"
    channels = [rest("GET", "/async")]
    async def handle(self):
        import asyncio
        broker = self.out.amqp["broker"]
        ids = await asyncio.gather(*[broker.publish({"n": n}, "", "many") for n in range(200)])
        return len(set(ids))

class Publish(Service):
    name = "publish"
    channels = [rest("POST", "/publish")]
    def handle(self):
        asked = self.request.payload
        try:
            return {"id": self.out.amqp["broker"].publish(asked["msg"], **asked.get("more", {}))}
        except Exception as error:
            return {"error": type(error).__name__, "reason": getattr(error, "reason", None),
                    "detail": getattr(error, "detail", str(error))}

class Raw(Service):
    name = "raw"
    channels = [rest("GET", "/raw")]
    def handle(self):
        self.out.amqp["broker"].publish("x", "", "nowhere-7c1f")
"#;

fn publish(environment: &Environment, msg: &str, more: &Value) -> Value {
    let reply = environment.http().post_json("/publish", &json!({"msg": msg, "more": more})).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

const GET_ALL: &str = r#"
def shown(value):
    if isinstance(value, bytes): return list(value)
    if isinstance(value, dict): return {k: shown(v) for k, v in value.items()}
    if isinstance(value, list): return [shown(v) for v in value]
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)
found = []
while True:
    method, said, body = channel.basic_get(arguments["queue"], auto_ack=True)
    if method is None: break
    headers = {k: v for k, v in (said.headers or {}).items() if k != "traceparent"}
    found.append({"body": body.decode("latin-1"), "headers": shown(headers), "trace": "traceparent" in said.headers,
        **{k: getattr(said, k) for k in ("content_type", "content_encoding", "delivery_mode", "priority",
           "correlation_id", "reply_to", "expiration", "message_id", "timestamp", "type", "user_id", "app_id")}})
print(json.dumps(found))
"#;

#[test]
fn a_service_says_all_that_amqp_has_to_say_over_tls_that_verifies_both_ends() {
    let broker = secured();
    printed(pika(
        &broker,
        true,
        "channel.queue_declare('q', durable=True)\nchannel.queue_declare('many', durable=True)",
        &json!({}),
    ));
    let environment = with_metrics().start().unwrap();
    apply(&environment, &secured_outgoing(&broker, ", routing_key: q"));
    environment.drop_file("publishing.py", SERVICES).unwrap();
    environment.wait_for_status("/everything", 200);
    let found = printed(pika(&broker, true, GET_ALL, &json!({"queue": "q"})));
    let moment = 1_772_280_000;
    assert_eq!(
        found[0],
        json!({"body": "{\"a\":[1,2.5,null]}", "trace": true, "content_type": "application/json",
            "headers": {"n": 1, "big": 1_099_511_627_776_u64, "f": 2, "t": "grüße", "b": [0], "flag": true,
                "none": null, "list": [1, "x"], "table": {"a": 1}, "time": "2026-02-28 12:00:00"},
            "content_encoding": "identity", "delivery_mode": 2, "priority": 5, "correlation_id": "c-1",
            "reply_to": "answers", "expiration": "60000", "message_id": "m-1", "timestamp": moment,
            "type": "order.made", "user_id": null, "app_id": "shop"})
    );
    let of = |index: usize, keys: [&str; 5]| keys.map(|key| found[index][key].clone());
    let keys = ["body", "content_type", "delivery_mode", "priority", "expiration"];
    let text = "text/plain; charset=utf-8";
    assert_eq!(of(1, keys), [json!("text"), json!(text), json!(2), json!(null), json!(null)]);
    assert_eq!(of(2, keys)[..3], [json!("\u{1}\u{2}"), json!("application/octet-stream"), json!(1)]);
    assert_eq!(
        of(3, keys)[..4],
        [json!("{\"id\":1,\"items\":[\"x\"]}"), json!("application/json"), json!(1), json!(3)]
    );
    assert_eq!(of(4, keys)[0], json!("as in Zato"));
    assert_eq!(of(5, keys), [json!(""), json!(null), json!(2), json!(null), json!("30000")]);
    let ids: std::collections::BTreeSet<_> =
        found.as_array().unwrap().iter().map(|message| message["message_id"].to_string()).collect();
    assert_eq!(ids.len(), 6, "each message has a name of its own");

    environment.wait_for_json("/async", &json!(200));
    let many = printed(pika(&broker, true, GET_ALL, &json!({"queue": "many"})));
    assert_eq!(many.as_array().unwrap().len() % 200, 0);
    assert!(environment.run(&["ping", "broker"]).unwrap().success().unwrap().stdout.contains("answered"));
    let shown = metrics(&environment);
    assert!(
        shown.contains(r#"crosstie_outgoing_calls_total{outgoing="broker",type="amqp",outcome="ok"}"#),
        "{shown}"
    );
}

#[test]
fn a_message_that_no_queue_takes_is_an_error_and_its_content_is_in_no_log() {
    let broker = plain();
    run(&broker, "channel.queue_declare('q', durable=True)", &json!({}));
    let environment = Environment::start().unwrap();
    apply(&environment, &outgoing(&broker, ", max_message_bytes: 1000"));
    environment.drop_file("publishing.py", SERVICES).unwrap();
    environment.wait_for_status("/raw", 502);
    let nowhere = json!({"routing_key": "nowhere-7c1f"});
    let said = publish(&environment, "content-51d0e2", &nowhere);
    assert_eq!(said["reason"], "refused");
    assert!(said["detail"].as_str().unwrap().contains("NO_ROUTE"), "{said}");
    let dropped = publish(&environment, "x", &json!({"routing_key": "nowhere", "mandatory": false}));
    assert!(dropped["id"].is_string(), "{dropped}");
    let said = publish(&environment, "x", &json!({"exchange": "no-such-exchange", "routing_key": "q"}));
    assert_eq!(said["reason"], "refused");
    assert!(said["detail"].as_str().unwrap().contains("no-such-exchange"), "{said}");
    for (more, error) in [
        (json!({"routing_key": "q".repeat(256)}), "ValueError"),
        (json!({"routing_key": "q", "message_id": "é".repeat(200)}), "ValueError"),
        (json!({"routing_key": "q", "headers": {"x".repeat(300): 1}}), "ValueError"),
        (json!({"routing_key": "q", "colour": "red"}), "TypeError"),
        (json!({"routing_key": "q", "properties": {"delivery_mode": 3}}), "ValueError"),
        (json!({"routing_key": "q", "expiration": -1}), "ValueError"),
    ] {
        assert_eq!(publish(&environment, "x", &more)["error"], error, "{more}");
    }
    assert_eq!(
        publish(&environment, &"x".repeat(1_001), &json!({"routing_key": "q"}))["error"],
        "ValueError"
    );
    // After all these the connection is as good as before.
    assert!(publish(&environment, "x", &json!({"routing_key": "q"}))["id"].is_string());
    let log = fs::read_to_string(environment.server().join("logs/server.log")).unwrap();
    assert!(log.contains("NO_ROUTE") && !log.contains("content-51d0e2"), "{log}");
    assert!(!log.contains("it's a secret"));
}

fn kill(broker: &TestPart) {
    let pid = i32::try_from(broker.part.pid().unwrap()).unwrap();
    processes::send(pid, Signal::SIGKILL).unwrap();
    wait_until("the broker is dead", || broker.part.pid().is_none());
}

#[test]
fn what_was_published_is_there_after_the_broker_was_killed_and_callers_wait_no_longer_than_they_must() {
    let broker = plain();
    run(&broker, "channel.queue_declare('q', durable=True)", &json!({}));
    let environment = Environment::builder().setting("server.workers", "1").start().unwrap();
    apply(&environment, &outgoing(&broker, ", deadline_ms: 1500, circuit: {failures: 3, pause_ms: 500}"));
    environment.drop_file("publishing.py", SERVICES).unwrap();
    environment.wait_for_status("/raw", 502);
    let q = json!({"routing_key": "q"});
    let mut taken = Vec::new();
    for _ in 0..3 {
        for _ in 0..20 {
            taken.push(publish(&environment, "x", &q)["id"].as_str().unwrap().to_owned());
        }
        kill(&broker);
        let mut reasons = Vec::new();
        for _ in 0..5 {
            let begun = Instant::now();
            let said = publish(&environment, "x", &q);
            assert!(begun.elapsed() < Duration::from_secs(15));
            reasons.push(said["reason"].as_str().unwrap_or_else(|| panic!("{said}")).to_owned());
        }
        assert!(reasons.contains(&"circuit".to_owned()), "{reasons:?}");
        assert!(
            reasons
                .iter()
                .all(|reason| ["circuit", "connect", "deadline", "broken"].contains(&reason.as_str()))
        );
        broker.part.start().unwrap();
        wait_until("it is used again", || {
            let said = publish(&environment, "x", &q);
            said["id"].as_str().map(|id| taken.push(id.to_owned())).is_some()
        });
    }
    let found = run(&broker, GET_ALL, &json!({"queue": "q"}));
    let there: Vec<_> =
        found.as_array().unwrap().iter().filter_map(|message| message["message_id"].as_str()).collect();
    for id in &taken {
        assert!(there.contains(&id.as_str()), "{id} was confirmed and is not there");
    }
}
