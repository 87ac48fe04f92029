//! Brokers for tests, and short ways to call them.

use std::fs;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crosstie_model::definition::OutgoingDefinition;
use crosstie_model::outgoing::{
    AmqpOutgoing, AmqpProperties, AmqpPublish, Outgoing, OutgoingError, Ping, Unroutable,
};
use crosstie_model::ports::{CounterCells, GaugeCell, GaugeCells};
use crosstie_model::{Snapshot, TraceContext};
use crosstie_outgoing::{Blueprint, Environment, open as open_outgoing};
use crosstie_parts::{PartTls, RabbitMq};
use crosstie_security::{ClusterKey, SecretResolver};
use crosstie_telemetry::Metrics;
use crosstie_test_support::parts::TestPart;
use serde_json::{Value, json};

/// Long enough for anything that ends at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A broker.
pub(crate) struct Broker {
    part: TestPart,
    is_secured: bool,
}

impl Broker {
    /// One that takes TLS with a client's certificate alone.
    pub(crate) fn secured() -> Self {
        Self { part: TestPart::start("rabbitmq", RabbitMq::new).unwrap(), is_secured: true }
    }

    /// One in plain.
    pub(crate) fn plain() -> Self {
        let part = TestPart::start_with("rabbitmq", RabbitMq::new, |plan| plan.tls = None).unwrap();
        Self { part, is_secured: false }
    }

    pub(crate) fn address(&self) -> String {
        let scheme = if self.is_secured { "amqps" } else { "amqp" };
        format!("{scheme}://127.0.0.1:{}/crosstie", self.part.address.port())
    }

    pub(crate) fn client(&self) -> &PartTls {
        &self.part.client
    }

    /// The fields of its definition.
    pub(crate) fn settings(&self) -> Value {
        let mut settings = json!({"address": self.address(), "username": "crosstie"});
        if self.is_secured {
            settings["tls"] = tls(self.client(), self.client());
        }
        settings
    }

    /// How many connections of this host to it are open.
    pub(crate) fn connections(&self) -> usize {
        let port = format!(":{:04X}", self.part.address.port());
        let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
        // State 01 is established; the remote end is the third column.
        let lines = table.lines().skip(1).filter(|line| {
            let columns: Vec<_> = line.split_whitespace().collect();
            columns[2].ends_with(&port) && columns[3] == "01"
        });
        lines.count()
    }
}

/// TLS that trusts the authority of one and shows the certificate of another.
pub(crate) fn tls(trusted: &PartTls, own: &PartTls) -> Value {
    let read = |path: &std::path::Path| fs::read_to_string(path).unwrap();
    let key = format!("file:{}", own.key.display());
    json!({"ca": read(&trusted.ca), "certificate": read(&own.certificate), "key": key})
}

/// The broker that `settings` describe, opened, with secrets in files.
pub(crate) fn open(settings: &Value, secrets: &[(&str, &str)]) -> Arc<dyn AmqpOutgoing> {
    let directory = tempfile::tempdir().unwrap();
    let mut body = settings.clone();
    body["type"] = json!("amqp");
    if body.get("username").is_none() {
        body["username"] = json!("crosstie");
    }
    for (field, value) in secrets {
        let path = directory.path().join(field);
        fs::write(&path, value).unwrap();
        body[*field] = json!(format!("file:{}", path.display()));
    }
    let definition: OutgoingDefinition = serde_json::from_value(body).unwrap();
    let resolver =
        SecretResolver::new(Arc::new(ClusterKey::generate().unwrap()), directory.path().to_owned());
    let name = "broker".parse().unwrap();
    let blueprint =
        Blueprint::draw(&name, &definition, &Snapshot::default(), &resolver, directory.path()).unwrap();
    match open_outgoing(&blueprint, &environment()).unwrap() {
        Outgoing::Amqp(broker) => broker,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn ping(within: Duration) -> Ping {
    Ping { trace: TraceContext::new_root(), deadline: Instant::now() + within }
}

/// Why a broker gives no sign of life.
pub(crate) async fn failing(broker: &Arc<dyn AmqpOutgoing>, within: Duration) -> OutgoingError {
    broker.ping(ping(within)).await.expect_err("it answers")
}

pub(crate) async fn publish(
    broker: &Arc<dyn AmqpOutgoing>,
    queue: &str,
    body: &[u8],
    within: Duration,
) -> Result<(), OutgoingError> {
    let message = AmqpPublish {
        exchange: None,
        routing_key: Some(queue.to_owned()),
        properties: AmqpProperties { persistent: Some(true), ..AmqpProperties::default() },
        body: Bytes::copy_from_slice(body),
        unroutable: Unroutable::IsAnError,
        queue: None,
        trace: TraceContext::new_root(),
        deadline: Instant::now() + within,
    };
    broker.publish(message).await
}

#[derive(Default)]
struct Cells(Mutex<Vec<(String, &'static AtomicU64)>>);

impl CounterCells for Cells {
    fn cell(&self, key: &str) -> Option<&'static AtomicU64> {
        let mut cells = self.0.lock().unwrap();
        if let Some((_, cell)) = cells.iter().find(|(known, _)| known == key) {
            return Some(cell);
        }
        let cell: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
        cells.push((key.to_owned(), cell));
        Some(cell)
    }

    fn read_all(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}

struct Nowhere;

impl GaugeCells for Nowhere {
    fn gauge(&self, _: &str) -> Arc<dyn GaugeCell> {
        Arc::new(Nowhere)
    }
}

impl GaugeCell for Nowhere {
    fn add(&self) {}

    fn subtract(&self) {}
}

fn environment() -> Environment {
    Environment {
        metrics: Metrics::new(Arc::new(Cells::default())),
        gauges: Arc::new(Nowhere),
        tracer: None,
        messages: None,
    }
}
