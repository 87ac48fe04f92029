//! Outgoings that speak HTTP: `rest` and `http`.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::policy::{CircuitPolicy, RetryPolicy};
use super::tls::ClientTls;
use super::{DefinitionName, fault};
use crate::definition::message_log::KeptMessages;
use crate::failure::Fault;
use crate::outgoing::PathTemplate;

/// A REST interface of another system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RestOutgoing {
    /// How the data that services give is encoded, and what answers are expected to be.
    #[serde(default, skip_serializing_if = "OutgoingFormat::is_json")]
    pub data_format: OutgoingFormat,
    /// Where it is and how it is called.
    #[serde(flatten)]
    pub endpoint: HttpEndpoint,
}

/// Another system reached over HTTP, with bodies as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlainHttpOutgoing {
    /// Where it is and how it is called.
    #[serde(flatten)]
    pub endpoint: HttpEndpoint,
}

/// What all outgoings that speak HTTP have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HttpEndpoint {
    /// Scheme, host, port and, where all paths share one, their beginning: `https://billing.example/v2`.
    #[schemars(length(min = 1, max = 2_048), pattern(r"^https?://"))]
    pub address: String,
    /// The path below the address: `/customers/{id}/files/{rest:path}`. Each call gives the parameters. One
    /// of type `path` may hold slashes; in any other they are encoded.
    #[serde(default = "default_path", skip_serializing_if = "is_default_path")]
    #[schemars(length(min = 1, max = 1_024), pattern(r"^/"), extend("default" = "/"))]
    pub path: String,
    /// Header fields of every call. Credentials belong into a security definition.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Query parameters of every call.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    /// The security definition whose credentials are presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<DefinitionName>,
    /// TLS beyond the usual: own authorities, a client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// Which versions of HTTP are spoken.
    #[serde(default, skip_serializing_if = "HttpVersions::is_auto")]
    pub versions: HttpVersions,
    /// The proxy that leads there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<HttpProxy>,
    /// How long making a connection may take, TLS and proxy included, in milliseconds.
    #[serde(default = "default_connect_deadline", skip_serializing_if = "is_default_connect_deadline")]
    #[schemars(range(min = 1, max = 600_000), extend("default" = 5_000))]
    pub connect_deadline_ms: u64,
    /// How long one call may take in all, its repetitions and the whole answer included, in milliseconds; the
    /// deadline of the service that calls counts where it is earlier. Of an answer that is read piece by piece,
    /// as long for its beginning and for each piece.
    #[serde(default = "default_deadline", skip_serializing_if = "is_default_deadline")]
    #[schemars(range(min = 1, max = 86_400_000), extend("default" = 30_000))]
    pub deadline_ms: u64,
    /// Most connections of one worker. A call that finds all of them busy waits for one.
    #[serde(default = "default_connections", skip_serializing_if = "is_default_connections")]
    #[schemars(range(min = 1, max = 10_000), extend("default" = 64))]
    pub max_connections: u32,
    /// How long a connection is kept that nobody uses, in milliseconds: less than the other end keeps it.
    #[serde(default = "default_idle", skip_serializing_if = "is_default_idle")]
    #[schemars(range(max = 86_400_000), extend("default" = 30_000))]
    pub idle_ms: u64,
    /// Largest body of an answer, in bytes.
    #[serde(default = "default_response", skip_serializing_if = "is_default_response")]
    #[schemars(extend("default" = 16_777_216))]
    pub max_response_bytes: u64,
    /// When a call is tried again.
    #[serde(default, skip_serializing_if = "RetryPolicy::is_default")]
    pub retry: RetryPolicy,
    /// When calls are refused without being tried.
    #[serde(default, skip_serializing_if = "CircuitPolicy::is_default")]
    pub circuit: CircuitPolicy,
    /// Which redirects are followed, ten in a row at most.
    #[serde(default, skip_serializing_if = "Redirects::is_none")]
    pub redirects: Redirects,
    /// What `crosstie ping` asks for.
    #[serde(default, skip_serializing_if = "PingSettings::is_default")]
    pub ping: PingSettings,
    /// What is kept of its calls in the message log; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_log: Option<KeptMessages>,
    /// Calls of an inactive outgoing fail at once.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub active: bool,
}

/// How data is encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutgoingFormat {
    /// JSON (RFC 8259).
    #[default]
    Json,
    /// `application/x-www-form-urlencoded` out; answers by their own type.
    Form,
    /// Text and bytes, as they are.
    Raw,
}

impl OutgoingFormat {
    fn is_json(&self) -> bool {
        *self == Self::Json
    }
}

