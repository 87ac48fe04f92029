//! Outgoings that are AMQP 0-9-1 brokers: `amqp`.

use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::fault;
use super::policy::CircuitPolicy;
use super::tls::ClientTls;
use crate::definition::amqp::SHORT_STRING;
use crate::definition::message_log::KeptMessages;
use crate::definition::security::{is_keep, keep};
use crate::failure::Fault;
use crate::secret::SecretRef;

/// The port of AMQP over TLS (IANA `amqps`).
const TLS_PORT: u16 = 5671;
/// The port of AMQP in plain (IANA `amqp`).
const PLAIN_PORT: u16 = 5672;

/// A broker that speaks AMQP 0-9-1, such as RabbitMQ. Services publish to it, and channels of type `amqp` consume
/// over it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AmqpEndpoint {
    /// The broker: `amqps://HOST[:PORT][/VHOST]`, or `amqp://…`, over which everything can be read on the way.
    /// A slash of the virtual host's name is written `%2F`; without a path it is `/`.
    #[schemars(length(min = 1, max = 2_048), pattern(r"^amqps?://"))]
    pub address: String,
    /// The user there.
    #[schemars(length(min = 1, max = 255))]
    pub username: String,
    /// The user's password. May be left out of an `apply` document to keep the present one.
    #[serde(default = "keep", skip_serializing_if = "is_keep")]
    pub password: SecretRef,
    /// TLS beyond the usual: own authorities, a client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// The exchange that is published to where a call names none; by default the one that leads to the queue
    /// that the routing key names.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 255))]
    pub exchange: String,
    /// The routing key where a call names none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 255))]
    pub routing_key: String,
    /// How long each step of making a connection may take, in milliseconds: TCP, TLS, the login.
    #[serde(default = "default_connect_deadline", skip_serializing_if = "is_default_connect_deadline")]
    #[schemars(range(min = 1, max = 600_000), extend("default" = 5_000))]
    pub connect_deadline_ms: u64,
    /// How long publishing may take until the broker confirms, connecting again included, in milliseconds; the
    /// deadline of the service that calls counts where it is earlier.
    #[serde(default = "default_deadline", skip_serializing_if = "is_default_deadline")]
    #[schemars(range(min = 1, max = 86_400_000), extend("default" = 10_000))]
    pub deadline_ms: u64,
    /// Seconds between heartbeats: a broker that says nothing for two of them is taken for dead.
    #[serde(default = "default_heartbeat", skip_serializing_if = "is_default_heartbeat")]
    #[schemars(range(min = 1, max = 600), extend("default" = 10))]
    pub heartbeat_s: u16,
    /// How many messages one worker has on their way to the broker at once; more wait.
    #[serde(default = "default_publishers", skip_serializing_if = "is_default_publishers")]
    #[schemars(range(min = 1, max = 1_000), extend("default" = 64))]
    pub max_publishing: u16,
    /// Largest message that is published, in bytes.
    #[serde(default = "default_message", skip_serializing_if = "is_default_message")]
    #[schemars(range(min = 1), extend("default" = 16_777_216))]
    pub max_message_bytes: u64,
    /// When nothing is tried, because what was tried before failed.
    #[serde(default, skip_serializing_if = "CircuitPolicy::is_default")]
    pub circuit: CircuitPolicy,
    /// What is kept of messages that are published; nothing when absent. Header fields are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_log: Option<KeptMessages>,
    /// Calls of an inactive outgoing fail at once, and channels over it do not consume.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub active: bool,
}

/// Where a broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmqpAddress {
    /// Whether the connection is TLS.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The virtual host.
    pub vhost: String,
}

impl AmqpAddress {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it: it may hold a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "must be amqps://HOST[:PORT][/VHOST]";
        let url = Url::parse(text).map_err(|_| FORM)?;
        let tls = match url.scheme() {
            "amqps" => true,
            "amqp" => false,
            _ => return Err(FORM),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("holds credentials: they belong into username and password");
        }
        let decode = |text: &str| percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| FORM);
        let host = match url.host().ok_or(FORM)? {
            Host::Domain(name) => decode(name)?,
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let vhost = decode(url.path().strip_prefix('/').unwrap_or_default())?;
        let fits = host.len() <= SHORT_STRING && vhost.len() <= SHORT_STRING;
        if host.is_empty() || url.query().is_some() || url.fragment().is_some() || !fits {
            return Err(FORM);
        }
        let port = url.port().unwrap_or(if tls { TLS_PORT } else { PLAIN_PORT });
        let vhost = if vhost.is_empty() { "/".to_owned() } else { vhost };
        Ok(Self { tls, host, port, vhost })
    }
}

