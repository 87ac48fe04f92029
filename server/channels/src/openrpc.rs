//! The OpenRPC document of one JSON-RPC channel, made of what services declare: method names of the channel,
//! input and output models, docstrings, security, rate limits. A channel gives it to whoever may call it, by
//! GET and by the method `rpc.discover` (OpenRPC specification, "Service Discovery Method").
//!
//! Made from the snapshot alone, off the hot path, and the same text for the same snapshot.

use std::collections::BTreeMap;

use crosstie_model::definition::{JsonRpcChannel, SecurityDefinition};
use crosstie_model::unit::ServiceDescription;
use crosstie_model::{Failure, FailureKind, Origin, Snapshot};
use serde_json::{Map, Value, json};

use crate::components::{Schemas, is_required, object_of, split_doc};
use crate::jsonrpc::CallError;
use crate::pattern::PathPattern;
use crate::problem;

/// The OpenRPC version of the document. Its schemas are of JSON Schema's draft 7.
pub const OPENRPC_VERSION: &str = "1.3.2";

/// The method that gives the document.
pub(crate) const DISCOVER: &str = "rpc.discover";

/// Where the specification says what such a document is.
const META_SCHEMA: &str = "https://meta.open-rpc.org/";

/// Makes the document of the channel called `name`. `title` names the API.
///
/// Methods whose service is not deployed are not in it.
#[must_use]
pub fn document(snapshot: &Snapshot, title: &str, name: &str, channel: &JsonRpcChannel) -> Value {
    let services: BTreeMap<&str, &ServiceDescription> =
        snapshot.services().map(|(_, service)| (service.name.as_str(), service)).collect();
    let pattern = PathPattern::parse(&channel.entrance.path).ok();
    let kinds = failures(snapshot, channel);
    let mut schemas = Schemas::new([]);
    let mut methods = Vec::new();
    for (method, service) in &channel.methods {
        if let Some(service) = services.get(service.as_str()) {
            let source = Method { name: method, service, pattern: pattern.as_ref() };
            methods.push(source.describe(&kinds, &mut schemas));
        }
    }
    if !channel.methods.contains_key(DISCOVER) {
        methods.push(discover_method());
    }
    let mut components = Map::new();
    let mut schemas = schemas.finish();
    schemas.values_mut().for_each(to_draft_7);
    components.insert("schemas".into(), Value::Object(schemas));
    let errors = kinds.iter().map(|kind| (error_name(*kind), error_object(*kind)));
    components.insert("errors".into(), Value::Object(errors.collect()));
    json!({
        "openrpc": OPENRPC_VERSION,
        "info": {
            "title": format!("{title}: {name}"),
            "description": about(snapshot, channel),
            "version": snapshot.revision.to_string(),
        },
        "servers": [server(name, pattern.as_ref())],
        "methods": methods,
        "components": components,
    })
}

fn about(snapshot: &Snapshot, channel: &JsonRpcChannel) -> String {
    let security = channel.entrance.security.as_ref();
    let credentials = security.map_or_else(String::new, |name| {
        let members = snapshot.credentials_for(name).into_iter();
        let sorts: Vec<_> =
            members.map(|(member, body)| format!("{} of `{member}`", sort_of(body))).collect();
        let sorts = if sorts.is_empty() { format!("credentials of `{name}`") } else { sorts.join(" or ") };
        format!(" Every request needs {sorts}.")
    });
    format!(
        "JSON-RPC 2.0 by HTTP POST; a batch has at most {} calls.{credentials} The `data` of an error holds \
         `type`, `status` and `cid`, and where they apply `faults` (each with a `pointer` and a `detail`) and \
         `retry_after` in seconds.",
        channel.max_batch
    )
}

/// What a caller presents.
fn sort_of(security: &SecurityDefinition) -> &'static str {
    match security {
        SecurityDefinition::BasicAuth(_) => "a user name and password (HTTP Basic)",
        SecurityDefinition::ApiKey(_) => "an API key",
        SecurityDefinition::ClientCertificate(_) => "a TLS client certificate",
        SecurityDefinition::Jwt(_) | SecurityDefinition::Oauth2Introspection(_) => "a bearer token",
        SecurityDefinition::Group(_)
        | SecurityDefinition::WssUsernameToken(_)
        | SecurityDefinition::Bearer(_)
        | SecurityDefinition::Oauth2ClientCredentials(_) => "credentials",
    }
}

