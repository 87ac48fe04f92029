//! AMQP channels: queues whose messages go to a service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::channel::DataFormat;
use super::message_log::KeptMessages;
use super::name::DefinitionName;
use crate::failure::Fault;
use crate::names::ServiceName;

/// Longest short string of AMQP, in bytes (AMQP 0-9-1, section 4.2.5.3).
pub(super) const SHORT_STRING: usize = 255;
/// Longest name of a queue: those beside it begin with it.
const QUEUE_NAME: usize = 180;

/// An AMQP channel: consumes a queue. A message is acknowledged once the service is done with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AmqpChannel {
    /// The service that gets the messages.
    pub service: ServiceName,
    /// The outgoing of type `amqp` whose broker it is.
    pub connection: DefinitionName,
    /// The queue.
    #[schemars(length(min = 1, max = 180))]
    pub queue: String,
    /// What becomes of a queue that is not there. One that is there is taken as it is.
    #[serde(default, skip_serializing_if = "MissingQueue::is_classic")]
    pub missing_queue: MissingQueue,
    /// The exchange that the queue is bound to, with each of the routing keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub exchange: Option<String>,
    /// The type of the exchange where it has to be made; without one it must be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange_type: Option<AmqpExchangeType>,
    /// Which messages of the exchange; `#` alone when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(max = 255)))]
    pub routing_keys: Vec<String>,
    /// How many messages a consumer has at once: those the service works on, and those that wait for it.
    #[serde(default = "default_prefetch", skip_serializing_if = "is_default_prefetch")]
    #[schemars(range(min = 1, max = 10_000), extend("default" = 20))]
    pub prefetch: u16,
    /// How many consumers there are; one on each worker when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub consumers: Option<u16>,
    /// On what `consumers` are counted.
    #[serde(default, skip_serializing_if = "ConsumersPer::is_server")]
    pub consumers_per: ConsumersPer,
    /// The format of messages; by their content type when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_format: Option<DataFormat>,
    /// How long the service may take for a message, in milliseconds; the server's default otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400_000))]
    pub deadline_ms: Option<u64>,
    /// Largest message in bytes; the server's default otherwise, and never more than its maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// When a message on which the service failed is tried again.
    #[serde(default, skip_serializing_if = "AmqpRetry::is_default")]
    pub retry: AmqpRetry,
    /// Where messages go that cannot be worked on; to the queue of the channel's own with `.dead` at its end by
    /// default, which is made where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<AmqpDeadLetter>,
    /// How often a message may come again because nobody acknowledged it, as when its worker died; then it is a
    /// dead letter.
    #[serde(default = "default_redeliveries", skip_serializing_if = "is_default_redeliveries")]
    #[schemars(range(min = 1, max = 1_000), extend("default" = 20))]
    pub max_redeliveries: u32,
    /// By what a message is known that came before, so that the service gets it once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<AmqpIdempotency>,
    /// Whether what the service gives goes to the message's `reply_to`, where it has one.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub reply: bool,
    /// What is kept of its messages in the message log; nothing when absent. Header fields and answers are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_log: Option<KeptMessages>,
    /// An inactive channel does not consume.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub active: bool,
}

/// What becomes of a queue that is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MissingQueue {
    /// It is made: durable, on one node of the broker.
    #[default]
    MakeClassic,
    /// It is made: durable, on several nodes of the broker (RabbitMQ's quorum queues).
    MakeQuorum,
    /// It is waited for.
    Wait,
}

impl MissingQueue {
    fn is_classic(&self) -> bool {
        *self == Self::MakeClassic
    }
}

/// The type of an exchange (AMQP 0-9-1, section 3.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AmqpExchangeType {
    /// By the very routing key.
    Direct,
    /// By patterns: `order.*`, `order.#`.
    Topic,
    /// Everything.
    Fanout,
    /// By header fields.
    Headers,
}

impl AmqpExchangeType {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Topic => "topic",
            Self::Fanout => "fanout",
            Self::Headers => "headers",
        }
    }
}

/// On what consumers are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConsumersPer {
    /// On each server.
    #[default]
    Server,
    /// On all servers together.
    Cluster,
}