/// Which versions of HTTP are spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HttpVersions {
    /// HTTP/2 where the other end offers it (ALPN), HTTP/1.1 where it does not and without TLS.
    #[default]
    Auto,
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2 alone, without TLS by prior knowledge (RFC 9113, section 3.3).
    Http2,
}

impl HttpVersions {
    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

/// Which redirects are followed. Credentials go to the address's own origin and nowhere else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Redirects {
    /// None: the service sees the redirect.
    #[default]
    None,
    /// Those to the same scheme, host and port.
    SameOrigin,
    /// All.
    Any,
}

impl Redirects {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// An HTTP proxy on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpProxy {
    /// The proxy: `http://proxy.example:3128`. It is asked for a tunnel (CONNECT) to the address.
    #[schemars(length(min = 1, max = 2_048), pattern(r"^http://"))]
    pub address: String,
    /// The security definition, of type `basic_auth`, whose credentials the proxy gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<DefinitionName>,
}

/// What `crosstie ping` asks an HTTP system for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PingSettings {
    /// The method.
    #[schemars(pattern(r"^[A-Z]{1,20}$"))]
    pub method: String,
    /// The path below the address; the outgoing's own where that has no parameters, else `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1_024), pattern(r"^/"))]
    pub path: Option<String>,
}

impl Default for PingSettings {
    fn default() -> Self {
        Self { method: "HEAD".to_owned(), path: None }
    }
}

impl PingSettings {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Header fields that are the connection's business, or would put a credential into plain configuration.
const RESERVED_HEADERS: [&str; 14] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "traceparent",
    "transfer-encoding",
    "upgrade",
];

impl HttpEndpoint {
    pub(super) fn security(&self) -> Vec<(&'static str, &DefinitionName)> {
        let own = self.security.iter().map(|name| ("/security", name));
        let proxy = self.proxy.iter().flat_map(|proxy| &proxy.security);
        own.chain(proxy.map(|name| ("/proxy/security", name))).collect()
    }

    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        check_address("/address", &self.address, &mut faults);
        if let Err(error) = PathTemplate::parse(&self.path) {
            faults.push(fault("/path", error.to_string()));
        }
        for (name, value) in &self.headers {
            check_header(name, value, &mut faults);
        }
        match (&self.tls, self.address.starts_with("https://")) {
            (Some(tls), true) => tls.faults(&mut faults),
            (Some(_), false) => faults.push(fault("/tls", "the address is not an https:// one")),
            (None, _) => {}
        }
        if let Some(proxy) = &self.proxy {
            check_address("/proxy/address", &proxy.address, &mut faults);
        }
        if let Some(path) = &self.ping.path
            && path.parse::<http::uri::PathAndQuery>().is_err()
        {
            faults.push(fault("/ping/path", "is no path"));
        }
        faults
    }
}

fn check_address(pointer: &str, address: &str, faults: &mut Vec<Fault>) {
    let detail = match Url::parse(address) {
        Err(error) => format!("is no address: {error}"),
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "holds credentials: they belong into a security definition".to_owned()
        }
        Ok(url) if url.query().is_some() || url.fragment().is_some() => {
            "ends with its path: parameters belong into `query`".to_owned()
        }
        Ok(url) if url.host().is_none() => "names no host".to_owned(),
        Ok(_) => return,
    };
    faults.push(fault(pointer, detail));
}

fn check_header(name: &str, value: &str, faults: &mut Vec<Fault>) {
    let pointer = format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"));
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        faults.push(fault(pointer, "is no name of a header field"));
    } else if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
        faults.push(fault(pointer, "cannot be set here"));
    } else if HeaderValue::from_str(value).is_err() {
        faults.push(fault(pointer, "holds what a header field cannot"));
    }
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

fn default_path() -> String {
    "/".to_owned()
}

fn is_default_path(path: &str) -> bool {
    path == "/"
}

fn default_connect_deadline() -> u64 {
    5_000
}

fn is_default_connect_deadline(value: &u64) -> bool {
    *value == default_connect_deadline()
}

fn default_deadline() -> u64 {
    30_000
}

fn is_default_deadline(value: &u64) -> bool {
    *value == default_deadline()
}

fn default_connections() -> u32 {
    64
}

fn is_default_connections(value: &u32) -> bool {
    *value == default_connections()
}

fn default_idle() -> u64 {
    30_000
}

fn is_default_idle(value: &u64) -> bool {
    *value == default_idle()
}

fn default_response() -> u64 {
    16 * 1024 * 1024
}

fn is_default_response(value: &u64) -> bool {
    *value == default_response()
}