/// The channel's place; parameters of its path are variables of the URL.
fn server(name: &str, pattern: Option<&PathPattern>) -> Value {
    let url = pattern.map_or_else(|| "/".to_owned(), |pattern| pattern.template().replace('{', "${"));
    let mut variables = Map::new();
    for (param, kind) in pattern.iter().flat_map(|pattern| pattern.params()) {
        let about = format!("A part of the path, of type {}", kind.as_str());
        variables.insert(param.to_string(), json!({"default": &**param, "description": about}));
    }
    if variables.is_empty() {
        return json!({"name": name, "url": url});
    }
    json!({"name": name, "url": url, "variables": variables})
}

/// What can go wrong beyond the errors of the JSON-RPC specification that every channel has.
fn failures(snapshot: &Snapshot, channel: &JsonRpcChannel) -> Vec<FailureKind> {
    let entrance = &channel.entrance;
    let security = entrance.security.as_ref();
    let credentials = security.map(|name| snapshot.credentials_for(name));
    let limited = credentials.iter().flatten().any(|(_, security)| !security.rate_limit().is_empty());
    [
        (FailureKind::BadRequest, true),
        (FailureKind::Unauthorized, security.is_some()),
        (FailureKind::Forbidden, !entrance.allow_from.is_empty()),
        (FailureKind::TooManyRequests, limited || !entrance.rate_limit.is_empty()),
        (FailureKind::Internal, true),
        (FailureKind::Unavailable, true),
        (FailureKind::Timeout, true),
    ]
    .into_iter()
    .filter_map(|(kind, applies)| applies.then_some(kind))
    .collect()
}

/// The last word of a problem type: `bad-request`.
fn error_name(kind: FailureKind) -> String {
    let name = problem::type_of(kind);
    name.rsplit_once(':').map_or(name, |(_, last)| last).to_owned()
}

fn error_object(kind: FailureKind) -> Value {
    let error = CallError::of(&Failure::new(kind, Origin::Service));
    json!({
        "code": error.code,
        "message": error.message,
        "data": {"type": problem::type_of(kind), "status": kind.status()},
    })
}

fn discover_method() -> Value {
    json!({
        "name": DISCOVER,
        "summary": "Describes this channel",
        "params": [],
        "result": {"name": "document", "required": true, "schema": {"$ref": META_SCHEMA}},
    })
}

/// One method with its service.
struct Method<'s> {
    name: &'s str,
    service: &'s ServiceDescription,
    pattern: Option<&'s PathPattern>,
}

impl Method<'_> {
    fn describe(&self, kinds: &[FailureKind], schemas: &mut Schemas) -> Value {
        let service = self.service;
        let mut method = Map::from_iter([("name".to_owned(), Value::from(self.name))]);
        let tag = service.name.as_str().rsplit_once('.').map_or(service.name.as_str(), |(tag, _)| tag);
        method.insert("tags".into(), json!([{"name": tag}]));
        let (summary, description) = split_doc(&service.doc);
        let summary = if summary.is_empty() { service.name.as_str() } else { summary };
        method.insert("summary".into(), summary.into());
        if !description.is_empty() {
            method.insert("description".into(), description.into());
        }
        self.describe_params(schemas, &mut method);
        let result = match &service.output {
            Some(output) => schemas.add(output, &format!("{}.output", service.name)),
            None => json!({}),
        };
        method.insert("result".into(), json!({"name": "result", "required": true, "schema": result}));
        let references =
            kinds.iter().map(|kind| json!({"$ref": format!("#/components/errors/{}", error_name(*kind))}));
        method.insert("errors".into(), references.collect());
        Value::Object(method)
    }

    /// Parameters are the fields of the declared input. An input that is no object, such as a list, has no
    /// names to show and is shown whole under `x-params`.
    fn describe_params(&self, schemas: &mut Schemas, method: &mut Map<String, Value>) {
        method.insert("params".into(), json!([]));
        let Some(declared) = &self.service.input else { return };
        let owner = format!("{}.input", self.service.name);
        let input = schemas.hoist(&object_of(declared), &owner);
        let Some(properties) = input.get("properties").and_then(Value::as_object) else {
            let mut schema = schemas.add(declared, &owner);
            to_draft_7(&mut schema);
            method.insert("x-params".into(), schema);
            return;
        };
        let from_path = |name: &str| {
            self.pattern.is_some_and(|pattern| pattern.params().any(|(param, _)| **param == *name))
        };
        let names: Vec<&String> = properties.keys().filter(|name| !from_path(name)).collect();
        // Optional ones come last in the document; only where they do in the input too is its order the
        // order of parameters by position.
        let (first, last): (Vec<_>, Vec<_>) = names.iter().partition(|name| is_required(&input, name));
        let ordered: Vec<&String> = first.into_iter().chain(last).copied().collect();
        let is_in_order = ordered.iter().copied().eq(properties.keys());
        method.insert("paramStructure".into(), if is_in_order { "either" } else { "by-name" }.into());
        let params = ordered.into_iter().map(|name| {
            let mut schema = properties.get(name).cloned().unwrap_or_default();
            to_draft_7(&mut schema);
            let mut param = json!({"name": name, "required": is_required(&input, name), "schema": schema});
            let about = param.pointer("/schema/description").cloned();
            if let (Some(about), Some(members)) = (about, param.as_object_mut()) {
                members.insert("description".into(), about);
            }
            param
        });
        method.insert("params".into(), params.collect());
    }
}

