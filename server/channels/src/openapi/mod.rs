//! The OpenAPI 3.1 document of a snapshot's REST channels, made of what services declare: patterns and
//! methods of channels, input and output models, docstrings, security definitions, rate limits.
//!
//! JSON-RPC channels describe themselves ([`crate::openrpc`]); here they are only listed, under `x-openrpc`.
//!
//! Made from the snapshot alone, off the hot path, and the same text for the same snapshot.

mod operation;

use std::collections::BTreeMap;

use crosstie_model::Snapshot;
use crosstie_model::definition::{
    ApiKeyLocation, ChannelDefinition, DefinitionBody, RestChannel, SecurityDefinition,
};
use crosstie_model::snapshot::EffectiveChannel;
use crosstie_model::unit::ServiceDescription;
use serde_json::{Map, Value, json};

use crate::components::{Schemas, component_name};
use crate::methods::{STANDARD, method_names};
use crate::pattern::{PathPattern, Segment};

/// The OpenAPI version of the document.
pub const OPENAPI_VERSION: &str = "3.1.1";

/// Makes the document. `title` names the API.
///
/// Channels that are inactive, leave the document by `openapi: false`, transform bodies, or lead to a service that
/// is not deployed are not in it. Where two channels have one templated path and method, OpenAPI can show one: the
/// more specific.
#[must_use]
pub fn document(snapshot: &Snapshot, title: &str) -> Value {
    let channels = snapshot.effective_channels().unwrap_or_default();
    let services: BTreeMap<&str, &ServiceDescription> =
        snapshot.services().map(|(_, service)| (service.name.as_str(), service)).collect();
    let mut entries: Vec<_> = channels.iter().filter_map(|channel| entry(channel, &services)).collect();
    entries.sort_by(|a, b| (a.template.as_str(), &a.rank).cmp(&(b.template.as_str(), &b.rank)));

    let mut schemas = Schemas::new([("Problem", problem_schema())]);
    let mut paths: Map<String, Value> = Map::new();
    for entry in &entries {
        let item = paths.entry(entry.template.clone()).or_insert_with(|| json!({}));
        let Some(item) = item.as_object_mut() else { continue };
        for method in entry.methods() {
            // OpenAPI knows fixed methods only.
            let key = method.to_ascii_lowercase();
            if STANDARD.contains(&key.to_ascii_uppercase().as_str()) && !item.contains_key(&key) {
                item.insert(key, operation::operation(snapshot, entry, &method, &mut schemas));
            }
        }
    }
    let mut components = Map::new();
    components.insert("schemas".into(), Value::Object(schemas.finish()));
    components.insert("responses".into(), json!({"Problem": problem_response()}));
    let schemes = security_schemes(snapshot, &entries);
    if !schemes.is_empty() {
        components.insert("securitySchemes".into(), Value::Object(schemes));
    }
    let mut document = json!({
        "openapi": OPENAPI_VERSION,
        "info": {"title": title, "version": snapshot.revision.to_string()},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": components,
    });
    let others: Vec<_> = channels.iter().filter_map(openrpc_place).collect();
    if let (false, Some(members)) = (others.is_empty(), document.as_object_mut()) {
        members.insert("x-openrpc".into(), others.into());
    }
    document
}

/// Where a JSON-RPC channel describes itself: the same URL, by GET.
fn openrpc_place(channel: &EffectiveChannel) -> Option<Value> {
    let ChannelDefinition::Jsonrpc(rpc) = &channel.definition else { return None };
    let shown = rpc.openrpc && rpc.entrance.active;
    let pattern = PathPattern::parse(&rpc.entrance.path).ok().filter(|_| shown)?;
    Some(json!({"name": channel.name.as_str(), "url": pattern.template()}))
}

/// One REST channel with its service.
struct Entry<'s> {
    name: &'s str,
    channel: &'s RestChannel,
    service: &'s ServiceDescription,
    pattern: PathPattern,
    template: String,
    /// Orders patterns of one template by how specific they are.
    rank: Vec<u8>,
}

impl Entry<'_> {
    fn methods(&self) -> Vec<String> {
        let listed =
            if self.channel.methods.is_empty() { &self.service.methods } else { &self.channel.methods };
        method_names(listed)
    }
}

fn entry<'s>(
    channel: &'s EffectiveChannel,
    services: &BTreeMap<&str, &'s ServiceDescription>,
) -> Option<Entry<'s>> {
    let ChannelDefinition::Rest(rest) = &channel.definition else { return None };
    if !rest.openapi || !rest.entrance.active || !rest.transforms.is_empty() {
        return None;
    }
    let pattern = PathPattern::parse(&rest.entrance.path).ok()?;
    let rank = pattern
        .segments()
        .iter()
        .map(|segment| match segment {
            Segment::Static(_) => 0,
            Segment::Param { kind, .. } => 1 + *kind as u8,
        })
        .collect();
    Some(Entry {
        name: channel.name.as_str(),
        channel: rest,
        service: services.get(rest.service.as_str())?,
        template: pattern.template(),
        pattern,
        rank,
    })
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "cid"],
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "cid": {"type": "string"},
            "faults": {"type": "array", "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON Pointer into the request"},
                    "detail": {"type": "string"}
                }
            }}
        }
    })
}

fn problem_response() -> Value {
    json!({
        "description": "The request failed (RFC 9457)",
        "headers": {"X-Crosstie-CID": {
            "description": "Correlation id: what to quote to whoever runs the server",
            "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"}
        }},
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    })
}