impl AmqpEndpoint {
    /// What is wrong that a schema cannot say.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        match (AmqpAddress::parse(&self.address), &self.tls) {
            (Err(detail), _) => faults.push(fault("/address", detail)),
            (Ok(address), Some(_)) if !address.tls => {
                faults.push(fault("/tls", "the address is not an amqps:// one"));
            }
            (Ok(_), Some(tls)) => tls.faults(&mut faults),
            (Ok(_), None) => {}
        }
        for (pointer, text) in [
            ("/username", &self.username),
            ("/exchange", &self.exchange),
            ("/routing_key", &self.routing_key),
        ] {
            // A schema counts characters.
            if text.len() > SHORT_STRING {
                faults.push(fault(pointer, format!("has more than {SHORT_STRING} bytes")));
            }
        }
        faults
    }

    pub(super) fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        let tls = self.tls.iter().flat_map(ClientTls::secrets);
        std::iter::once(("password", &self.password)).chain(tls).collect()
    }

    pub(super) fn secrets_mut(&mut self) -> Vec<(&'static str, &mut SecretRef)> {
        let tls = self.tls.iter_mut().flat_map(ClientTls::secrets_mut);
        std::iter::once(("password", &mut self.password)).chain(tls).collect()
    }
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

fn default_connect_deadline() -> u64 {
    5_000
}

fn is_default_connect_deadline(value: &u64) -> bool {
    *value == default_connect_deadline()
}

fn default_deadline() -> u64 {
    10_000
}

fn is_default_deadline(value: &u64) -> bool {
    *value == default_deadline()
}

fn default_heartbeat() -> u16 {
    10
}

fn is_default_heartbeat(value: &u16) -> bool {
    *value == default_heartbeat()
}

fn default_publishers() -> u16 {
    64
}

fn is_default_publishers(value: &u16) -> bool {
    *value == default_publishers()
}

fn default_message() -> u64 {
    16 * 1024 * 1024
}

fn is_default_message(value: &u64) -> bool {
    *value == default_message()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{Definition, DefinitionId, DefinitionKind};
    use serde_json::{Value, json};

    fn read(body: Value) -> Result<Definition, Vec<String>> {
        let id = DefinitionId { kind: DefinitionKind::Outgoing, name: "events".parse().unwrap() };
        Definition::from_value(id, body)
            .map_err(|faults| faults.into_iter().map(|fault| fault.pointer).collect())
    }

    #[test]
    fn an_address_names_host_port_and_virtual_host() {
        let of = |text: &str| {
            AmqpAddress::parse(text).map(|address| (address.tls, address.host, address.port, address.vhost))
        };
        assert_eq!(of("amqps://mq.example"), Ok((true, "mq.example".into(), 5671, "/".into())));
        assert_eq!(of("amqp://[::1]:7/a%2Fb"), Ok((false, "::1".into(), 7, "a/b".into())));
        for wrong in
            ["mq.example", "http://a", "amqps://", "amqps://a?b=c", "amqps://u:hunter2@a", "amqps://u@a"]
        {
            let error = of(wrong).unwrap_err();
            assert!(!error.contains("hunter2"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_broker_survives_its_yaml_shape_and_names_its_secrets() {
        let body = json!({
            "type": "amqp", "address": "amqps://mq.example/shop", "username": "crosstie", "password": "env:P",
            "tls": {"ca": "file:ca.pem", "certificate": "file:c.pem", "key": "file:k.pem"}, "exchange": "events",
            "max_publishing": 3,
        });
        let definition = read(body.clone()).unwrap();
        assert_eq!(definition.to_value().unwrap(), body);
        let fields: Vec<_> = definition.secrets().into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["password", "tls/key"]);
        for (key, value, pointer) in [
            ("address", json!("amqps://u@mq.example"), "/address"),
            ("tls", json!({"key": "env:K"}), "/tls/key"),
            ("exchange", json!("é".repeat(200)), "/exchange"),
        ] {
            let mut wrong = body.clone();
            wrong[key] = value;
            assert_eq!(read(wrong).unwrap_err(), [pointer]);
        }
        let plain = json!({"type": "amqp", "address": "amqp://a", "username": "u", "tls": {}});
        assert_eq!(read(plain).unwrap_err(), ["/tls"]);
    }
}
