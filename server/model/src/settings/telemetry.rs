//! `[log]` and `[telemetry]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// The least severe records that are written.
    pub level: LogLevel,
    /// How records in files look.
    pub format: BodyFormat,
    /// Whether one line per request is written to `logs/access.log`.
    pub access: bool,
    /// Size at which a log file is rotated, in MiB.
    #[schemars(range(min = 1, max = 10_240))]
    pub rotate_mib: u64,
    /// How many rotated files are kept.
    #[schemars(range(min = 1, max = 1000))]
    pub keep: u16,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: BodyFormat::Json, access: true, rotate_mib: 100, keep: 10 }
    }
}

/// Severity of log records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// What a developer of a service wants.
    Debug,
    /// What an operator wants.
    Info,
    /// What should not happen.
    Warn,
    /// What needs somebody.
    Error,
}

/// How log records look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BodyFormat {
    /// One JSON object per line.
    Json,
    /// Text for people.
    Text,
}

/// `[telemetry]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySettings {
    /// Path on the service port where Prometheus metrics are served; nowhere when empty. They are always
    /// part of the management API.
    #[schemars(pattern(r"^(/[A-Za-z0-9._~/-]+)?$"))]
    pub metrics_path: String,
    /// OTLP/HTTP endpoint for traces, such as `http://127.0.0.1:4318/v1/traces`; no export when absent.
    pub otlp_endpoint: Option<String>,
    /// Share of traces begun here that are exported, 0 to 1; a caller's sampled flag is always followed.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub otlp_sample: f64,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { metrics_path: String::new(), otlp_endpoint: None, otlp_sample: 1.0 }
    }
}
