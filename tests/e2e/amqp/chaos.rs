//! Workers and the broker are killed at random while numbered messages flow: none is lost, copies share one
//! message-id, and with a key there is one effect.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use crosstie_test_support::parts::TestPart;
use crosstie_test_support::{Environment, processes, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{apply, outgoing, pika, plain, printed, run};
use crate::{sql, volume};

const SERVICES: &str = r#"
from crosstie import Service, amqp, rest

RETRY = {"max": 100, "pause_ms": 100, "max_pause_ms": 1000}

class Effect(Service):
    """Every message has an effect that can be counted."""
    name = "effect"
    channels = [
        amqp("all", connection="broker", exchange="numbers", exchange_type="fanout", retry=RETRY,
             max_redeliveries=1000),
        amqp("once", connection="broker", exchange="numbers", exchange_type="fanout", retry=RETRY,
             max_redeliveries=1000, idempotency="message_id", deadline_ms=2000),
    ]
    def handle(self):
        message = self.request.amqp
        self.out.sql["effects"].execute("INSERT INTO effect (queue, number, id) VALUES (:queue, :number, :id)",
            {"queue": message.queue, "number": self.request.payload["number"], "id": message.message_id})

class Transaction(Service):
    """The effect and the note that it was had are one transaction: not even a death in between makes it two."""
    name = "transaction"
    channels = [amqp("exactly", connection="broker", exchange="numbers", exchange_type="fanout", retry=RETRY,
                     max_redeliveries=1000)]
    def handle(self):
        message = self.request.amqp
        with self.out.sql["effects"].transaction() as tx:
            new = tx.execute("INSERT INTO had (id) VALUES (:id) ON CONFLICT DO NOTHING", {"id": message.message_id})
            if new.rowcount:
                tx.execute("INSERT INTO effect (queue, number, id) VALUES (:queue, :number, :id)",
                    {"queue": message.queue, "number": self.request.payload["number"], "id": message.message_id})

class Prepare(Service):
    name = "prepare"
    channels = [rest("GET", "/prepare")]
    def handle(self):
        db = self.out.sql["effects"]
        db.execute("CREATE TABLE IF NOT EXISTS effect (queue TEXT, number INTEGER, id TEXT)")
        db.execute("CREATE TABLE IF NOT EXISTS had (id TEXT PRIMARY KEY)")

class Progress(Service):
    name = "progress"
    channels = [rest("GET", "/progress")]
    def handle(self):
        rows = self.out.sql["effects"].all("SELECT queue, count(DISTINCT number) AS n FROM effect GROUP BY queue")
        return {row["queue"]: row["n"] for row in rows}

class Effects(Service):
    name = "effects"
    channels = [rest("GET", "/effects/{queue}/{part:int}")]
    def handle(self):
        params = self.request.http.params
        rows = self.out.sql["effects"].all(
            "SELECT number, count(*) AS n, count(DISTINCT id) AS ids FROM effect WHERE queue = :queue "
            "AND number / 5000 = :part GROUP BY number", {"queue": params["queue"], "part": int(params["part"])})
        return [[row["number"], row["n"], row["ids"]] for row in rows]
"#;

/// Publishes numbered messages, each again until it is confirmed.
const PUBLISH: &str = r#"
def open_channel():
    channel = connect().channel()
    channel.confirm_delivery()
    return channel
channel = None
for number in range(arguments["count"]):
    while True:
        try:
            if channel is None: channel = open_channel()
            channel.basic_publish("numbers", "", json.dumps({"number": number}),
                pika.BasicProperties(delivery_mode=2, content_type="application/json", message_id=f"n-{number}"),
                mandatory=True)
            break
        except pika.exceptions.AMQPError:
            channel = None
            time.sleep(0.1)
        except OSError:
            channel = None
            time.sleep(0.1)
"#;

const DEAD: &str = r#"
found = []
while True:
    method, said, body = channel.basic_get(arguments["queue"], auto_ack=False)
    if method is None: break
    found.append([json.loads(body)["number"], said.headers["x-crosstie-reason"], said.message_id])
print(json.dumps(found))
"#;

/// How many messages lie where.
const DEPTHS: &str = r#"
found = {}
for queue in ("all", "once", "exactly"):
    for end in ("", ".dead", ".retry"):
        try:
            if channel.is_closed: channel = connection.channel()
            found[queue + end] = channel.queue_declare(queue + end, passive=True).method.message_count
        except pika.exceptions.ChannelClosedByBroker:
            pass
print(json.dumps(found))
"#;

/// A small deterministic generator: the seed is printed, so a failure can be repeated.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn kill_broker(broker: &TestPart) {
    let pid = i32::try_from(broker.part.pid().unwrap()).unwrap();
    processes::send(pid, Signal::SIGKILL).unwrap();
    wait_until("the broker is dead", || broker.part.pid().is_none());
    broker.part.start().unwrap();
}

