//! One operation: a channel at a method.

use crosstie_model::Snapshot;
use crosstie_model::definition::DataFormat;
use serde_json::{Map, Value, json};

use super::Entry;
use crate::components::{Schemas, component_name, is_required, object_of, split_doc};
use crate::pattern::ParamType;

/// Describes `entry` at `method`.
pub(super) fn operation(
    snapshot: &Snapshot,
    entry: &Entry<'_>,
    method: &str,
    schemas: &mut Schemas,
) -> Value {
    let mut operation = Map::new();
    let service = entry.service;
    let method_word = method.to_ascii_lowercase();
    operation.insert("operationId".into(), format!("{method_word}:{}", entry.name).into());
    let tag = service.name.as_str().rsplit_once('.').map_or(service.name.as_str(), |(tag, _)| tag);
    operation.insert("tags".into(), json!([tag]));
    let (summary, description) = split_doc(&service.doc);
    let summary = if summary.is_empty() { service.name.as_str() } else { summary };
    operation.insert("summary".into(), summary.into());
    if !description.is_empty() {
        operation.insert("description".into(), description.into());
    }
    let takes_body = !matches!(method, "GET" | "HEAD" | "DELETE");
    let parameters = parameters(entry, takes_body, schemas);
    if !parameters.is_empty() {
        operation.insert("parameters".into(), parameters.into());
    }
    if takes_body {
        operation.insert("requestBody".into(), request_body(entry, schemas));
    }
    operation.insert("responses".into(), responses(snapshot, entry, takes_body, schemas));
    if let Some(security) = &entry.channel.entrance.security {
        // Alternatives, of which one is enough.
        let members = snapshot.credentials_for(security).into_iter();
        let schemes = members
            .map(|(name, _)| Value::Object(Map::from_iter([(component_name(name.as_str()), json!([]))])));
        operation.insert("security".into(), schemes.collect());
    }
    Value::Object(operation)
}

fn parameters(entry: &Entry<'_>, takes_body: bool, schemas: &mut Schemas) -> Vec<Value> {
    let input = entry.service.input.as_ref().map(object_of);
    let properties = input.as_ref().and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    let mut parameters: Vec<Value> = entry
        .pattern
        .params()
        .map(|(name, kind)| {
            let mut parameter =
                json!({"name": &**name, "in": "path", "required": true, "schema": param_schema(kind)});
            copy_description(properties.and_then(|p| p.get(&**name)), &mut parameter);
            parameter
        })
        .collect();
    // Without a body, input comes by the query string.
    if let (false, Some(input), Some(properties)) = (takes_body, &input, properties) {
        let input = schemas.hoist(input, entry.service.name.as_str());
        for name in properties.keys().filter(|name| !is_path_param(entry, name)) {
            let schema = input.pointer(&pointer(name)).cloned().unwrap_or_default();
            let mut parameter = json!({"name": name, "in": "query", "schema": schema});
            if is_required(&input, name)
                && let Some(members) = parameter.as_object_mut()
            {
                members.insert("required".into(), true.into());
            }
            copy_description(properties.get(name), &mut parameter);
            parameters.push(parameter);
        }
    }
    parameters
}

fn pointer(property: &str) -> String {
    format!("/properties/{}", property.replace('~', "~0").replace('/', "~1"))
}

fn copy_description(property: Option<&Value>, parameter: &mut Value) {
    let description = property.and_then(|schema| schema.get("description"));
    if let (Some(description), Some(members)) = (description, parameter.as_object_mut()) {
        members.insert("description".into(), description.clone());
    }
}

fn is_path_param(entry: &Entry<'_>, name: &str) -> bool {
    entry.pattern.params().any(|(param, _)| &**param == name)
}

