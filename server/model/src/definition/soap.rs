//! SOAP channels: one path, several operations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::channel::HttpEntrance;
use super::name::DefinitionName;
use crate::failure::Fault;
use crate::names::ServiceName;

/// A version of SOAP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum SoapVersion {
    /// SOAP 1.1 (W3C Note of 2000-05-08).
    #[serde(rename = "1.1")]
    V11,
    /// SOAP 1.2 (W3C Recommendation of 2007-04-27).
    #[serde(rename = "1.2")]
    V12,
}

impl SoapVersion {
    /// The version's number.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V11 => "1.1",
            Self::V12 => "1.2",
        }
    }
}

impl fmt::Display for SoapVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When binary values of an answer stand beside the envelope (MTOM) instead of in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mtom {
    /// When the request came that way.
    #[default]
    AsAsked,
    /// Whenever there is one that is large enough.
    Always,
    /// Never: they are base64 in the envelope.
    Never,
}

/// How the messages of a SOAP channel look (WSDL 1.1, section 3.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SoapStyle {
    /// document/literal wrapped: one element holds everything.
    #[default]
    Document,
    /// rpc/literal: an element for each parameter and each result. None of them can be left out or be null.
    Rpc,
}

/// A SOAP channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SoapChannel {
    /// Operation → service. Nothing outside this map can be called.
    #[schemars(extend("minProperties" = 1))]
    pub operations: BTreeMap<String, ServiceName>,
    /// The `wsdl` definition that describes the operations. Without one the description is made of what the
    /// services declare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wsdl: Option<DefinitionName>,
    /// The service's name: in the generated description, `Service` by default; of a `wsdl` definition the one
    /// service to offer, needed only where it describes several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub service_name: Option<String>,
    /// The namespace of the generated description. Default: `urn:crosstie:` and the channel's path, with a
    /// colon for each slash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), pattern(r"^[A-Za-z][A-Za-z0-9+.-]*:\S+$"))]
    pub namespace: Option<String>,
    /// The style of the generated description.
    #[serde(default, skip_serializing_if = "is_document")]
    pub style: SoapStyle,
    /// Operations of the generated description that have no answer: their callers get 202 and no envelope.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub one_way: BTreeSet<String>,
    /// The versions of SOAP it speaks.
    #[serde(default = "both", skip_serializing_if = "is_both")]
    #[schemars(length(min = 1))]
    pub versions: BTreeSet<SoapVersion>,
    /// When binary values of answers stand beside the envelope.
    #[serde(default, skip_serializing_if = "is_as_asked")]
    pub mtom: Mtom,
    /// From which size on, in bytes, binary values stand beside the envelope.
    #[serde(default = "default_mtom_from", skip_serializing_if = "is_default_mtom_from")]
    pub mtom_from_bytes: u32,
    /// Most parts of a request with attachments, its envelope among them.
    #[serde(default = "default_parts", skip_serializing_if = "is_default_parts")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_parts: u32,
    /// Header blocks that the services understand, each as `{namespace}name`, beside those that the description
    /// names. A request with another block that must be understood is refused.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(inner(pattern(r"^\{\S+\}[^\s{}]+$")))]
    pub understands: BTreeSet<String>,
    /// Whether the description is given out, at `?wsdl`.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub describe: bool,
    /// Path, security, limits.
    #[serde(flatten)]
    pub entrance: HttpEntrance,
}

impl SoapChannel {
    /// The namespace of the description that is made of what services declare.
    #[must_use]
    pub fn generated_namespace(&self) -> String {
        self.namespace.clone().unwrap_or_else(|| {
            let path = self.entrance.path.trim_matches('/');
            let clean: String = path
                .chars()
                .map(|c| match c {
                    '/' => ':',
                    c if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_') => c,
                    _ => '-',
                })
                .collect();
            format!("urn:crosstie:{}", if clean.is_empty() { "soap" } else { &clean })
        })
    }

    /// Whether both say the same of everything but their operations.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let (operations, one_way) = (self.operations.clone(), self.one_way.clone());
        *self == Self { operations, one_way, ..other.clone() }
    }

    /// What is wrong that a schema cannot say.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |pointer: String, detail: &str| {
            faults.push(Fault { pointer, detail: detail.to_owned() });
        };
        if self.wsdl.is_some() {
            let said_there = "is said by the wsdl definition";
            if self.namespace.is_some() {
                fault("/namespace".to_owned(), said_there);
            }
            if self.style != SoapStyle::Document {
                fault("/style".to_owned(), said_there);
            }
            if !self.one_way.is_empty() {
                fault("/one_way".to_owned(), said_there);
            }
        }
        for (index, name) in self.one_way.iter().enumerate() {
            if !self.operations.contains_key(name) {
                fault(format!("/one_way/{index}"), "is none of the operations");
            }
        }
        faults
    }
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

fn both() -> BTreeSet<SoapVersion> {
    BTreeSet::from([SoapVersion::V11, SoapVersion::V12])
}

fn is_both(versions: &BTreeSet<SoapVersion>) -> bool {
    *versions == both()
}

fn is_document(style: &SoapStyle) -> bool {
    *style == SoapStyle::Document
}

fn is_as_asked(mtom: &Mtom) -> bool {
    *mtom == Mtom::AsAsked
}

fn default_mtom_from() -> u32 {
    1024
}

fn is_default_mtom_from(bytes: &u32) -> bool {
    *bytes == default_mtom_from()
}

fn default_parts() -> u32 {
    128
}

fn is_default_parts(parts: &u32) -> bool {
    *parts == default_parts()
}