fn kill_a_worker(environment: &Environment, chance: &mut Chance) {
    let Ok(workers) = environment.ready_workers() else { return };
    let Some(count) = u64::try_from(workers.len()).ok().filter(|count| *count > 0) else { return };
    let pid = workers[usize::try_from(chance.below(count)).unwrap()];
    // It may be gone by itself.
    let _ = processes::send(pid, Signal::SIGKILL);
}

/// How often each number had its effect through `queue`, and under how many ids.
fn effects(environment: &Environment, queue: &str, count: u64) -> BTreeMap<u64, (u64, u64)> {
    let mut found = BTreeMap::new();
    for part in 0..count.div_ceil(5_000) {
        let reply = environment.http().get(&format!("/effects/{queue}/{part}")).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        for row in reply.json().as_array().unwrap() {
            found.insert(row[0].as_u64().unwrap(), (row[1].as_u64().unwrap(), row[2].as_u64().unwrap()));
        }
    }
    found
}

fn dead(broker: &TestPart, queue: &str) -> BTreeSet<u64> {
    let found = run(broker, DEAD, &json!({"queue": queue}));
    found
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| {
            assert!(letter[1].as_str().unwrap().starts_with("In doubt"), "{letter}");
            letter[0].as_u64().unwrap()
        })
        .collect()
}

#[test]
fn no_message_is_lost_and_with_a_key_none_has_its_effect_twice_whoever_is_killed() {
    let count = volume(100_000, 5_000);
    let seed = std::env::var("CROSSTIE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_121);
    println!("seed {seed}");
    let mut chance = Chance(seed);
    let broker = plain();
    let environment = Environment::start().unwrap();
    let database = sql::postgres();
    apply(&environment, &(outgoing(&broker, "") + &sql::definition("effects", &database, "")));
    environment.drop_file("effects.py", SERVICES).unwrap();
    environment.wait_for_status("/prepare", 204);
    wait_until("the queues are there", || {
        let look = "for q in ('all', 'once', 'exactly'): channel.queue_declare(q, passive=True)";
        pika(&broker, false, look, &json!({})).output().unwrap().status.success()
    });

    let mut publisher = pika(&broker, false, PUBLISH, &json!({"count": count})).spawn().unwrap();
    let (mut workers, mut brokers) = (0, 0);
    while publisher.try_wait().unwrap().is_none() || workers + brokers < 6 {
        // Between two deaths something must have time to be under way: this is the test's load, not a wait.
        thread::sleep(Duration::from_millis(500 + chance.below(2_500)));
        if chance.below(3) == 0 {
            kill_broker(&broker);
            brokers += 1;
        } else {
            kill_a_worker(&environment, &mut chance);
            workers += 1;
        }
    }
    println!("{workers} workers and {brokers} brokers were killed");
    let output = publisher.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let begun = Instant::now();
    let limit = Duration::from_secs(120 + count / 50);
    loop {
        let progress = environment
            .http()
            .get("/progress")
            .map_or(Value::Null, |reply| if reply.status == 200 { reply.json() } else { Value::Null });
        let of = |queue: &str| progress[queue].as_u64().unwrap_or_default();
        if of("all") == count && of("exactly") == count && settled(&environment, &broker, count) == count {
            break;
        }
        assert!(
            begun.elapsed() < limit,
            "not all messages had their effect: {progress}; {}",
            run(&broker, DEPTHS, &Value::Null)
        );
        thread::sleep(Duration::from_millis(500));
    }
    let (all, once, exactly) = (
        effects(&environment, "all", count),
        effects(&environment, "once", count),
        effects(&environment, "exactly", count),
    );
    let doubted = dead(&broker, "once.dead");
    let twice = all.values().filter(|(times, _)| *times > 1).count();
    println!(
        "{twice} messages came to the service twice without a key; {} are in doubt with one",
        doubted.len()
    );
    for number in 0..count {
        let (_, ids) = all[&number];
        assert_eq!(ids, 1, "copies of {number} share their message-id");
        assert_eq!(exactly[&number], (1, 1), "{number}, in a transaction");
        match once.get(&number) {
            Some(effect) => assert_eq!(*effect, (1, 1), "{number}, with a key"),
            None => assert!(doubted.contains(&number), "{number} had no effect and is no dead letter"),
        }
    }
    for queue in ["all.dead", "exactly.dead"] {
        assert_eq!(printed(pika(&broker, false, DEAD, &json!({"queue": queue}))), json!([]), "{queue}");
    }
}

/// How many of the messages with a key had their effect or are dead letters; some are both.
fn settled(environment: &Environment, broker: &TestPart, count: u64) -> u64 {
    let mut numbers = dead(broker, "once.dead");
    numbers.extend(effects(environment, "once", count).into_keys());
    numbers.len() as u64
}