fn security_schemes(snapshot: &Snapshot, entries: &[Entry<'_>]) -> Map<String, Value> {
    let mut schemes = Map::new();
    for (id, body) in &snapshot.definitions {
        let DefinitionBody::Security(security) = body else { continue };
        let used = |entry: &&Entry<'_>| {
            let demanded = entry.channel.entrance.security.as_ref();
            let members = demanded.map(|name| snapshot.credentials_for(name)).unwrap_or_default();
            members.iter().any(|(name, _)| **name == id.name)
        };
        if !entries.iter().any(|entry| used(&entry)) {
            continue;
        }
        let scheme = match security {
            SecurityDefinition::BasicAuth(_) => json!({"type": "http", "scheme": "basic"}),
            SecurityDefinition::ApiKey(key) => {
                let place = match key.r#in {
                    ApiKeyLocation::Header => "header",
                    ApiKeyLocation::Query => "query",
                };
                json!({"type": "apiKey", "in": place, "name": key.name})
            }
            SecurityDefinition::ClientCertificate(_) => json!({"type": "mutualTLS"}),
            SecurityDefinition::Jwt(_) => json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}),
            SecurityDefinition::Oauth2Introspection(_) => json!({"type": "http", "scheme": "bearer"}),
            SecurityDefinition::Group(_)
            | SecurityDefinition::WssUsernameToken(_)
            | SecurityDefinition::Bearer(_)
            | SecurityDefinition::Oauth2ClientCredentials(_) => continue,
        };
        schemes.insert(component_name(id.name.as_str()), scheme);
    }
    schemes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::definition::DefinitionName;
    use crosstie_model::names::{Digest, Revision, UnitName};
    use crosstie_model::snapshot::ActiveUnit;
    use crosstie_model::unit::ArtifactKind;
    use crosstie_model::{Definition, DefinitionId, DefinitionKind};

    fn define(snapshot: &mut Snapshot, kind: DefinitionKind, name: &str, body: Value) {
        let id = DefinitionId { kind, name: DefinitionName::new(name).unwrap() };
        let definition = Definition::from_value(id, body).unwrap();
        snapshot.definitions.insert(definition.id, definition.body);
    }

    fn snapshot() -> Snapshot {
        let manifest = serde_json::from_value(json!({"services": [
            {"name": "crm.customer.get", "class": "crm.Get", "doc": "Finds a customer.\n\nLooks in *all* books.",
             "input": {"title": "Query", "type": "object", "required": ["id"], "properties": {
                "id": {"type": "integer"}, "verbose": {"type": "boolean", "default": false,
                "description": "Show everything"}}},
             "output": {"title": "Customer", "type": "object", "properties": {
                "name": {"type": "string"}, "address": {"$ref": "#/$defs/Address"}},
                "$defs": {"Address": {"type": "object", "properties": {"city": {"type": "string"}}}}},
             "methods": ["GET"],
             "channels": [{"type": "rest", "path": "/customers/{id:int}", "options": {"security": "crm.clients"}}]},
            {"name": "crm.customer.put", "class": "crm.Put",
             "input": {"title": "Customer", "type": "object", "required": ["id", "name"], "properties": {
                "id": {"type": "integer"}, "name": {"type": "string", "minLength": 1}}},
             "channels": [{"type": "rest", "path": "/customers/{id:int}", "options":
                {"methods": ["PUT"], "rate_limit": [{"limit": 5, "per": "second"}]}}]},
            {"name": "files.get", "class": "f.Get", "doc": "One line.",
             "channels": [{"type": "rest", "path": "/files/{rest:path}", "options": {"methods": ["GET", "DELETE"],
                "data_format": "raw"}},
                {"type": "rest", "path": "/anything", "options": {"methods": ["POST"]}},
                {"type": "rest", "path": "/hidden", "options": {"openapi": false}},
                {"type": "http", "path": "/plain"}, {"type": "jsonrpc", "path": "/rpc/{tenant}"},
                {"type": "jsonrpc", "path": "/secret", "options": {"openrpc": false}}]}
        ]}))
        .unwrap();
        let unit = ActiveUnit { digest: Digest::of(b"x"), kind: ArtifactKind::PythonFile, manifest };
        let mut snapshot = Snapshot { revision: Revision(7), ..Snapshot::default() };
        snapshot.units.insert(UnitName::new("crm").unwrap(), unit);
        let basic = json!({"type": "basic_auth", "username": "crm", "password": "env:X"});
        define(&mut snapshot, DefinitionKind::Security, "crm.clients", basic);
        define(&mut snapshot, DefinitionKind::Security, "unused", json!({"type": "api_key", "key": "env:X"}));
        snapshot
    }

    #[test]
    fn the_document_shows_what_services_declare() {
        insta::assert_json_snapshot!(document(&snapshot(), "Books"));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(target)) = members.get("$ref") {
                        found.push(target.clone());
                    }
                    members.values().for_each(|member| references(member, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document = document(&snapshot(), "Books");
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 5);
        for target in found {
            assert!(document.pointer(&target[1..]).is_some(), "{target}");
        }
    }

    #[test]
    fn an_empty_snapshot_has_an_empty_document() {
        let document = document(&Snapshot::default(), "T");
        assert_eq!(document["paths"], json!({}));
        assert_eq!(document["openapi"], "3.1.1");
    }
}