impl ConsumersPer {
    fn is_server(&self) -> bool {
        *self == Self::Server
    }
}

/// When a message is tried again. A message that is wrong in itself is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AmqpRetry {
    /// How often at most; then it is a dead letter.
    #[schemars(range(max = 100))]
    pub max: u32,
    /// The pause before the first time, in milliseconds; doubled for each further one. Meanwhile the message lies in
    /// the queue `QUEUE.retry`, and others go ahead of it.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub pause_ms: u32,
    /// The longest pause, in milliseconds.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub max_pause_ms: u32,
}

impl Default for AmqpRetry {
    fn default() -> Self {
        Self { max: 5, pause_ms: 1_000, max_pause_ms: 60_000 }
    }
}

impl AmqpRetry {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// How long a message waits that failed `attempts` times; `None` once it is not tried again.
    #[must_use]
    pub fn pause_after(&self, attempts: u32) -> Option<u32> {
        (attempts <= self.max).then(|| self.pause(attempts))
    }

    /// How long a message waits, in milliseconds, to which something happened for the `times`th time.
    #[must_use]
    pub fn pause(&self, times: u32) -> u32 {
        let doubled = 2_u32.saturating_pow(times.saturating_sub(1));
        self.pause_ms.saturating_mul(doubled).min(self.max_pause_ms.max(self.pause_ms))
    }
}

/// Where messages go that cannot be worked on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AmqpDeadLetter {
    /// The exchange; the default one, which leads to the queue that the routing key names, when absent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 255))]
    pub exchange: String,
    /// The routing key.
    #[schemars(length(min = 1, max = 255))]
    pub routing_key: String,
}

/// By what a message is known that came before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AmqpIdempotency {
    /// `message_id`, `correlation_id`, or `header:NAME`. A message without it is a dead letter.
    #[schemars(length(min = 1, max = 255))]
    pub key: String,
    /// How long a message is remembered that the service is done with, in seconds.
    #[schemars(range(min = 1, max = 31_536_000))]
    pub keep_s: u64,
    /// What becomes of a message whose worker died while the service was at it: nobody knows what it did.
    pub in_doubt: InDoubt,
}

impl Default for AmqpIdempotency {
    fn default() -> Self {
        Self { key: "message_id".to_owned(), keep_s: 86_400, in_doubt: InDoubt::default() }
    }
}

/// What becomes of a message of which nobody knows whether the service was done with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InDoubt {
    /// It is a dead letter: somebody has to look. The service never gets it twice.
    #[default]
    DeadLetter,
    /// The service gets it again: for services that notice by themselves.
    Again,
}

impl AmqpChannel {
    /// What is wrong that a schema cannot say.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut add = |pointer: &str, detail: String| {
            faults.push(Fault { pointer: pointer.to_owned(), detail });
        };
        if self.queue.len() > QUEUE_NAME {
            add("/queue", format!("has more than {QUEUE_NAME} bytes"));
        }
        if self.queue.starts_with("amq.") {
            add("/queue", "names that begin with amq. are the broker's own".to_owned());
        }
        if self.exchange.is_none() {
            if self.exchange_type.is_some() {
                add("/exchange_type", "is the type of no exchange: exchange is missing".to_owned());
            }
            if !self.routing_keys.is_empty() {
                add("/routing_keys", "are those of no exchange: exchange is missing".to_owned());
            }
        }
        if self.consumers.is_none() && self.consumers_per == ConsumersPer::Cluster {
            add("/consumers_per", "says on what consumers are counted: consumers is missing".to_owned());
        }
        let texts = self.routing_keys.iter().enumerate().map(|(n, key)| (format!("/routing_keys/{n}"), key));
        let dead = self.dead_letter.iter().flat_map(|dead| {
            [("/dead_letter/exchange", &dead.exchange), ("/dead_letter/routing_key", &dead.routing_key)]
        });
        let dead = dead.map(|(pointer, text)| (pointer.to_owned(), text));
        let exchange = self.exchange.iter().map(|exchange| ("/exchange".to_owned(), exchange));
        for (pointer, text) in texts.chain(dead).chain(exchange) {
            if text.len() > SHORT_STRING {
                add(&pointer, format!("has more than {SHORT_STRING} bytes"));
            }
        }
        let dead = self.dead_letter.as_ref();
        if dead.is_some_and(|dead| dead.exchange.is_empty() && dead.routing_key == self.queue) {
            add("/dead_letter/routing_key", "is the channel's own queue".to_owned());
        }
        if let Some(idempotency) = &self.idempotency {
            let known = matches!(idempotency.key.as_str(), "message_id" | "correlation_id");
            let header = idempotency.key.strip_prefix("header:").is_some_and(|name| !name.is_empty());
            if !known && !header {
                add("/idempotency/key", "is message_id, correlation_id or header:NAME".to_owned());
            }
        }
        faults
    }

    /// Where messages go that cannot be worked on.
    #[must_use]
    pub fn dead_letters(&self) -> AmqpDeadLetter {
        let own = || AmqpDeadLetter { exchange: String::new(), routing_key: format!("{}.dead", self.queue) };
        self.dead_letter.clone().unwrap_or_else(own)
    }
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