/// Says in the words of JSON Schema's draft 7 what has others since: tuples.
fn to_draft_7(schema: &mut Value) {
    let Some(members) = schema.as_object_mut() else { return };
    if let Some(tuple) = members.shift_remove("prefixItems")
        && let Some(rest) = members.insert("items".to_owned(), tuple)
    {
        members.insert("additionalItems".to_owned(), rest);
    }
    for (keyword, value) in members.iter_mut() {
        match (keyword.as_str(), value) {
            // Values, not schemas.
            ("default" | "enum" | "const" | "examples", _) => {}
            ("properties" | "patternProperties", Value::Object(named)) => {
                named.values_mut().for_each(to_draft_7);
            }
            (_, Value::Array(schemas)) => schemas.iter_mut().for_each(to_draft_7),
            (_, value) => to_draft_7(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::definition::{ChannelDefinition, DefinitionBody, DefinitionName};
    use crosstie_model::names::{Digest, Revision, UnitName};
    use crosstie_model::snapshot::ActiveUnit;
    use crosstie_model::unit::ArtifactKind;
    use crosstie_model::{Definition, DefinitionId, DefinitionKind};

    fn define(snapshot: &mut Snapshot, kind: DefinitionKind, name: &str, body: Value) {
        let id = DefinitionId { kind, name: DefinitionName::new(name).unwrap() };
        let definition = Definition::from_value(id, body).unwrap();
        snapshot.definitions.insert(definition.id, definition.body);
    }

    fn snapshot(services: Value) -> Snapshot {
        let manifest = serde_json::from_value(json!({"services": services})).unwrap();
        let unit = ActiveUnit { digest: Digest::of(b"x"), kind: ArtifactKind::PythonFile, manifest };
        let mut snapshot = Snapshot { revision: Revision(7), ..Snapshot::default() };
        snapshot.units.insert(UnitName::new("crm").unwrap(), unit);
        let key = json!({"type": "api_key", "key": "env:X", "rate_limit": [{"limit": 5, "per": "second"}]});
        define(&mut snapshot, DefinitionKind::Security, "crm.clients", key);
        snapshot
    }

    fn described(mut snapshot: Snapshot, channel: Value) -> Value {
        define(&mut snapshot, DefinitionKind::Channel, "crm.rpc", channel);
        let channel = snapshot.definitions.values().find_map(|body| match body {
            DefinitionBody::Channel(ChannelDefinition::Jsonrpc(channel)) => Some(channel.clone()),
            _ => None,
        });
        let document = document(&snapshot, "Books", "crm.rpc", &channel.unwrap());
        check(&document);
        document
    }

    fn books() -> Snapshot {
        snapshot(json!([
            {"name": "crm.customer.get", "class": "crm.Get", "doc": "Finds a customer.\n\nLooks in *all* books.",
             "input": {"title": "Query", "type": "object", "required": ["id"], "properties": {
                "id": {"type": "integer", "description": "Its number"},
                "verbose": {"type": "boolean", "default": false}}},
             "output": {"title": "Customer", "type": "object", "properties": {
                "place": {"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}],
                    "items": false, "minItems": 2, "maxItems": 2},
                "address": {"$ref": "#/$defs/Address"}},
                "$defs": {"Address": {"type": "object", "properties": {"city": {"type": "string"}}}}}},
            {"name": "crm.customer.put", "class": "crm.Put",
             "input": {"$ref": "#/$defs/Customer", "$defs": {"Customer": {"title": "Customer", "type": "object",
                "required": ["id"], "properties": {"note": {"type": "string"}, "id": {"type": "integer"},
                    "parent": {"anyOf": [{"$ref": "#/$defs/Customer"}, {"type": "null"}]}}}}}},
            {"name": "crm.sum", "class": "crm.Sum", "doc": "Adds.",
             "input": {"type": "array", "items": {"type": "number"}}, "output": {"type": "number"}},
            {"name": "crm.anything", "class": "crm.Anything"}
        ]))
    }

    fn rpc() -> Value {
        json!({"type": "jsonrpc", "path": "/books/{tenant}/rpc", "security": "crm.clients", "methods": {
            "get": "crm.customer.get", "put": "crm.customer.put", "sum": "crm.sum", "any": "crm.anything",
            "gone": "crm.gone"}})
    }

    /// What the meta schema of OpenRPC 1.3 and the rules of its text demand of such a document.
    fn check(document: &Value) {
        fn members(value: &Value, required: &[&str], allowed: &[&str]) {
            let object = value.as_object().unwrap_or_else(|| panic!("{value} is no object"));
            for name in required {
                assert!(object.contains_key(*name), "{name} is missing: {value}");
            }
            for name in object.keys().filter(|name| !name.starts_with("x-")) {
                assert!(
                    required.contains(&&**name) || allowed.contains(&&**name),
                    "{name} is unknown: {value}"
                );
            }
        }
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(object) => {
                    found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    object.values().for_each(|member| references(member, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        members(document, &["openrpc", "info", "methods"], &["servers", "components"]);
        assert!(document["openrpc"].as_str().unwrap().starts_with("1.3."));
        members(&document["info"], &["title", "version"], &["description"]);
        for server in document["servers"].as_array().unwrap() {
            members(server, &["url"], &["name", "variables"]);
            for variable in server["variables"].as_object().into_iter().flat_map(Map::values) {
                members(variable, &["default"], &["description"]);
            }
        }
        let mut names = Vec::new();
        for method in document["methods"].as_array().unwrap() {
            let optional = ["tags", "summary", "description", "paramStructure", "result", "errors"];
            members(method, &["name", "params"], &optional);
            names.push(method["name"].as_str().unwrap());
            members(&method["result"], &["name", "schema"], &["required"]);
            let params = method["params"].as_array().unwrap();
            for param in params {
                members(param, &["name", "schema"], &["required", "description"]);
            }
            let demanded: Vec<_> = params.iter().map(|param| param["required"] == json!(true)).collect();
            assert!(demanded.is_sorted_by(|a, b| a >= b), "optional parameters come last: {method}");
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "names of methods are unique");
        members(&document["components"], &[], &["schemas", "errors"]);
        for error in document["components"]["errors"].as_object().unwrap().values() {
            members(error, &["code", "message"], &["data"]);
            assert!(error["code"].is_i64() && error["message"].is_string());
        }
        let mut found = Vec::new();
        references(document, &mut found);
        for target in found.iter().filter(|target| *target != META_SCHEMA) {
            assert!(document.pointer(&target[1..]).is_some(), "{target}");
        }
    }

    #[test]
    fn the_document_shows_what_services_declare() {
        insta::assert_json_snapshot!(described(books(), rpc()));
    }

    #[test]
    fn parameters_have_a_position_only_in_the_order_of_the_input() {
        let document = described(books(), rpc());
        let method = |name: &str| {
            let methods = document["methods"].as_array().unwrap();
            methods.iter().find(|method| method["name"] == name).unwrap().clone()
        };
        let names = |name: &str| -> Vec<String> {
            let method = method(name);
            let params = method["params"].as_array().unwrap().iter();
            params.map(|param| param["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(
            (&method("get")["paramStructure"], names("get")),
            (&json!("either"), vec!["id".into(), "verbose".into()])
        );
        assert_eq!(method("put")["paramStructure"], "by-name");
        assert_eq!(names("put"), ["id", "note", "parent"]);
    }

    #[test]
    fn what_the_path_says_is_no_parameter() {
        let mut channel = rpc();
        channel["path"] = json!("/customers/{id:int}");
        let document = described(books(), channel);
        let get = &document["methods"][1];
        assert_eq!((&get["name"], &get["paramStructure"]), (&json!("get"), &json!("by-name")));
        assert_eq!(get["params"].as_array().unwrap().len(), 1);
        assert_eq!(document["servers"][0]["url"], "/customers/${id}");
    }

    #[test]
    fn a_method_of_that_name_takes_the_place_of_discovery() {
        let channel = json!({"type": "jsonrpc", "path": "/rpc", "methods": {"rpc.discover": "crm.sum"}});
        let document = described(books(), channel);
        assert_eq!(document["methods"].as_array().unwrap().len(), 1);
        assert_eq!(document["methods"][0]["summary"], "Adds.");
    }

    #[test]
    fn a_field_may_be_called_like_a_keyword() {
        let mut schema =
            json!({"properties": {"prefixItems": {"type": "string"}}, "default": {"prefixItems": [1]}});
        let before = schema.clone();
        to_draft_7(&mut schema);
        assert_eq!(schema, before);
    }
}
