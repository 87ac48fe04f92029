//! What channels demand of tokens, whoever vouches for them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::{Host, Url};

use crate::definition::RateRule;
use crate::failure::Fault;

/// What a token must say of itself and its bearer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenRules {
    /// Who must have issued the token: the claim `iss`. Not looked at when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2_048))]
    pub issuer: Option<String>,
    /// For whom it must be: one of these must be in the claim `aud`. Without any, a token that says for whom it
    /// is, is refused, since that is somebody else (RFC 7519, section 4.1.3).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1, max = 2_048)))]
    pub audience: Vec<String>,
    /// What it must allow: all of these must be in the claim `scope` or `scp`. One that allows less gets 403.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1, max = 255), pattern(r"^[!#-\[\]-~]+$")))]
    pub scopes: Vec<String>,
    /// Other claims with the value each must have, or a list of values of which it must have one. A claim that
    /// is a list itself must hold one of them. Names that begin with `/` are JSON Pointers, as in
    /// `/realm_access/roles`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub claims: Map<String, Value>,
    /// The claim that is the caller's user name; a JSON Pointer where it begins with `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub username_claim: Option<String>,
    /// How far the issuer's clock and the server's may be apart, in seconds.
    #[serde(default = "default_skew", skip_serializing_if = "is_default_skew")]
    #[schemars(range(max = 300), extend("default" = 30))]
    pub clock_skew_s: u32,
    /// The realm named in challenges.
    #[serde(default = "default_realm", skip_serializing_if = "is_default_realm")]
    #[schemars(length(max = 100), pattern(r#"^[ !#-\[\]-~]*$"#), extend("default" = "crosstie"))]
    pub realm: String,
    /// Rate limits of all bearers of such tokens together over all channels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rate_limit: Vec<RateRule>,
}

impl TokenRules {
    pub(super) fn faults(&self, faults: &mut Vec<Fault>) {
        let is_scalar = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
        for (name, wanted) in &self.claims {
            let is_good = match wanted {
                Value::Array(several) => !several.is_empty() && several.iter().all(is_scalar),
                one => is_scalar(one),
            };
            if !is_good {
                let pointer = format!("/claims/{}", name.replace('~', "~0").replace('/', "~1"));
                let detail = "must be a text, a number, true or false, or a list of those".to_owned();
                faults.push(Fault { pointer, detail });
            }
        }
    }
}

/// Whether `address` may be asked about credentials: over TLS, or on this host.
pub(super) fn address_faults(field: &'static str, address: &str, faults: &mut Vec<Fault>) {
    let mut fault =
        |detail: &str| faults.push(Fault { pointer: field.to_owned(), detail: detail.to_owned() });
    let Ok(url) = Url::parse(address) else { return fault("is no address") };
    if !url.username().is_empty() || url.password().is_some() {
        return fault("must not hold credentials");
    }
    let is_here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return fault("is no address"),
    };
    match url.scheme() {
        "https" => {}
        "http" if is_here => {}
        _ => fault("must be https: who answers there decides whom the server believes"),
    }
}

fn default_skew() -> u32 {
    30
}

fn is_default_skew(seconds: &u32) -> bool {
    *seconds == default_skew()
}

fn default_realm() -> String {
    "crosstie".to_owned()
}

fn is_default_realm(realm: &str) -> bool {
    realm == default_realm()
}
