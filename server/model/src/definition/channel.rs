//! Channels: entrances that map traffic of one kind to services.

use std::collections::BTreeMap;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::amqp::AmqpChannel;
use super::message_log::KeptMessages;
use super::name::DefinitionName;
use super::passthrough::PassthroughChannel;
use super::rate_limit::RateRule;
use super::soap::SoapChannel;
use super::transform::Transforms;
use crate::failure::Fault;
use crate::names::ServiceName;

/// A channel by its `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ChannelDefinition {
    /// REST: decoded bodies, path parameters, content negotiation, OpenAPI.
    Rest(RestChannel),
    /// Plain HTTP: the body reaches the service as bytes, whatever its type.
    Http(PlainHttpChannel),
    /// JSON-RPC 2.0: one path, several methods.
    Jsonrpc(JsonRpcChannel),
    /// SOAP 1.1 and 1.2: one path, several operations.
    Soap(Box<SoapChannel>),
    /// Straight to an outgoing, with no service between.
    Passthrough(Box<PassthroughChannel>),
    /// AMQP 0-9-1: a queue's messages.
    Amqp(Box<AmqpChannel>),
}

impl ChannelDefinition {
    /// The `type` key.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Rest(_) => "rest",
            Self::Http(_) => "http",
            Self::Jsonrpc(_) => "jsonrpc",
            Self::Soap(_) => "soap",
            Self::Passthrough(_) => "passthrough",
            Self::Amqp(_) => "amqp",
        }
    }

    /// What all HTTP channels share; `None` for one that does not listen on HTTP.
    #[must_use]
    pub fn entrance(&self) -> Option<&HttpEntrance> {
        match self {
            Self::Rest(channel) => Some(&channel.entrance),
            Self::Http(channel) => Some(&channel.entrance),
            Self::Jsonrpc(channel) => Some(&channel.entrance),
            Self::Soap(channel) => Some(&channel.entrance),
            Self::Passthrough(channel) => Some(&channel.entrance),
            Self::Amqp(_) => None,
        }
    }

    /// What is kept of its messages in the message log; nothing where it does not say.
    #[must_use]
    pub fn message_log(&self) -> Option<&KeptMessages> {
        match self {
            Self::Amqp(channel) => channel.message_log.as_ref(),
            _ => self.entrance()?.message_log.as_ref(),
        }
    }

    /// Whether it is to be open.
    #[must_use]
    pub fn is_active(&self) -> bool {
        match self {
            Self::Amqp(channel) => channel.active,
            other => other.entrance().is_some_and(|entrance| entrance.active),
        }
    }

    /// The security definition whose credentials callers must present.
    #[must_use]
    pub fn security(&self) -> Option<&DefinitionName> {
        self.entrance().and_then(|entrance| entrance.security.as_ref())
    }

    /// How long whoever comes waits at most, in milliseconds, where it says.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        match self {
            Self::Amqp(channel) => channel.deadline_ms,
            other => other.entrance().and_then(|entrance| entrance.deadline_ms),
        }
    }

    /// Where it is found: its path, or its queue.
    #[must_use]
    pub fn place(&self) -> &str {
        match self {
            Self::Amqp(channel) => &channel.queue,
            other => other.entrance().map_or("", |entrance| &entrance.path),
        }
    }

    /// The outgoings it hands messages on to, each with the pointer of the field that names it.
    #[must_use]
    pub fn outgoings(&self) -> Vec<(String, &DefinitionName)> {
        match self {
            Self::Passthrough(channel) => channel.outgoings(),
            _ => Vec::new(),
        }
    }

    /// The outgoing it is reached over.
    #[must_use]
    pub fn connection(&self) -> Option<&DefinitionName> {
        match self {
            Self::Amqp(channel) => Some(&channel.connection),
            _ => None,
        }
    }

    /// The `wsdl` definition that describes its operations.
    #[must_use]
    pub fn wsdl(&self) -> Option<&DefinitionName> {
        match self {
            Self::Soap(channel) => channel.wsdl.as_ref(),
            _ => None,
        }
    }

    /// What it makes of bodies; `None` where it cannot make anything of them.
    #[must_use]
    pub fn transforms(&self) -> Option<&Transforms> {
        match self {
            Self::Rest(channel) => Some(&channel.transforms),
            Self::Http(channel) => Some(&channel.transforms),
            Self::Passthrough(channel) => Some(&channel.transforms),
            Self::Jsonrpc(_) | Self::Soap(_) | Self::Amqp(_) => None,
        }
    }

    /// The services the channel leads to.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceName> {
        match self {
            Self::Rest(channel) => vec![channel.service.clone()],
            Self::Http(channel) => vec![channel.service.clone()],
            Self::Jsonrpc(channel) => channel.methods.values().cloned().collect(),
            Self::Soap(channel) => channel.operations.values().cloned().collect(),
            Self::Passthrough(channel) => {
                channel.services().into_iter().map(|(_, service)| service).collect()
            }
            Self::Amqp(channel) => vec![channel.service.clone()],
        }
    }

    /// The services the channel leads to, each with the pointer (RFC 6901) of the field that names it.
    #[must_use]
    pub fn services_by_field(&self) -> Vec<(String, ServiceName)> {
        match self {
            Self::Rest(_) | Self::Http(_) | Self::Amqp(_) => {
                self.services().into_iter().map(|service| ("/service".to_owned(), service)).collect()
            }
            Self::Jsonrpc(channel) => {
                let methods = channel.methods.iter();
                methods.map(|(method, service)| (method_pointer(method), service.clone())).collect()
            }
            Self::Soap(channel) => {
                let operations = channel.operations.iter();
                operations.map(|(name, service)| (operation_pointer(name), service.clone())).collect()
            }
            Self::Passthrough(channel) => channel.services(),
        }
    }

    /// What is wrong that a schema cannot say.
    pub(super) fn faults(&self) -> Vec<Fault> {
        match self {
            Self::Soap(channel) => channel.faults(),
            Self::Passthrough(channel) => channel.faults(),
            Self::Amqp(channel) => channel.faults(),
            Self::Rest(channel) => channel.transforms.faults(),
            Self::Http(channel) => channel.transforms.faults(),
            Self::Jsonrpc(_) => Vec::new(),
        }
    }
}

