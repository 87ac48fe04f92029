//! Stylesheets: transformations of XML.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A transformation of XML, in XSLT 1.0 with the modules common, dates, functions, math, sets and strings of EXSLT.
/// Channels and services use it by name. It sees what it is given and nothing else: it reads and writes no file,
/// and calls nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StylesheetDefinition {
    /// The stylesheet. One that does not compile is refused.
    #[schemars(length(min = 1, max = 4_194_304))]
    pub text: String,
    /// The documents that it includes or imports, and those that these do, by location: as `href` says it, relative to
    /// the stylesheet. Nothing is ever fetched.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub documents: BTreeMap<String, String>,
    /// How long one transformation may take, in milliseconds; never longer than whoever asked for it waits.
    /// Default 5,000.
    #[serde(default = "default_timeout", skip_serializing_if = "is_default_timeout")]
    #[schemars(range(min = 1, max = 600_000))]
    pub timeout_ms: u64,
    /// How deep templates and conditions may nest when they run. Default 3,000.
    #[serde(default = "default_depth", skip_serializing_if = "is_default_depth")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_depth: u32,
    /// Largest result in bytes. Default 16 MiB.
    #[serde(default = "default_output", skip_serializing_if = "is_default_output")]
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub max_output_bytes: u64,
}

fn default_timeout() -> u64 {
    5_000
}

fn is_default_timeout(milliseconds: &u64) -> bool {
    *milliseconds == default_timeout()
}

fn default_depth() -> u32 {
    3_000
}

fn is_default_depth(depth: &u32) -> bool {
    *depth == default_depth()
}

fn default_output() -> u64 {
    16 * 1024 * 1024
}

fn is_default_output(bytes: &u64) -> bool {
    *bytes == default_output()
}
