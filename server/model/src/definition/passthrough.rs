//! Passthrough channels: straight to another system, with no service between.

use std::collections::{BTreeMap, BTreeSet};

use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::channel::HttpEntrance;
use super::name::DefinitionName;
use super::transform::Transforms;
use crate::failure::Fault;
use crate::names::ServiceName;
use crate::outgoing::PathTemplate;

/// A channel that hands requests on to an outgoing and its answers back, as they come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PassthroughChannel {
    /// The outgoing, of type `rest`, `http` or `soap`, that takes the requests that no route takes.
    pub outgoing: DefinitionName,
    /// Requests that go elsewhere: the first route whose conditions all hold takes a request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub routes: Vec<Route>,
    /// The HTTP methods it takes; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(pattern(r"^[A-Z]{1,20}$")))]
    pub methods: Vec<String>,
    /// The path there, below the outgoing's address: `/v2/{rest:path}`, with parameters of the channel's path in
    /// their places. Without it the outgoing's own path, filled in the same way; and where it has none, the path as
    /// it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1_024), pattern(r"^/"))]
    pub forward_path: Option<String>,
    /// Header fields of requests, changed on their way.
    #[serde(default, skip_serializing_if = "HeaderChanges::is_empty")]
    pub request_headers: HeaderChanges,
    /// Header fields of answers, changed on their way.
    #[serde(default, skip_serializing_if = "HeaderChanges::is_empty")]
    pub response_headers: HeaderChanges,
    /// The service that sees each request before it is handed on. Header fields and a body that it answers with
    /// replace the request's; with a status of its own its reply is the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<ServiceName>,
    /// The service that sees each answer before it is handed back. Header fields, a status and a body that it
    /// answers with replace the answer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ServiceName>,
    /// Which bodies those services see. Such a body is read whole before it is handed on.
    #[serde(default, skip_serializing_if = "Bodies::is_none")]
    pub bodies: Bodies,
    /// What it makes of bodies. The services above see what callers send and get.
    #[serde(flatten)]
    pub transforms: Transforms,
    /// Path, security, limits.
    #[serde(flatten)]
    pub entrance: HttpEntrance,
}

/// Header fields that are set and removed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderChanges {
    /// Fields that are set, whatever they were.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Fields that are removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

impl HeaderChanges {
    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}

/// Which bodies the services of a passthrough channel see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bodies {
    /// None: all are handed on as they come.
    #[default]
    None,
    /// Those of requests, by the service before.
    Requests,
    /// Those of answers, by the service after.
    Answers,
    /// Both.
    Both,
}

impl Bodies {
    fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Whether the service before sees the bodies of requests.
    #[must_use]
    pub fn of_requests(self) -> bool {
        matches!(self, Self::Requests | Self::Both)
    }

    /// Whether the service after sees the bodies of answers.
    #[must_use]
    pub fn of_answers(self) -> bool {
        matches!(self, Self::Answers | Self::Both)
    }
}

/// Where some requests go instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The outgoing that takes them.
    pub outgoing: DefinitionName,
    /// A header field they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderCondition>,
    /// A value in their JSON body. The body is read whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<PointerCondition>,
    /// A value in their XML body. The body is read whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xpath: Option<XpathCondition>,
    /// How many of 100 of those that the other conditions hold for, chosen by their traces: all requests of a
    /// trace go the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<f64>,
    /// The header field whose value chooses instead of the trace, for `percent`: requests with the same value go the
    /// same way, on every server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent_by: Option<String>,
}

/// A header field of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderCondition {
    /// The field.
    pub name: String,
    /// Its value is one of these; without any it is only there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub one_of: BTreeSet<String>,
}

/// A value in a JSON body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PointerCondition {
    /// Where, as a JSON Pointer (RFC 6901): `/customer/country`.
    #[schemars(length(max = 1_024), pattern(r"^(/|$)"))]
    pub at: String,
    /// It is one of these; without any there is something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub one_of: Vec<Value>,
}

/// A value in an XML body.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct XpathCondition {
    /// Where, as a location path: `/s:Envelope/s:Body/b:GetInvoice/b:country`.
    #[schemars(length(min = 1, max = 1_024), pattern(r"^/"))]
    pub at: String,
    /// What the prefixes in it stand for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, String>,
    /// Its text, without white space around it, is one of these; without any there is something.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub one_of: BTreeSet<String>,
}

/// Header fields that are the connection's business.
const RESERVED_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl PassthroughChannel {
    /// The outgoings it leads to, each with the pointer of the field that names it.
    #[must_use]
    pub fn outgoings(&self) -> Vec<(String, &DefinitionName)> {
        let routes = self.routes.iter().enumerate();
        let routed = routes.map(|(index, route)| (format!("/routes/{index}/outgoing"), &route.outgoing));
        std::iter::once(("/outgoing".to_owned(), &self.outgoing)).chain(routed).collect()
    }

    /// The services that see its messages, each with the pointer of the field that names it.
    #[must_use]
    pub fn services(&self) -> Vec<(String, ServiceName)> {
        let named = [("/before", &self.before), ("/after", &self.after)];
        named.into_iter().filter_map(|(at, name)| Some((at.to_owned(), name.clone()?))).collect()
    }

    /// What is wrong that a schema cannot say.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = self.transforms.faults();
        let mut fault = |pointer: String, detail: String| faults.push(Fault { pointer, detail });
        if let Some(path) = &self.forward_path
            && let Err(error) = PathTemplate::parse(path)
        {
            fault("/forward_path".to_owned(), error.to_string());
        }
        for (at, changes) in
            [("/request_headers", &self.request_headers), ("/response_headers", &self.response_headers)]
        {
            for (name, value) in &changes.set {
                let pointer = format!("{at}/set/{}", name.replace('~', "~0").replace('/', "~1"));
                check_field(pointer.clone(), name, &mut fault);
                if HeaderValue::from_str(value).is_err() {
                    fault(pointer, "holds what a header field cannot".to_owned());
                }
            }
            for (index, name) in changes.remove.iter().enumerate() {
                check_field(format!("{at}/remove/{index}"), name, &mut fault);
            }
        }
        for (index, route) in self.routes.iter().enumerate() {
            if route.header.is_none()
                && route.pointer.is_none()
                && route.xpath.is_none()
                && route.percent.is_none()
            {
                let detail = "has no condition: header, pointer, xpath or percent";
                fault(format!("/routes/{index}"), detail.to_owned());
            }
            if let Some(header) = &route.header {
                check_name(format!("/routes/{index}/header/name"), &header.name, &mut fault);
            }
            match (&route.percent_by, route.percent) {
                (Some(name), Some(_)) => check_name(format!("/routes/{index}/percent_by"), name, &mut fault),
                (Some(_), None) => {
                    fault(format!("/routes/{index}/percent_by"), "is for percent alone".to_owned());
                }
                (None, _) => {}
            }
        }
        if self.bodies.of_requests() && self.before.is_none() {
            fault("/bodies".to_owned(), "there is no service before to see those of requests".to_owned());
        }
        if self.bodies.of_answers() && self.after.is_none() {
            fault("/bodies".to_owned(), "there is no service after to see those of answers".to_owned());
        }
        faults
    }
}

fn check_name(pointer: String, name: &str, fault: &mut impl FnMut(String, String)) {
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        fault(pointer, "is no name of a header field".to_owned());
    }
}

fn check_field(pointer: String, name: &str, fault: &mut impl FnMut(String, String)) {
    if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
        fault(pointer, "cannot be changed here".to_owned());
    } else {
        check_name(pointer, name, fault);
    }
}
