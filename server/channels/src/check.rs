//! What must hold of channels before they open: valid patterns, no two channels for one request, security
//! where it is demanded. The API asks before it stores a definition; routes ask again when they are built.

use std::collections::BTreeMap;

use crosstie_model::definition::{
    ChannelDefinition, DefinitionBody, DefinitionId, DefinitionKind, DefinitionName, HttpEntrance,
    SecurityDefinition, SecurityUse,
};
use crosstie_model::settings::HttpSettings;
use crosstie_model::snapshot::{EffectiveChannel, Snapshot};

use crate::pattern::PathPattern;

/// What keeps a channel from opening.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("channel {channel}: {detail}")]
pub struct RouteFault {
    /// The channel.
    pub channel: DefinitionName,
    /// JSON Pointer into its definition.
    pub pointer: String,
    /// What is wrong, for a person.
    pub detail: String,
}

/// Two channels that claim the same requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// One channel.
    pub first: DefinitionName,
    /// The other.
    pub second: DefinitionName,
    /// The pattern they share, in the second one's words.
    pub path: String,
    /// The methods both claim; empty when both claim all.
    pub methods: Vec<String>,
}

/// The methods a channel claims; empty for all. A service's own methods play no part, so that a new version
/// of a service never makes a conflict.
#[must_use]
pub fn claimed_methods(definition: &ChannelDefinition) -> &[String] {
    match definition {
        ChannelDefinition::Rest(channel) => &channel.methods,
        ChannelDefinition::Http(channel) => &channel.methods,
        ChannelDefinition::Passthrough(channel) => &channel.methods,
        ChannelDefinition::Jsonrpc(_) | ChannelDefinition::Soap(_) | ChannelDefinition::Amqp(_) => &[],
    }
}

/// All pairs of active channels whose patterns have one shape and whose methods overlap. Patterns that do
/// not parse are left to [`check_channels`].
#[must_use]
pub fn conflicts(channels: &[EffectiveChannel]) -> Vec<Conflict> {
    let mut by_shape: BTreeMap<String, Vec<&EffectiveChannel>> = BTreeMap::new();
    for channel in channels {
        let Some(entrance) = channel.definition.entrance().filter(|entrance| entrance.active) else {
            continue;
        };
        if let Ok(pattern) = PathPattern::parse(&entrance.path) {
            by_shape.entry(pattern.shape()).or_default().push(channel);
        }
    }
    let mut found = Vec::new();
    for sharing in by_shape.values() {
        for (at, second) in sharing.iter().enumerate() {
            for first in sharing.iter().take(at) {
                let (ours, theirs) =
                    (claimed_methods(&first.definition), claimed_methods(&second.definition));
                let methods: Vec<String> = match (ours.is_empty(), theirs.is_empty()) {
                    (true, true) => Vec::new(),
                    (true, false) => theirs.to_vec(),
                    (false, true) => ours.to_vec(),
                    (false, false) => ours.iter().filter(|m| theirs.contains(m)).cloned().collect(),
                };
                if methods.is_empty() && !(ours.is_empty() && theirs.is_empty()) {
                    continue;
                }
                found.push(Conflict {
                    first: first.name.clone(),
                    second: second.name.clone(),
                    path: second.definition.place().to_owned(),
                    methods,
                });
            }
        }
    }
    found
}

/// Paths the server answers itself; no channel may have them.
#[must_use]
pub fn reserved_paths(http: &HttpSettings, metrics_path: &str) -> Vec<String> {
    let mut paths = vec!["/health/live".to_owned(), "/health/ready".to_owned()];
    if !http.openapi_path.is_empty() {
        let base = http.openapi_path.trim_end_matches('/');
        paths.push(http.openapi_path.clone());
        for page in ["ui", "ui/app.js", "ui/style.css"] {
            paths.push(format!("{base}/{page}"));
        }
    }
    if !metrics_path.is_empty() {
        paths.push(metrics_path.to_owned());
    }
    paths
}