fn param_schema(kind: ParamType) -> Value {
    match kind {
        ParamType::Bool => json!({"type": "boolean"}),
        ParamType::Int => json!({"type": "integer", "format": "int64"}),
        ParamType::Date => json!({"type": "string", "format": "date"}),
        ParamType::Uuid => json!({"type": "string", "format": "uuid"}),
        ParamType::Float => json!({"type": "number"}),
        ParamType::Str => json!({"type": "string", "minLength": 1}),
        ParamType::Path => {
            json!({"type": "string", "minLength": 1, "description": "The rest of the path, slashes included"})
        }
    }
}

/// The body by media type; without a schema where the service declares none, as it takes what comes.
fn request_body(entry: &Entry<'_>, schemas: &mut Schemas) -> Value {
    let media = match (entry.channel.data_format, &entry.service.input) {
        (Some(DataFormat::Raw), _) | (_, None) => json!({}),
        (_, Some(input)) => json!({"schema": body_schema(entry, input, schemas)}),
    };
    let content: Map<_, _> = media_types(entry.channel.data_format)
        .iter()
        .map(|name| ((*name).to_owned(), media.clone()))
        .collect();
    json!({"required": entry.service.input.is_some(), "content": content})
}

/// The declared input without what the path already says.
fn body_schema(entry: &Entry<'_>, input: &Value, schemas: &mut Schemas) -> Value {
    let fallback = format!("{}.input", entry.service.name);
    let object = object_of(input);
    let from_path: Vec<_> = entry
        .pattern
        .params()
        .map(|(name, _)| &**name)
        .filter(|name| object.pointer(&pointer(name)).is_some())
        .collect();
    if from_path.is_empty() {
        return schemas.add(input, &fallback);
    }
    let mut body = object.clone();
    if let Some(properties) = body.get_mut("properties").and_then(Value::as_object_mut) {
        properties.retain(|name, _| !from_path.contains(&name.as_str()));
    }
    if let Some(required) = body.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name.as_str().is_none_or(|name| !from_path.contains(&name)));
    }
    schemas.hoist(&body, &fallback)
}

fn media_types(format: Option<DataFormat>) -> &'static [&'static str] {
    match format {
        None => &["application/json", "application/xml", "application/x-www-form-urlencoded"],
        Some(DataFormat::Json) => &["application/json"],
        Some(DataFormat::Xml) => &["application/xml"],
        Some(DataFormat::Form) => &["application/x-www-form-urlencoded", "multipart/form-data"],
        Some(DataFormat::Raw) => &["application/octet-stream"],
    }
}

fn responses(snapshot: &Snapshot, entry: &Entry<'_>, takes_body: bool, schemas: &mut Schemas) -> Value {
    let mut responses = Map::new();
    let mut success = Map::from_iter([("description".to_owned(), Value::from("The service's reply"))]);
    if let Some(output) = &entry.service.output {
        let schema = schemas.add(output, &format!("{}.output", entry.service.name));
        let media: &[&str] = match entry.channel.data_format {
            None => &["application/json", "application/xml"],
            Some(DataFormat::Xml) => &["application/xml"],
            Some(DataFormat::Json | DataFormat::Form | DataFormat::Raw) => &["application/json"],
        };
        let content: Map<_, _> =
            media.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect();
        success.insert("content".into(), Value::Object(content));
    }
    responses.insert("200".into(), Value::Object(success));
    let problem = || json!({"$ref": "#/components/responses/Problem"});
    let entrance = &entry.channel.entrance;
    let credentials = entrance.security.as_ref().map(|name| snapshot.credentials_for(name));
    let security_rates = credentials.iter().flatten().any(|(_, security)| !security.rate_limit().is_empty());
    for (status, applies) in [
        ("400", takes_body || entry.service.input.is_some()),
        ("401", entrance.security.is_some()),
        ("403", !entrance.allow_from.is_empty()),
        ("413", takes_body),
        ("415", takes_body),
        ("429", security_rates || !entrance.rate_limit.is_empty()),
    ] {
        if applies {
            responses.insert(status.into(), problem());
        }
    }
    responses.insert("default".into(), problem());
    Value::Object(responses)
}
