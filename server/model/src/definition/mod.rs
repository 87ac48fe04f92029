//! Definitions: every configured object, as it is written in YAML, stored in the ODB and read in a snapshot.
//!
//! A kind is one file beside this one plus one line in [`SHAPES`]. Each shape has a JSON Schema derived from
//! its Rust type, so that one check lists every fault of a document with its pointer; the typed form is only
//! made of what passed. The order of work is always: [`Definition::from_value`], then
//! [`Definition::references`] checked by whoever holds the other definitions.

mod amqp;
mod channel;
mod dictionary;
mod message_log;
mod name;
mod outgoing;
mod passthrough;
mod rate_limit;
mod security;
mod service;
mod soap;
mod stylesheet;
mod transform;
mod wsdl;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use amqp::{
    AmqpChannel, AmqpDeadLetter, AmqpExchangeType, AmqpIdempotency, AmqpRetry, ConsumersPer, InDoubt,
    MissingQueue,
};
pub use channel::{
    ChannelDefinition, Cors, DataFormat, HttpEntrance, JsonRpcChannel, PlainHttpChannel, RestChannel,
};
pub use dictionary::DictionaryDefinition;
pub use message_log::{KeptBodies, KeptMessages};
pub use name::DefinitionName;
pub use outgoing::{
    AmqpAddress, AmqpEndpoint, CircuitPolicy, ClientTls, HttpEndpoint, HttpProxy, HttpVersions,
    OutgoingDefinition, OutgoingFormat, PingSettings, PlainHttpOutgoing, Redirects, RestOutgoing,
    RetryPolicy, SoapEndpoint, SqlAuthentication, SqlEncryption, SqlEndpoint, SqlEngine,
};
pub use passthrough::{
    Bodies, HeaderChanges, HeaderCondition, PassthroughChannel, PointerCondition, Route, XpathCondition,
};
pub use rate_limit::{RateKey, RatePeriod, RateRule};
pub use security::{
    ApiKey, ApiKeyLocation, BasicAuth, Bearer, ClientCertificate, CredentialsIn, DistinguishedName, Group,
    Jwt, JwtAlgorithm, Oauth2ClientCredentials, Oauth2Introspection, SecurityDefinition, SecurityUse,
    TokenRules, WssPassword, WssUsernameToken, attribute_name,
};
pub use service::ServiceSettings;
pub use soap::{Mtom, SoapChannel, SoapStyle, SoapVersion};
pub use stylesheet::StylesheetDefinition;
pub use transform::{JsonToXml, TransformStep, Transforms, XmlToJson, XsltStep};
pub use wsdl::WsdlDefinition;

use crate::failure::Fault;
use crate::names::ServiceName;
use crate::schema::Schema;
use crate::secret::SecretRef;

/// What sort of object a definition configures. The lower-case word is its name in YAML, the API and the
/// command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DefinitionKind {
    /// An entrance.
    Channel,
    /// Read-only lookup table.
    Dictionary,
    /// Connection to an external system.
    Outgoing,
    /// Named credentials.
    Security,
    /// Run-time settings of a service that its code should not decide.
    Service,
    /// A transformation of XML.
    Stylesheet,
    /// The description of a SOAP service.
    Wsdl,
}

impl DefinitionKind {
    /// Every kind, in the order of their names.
    pub const ALL: [Self; 7] = [
        Self::Channel,
        Self::Dictionary,
        Self::Outgoing,
        Self::Security,
        Self::Service,
        Self::Stylesheet,
        Self::Wsdl,
    ];

    /// The kind's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Dictionary => "dictionary",
            Self::Outgoing => "outgoing",
            Self::Security => "security",
            Self::Service => "service",
            Self::Stylesheet => "stylesheet",
            Self::Wsdl => "wsdl",
        }
    }
}

impl fmt::Display for DefinitionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DefinitionKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("unknown kind {text:?}; there are {}", known.join(", "))
        })
    }
}

/// What identifies a definition: its kind and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct DefinitionId {
    /// The kind.
    pub kind: DefinitionKind,
    /// The name, unique within its kind.
    pub name: DefinitionName,
}

impl fmt::Display for DefinitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// A configured object.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Kind and name.
    pub id: DefinitionId,
    /// What it says.
    pub body: DefinitionBody,
}