/// Every fault of every active channel of a snapshot; empty when all may open. `reserved` comes from
/// [`reserved_paths`].
///
/// A service that no deployment defines is not a fault: a channel may be defined first.
#[must_use]
pub fn check_channels(
    snapshot: &Snapshot,
    channels: &[EffectiveChannel],
    reserved: &[String],
    require_security: bool,
) -> Vec<RouteFault> {
    let mut faults: Vec<RouteFault> = Vec::new();
    for channel in channels {
        if !channel.definition.is_active() {
            continue;
        }
        let mut add = |pointer: &str, detail: String| {
            faults.push(RouteFault { channel: channel.name.clone(), pointer: pointer.to_owned(), detail });
        };
        check_connection(snapshot, &channel.definition, &mut add);
        let Some(entrance) = channel.definition.entrance() else { continue };
        check_path(entrance, reserved, &mut add);
        check_security(snapshot, &channel.definition, require_security, &mut add);
        check_cors(entrance, &mut add);
        for fault in crate::transform::faults(snapshot, &channel.definition) {
            add(&fault.pointer, fault.detail);
        }
        if let ChannelDefinition::Soap(soap) = &channel.definition {
            for fault in crate::soap::faults(snapshot, soap) {
                add(&fault.pointer, fault.detail);
            }
        }
        if let ChannelDefinition::Passthrough(passthrough) = &channel.definition {
            for fault in crate::passthrough::faults(snapshot, passthrough) {
                add(&fault.pointer, fault.detail);
            }
        }
        for method in claimed_methods(&channel.definition) {
            if matches!(method.as_str(), "CONNECT" | "TRACE") {
                add("/methods", format!("{method} cannot be served by a channel"));
            }
        }
    }
    for conflict in conflicts(channels) {
        let methods =
            if conflict.methods.is_empty() { "all methods".to_owned() } else { conflict.methods.join(", ") };
        faults.push(RouteFault {
            channel: conflict.second,
            pointer: "/path".to_owned(),
            detail: format!("{} is taken by channel {} for {methods}", conflict.path, conflict.first),
        });
    }
    faults
}

fn check_path(entrance: &HttpEntrance, reserved: &[String], add: &mut impl FnMut(&str, String)) {
    match PathPattern::parse(&entrance.path) {
        Err(error) => add("/path", error.to_string()),
        Ok(pattern) => {
            let taken = |path: &&String| {
                PathPattern::parse(path).is_ok_and(|reserved| reserved.shape() == pattern.shape())
            };
            if let Some(path) = reserved.iter().find(taken) {
                add("/path", format!("{path} is one of the server's own pages"));
            }
        }
    }
}

/// A channel that consumes does so over an outgoing of its own type.
fn check_connection(snapshot: &Snapshot, channel: &ChannelDefinition, add: &mut impl FnMut(&str, String)) {
    let Some(name) = channel.connection() else { return };
    let id = DefinitionId { kind: DefinitionKind::Outgoing, name: name.clone() };
    match snapshot.definitions.get(&id) {
        Some(DefinitionBody::Outgoing(outgoing)) if outgoing.type_name() == channel.type_name() => {}
        Some(DefinitionBody::Outgoing(outgoing)) => add(
            "/connection",
            format!("the outgoing {name} is of type {}, not {}", outgoing.type_name(), channel.type_name()),
        ),
        _ => add("/connection", format!("there is no outgoing {name}")),
    }
}

fn check_security(
    snapshot: &Snapshot,
    channel: &ChannelDefinition,
    require_security: bool,
    add: &mut impl FnMut(&str, String),
) {
    let is_soap = matches!(channel, ChannelDefinition::Soap(_));
    match channel.security() {
        Some(name) if snapshot.security(name).is_none() => {
            add("/security", format!("there is no security definition {name}"));
        }
        Some(name) if snapshot.security(name).is_some_and(|it| it.used_by() == SecurityUse::Outgoings) => {
            add(
                "/security",
                format!("the security definition {name} is of a type that only outgoings can use"),
            );
        }
        Some(name)
            if !is_soap
                && matches!(snapshot.security(name), Some(SecurityDefinition::WssUsernameToken(_))) =>
        {
            add(
                "/security",
                format!("the security definition {name} is of a type that only SOAP channels can use"),
            );
        }
        None if require_security => {
            let detail = "a channel needs a security definition (server.toml, [security] require_security)";
            add("/security", detail.to_owned());
        }
        _ => {}
    }
}

