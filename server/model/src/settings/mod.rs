//! What `server.toml` says, as plain data with documented defaults. The `config` crate reads and checks the
//! file; each consumer takes only its own section. A setting nothing obeys is a defect: each has a test.

mod bus;
mod cluster;
mod http;
mod message_log;
mod runtime;
mod telemetry;

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use bus::{BusSection, BusUrl, BusUrlError};
pub use cluster::ClusterSection;
pub use http::{Front, HttpSettings};
pub use message_log::MessageLogSection;
pub use runtime::PythonSettings;
pub use telemetry::{BodyFormat, LogLevel, LogSettings, TelemetrySettings};

use crate::names::UnitName;

/// All of `server.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// The server and its processes.
    pub server: ServerSection,
    /// Service traffic.
    #[serde(default)]
    pub http: HttpSettings,
    /// The management API.
    pub management: ManagementSection,
    /// The operational database.
    #[serde(default)]
    pub odb: OdbSection,
    /// The cluster.
    #[serde(default)]
    pub cluster: ClusterSection,
    /// How servers tell each other of changes.
    #[serde(default)]
    pub bus: BusSection,
    /// Services in Python.
    #[serde(default)]
    pub python: PythonSettings,
    /// Hot deploy.
    #[serde(default)]
    pub deploy: DeploySection,
    /// Logs.
    #[serde(default)]
    pub log: LogSettings,
    /// Kept messages.
    #[serde(default)]
    pub message_log: MessageLogSection,
    /// Metrics and traces.
    #[serde(default)]
    pub telemetry: TelemetrySettings,
    /// Defaults of security.
    #[serde(default)]
    pub security: SecuritySection,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerSection {
    /// The server's name, unique in its cluster.
    pub name: UnitName,
    /// How many worker processes; as many as cores when 0. At most 64. Read at start.
    #[serde(default)]
    #[schemars(range(max = 64))]
    pub workers: u16,
    /// Address of plain HTTP service traffic; none when absent. Read at start.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub http: Option<SocketAddr>,
    /// Address of HTTPS service traffic; none when absent. Read at start.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub https: Option<SocketAddr>,
    /// How long a stop or a roll waits for requests in flight, in seconds.
    #[serde(default = "default_drain")]
    #[schemars(range(min = 1, max = 3600))]
    pub drain_s: u64,
    /// How long an idle connection of a draining worker stays open before it is closed, in seconds. Those of
    /// load balancers are left to them.
    #[serde(default = "default_linger")]
    #[schemars(range(max = 600))]
    pub drain_linger_s: u64,
    /// Length of the kernel's queue of connections not yet accepted. Read at start.
    #[serde(default = "default_backlog")]
    #[schemars(range(min = 1, max = 65535))]
    pub backlog: u32,
    /// Deaths of a worker within a second of readiness, in a row, after which it is no longer restarted at
    /// once but with growing pauses up to 30 s.
    #[serde(default = "default_restart_budget")]
    #[schemars(range(min = 1, max = 1000))]
    pub restart_budget: u32,
    /// How long the new binary of an upgrade may take until all its workers serve, in seconds; then the upgrade
    /// is given up and the old one goes on.
    #[serde(default = "default_upgrade")]
    #[schemars(range(min = 1, max = 3600))]
    pub upgrade_s: u64,
    /// The user that a server which root starts becomes once its addresses are bound; `root` keeps it as it
    /// is. When absent: the owner of the server's directory or, where that is root, the user `crosstie` if
    /// there is one. Read at start.
    #[serde(default)]
    #[schemars(pattern(r"^[A-Za-z_][A-Za-z0-9_.-]*\$?$"))]
    pub user: Option<String>,
}

/// `[management]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManagementSection {
    /// Address of the management API. Read at start.
    #[schemars(with = "String")]
    pub address: SocketAddr,
}

/// `[odb]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OdbSection {
    /// `sqlite:PATH` (relative to the server's directory), `postgres://USER@HOST[:PORT]/DATABASE` or
    /// `mysql://…`; passwords belong into `password`. A server of databases is spoken to over TLS, both ends
    /// verified with the certificates of `[security]`, unless parameters after `?` say otherwise: `ca=FILE` or
    /// `ca=system`, `cert=FILE&key=FILE` or `cert=none`, and `tls=off` for one on this host. Read at start.
    pub url: String,
    /// `env:NAME` or `file:PATH` of the database password.
    pub password: Option<String>,
    /// Most connections one worker holds.
    #[schemars(range(min = 1, max = 100))]
    pub connections: u32,
    /// How long one statement may take, in milliseconds.
    #[schemars(range(min = 100, max = 600_000))]
    pub statement_timeout_ms: u64,
}

impl Default for OdbSection {
    fn default() -> Self {
        Self {
            url: "sqlite:../odb.sqlite".into(),
            password: None,
            connections: 2,
            statement_timeout_ms: 10_000,
        }
    }
}

/// `[deploy]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeploySection {
    /// Whether files in `pickup/` are deployed.
    pub pickup: bool,
    /// How long a file must be left alone before it is read when its writer did not say that it finished
    /// (close or rename), in milliseconds.
    #[schemars(range(min = 10, max = 60_000))]
    pub debounce_ms: u64,
    /// How long the check of one artifact may take, in milliseconds.
    #[schemars(range(min = 1_000, max = 600_000))]
    pub check_timeout_ms: u64,
    /// Memory one check may use, in MiB.
    #[schemars(range(min = 128, max = 65_536))]
    pub check_memory_mib: u64,
    /// Largest artifact in bytes.
    #[schemars(range(min = 1, max = 33_554_432))]
    pub max_artifact_bytes: u64,
}

impl Default for DeploySection {
    fn default() -> Self {
        Self {
            pickup: true,
            debounce_ms: 100,
            check_timeout_ms: 20_000,
            check_memory_mib: 2_048,
            max_artifact_bytes: 8 * 1024 * 1024,
        }
    }
}

/// `[security]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SecuritySection {
    /// Whether a channel without a security definition is refused. Only a quickstart environment, which
    /// listens on loopback, sets it to false.
    pub require_security: bool,
    /// The CA certificate of the environment, relative to the server's directory. Read at start.
    pub ca: PathBuf,
    /// This server's certificate chain (PEM). Replaced files are noticed.
    pub certificate: PathBuf,
    /// Its private key (PEM, 0600).
    pub key: PathBuf,
    /// The cluster key that seals secrets (0600). Read at start.
    pub cluster_key: PathBuf,
}

impl Default for SecuritySection {
    fn default() -> Self {
        Self {
            require_security: true,
            ca: "tls/ca.pem".into(),
            certificate: "tls/server.pem".into(),
            key: "tls/server.key".into(),
            cluster_key: "tls/cluster.key".into(),
        }
    }
}

fn default_drain() -> u64 {
    30
}

fn default_upgrade() -> u64 {
    60
}

fn default_linger() -> u64 {
    6
}

fn default_backlog() -> u32 {
    1024
}

fn default_restart_budget() -> u32 {
    5
}