/// A definition's content by kind. Serializes to the YAML shape.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum DefinitionBody {
    /// A channel.
    Channel(ChannelDefinition),
    /// A dictionary.
    Dictionary(DictionaryDefinition),
    /// An outgoing.
    Outgoing(Box<OutgoingDefinition>),
    /// A security definition.
    Security(SecurityDefinition),
    /// Settings of a service.
    Service(ServiceSettings),
    /// A transformation of XML.
    Stylesheet(StylesheetDefinition),
    /// The description of a SOAP service.
    Wsdl(WsdlDefinition),
}

/// One shape a definition can have: a kind, and the value of its `type` key where the kind has several.
struct Shape {
    kind: DefinitionKind,
    tag: Option<&'static str>,
    schema: fn() -> schemars::Schema,
}

/// The registry. A new channel, security or other type is one line here.
const SHAPES: &[Shape] = &[
    Shape { kind: DefinitionKind::Channel, tag: Some("rest"), schema: || schemars::schema_for!(RestChannel) },
    Shape {
        kind: DefinitionKind::Channel,
        tag: Some("http"),
        schema: || schemars::schema_for!(PlainHttpChannel),
    },
    Shape {
        kind: DefinitionKind::Channel,
        tag: Some("jsonrpc"),
        schema: || schemars::schema_for!(JsonRpcChannel),
    },
    Shape {
        kind: DefinitionKind::Channel,
        tag: Some("passthrough"),
        schema: || schemars::schema_for!(PassthroughChannel),
    },
    Shape { kind: DefinitionKind::Channel, tag: Some("soap"), schema: || schemars::schema_for!(SoapChannel) },
    Shape { kind: DefinitionKind::Channel, tag: Some("amqp"), schema: || schemars::schema_for!(AmqpChannel) },
    Shape {
        kind: DefinitionKind::Security,
        tag: Some("basic_auth"),
        schema: || schemars::schema_for!(BasicAuth),
    },
    Shape { kind: DefinitionKind::Security, tag: Some("api_key"), schema: || schemars::schema_for!(ApiKey) },
    Shape {
        kind: DefinitionKind::Security,
        tag: Some("client_certificate"),
        schema: || schemars::schema_for!(ClientCertificate),
    },
    Shape { kind: DefinitionKind::Security, tag: Some("jwt"), schema: || schemars::schema_for!(Jwt) },
    Shape {
        kind: DefinitionKind::Security,
        tag: Some("oauth2_introspection"),
        schema: || schemars::schema_for!(Oauth2Introspection),
    },
    Shape {
        kind: DefinitionKind::Security,
        tag: Some("wss_username_token"),
        schema: || schemars::schema_for!(WssUsernameToken),
    },
    Shape { kind: DefinitionKind::Security, tag: Some("group"), schema: || schemars::schema_for!(Group) },
    Shape { kind: DefinitionKind::Security, tag: Some("bearer"), schema: || schemars::schema_for!(Bearer) },
    Shape {
        kind: DefinitionKind::Security,
        tag: Some("oauth2_client_credentials"),
        schema: || schemars::schema_for!(Oauth2ClientCredentials),
    },
    Shape {
        kind: DefinitionKind::Outgoing,
        tag: Some("rest"),
        schema: || schemars::schema_for!(RestOutgoing),
    },
    Shape {
        kind: DefinitionKind::Outgoing,
        tag: Some("http"),
        schema: || schemars::schema_for!(PlainHttpOutgoing),
    },
    Shape {
        kind: DefinitionKind::Outgoing,
        tag: Some("soap"),
        schema: || schemars::schema_for!(SoapEndpoint),
    },
    Shape { kind: DefinitionKind::Outgoing, tag: Some("sql"), schema: || schemars::schema_for!(SqlEndpoint) },
    Shape {
        kind: DefinitionKind::Outgoing,
        tag: Some("amqp"),
        schema: || schemars::schema_for!(AmqpEndpoint),
    },
    Shape {
        kind: DefinitionKind::Dictionary,
        tag: None,
        schema: || schemars::schema_for!(DictionaryDefinition),
    },
    Shape { kind: DefinitionKind::Service, tag: None, schema: || schemars::schema_for!(ServiceSettings) },
    Shape {
        kind: DefinitionKind::Stylesheet,
        tag: None,
        schema: || schemars::schema_for!(StylesheetDefinition),
    },
    Shape { kind: DefinitionKind::Wsdl, tag: None, schema: || schemars::schema_for!(WsdlDefinition) },
];