fn check_cors(entrance: &HttpEntrance, add: &mut impl FnMut(&str, String)) {
    let Some(cors) = &entrance.cors else { return };
    if cors.credentials && cors.origins.iter().any(|origin| origin == "*") {
        add(
            "/cors/credentials",
            "credentials are not possible with the origin * (Fetch standard)".to_owned(),
        );
    }
    let texts = cors.origins.iter().map(|text| ("/cors/origins", text));
    let names = cors.headers.iter().map(|text| ("/cors/headers", text));
    let exposed = cors.expose.iter().map(|text| ("/cors/expose", text));
    for (pointer, text) in texts {
        if http::HeaderValue::from_str(text).is_err() || (text != "*" && !text.contains("://")) {
            add(pointer, format!("{text:?} is no origin such as https://app.example"));
        }
    }
    for (pointer, text) in names.chain(exposed) {
        if http::HeaderName::from_bytes(text.as_bytes()).is_err() {
            add(pointer, format!("{text:?} is no header name"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::{Definition, DefinitionBody, DefinitionId, DefinitionKind};
    use serde_json::{Value, json};

    fn channel(name: &str, body: Value) -> EffectiveChannel {
        let id = DefinitionId { kind: DefinitionKind::Channel, name: DefinitionName::new(name).unwrap() };
        match Definition::from_value(id.clone(), body).unwrap().body {
            DefinitionBody::Channel(definition) => {
                EffectiveChannel { name: id.name, definition, in_code: false }
            }
            other => panic!("{other:?}"),
        }
    }

    fn rest(name: &str, path: &str, methods: &[&str]) -> EffectiveChannel {
        channel(name, json!({"type": "rest", "path": path, "methods": methods, "service": "s"}))
    }

    #[test]
    fn one_shape_with_overlapping_methods_is_a_conflict() {
        let found = conflicts(&[
            rest("a", "/x/{id:int}", &["GET", "PUT"]),
            rest("b", "/x/{number:int}", &["PUT", "DELETE"]),
            rest("c", "/x/{id:int}", &["POST"]),
            rest("d", "/x/{id}", &["GET"]),
        ]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].first.as_str(), found[0].second.as_str()), ("a", "b"));
        assert_eq!(found[0].methods, ["PUT"]);
    }

    #[test]
    fn a_channel_without_methods_claims_all_and_an_inactive_one_none() {
        assert_eq!(conflicts(&[rest("a", "/x", &[]), rest("b", "/x", &["GET"])]).len(), 1);
        let rpc = channel("c", json!({"type": "jsonrpc", "path": "/x", "methods": {"m": "s"}}));
        assert_eq!(conflicts(&[rest("a", "/x", &[]), rpc]).len(), 1);
        let off = channel("b", json!({"type": "rest", "path": "/x", "service": "s", "active": false}));
        assert!(conflicts(&[rest("a", "/x", &[]), off]).is_empty());
    }

    #[test]
    fn every_fault_of_every_channel_is_listed() {
        let reserved = reserved_paths(&HttpSettings::default(), "/metrics");
        let channels = [
            rest("a", "/a/{b:colour}", &[]),
            rest("b", "/health/live", &[]),
            rest("c", "/metrics", &["TRACE"]),
            channel(
                "d",
                json!({"type": "http", "path": "/d", "service": "s", "security": "gone",
                "cors": {"origins": ["*", "nonsense"], "credentials": true, "headers": ["a b"]}}),
            ),
            channel("e", json!({"type": "http", "path": "/d", "service": "s"})),
        ];
        let faults = check_channels(&Snapshot::default(), &channels, &reserved, true);
        let listed: Vec<_> = faults.iter().map(|f| format!("{} {}", f.channel.as_str(), f.pointer)).collect();
        assert_eq!(
            listed,
            [
                "a /path",
                "a /security",
                "b /path",
                "b /security",
                "c /path",
                "c /security",
                "c /methods",
                "d /security",
                "d /cors/credentials",
                "d /cors/origins",
                "d /cors/headers",
                "e /security",
                "e /path",
            ]
        );
        assert!(check_channels(&Snapshot::default(), &[rest("a", "/a", &[])], &reserved, false).is_empty());
    }
}
