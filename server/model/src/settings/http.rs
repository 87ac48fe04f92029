//! `[http]`: service traffic and the limits on what comes from outside.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who connects to the server's HTTPS listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Front {
    /// Anybody.
    #[default]
    Clients,
    /// A load balancer of the cluster alone.
    LoadBalancer,
}

/// `[http]`. Every number bounds something a client controls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Who connects. With `load_balancer` the HTTPS listener lets in nobody but holders of a certificate that
    /// the cluster's CA issued to a load balancer, and believes what they say of clients: `X-Forwarded-…` and
    /// `X-SSL-Client-…` headers, which are removed from anybody else's requests. Read at start.
    pub front: Front,
    /// Largest request body in bytes, after decompression; more gets 413. A channel may allow less or more,
    /// up to `max_body_bytes_ceiling`.
    pub max_body_bytes: u64,
    /// What no channel may exceed.
    pub max_body_bytes_ceiling: u64,
    /// How deep the JSON or XML of a request body may nest; deeper gets 400.
    #[schemars(range(min = 1, max = 128))]
    pub max_depth: u16,
    /// Largest request head in bytes; more gets 431.
    #[schemars(range(min = 8192, max = 1_048_576))]
    pub max_header_bytes: u32,
    /// Most header fields; more gets 431.
    #[schemars(range(min = 10, max = 1000))]
    pub max_headers: u16,
    /// How long a client may take to send a request's head, and stay idle between requests, in
    /// milliseconds.
    #[schemars(range(min = 100, max = 3_600_000))]
    pub header_timeout_ms: u64,
    /// How long a client may take to send a body, in milliseconds; more gets 408.
    #[schemars(range(min = 100, max = 3_600_000))]
    pub body_timeout_ms: u64,
    /// How long a TLS handshake may take, in milliseconds.
    #[schemars(range(min = 100, max = 60_000))]
    pub tls_handshake_timeout_ms: u64,
    /// How long a request may take when neither channel nor service say, in milliseconds; then 504.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub deadline_ms: u64,
    /// Most connections one worker holds; more wait in the kernel's queue.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: u32,
    /// Most concurrent HTTP/2 streams of one connection.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_h2_streams: u32,
    /// Whether replies are compressed for clients that accept it.
    pub compression: bool,
    /// Replies shorter than this are not compressed, in bytes.
    pub compression_min_bytes: u64,
    /// Networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed; none by default. Anybody else's
    /// are removed.
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// Where the OpenAPI document of the REST channels is served, with a try-it page at `PATH/ui`; nowhere
    /// when empty.
    #[schemars(pattern(r"^(/[A-Za-z0-9._~/-]+)?$"))]
    pub openapi_path: String,
    /// Request headers shown in the access log, lower case; never credentials.
    pub access_log_headers: Vec<String>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            front: Front::Clients,
            max_body_bytes: 10 * 1024 * 1024,
            max_body_bytes_ceiling: 1024 * 1024 * 1024,
            max_depth: 128,
            max_header_bytes: 64 * 1024,
            max_headers: 100,
            header_timeout_ms: 60_000,
            body_timeout_ms: 60_000,
            tls_handshake_timeout_ms: 10_000,
            deadline_ms: 60_000,
            max_connections: 10_000,
            max_h2_streams: 200,
            compression: true,
            compression_min_bytes: 1024,
            trusted_proxies: Vec::new(),
            openapi_path: "/openapi".into(),
            access_log_headers: Vec::new(),
        }
    }
}
