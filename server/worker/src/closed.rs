//! Which channels of a snapshot nobody can use, and why: what is wrong with credentials and routes, told by
//! channel.
//!
//! Made once per snapshot on the control thread; travels in reports, so it is bounded.

use std::collections::BTreeMap;

use crosstie_channels::check::RouteFault;
use crosstie_model::Snapshot;
use crosstie_model::definition::DefinitionName;
use crosstie_model::event::ClosedChannel;
use crosstie_security::credentials::CredentialFault;

/// Most bytes of reasons in one list; a report fits one frame of the control channel (1 MiB). Channels after
/// that are named and refer to the log.
const MAX_REASON_BYTES: usize = 256 * 1024;

/// The channels of `snapshot` that faults keep closed, by name. A channel whose credentials cannot be checked
/// is among them: it answers 503 to everybody.
pub(crate) fn closed_channels(
    snapshot: &Snapshot,
    credentials: &[CredentialFault],
    routes: &[RouteFault],
) -> Vec<ClosedChannel> {
    let mut closed: BTreeMap<DefinitionName, Vec<String>> = BTreeMap::new();
    for fault in routes {
        closed.entry(fault.channel.clone()).or_default().push(fault.detail.clone());
    }
    if !credentials.is_empty() {
        // A declaration in code that is no channel is among the routes' faults.
        for channel in snapshot.effective_channels().unwrap_or_default() {
            let needed = channel.definition.security().filter(|_| channel.definition.is_active());
            let needed = needed.map(|name| snapshot.credentials_for(name)).unwrap_or_default();
            let reasons: Vec<String> = needed
                .iter()
                .filter_map(|(name, _)| credentials.iter().find(|fault| fault.name == **name))
                .map(ToString::to_string)
                .collect();
            // One member of a group is enough to let somebody in.
            if !reasons.is_empty() && reasons.len() == needed.len() {
                closed.entry(channel.name.clone()).or_default().extend(reasons);
            }
        }
    }
    bounded(closed).map(|(channel, reasons)| ClosedChannel { channel, reasons }).collect()
}

/// The same with as many reasons as fit a report.
pub(crate) fn bounded(
    closed: BTreeMap<DefinitionName, Vec<String>>,
) -> impl Iterator<Item = (DefinitionName, Vec<String>)> {
    let mut left = MAX_REASON_BYTES;
    closed.into_iter().map(move |(name, reasons)| {
        let bytes = reasons.iter().map(String::len).sum();
        match left.checked_sub(bytes) {
            Some(rest) => {
                left = rest;
                (name, reasons)
            }
            None => (name, vec!["the server's log says why".to_owned()]),
        }
    })
}

/// Faults in one line: the first, and how many more there are.
pub(crate) fn summary(faults: &[&String]) -> String {
    match faults {
        [] => String::new(),
        [only] => (*only).clone(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::inquiry::NoInquiries;
    use crosstie_model::{Definition, DefinitionId, DefinitionKind};
    use crosstie_security::{Authenticators, ClusterKey, CredentialSource, SecretResolver};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn put(snapshot: &mut Snapshot, kind: DefinitionKind, name: &str, body: Value) {
        let id = DefinitionId { kind, name: name.parse().unwrap() };
        let definition = Definition::from_value(id, body).unwrap();
        snapshot.definitions.insert(definition.id, definition.body);
    }

    fn fault(channel: &str, detail: &str) -> RouteFault {
        RouteFault { channel: channel.parse().unwrap(), pointer: String::new(), detail: detail.to_owned() }
    }

    #[test]
    fn a_channel_is_closed_by_its_own_faults_and_by_those_of_its_credentials() {
        let mut snapshot = Snapshot::default();
        let key = json!({"type": "api_key", "key": "env:CROSSTIE_NOT_SET_ANYWHERE"});
        put(&mut snapshot, DefinitionKind::Security, "keys", key);
        for (name, security, active) in [("a", "keys", true), ("b", "keys", false), ("c", "others", true)] {
            let body = json!({"type": "http", "path": format!("/{name}"), "service": "s",
                              "security": security, "active": active});
            put(&mut snapshot, DefinitionKind::Channel, name, body);
        }
        // One member of a group is enough to let somebody in; none is not.
        put(&mut snapshot, DefinitionKind::Security, "open", json!({"type": "api_key", "key": "env:PATH"}));
        for (name, members) in [("e", json!(["keys", "open"])), ("f", json!(["keys"]))] {
            put(&mut snapshot, DefinitionKind::Security, name, json!({"type": "group", "any_of": members}));
            let body = json!({"type": "http", "path": format!("/{name}"), "service": "s", "security": name});
            put(&mut snapshot, DefinitionKind::Channel, name, body);
        }
        let resolver = SecretResolver::new(Arc::new(ClusterKey::generate().unwrap()), "/nowhere".into());
        let source = CredentialSource::new(resolver, Arc::new(NoInquiries));
        let (_, credentials) = Authenticators::build_available(&snapshot, &source);
        let closed = closed_channels(&snapshot, &credentials, &[fault("a", "one"), fault("d", "two")]);
        let names: Vec<_> = closed.iter().map(|closed| closed.channel.as_str()).collect();
        assert_eq!(names, ["a", "d", "f"]);
        assert_eq!(closed[0].reasons.len(), 2);
        assert!(closed[0].reasons[1].contains("CROSSTIE_NOT_SET_ANYWHERE"), "{closed:?}");
    }

    #[test]
    fn a_list_of_any_length_fits_a_report() {
        let routes: Vec<_> = (0..5_000).map(|n| fault(&format!("c{n}"), &"x".repeat(500))).collect();
        let closed = closed_channels(&Snapshot::default(), &[], &routes);
        assert_eq!(closed.len(), 5_000);
        assert!(serde_json::to_vec(&closed).unwrap().len() < 1024 * 1024);
        assert!(closed.iter().all(|closed| closed.reasons.len() == 1));
    }
}