fn default_prefetch() -> u16 {
    20
}

fn is_default_prefetch(value: &u16) -> bool {
    *value == default_prefetch()
}

fn default_redeliveries() -> u32 {
    20
}

fn is_default_redeliveries(value: &u32) -> bool {
    *value == default_redeliveries()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{Definition, DefinitionId, DefinitionKind, references_in};
    use serde_json::{Value, json};

    fn read(body: Value) -> Result<Definition, Vec<String>> {
        let id = DefinitionId { kind: DefinitionKind::Channel, name: "orders".parse().unwrap() };
        Definition::from_value(id, body)
            .map_err(|faults| faults.into_iter().map(|fault| fault.pointer).collect())
    }

    #[test]
    fn an_amqp_channel_survives_its_yaml_shape_and_names_what_it_needs() {
        let body = json!({
            "type": "amqp", "service": "demo.a", "connection": "broker", "queue": "orders", "exchange": "shop",
            "exchange_type": "topic", "routing_keys": ["order.*"], "consumers": 1, "consumers_per": "cluster",
            "idempotency": {"key": "header:order", "keep_s": 60, "in_doubt": "again"},
            "dead_letter": {"routing_key": "failed"}, "retry": {"max": 1, "pause_ms": 10, "max_pause_ms": 20},
        });
        let definition = read(body.clone()).unwrap();
        assert_eq!(definition.to_value().unwrap(), body);
        let needed: Vec<_> =
            definition.references().into_iter().map(|(pointer, id)| (pointer, id.to_string())).collect();
        assert_eq!(needed, [("/connection".to_owned(), "outgoing/broker".to_owned())]);
        assert_eq!(references_in(DefinitionKind::Channel, &body), definition.references());
        let small = json!({"type": "amqp", "service": "a", "connection": "b", "queue": "q"});
        assert_eq!(read(small.clone()).unwrap().to_value().unwrap(), small);
        for (key, value, pointer) in [
            ("queue", json!("amq.q"), "/queue"),
            ("exchange_type", json!("topic"), "/exchange_type"),
            ("routing_keys", json!(["a"]), "/routing_keys"),
            ("consumers_per", json!("cluster"), "/consumers_per"),
            ("idempotency", json!({"key": "header:"}), "/idempotency/key"),
            ("dead_letter", json!({"routing_key": "q"}), "/dead_letter/routing_key"),
            ("exchange", json!("é".repeat(200)), "/exchange"),
        ] {
            let mut wrong = small.clone();
            wrong[key] = value;
            assert_eq!(read(wrong).unwrap_err(), [pointer]);
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_end() {
        let retry = AmqpRetry { max: 4, pause_ms: 100, max_pause_ms: 500 };
        let pauses: Vec<_> = (1..=5).map(|attempts| retry.pause_after(attempts)).collect();
        assert_eq!(pauses, [Some(100), Some(200), Some(400), Some(500), None]);
        let none = AmqpRetry { max: 0, ..retry };
        assert_eq!(none.pause_after(1), None);
        let long = AmqpRetry { max: 100, pause_ms: 86_400_000, max_pause_ms: 1 };
        assert_eq!(long.pause_after(100), Some(86_400_000));
    }
}