type CompiledShapes = HashMap<(DefinitionKind, Option<&'static str>), Schema>;

static SCHEMAS: LazyLock<CompiledShapes> = LazyLock::new(|| {
    SHAPES
        .iter()
        .filter_map(|shape| {
            let mut schema = (shape.schema)().to_value();
            close(&mut schema, shape.tag);
            Schema::compile(schema).ok().map(|compiled| ((shape.kind, shape.tag), compiled))
        })
        .collect()
});

/// Makes unknown keys errors and adds the `type` key, which serde takes off before the struct sees it.
fn close(schema: &mut Value, tag: Option<&str>) {
    let Some(object) = schema.as_object_mut() else { return };
    object.insert("additionalProperties".into(), Value::Bool(false));
    let Some(tag) = tag else { return };
    let properties = object.entry("properties").or_insert_with(|| Value::Object(serde_json::Map::new()));
    if let Some(properties) = properties.as_object_mut() {
        properties.insert("type".into(), serde_json::json!({"const": tag}));
    }
}

/// The JSON Schema of every shape as `(kind, type, schema)`: the API's OpenAPI document and `docs/reference`
/// are generated from it.
pub fn shapes() -> impl Iterator<Item = (DefinitionKind, Option<&'static str>, &'static Value)> {
    SHAPES.iter().filter_map(|shape| {
        SCHEMAS.get(&(shape.kind, shape.tag)).map(|schema| (shape.kind, shape.tag, schema.source()))
    })
}

/// What is wrong with the shape of `value` as a definition of `kind`: the first of the checks of
/// [`Definition::from_value`]. What has none of these faults may still make no sense.
#[must_use]
pub fn shape_faults(kind: DefinitionKind, value: &Value) -> Vec<Fault> {
    let fault = |pointer: &str, detail: String| vec![Fault { pointer: pointer.to_owned(), detail }];
    let tags: Vec<_> =
        SHAPES.iter().filter(|shape| shape.kind == kind).filter_map(|shape| shape.tag).collect();
    let tag = match (tags.is_empty(), value.get("type").map(Value::as_str)) {
        (true, _) => None,
        (false, Some(Some(text))) => match tags.iter().find(|tag| **tag == text) {
            Some(tag) => Some(*tag),
            None => {
                let detail = format!("unknown {kind} type {text:?}; there are {}", tags.join(", "));
                return fault("/type", detail);
            }
        },
        (false, _) => return fault("/type", format!("a {kind} needs a type: {}", tags.join(", "))),
    };
    SCHEMAS
        .get(&(kind, tag))
        .map_or_else(|| fault("", "this kind has no schema".into()), |schema| schema.faults(value))
}

impl Definition {
    /// Checks `value` against its shape and makes a definition of it.
    ///
    /// # Errors
    /// Every fault with its pointer, relative to `value`.
    pub fn from_value(id: DefinitionId, value: Value) -> Result<Self, Vec<Fault>> {
        let fault = |pointer: &str, detail: String| vec![Fault { pointer: pointer.to_owned(), detail }];
        let faults = shape_faults(id.kind, &value);
        if !faults.is_empty() {
            return Err(faults);
        }
        let decoded = match id.kind {
            DefinitionKind::Channel => serde_json::from_value(value).map(DefinitionBody::Channel),
            DefinitionKind::Dictionary => serde_json::from_value(value).map(DefinitionBody::Dictionary),
            DefinitionKind::Outgoing => serde_json::from_value(value).map(DefinitionBody::Outgoing),
            DefinitionKind::Security => serde_json::from_value(value).map(DefinitionBody::Security),
            DefinitionKind::Service => serde_json::from_value(value).map(DefinitionBody::Service),
            DefinitionKind::Stylesheet => serde_json::from_value(value).map(DefinitionBody::Stylesheet),
            DefinitionKind::Wsdl => serde_json::from_value(value).map(DefinitionBody::Wsdl),
        };
        let body = decoded.map_err(|error| fault("", error.to_string()))?;
        let faults = match &body {
            DefinitionBody::Channel(channel) => channel.faults(),
            DefinitionBody::Outgoing(outgoing) => outgoing.faults(),
            DefinitionBody::Security(security) => security.faults(),
            _ => Vec::new(),
        };
        if faults.is_empty() { Ok(Self { id, body }) } else { Err(faults) }
    }

    /// The definition in its YAML and ODB shape.
    ///
    /// # Errors
    /// None for any definition that came from [`Definition::from_value`]; the type says so because
    /// serialization does.
    pub fn to_value(&self) -> Result<Value, serde_json::Error> {
        serde_json::to_value(&self.body)
    }

    /// The definitions this one needs, each with the pointer of the field that names it.
    #[must_use]
    pub fn references(&self) -> Vec<(String, DefinitionId)> {
        let security = |(pointer, name): (&str, &DefinitionName)| {
            (pointer.to_owned(), DefinitionId { kind: DefinitionKind::Security, name: name.clone() })
        };
        let wsdl = |(pointer, name): (&str, &DefinitionName)| {
            (pointer.to_owned(), DefinitionId { kind: DefinitionKind::Wsdl, name: name.clone() })
        };
        match &self.body {
            DefinitionBody::Channel(channel) => {
                let credentials = channel.security().map(|name| security(("/security", name)));
                let described = channel.wsdl().map(|name| wsdl(("/wsdl", name)));
                let outgoing = |(pointer, name): (String, &DefinitionName)| {
                    (pointer, DefinitionId { kind: DefinitionKind::Outgoing, name: name.clone() })
                };
                let connection = channel.connection().map(|name| ("/connection".to_owned(), name));
                let outgoings = connection.into_iter().chain(channel.outgoings()).map(outgoing);
                let stylesheet = |(pointer, name): (String, &DefinitionName)| {
                    (pointer, DefinitionId { kind: DefinitionKind::Stylesheet, name: name.clone() })
                };
                let stylesheets = channel.transforms().map(Transforms::stylesheets).unwrap_or_default();
                let stylesheets = stylesheets.into_iter().map(stylesheet);
                credentials.into_iter().chain(described).chain(outgoings).chain(stylesheets).collect()
            }
            DefinitionBody::Outgoing(outgoing) => {
                let credentials = outgoing.security().into_iter().map(security);
                credentials.chain(outgoing.wsdl().map(|name| wsdl(("/wsdl", name)))).collect()
            }
            DefinitionBody::Security(body) => {
                let members = body.references();
                members.iter().map(|(pointer, name)| security((pointer.as_str(), *name))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The services this one leads to.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceName> {
        match &self.body {
            DefinitionBody::Channel(channel) => channel.services(),
            _ => Vec::new(),
        }
    }

    /// The secrets this definition holds, by field, for sealing and for resolving.
    pub fn secrets_mut(&mut self) -> Vec<(&'static str, &mut SecretRef)> {
        match &mut self.body {
            DefinitionBody::Outgoing(outgoing) => outgoing.secrets_mut(),
            DefinitionBody::Security(security) => security.secrets_mut(),
            _ => Vec::new(),
        }
    }

    /// As [`Definition::secrets_mut`], to look at.
    #[must_use]
    pub fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        match &self.body {
            DefinitionBody::Outgoing(outgoing) => outgoing.secrets(),
            DefinitionBody::Security(security) => security.secrets(),
            _ => Vec::new(),
        }
    }
}

/// As [`Definition::references`] for a body that has faults and so is no definition: what it needs, as far
/// as it says so.
#[must_use]
pub fn references_in(kind: DefinitionKind, body: &Value) -> Vec<(String, DefinitionId)> {
    let pointers: &[&str] = match kind {
        DefinitionKind::Channel => &["/security", "/wsdl", "/connection", "/outgoing"],
        DefinitionKind::Outgoing => &["/security", "/proxy/security", "/wsdl"],
        _ => &[],
    };
    let fields = pointers.iter().filter_map(|pointer| Some(((*pointer).to_owned(), body.pointer(pointer)?)));
    let members = body.get("any_of").filter(|_| kind == DefinitionKind::Security).and_then(Value::as_array);
    let members = members.into_iter().flatten().enumerate();
    let routes = body.get("routes").filter(|_| kind == DefinitionKind::Channel).and_then(Value::as_array);
    let routes = routes.into_iter().flatten().enumerate();
    let routed = routes
        .filter_map(|(index, route)| Some((format!("/routes/{index}/outgoing"), route.get("outgoing")?)));
    let steps = transform::FIELDS.iter().filter(|_| kind == DefinitionKind::Channel);
    let steps = steps.flat_map(|field| {
        let steps = body.get(field).and_then(Value::as_array).into_iter().flatten().enumerate();
        steps.filter_map(move |(index, step)| {
            Some((format!("/{field}/{index}/xslt/stylesheet"), step.pointer("/xslt/stylesheet")?))
        })
    });
    fields
        .chain(members.map(|(index, member)| (format!("/any_of/{index}"), member)))
        .chain(routed)
        .chain(steps)
        .filter_map(|(pointer, name)| {
            let name = name.as_str()?.parse().ok()?;
            let kind = match pointer.as_str() {
                "/wsdl" => DefinitionKind::Wsdl,
                "/connection" => DefinitionKind::Outgoing,
                pointer if pointer.ends_with("/outgoing") => DefinitionKind::Outgoing,
                pointer if pointer.ends_with("/stylesheet") => DefinitionKind::Stylesheet,
                _ => DefinitionKind::Security,
            };
            Some((pointer, DefinitionId { kind, name }))
        })
        .collect()
}

/// As [`Definition::services`] for a body that has faults and so is no definition, each with the pointer of
/// the field that names it.
#[must_use]
pub fn services_in(kind: DefinitionKind, body: &Value) -> Vec<(String, ServiceName)> {
    if kind != DefinitionKind::Channel {
        return Vec::new();
    }
    let one = body.get("service").map(|service| ("/service".to_owned(), service));
    let methods = body.get("methods").and_then(Value::as_object).into_iter().flatten();
    let several = methods.map(|(method, service)| (channel::method_pointer(method), service));
    let operations = body.get("operations").and_then(Value::as_object).into_iter().flatten();
    let operations = operations.map(|(name, service)| (channel::operation_pointer(name), service));
    let observers =
        ["before", "after"].into_iter().filter_map(|key| Some((format!("/{key}"), body.get(key)?)));
    let named = one.into_iter().chain(several).chain(operations).chain(observers);
    named
        .filter_map(|(pointer, service)| Some((pointer, ServiceName::new(service.as_str()?).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn id(kind: DefinitionKind, name: &str) -> DefinitionId {
        DefinitionId { kind, name: DefinitionName::new(name).unwrap() }
    }

    #[test]
    fn every_shape_compiles() {
        assert_eq!(shapes().count(), SHAPES.len());
    }

    #[test]
    fn a_definition_survives_its_yaml_shape() {
        let value = json!({
            "type": "rest", "path": "/customers/{id:int}", "methods": ["GET"],
            "service": "crm.customer.get", "security": "crm.clients",
            "rate_limit": [{"limit": 10, "per": "minute", "by": "address"}]
        });
        let definition = Definition::from_value(id(DefinitionKind::Channel, "crm"), value.clone()).unwrap();
        assert_eq!(definition.references().len(), 1);
        assert_eq!(definition.to_value().unwrap(), value);
    }

    #[test]
    fn a_body_names_what_its_definition_needs() {
        for value in [
            json!({"type": "rest", "path": "/a", "service": "demo.a", "security": "keys", "methods": ["GET"]}),
            json!({"type": "http", "path": "/a", "service": "demo.a"}),
            json!({"type": "soap", "path": "/a", "security": "keys", "wsdl": "a", "operations": {"A": "demo.a"}}),
            json!({"type": "passthrough", "path": "/a", "security": "keys", "outgoing": "a", "before": "demo.a",
                "after": "demo.b", "routes": [{"outgoing": "b", "percent": 10.0}], "bodies": "both"}),
            json!({"type": "jsonrpc", "path": "/a", "security": "keys", "methods": {"a/b": "demo.a", "c": "demo.c"}}),
        ] {
            let definition = Definition::from_value(id(DefinitionKind::Channel, "a"), value.clone()).unwrap();
            assert_eq!(references_in(DefinitionKind::Channel, &value), definition.references());
            let DefinitionBody::Channel(channel) = &definition.body else { panic!("{definition:?}") };
            assert_eq!(services_in(DefinitionKind::Channel, &value), channel.services_by_field());
            let found: Vec<_> =
                services_in(DefinitionKind::Channel, &value).into_iter().map(|s| s.1).collect();
            assert_eq!(found, definition.services());
        }
        assert!(services_in(DefinitionKind::Dictionary, &json!({"service": "demo.a"})).is_empty());
        assert!(references_in(DefinitionKind::Channel, &json!({"security": 7})).is_empty());
    }

    #[test]
    fn a_group_names_its_members() {
        let value = json!({"type": "group", "any_of": ["a", "b"]});
        let definition = Definition::from_value(id(DefinitionKind::Security, "g"), value.clone()).unwrap();
        assert_eq!(definition.to_value().unwrap(), value);
        let pointers: Vec<_> = definition.references().into_iter().map(|(pointer, _)| pointer).collect();
        assert_eq!(pointers, ["/any_of/0", "/any_of/1"]);
        assert_eq!(references_in(DefinitionKind::Security, &value), definition.references());
        for wrong in [json!([]), json!(["a", "a"]), json!("a")] {
            let value = json!({"type": "group", "any_of": wrong});
            assert!(Definition::from_value(id(DefinitionKind::Security, "g"), value).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_keys_of_tokens_come_from_one_place_and_over_tls() {
        let faults = |body: Value| -> Vec<String> {
            let faults = Definition::from_value(id(DefinitionKind::Security, "t"), body).err();
            faults.unwrap_or_default().into_iter().map(|fault| fault.pointer).collect()
        };
        let none: Vec<String> = Vec::new();
        let url = "https://id.example/keys";
        for good in [
            json!({"type": "jwt", "jwks_url": url, "algorithms": ["RS256", "EdDSA"], "tls": {"ca": "file:ca.pem"}}),
            json!({"type": "jwt", "jwks_url": "http://127.0.0.1:1/keys", "claims": {"a": ["b", 1, true]}}),
            json!({"type": "jwt", "public_keys": "file:key.pem", "issuer": "i", "audience": ["a"]}),
            json!({"type": "jwt", "secret": "env:S", "algorithms": ["HS512"], "scopes": ["a.b:c/d"]}),
            json!({"type": "jwt", "algorithms": ["HS256"]}),
            json!({"type": "oauth2_introspection", "url": "https://id.example/ask?x=y", "client_id": "me"}),
        ] {
            assert_eq!(faults(good.clone()), none, "{good}");
        }
        for (body, pointer) in [
            (json!({"type": "jwt", "jwks_url": url, "public_keys": "x"}), "/public_keys"),
            (json!({"type": "jwt", "jwks_url": url, "secret": "env:S"}), "/secret"),
            (json!({"type": "jwt", "public_keys": "x", "secret": "env:S"}), "/secret"),
            (json!({"type": "jwt", "secret": "thirty-one bytes are not enough"}), "/secret"),
            (json!({"type": "jwt", "public_keys": "x", "algorithms": ["RS256", "HS256"]}), "/algorithms/1"),
            (json!({"type": "jwt", "secret": "env:S", "algorithms": ["RS256"]}), "/algorithms/0"),
            (json!({"type": "jwt", "jwks_url": url, "algorithms": ["none"]}), "/algorithms/0"),
            (json!({"type": "jwt", "secret": "env:S", "tls": {}}), "/tls"),
            (json!({"type": "jwt", "jwks_url": "http://id.example/keys"}), "/jwks_url"),
            (json!({"type": "jwt", "jwks_url": "https://me:pw@id.example/keys"}), "/jwks_url"),
            (json!({"type": "jwt", "jwks_url": "file:///etc/passwd"}), "/jwks_url"),
            (json!({"type": "jwt", "jwks_url": url, "claims": {"a": null}}), "/claims/a"),
            (json!({"type": "jwt", "jwks_url": url, "claims": {"/a/b": []}}), "/claims/~1a~1b"),
            (json!({"type": "jwt", "jwks_url": url, "scopes": ["a b"]}), "/scopes/0"),
            (json!({"type": "oauth2_introspection", "url": "http://id.example/", "client_id": "me"}), "/url"),
        ] {
            assert_eq!(faults(body.clone()), [pointer], "{body}");
        }
        let body =
            json!({"type": "jwt", "jwks_url": url, "tls": {"certificate": "file:c.pem", "key": "env:K"}});
        let definition = Definition::from_value(id(DefinitionKind::Security, "t"), body.clone()).unwrap();
        assert_eq!(definition.to_value().unwrap(), body);
        let fields: Vec<_> = definition.secrets().into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["tls/key"], "the shared secret is none of its secrets");
    }

    #[test]
    fn a_client_certificate_is_told_by_what_it_says() {
        let body = |subject: Value, san: &str, fingerprint: &str| {
            let value = json!({"type": "client_certificate", "ca": "file:ca.pem", "subjects": [subject],
                "sans": [san], "fingerprints": [fingerprint]});
            Definition::from_value(id(DefinitionKind::Security, "c"), value)
        };
        let fingerprint = ["ab"; 32].join(":");
        let good = body(json!({"cn": "shop", "2.5.4.10": "Acme"}), "ip:2001:db8::1", &fingerprint).unwrap();
        let DefinitionBody::Security(SecurityDefinition::ClientCertificate(good)) = good.body else {
            panic!()
        };
        let attributes: Vec<_> = good.subjects[0].attributes().collect();
        assert_eq!(attributes, [("2.5.4.10", "Acme"), ("2.5.4.3", "shop")]);
        assert_eq!(attribute_name("2.5.4.3"), Some("CN"));
        for (subject, san, fingerprint, pointer) in [
            (json!({"NAME": "shop"}), "dns:a", fingerprint.as_str(), "/subjects/0/NAME"),
            (json!({"2.5.": "shop"}), "dns:a", &fingerprint, "/subjects/0/2.5."),
            (json!({}), "dns:a", &fingerprint, "/subjects/0"),
            (json!({"CN": 1}), "dns:a", &fingerprint, "/subjects/0/CN"),
            (json!({"CN": "a"}), "ip:a", &fingerprint, "/sans/0"),
            (json!({"CN": "a"}), "a", &fingerprint, "/sans/0"),
            (json!({"CN": "a"}), "dns:a", "abcd", "/fingerprints/0"),
        ] {
            let faults = body(subject, san, fingerprint).unwrap_err();
            let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
            assert_eq!(pointers, [pointer]);
        }
    }

    #[test]
    fn all_faults_of_a_definition_are_listed() {
        let value = json!({"type": "rest", "path": 7, "colour": "red", "active": "yes"});
        let faults = Definition::from_value(id(DefinitionKind::Channel, "x"), value).unwrap_err();
        let text: Vec<_> = faults.iter().map(|f| format!("{} {}", f.pointer, f.detail)).collect();
        assert!(faults.len() >= 4, "{text:?}");
        assert!(text.iter().any(|t| t.contains("colour")), "{text:?}");
        assert!(text.iter().any(|t| t.contains("service")), "{text:?}");
    }

    #[test]
    fn an_outgoing_survives_its_yaml_shape_and_names_what_it_needs() {
        let value = json!({
            "type": "rest", "address": "https://crm.example/v2", "path": "/customers/{id}",
            "headers": {"X-Tenant": "a"}, "security": "crm.key",
            "tls": {"certificate": "file:crm.pem", "key": {"ref": "outgoing/crm/tls/key", "version": 1}},
            "proxy": {"address": "http://proxy.example:3128", "security": "proxy"},
            "redirects": "same_origin", "deadline_ms": 5000
        });
        let definition = Definition::from_value(id(DefinitionKind::Outgoing, "crm"), value.clone()).unwrap();
        assert_eq!(definition.to_value().unwrap(), value);
        assert_eq!(references_in(DefinitionKind::Outgoing, &value), definition.references());
        let pointers: Vec<_> = definition.references().into_iter().map(|(pointer, _)| pointer).collect();
        assert_eq!(pointers, ["/security", "/proxy/security"]);
        let fields: Vec<_> = definition.secrets().into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["tls/key"]);
    }

    #[test]
    fn a_passthrough_channel_that_could_never_work_is_refused() {
        let body = |key: &str, value: Value| {
            let mut body = json!({"type": "passthrough", "path": "/a", "outgoing": "a"});
            body[key] = value;
            Definition::from_value(id(DefinitionKind::Channel, "a"), body)
        };
        for (key, value, pointer) in [
            ("forward_path", json!("/a/{b"), "/forward_path"),
            ("request_headers", json!({"set": {"Host": "x"}}), "/request_headers/set/Host"),
            ("request_headers", json!({"set": {"X": "a\nb"}}), "/request_headers/set/X"),
            ("response_headers", json!({"remove": ["a b"]}), "/response_headers/remove/0"),
            ("routes", json!([{"outgoing": "b"}]), "/routes/0"),
            ("routes", json!([{"outgoing": "b", "percent": 101}]), "/routes/0/percent"),
            ("routes", json!([{"outgoing": "b", "header": {"name": "a b"}}]), "/routes/0/header/name"),
            (
                "routes",
                json!([{"outgoing": "b", "percent_by": "X", "header": {"name": "a"}}]),
                "/routes/0/percent_by",
            ),
            ("routes", json!([{"outgoing": "b", "pointer": {"at": "a"}}]), "/routes/0/pointer/at"),
            ("bodies", json!("requests"), "/bodies"),
            ("bodies", json!("answers"), "/bodies"),
        ] {
            let faults = body(key, value.clone()).unwrap_err();
            assert!(faults.iter().any(|fault| fault.pointer == pointer), "{key} {value}: {faults:?}");
        }
        assert!(
            body("routes", json!([{"outgoing": "b", "percent": 0.5, "percent_by": "X-Customer"}])).is_ok()
        );
    }

    #[test]
    fn a_soap_outgoing_names_its_description() {
        let value = json!({
            "type": "soap", "wsdl": "billing", "port": "BillingSoap12", "version": "1.2", "addressing": true,
            "mtom_from_bytes": 4096, "timestamp_s": 60, "address": "https://billing.example/soap", "security": "token"
        });
        let definition = Definition::from_value(id(DefinitionKind::Outgoing, "b"), value.clone()).unwrap();
        assert_eq!(definition.to_value().unwrap(), value);
        let needed: Vec<_> =
            definition.references().into_iter().map(|(at, id)| format!("{at} {id}")).collect();
        assert_eq!(needed, ["/security security/token", "/wsdl wsdl/billing"]);
        assert_eq!(references_in(DefinitionKind::Outgoing, &value), definition.references());
        let with_place =
            json!({"type": "soap", "wsdl": "b", "address": "http://b.example", "path": "/a/{b}"});
        let faults = Definition::from_value(id(DefinitionKind::Outgoing, "b"), with_place).unwrap_err();
        assert_eq!(faults[0].pointer, "/path");
    }

    #[test]
    fn an_outgoing_that_could_never_work_is_refused() {
        for (key, body, pointer) in [
            ("address", json!("https://"), "/address"),
            ("address", json!("https://user:pw@crm.example"), "/address"),
            ("address", json!("https://crm.example?a=b"), "/address"),
            ("path", json!("/a/{b"), "/path"),
            ("headers", json!({"Authorization": "Bearer x"}), "/headers/Authorization"),
            ("headers", json!({"X-A": "a\nb"}), "/headers/X-A"),
            ("tls", json!({"key": "env:KEY"}), "/tls/key"),
            ("retry", json!({"many": 1}), "/retry/many"),
        ] {
            let mut value = json!({"type": "http", "address": "https://crm.example"});
            value[key] = body;
            let faults =
                Definition::from_value(id(DefinitionKind::Outgoing, "x"), value.clone()).unwrap_err();
            assert!(faults.iter().any(|fault| fault.pointer == pointer), "{value}: {faults:?}");
        }
        let plain = json!({"type": "http", "address": "http://crm.example", "tls": {"server_name": "a"}});
        assert!(Definition::from_value(id(DefinitionKind::Outgoing, "x"), plain).is_err());
    }

    #[test]
    fn an_unknown_type_names_the_known_ones() {
        let faults =
            Definition::from_value(id(DefinitionKind::Security, "x"), json!({"type": "magic"})).unwrap_err();
        assert!(faults[0].detail.contains("basic_auth"));
    }
}
