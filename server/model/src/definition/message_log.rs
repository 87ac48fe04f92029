//! What channels and outgoings keep of their messages in the message log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is kept of the messages of one channel or outgoing: always when, what, who, how it ended and how long it
/// took; the rest as this says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeptMessages {
    /// Which bodies are kept.
    #[serde(skip_serializing_if = "KeptBodies::is_none")]
    pub bodies: KeptBodies,
    /// Most bytes of one body that are kept; what is longer is cut off, and cannot be replayed.
    #[serde(skip_serializing_if = "is_default_body")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_body_bytes: u64,
    /// Whether header fields are kept; those that carry credentials are masked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub headers: bool,
    /// Names whose values are masked in bodies (members of JSON, elements and attributes of XML, fields of forms),
    /// header fields and queries, beyond those that say themselves that they are secret. Case makes no difference.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1, max = 200)))]
    pub mask: Vec<String>,
}

/// Which bodies are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeptBodies {
    /// None.
    #[default]
    None,
    /// Those of requests, without which a message cannot be replayed.
    Request,
    /// Those of answers.
    Response,
    /// Both.
    Both,
}

impl KeptBodies {
    fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Whether bodies of requests are kept.
    #[must_use]
    pub fn of_requests(self) -> bool {
        matches!(self, Self::Request | Self::Both)
    }

    /// Whether bodies of answers are kept.
    #[must_use]
    pub fn of_responses(self) -> bool {
        matches!(self, Self::Response | Self::Both)
    }
}

impl Default for KeptMessages {
    fn default() -> Self {
        Self { bodies: KeptBodies::None, max_body_bytes: default_body(), headers: false, mask: Vec::new() }
    }
}

fn default_body() -> u64 {
    64 * 1024
}

fn is_default_body(value: &u64) -> bool {
    *value == default_body()
}