/// The pointer of a JSON-RPC method.
pub(super) fn method_pointer(method: &str) -> String {
    format!("/methods/{}", method.replace('~', "~0").replace('/', "~1"))
}

/// The pointer of a SOAP operation.
pub(super) fn operation_pointer(operation: &str) -> String {
    format!("/operations/{}", operation.replace('~', "~0").replace('/', "~1"))
}

/// What every channel that listens on HTTP has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HttpEntrance {
    /// Path pattern: `/customers/{id:int}/files/{rest:path}`. Parameter types: `str` (default), `int`,
    /// `float`, `bool`, `uuid`, `date`, `path` (the rest of the path, slashes included).
    #[schemars(length(min = 1, max = 1024), pattern(r"^/"))]
    pub path: String,
    /// The security definition whose credentials a caller must present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<DefinitionName>,
    /// An inactive channel answers 404, as if it were not there.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub active: bool,
    /// How long a caller waits at most, in milliseconds; the server's default otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400_000))]
    pub deadline_ms: Option<u64>,
    /// Largest request body in bytes; the server's default otherwise, and never more than its maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// How many requests of this channel one server runs at once; more get 503. No limit of its own
    /// otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_concurrency: Option<u32>,
    /// Rate limits, all of which must allow a request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rate_limit: Vec<RateRule>,
    /// Cross-origin requests; refused to browsers when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// Networks clients may come from; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub allow_from: Vec<IpNet>,
    /// What is kept of its messages for search and replay; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_log: Option<KeptMessages>,
}

/// A REST channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RestChannel {
    /// The service that answers.
    pub service: ServiceName,
    /// The HTTP methods it answers; all that the service handles when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(pattern(r"^[A-Z]{1,20}$")))]
    pub methods: Vec<String>,
    /// The format of bodies; by Content-Type and Accept when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_format: Option<DataFormat>,
    /// Whether the channel appears in the generated OpenAPI document. One that transforms bodies never does: the
    /// document would describe others than callers send and get.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub openapi: bool,
    /// What it makes of bodies.
    #[serde(flatten)]
    pub transforms: Transforms,
    /// Path, security, limits.
    #[serde(flatten)]
    pub entrance: HttpEntrance,
}

/// A plain HTTP channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlainHttpChannel {
    /// The service that answers.
    pub service: ServiceName,
    /// The HTTP methods it answers; all that the service handles when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(pattern(r"^[A-Z]{1,20}$")))]
    pub methods: Vec<String>,
    /// What it makes of bodies.
    #[serde(flatten)]
    pub transforms: Transforms,
    /// Path, security, limits.
    #[serde(flatten)]
    pub entrance: HttpEntrance,
}

/// A JSON-RPC 2.0 channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JsonRpcChannel {
    /// JSON-RPC method name → service. Nothing outside this map can be called.
    #[schemars(extend("minProperties" = 1))]
    pub methods: BTreeMap<String, ServiceName>,
    /// Most calls in one batch.
    #[serde(default = "default_batch", skip_serializing_if = "is_default_batch")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_batch: u32,
    /// Whether the channel describes itself: an OpenRPC document by GET and by the method `rpc.discover`.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub openrpc: bool,
    /// Path, security, limits.
    #[serde(flatten)]
    pub entrance: HttpEntrance,
}

/// The format a REST channel insists on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataFormat {
    /// JSON (RFC 8259).
    Json,
    /// XML by the documented JSON mapping.
    Xml,
    /// `application/x-www-form-urlencoded` or `multipart/form-data` in, JSON out.
    Form,
    /// Bytes, undecoded.
    Raw,
}

/// Cross-origin resource sharing (Fetch standard, section 3.2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins allowed, such as `https://app.example`; `*` for any, which excludes `credentials`.
    #[schemars(length(min = 1))]
    pub origins: Vec<String>,
    /// Request headers a script may send beyond the safelisted ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Response headers a script may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
    /// Whether cookies and HTTP authentication may be sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub credentials: bool,
    /// How long a browser may keep a preflight answer, in seconds.
    #[serde(default = "default_max_age")]
    pub max_age_s: u32,
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

fn default_batch() -> u32 {
    50
}

fn is_default_batch(value: &u32) -> bool {
    *value == default_batch()
}

fn default_max_age() -> u32 {
    600
}
