//! Messages that mean harm: each becomes a dead letter with its reason, in bounded memory, and the next is worked on.

use crosstie_test_support::{Environment, wait_until};
use serde_json::{Value, json};

use super::{apply, outgoing, plain, run};
use crate::hostile::Watched;

const SERVICES: &str = r#"
from crosstie import Model, Service, amqp, rest

class Order(Model):
    id: int

class Take(Service):
    name = "hostile.amqp.take"
    channels = [amqp("hostile", connection="broker", retry={"max": 0})]
    def handle(self):
        self.data.set(f"taken/{self.request.amqp.message_id}", True)

class Typed(Service):
    name = "hostile.amqp.typed"
    channels = [amqp("hostile.typed", connection="broker", retry={"max": 0})]
    input = Order
    def handle(self):
        self.data.set(f"taken/{self.request.amqp.message_id}", True)

class Taken(Service):
    name = "hostile.amqp.taken"
    channels = [rest("GET", "/taken")]
    def handle(self):
        return sorted(key[6:] for key in self.data.keys("taken/"))
"#;

/// Publishes everything, and tells how many bytes that was.
const SEND: &str = r#"
import gzip
channel.confirm_delivery()
laughs = "<!ENTITY l0 'ha'>" + "".join(f"<!ENTITY l{n} '{('&l%d;' % (n - 1)) * 10}'>" for n in range(1, 10))
uri = "u" * 1_000_000
bombs = {
    "laughs": ("text/xml", f"<!DOCTYPE a [{laughs}]><a>&l9;</a>"),
    "file": ("text/xml", "<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><a>&e;</a>"),
    "deep xml": ("text/xml", "<a>" * 10_000 + "</a>" * 10_000),
    "namespace": ("text/xml", f"<a xmlns:n='{uri}'>" + "<n:b/>" * 100_000 + "</a>"),
    "attributes": ("text/xml", "<a" + "".join(f" x{n}=''" for n in range(100_000)) + "/>"),
    "deep json": ("application/json", "[" * 10_000 + "]" * 10_000),
    "endless json": ("application/json", '"' + "x" * 1_000_000),
    "form": ("application/x-www-form-urlencoded", "a&" * 1_000_000),
    "parts": ("multipart/form-data; boundary=x", '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 100_000),
    "cut": ("multipart/form-data; boundary=x", '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb'),
}
sent = 0
for name, (media, body) in bombs.items():
    channel.basic_publish("", "hostile", body, pika.BasicProperties(message_id=name, content_type=media))
    sent += len(body)
packed = gzip.compress(bytes(64 * 1024 * 1024))
for name, coding, body in (("zeros", "gzip", packed), ("no gzip", "gzip", b"xyz"), ("unknown", "x-own", b"{}")):
    channel.basic_publish("", "hostile", body, pika.BasicProperties(
        message_id=name, content_type="application/json", content_encoding=coding))
    sent += len(body)
channel.basic_publish("", "hostile", b"x" * 11_000_000, pika.BasicProperties(message_id="large", content_type="text/plain"))
many = '{"id": 1, "more": [' + ",".join(['{"a": []}'] * 100_000) + ']}'
channel.basic_publish("", "hostile.typed", many.replace('"id": 1', '"id": "x"'),
                      pika.BasicProperties(message_id="typed", content_type="application/json"))
for queue in ("hostile", "hostile.typed"):
    channel.basic_publish("", queue, '{"id": 1}', pika.BasicProperties(message_id=f"good {queue}", content_type="application/json"))
print(json.dumps({"count": len(bombs) + 5, "bytes": sent + 11_000_000 + len(many)}))
"#;

const TAKE: &str = r#"
found = {}
for queue in ("hostile.dead", "hostile.typed.dead"):
    while True:
        method, said, body = channel.basic_get(queue, auto_ack=True)
        if method is None: break
        found[said.message_id] = [said.headers["x-crosstie-failure"], said.headers["x-crosstie-reason"]]
print(json.dumps(found))
"#;

#[test]
fn hostile_messages_are_dead_letters_in_bounded_memory_and_the_next_are_worked_on() {
    let broker = plain();
    let environment = Environment::builder().setting("server.workers", "1").start().unwrap();
    apply(&environment, &outgoing(&broker, ""));
    environment.drop_file("hostile.py", SERVICES).unwrap();
    wait_until("the queues are there", || {
        let look = "for q in ('hostile.dead', 'hostile.typed.dead'): channel.queue_declare(q, passive=True)";
        super::pika(&broker, false, look, &Value::Null).output().unwrap().status.success()
    });
    let mut watched = Watched::of(&environment);
    // All of them may be held at once: what they cost is held against the size of all.
    let found = watched.during("all messages", 25_000_000, || {
        let sent = run(&broker, SEND, &Value::Null);
        assert!(sent["bytes"].as_u64().unwrap() < 25_000_000, "{sent}");
        let mut found = serde_json::Map::new();
        wait_until("all are dead letters", || {
            found.extend(run(&broker, TAKE, &Value::Null).as_object().unwrap().clone());
            Some(found.len() as u64) == sent["count"].as_u64()
        });
        Value::Object(found)
    });
    for (id, failure) in [
        ("laughs", "bad_request"),
        ("file", "bad_request"),
        ("deep xml", "bad_request"),
        ("namespace", "bad_request"),
        ("deep json", "bad_request"),
        ("parts", "bad_request"),
        ("cut", "bad_request"),
        ("zeros", "payload_too_large"),
        ("large", "payload_too_large"),
        ("no gzip", "bad_request"),
        ("unknown", "unsupported_media_type"),
        ("typed", "bad_request"),
    ] {
        assert_eq!(found[id][0], failure, "{id}: {found}");
        assert!(found[id][1].as_str().unwrap().len() < 10_000, "{id}");
    }
    assert!(!found.to_string().contains("root:x:0"));
    environment.wait_for_json("/taken", &json!(["good hostile", "good hostile.typed"]));
    watched.finish(&environment);
}
