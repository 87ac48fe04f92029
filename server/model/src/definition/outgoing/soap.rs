//! Outgoings that speak SOAP.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::http::HttpEndpoint;
use super::{DefinitionName, fault};
use crate::definition::SoapVersion;
use crate::failure::Fault;

/// Another system that speaks SOAP, called by its description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SoapEndpoint {
    /// The `wsdl` definition that describes it. Of the addresses in it nothing is believed.
    pub wsdl: DefinitionName,
    /// The service of the description; needed only where it describes several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1_024))]
    pub service: Option<String>,
    /// The port of the service; the first otherwise, or the first of the `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1_024))]
    pub port: Option<String>,
    /// The version of SOAP that is spoken; that of the port otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<SoapVersion>,
    /// Whether messages carry the headers of WS-Addressing 1.0.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub addressing: bool,
    /// From which size on, in bytes, binary values stand beside the envelope (MTOM); in it otherwise. Answers
    /// are read either way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtom_from_bytes: Option<u32>,
    /// How long a message with a `wss_username_token` counts, in seconds: it then carries a timestamp. Without
    /// one it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub timestamp_s: Option<u32>,
    /// Where it is and how it is reached. `security` names credentials of HTTP, or a `wss_username_token`, which
    /// stands in the message.
    #[serde(flatten)]
    pub endpoint: HttpEndpoint,
}

impl SoapEndpoint {
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = self.endpoint.faults();
        if self.endpoint.path.contains(['{', '}']) {
            faults.push(fault("/path", "has parameters: a message goes to one address"));
        }
        faults
    }
}
