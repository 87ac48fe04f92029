//! The OpenAPI 3.1 document of the management API, and the compiled schemas of its bodies: both made of the
//! table of endpoints, once, when the router is built.

use std::collections::HashMap;

use crosstie_model::definition::shapes;
use crosstie_model::schema::{Schema, SchemaError};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::problem::{PROBLEM_JSON, ProblemDocument};
use super::table::{Answer, Body, Endpoint, SchemaOf, endpoints, schema_of};

/// Where schemas stand in an OpenAPI document.
const COMPONENTS: &str = "#/components/schemas/";

/// The document.
pub(crate) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in endpoints() {
        let item = paths.entry(endpoint.path).or_insert_with(|| Value::Object(Map::new()));
        if let Some(item) = item.as_object_mut() {
            let method = endpoint.method.http().as_str().to_ascii_lowercase();
            item.insert(method, operation(endpoint, &mut generator));
        }
    }
    let problem = schema_of::<ProblemDocument>(&mut generator).to_value();
    let mut schemas = generator.take_definitions(true);
    let mut of_shapes = Map::new();
    schemas.insert("Definition".to_owned(), definition_schema(&mut of_shapes));
    schemas.extend(of_shapes);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Crosstie management API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Roles include each other: viewer, operator, admin. Errors are RFC 9457 problem \
                documents. ETag is the configuration's revision; If-Match makes a change conditional on it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/api/v1"}],
        "security": [{"bearer": []}, {"basic": []}, {"certificate": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Problem": {
                    "description": "What went wrong.",
                    "content": {PROBLEM_JSON: {"schema": problem}},
                },
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
                "certificate": {
                    "type": "mutualTLS",
                    "description": "A client certificate of the environment's CA.",
                },
            },
        },
    })
}

fn operation(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": endpoint.operation,
        "summary": endpoint.summary,
        "parameters": parameters(endpoint),
        "responses": responses(endpoint, generator),
    });
    let Some(object) = operation.as_object_mut() else { return operation };
    if let Some(tag) = endpoint.path.split('/').nth(1) {
        object.insert("tags".to_owned(), json!([tag]));
    }
    match endpoint.role {
        Some(role) => object.insert("x-role".to_owned(), json!(role)),
        None => object.insert("security".to_owned(), json!([])),
    };
    if let Some(body) = request_body(endpoint.body, generator) {
        object.insert("requestBody".to_owned(), body);
    }
    operation
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let in_path = path_parameters(endpoint.path)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let mut parameters: Vec<Value> = in_path.collect();
    for (name, mut schema) in query_properties(endpoint) {
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        parameters.push(json!({
            "name": name, "in": "query", "required": false, "schema": schema,
            "description": description.unwrap_or_default(),
        }));
    }
    if matches!(endpoint.answer, Answer::Change(_) | Answer::Created(_)) {
        parameters.push(json!({
            "name": "If-Match", "in": "header", "required": false, "schema": {"type": "string"},
            "description": "The ETag of an earlier answer: the change is refused with 412 when the \
                configuration changed since.",
        }));
    }
    parameters
}

/// The names in `path` that stand for something.
pub(crate) fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

/// The query parameters of an endpoint with their schemas, which hold no references.
pub(crate) fn query_properties(endpoint: &Endpoint) -> Map<String, Value> {
    let Some(query) = endpoint.query else { return Map::new() };
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let mut schema = query(&mut settings.into_generator()).to_value();
    match schema.get_mut("properties").map(Value::take) {
        Some(Value::Object(properties)) => properties,
        _ => Map::new(),
    }
}

fn request_body(body: Body, generator: &mut SchemaGenerator) -> Option<Value> {
    let bytes = json!({"schema": {"type": "string", "format": "binary"}});
    let (required, content) = match body {
        Body::None => return None,
        Body::Json(schema) | Body::Documents(schema) => {
            let schema = schema(generator).to_value();
            (true, json!({"application/json": {"schema": schema}}))
        }
        Body::Definition => {
            let schema = json!({"$ref": format!("{COMPONENTS}Definition")});
            (true, json!({"application/json": {"schema": schema}}))
        }
        Body::Artifact => {
            let form = json!({"schema": {
                "type": "object",
                "properties": {"file": {"type": "string", "format": "binary"}},
                "required": ["file"],
            }});
            (true, json!({"application/octet-stream": bytes, "multipart/form-data": form}))
        }
        Body::Payload => (false, json!({"application/json": {"schema": {}}, "*/*": bytes})),
    };
    Some(json!({"required": required, "content": content}))
}

fn responses(endpoint: &Endpoint, generator: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    let mut add = |status: &str, description: &str, content: Option<Value>| {
        let mut response = json!({"description": description});
        if let (Some(content), Some(object)) = (content, response.as_object_mut()) {
            object.insert("content".to_owned(), content);
        }
        responses.insert(status.to_owned(), response);
    };
    let later = "It is stored, and not served by all workers yet.";
    match endpoint.answer {
        Answer::Json(schema) => add("2XX", "The answer.", Some(json_content(schema, generator))),
        Answer::Change(schema) => {
            add("200", "It is stored and served.", Some(json_content(schema, generator)));
            add("202", later, Some(json_content(schema, generator)));
        }
        Answer::Created(schema) => {
            add("200", "Nothing had to change.", Some(json_content(schema, generator)));
            add("201", "It is stored and served.", Some(json_content(schema, generator)));
            add("202", later, Some(json_content(schema, generator)));
        }
        Answer::Text(media_type) => add("200", "The answer.", Some(json!({media_type: {}}))),
        Answer::Payload => add("2XX", "What the service answers.", Some(json!({"*/*": {}}))),
        Answer::Nothing => add("204", "Done.", None),
    }
    responses.insert("default".to_owned(), json!({"$ref": "#/components/responses/Problem"}));
    Value::Object(responses)
}

fn json_content(schema: SchemaOf, generator: &mut SchemaGenerator) -> Value {
    json!({"application/json": {"schema": schema(generator).to_value()}})
}

/// One schema per shape of a definition, put into `schemas`, and the one of them all.
fn definition_schema(schemas: &mut Map<String, Value>) -> Value {
    let mut all = Vec::new();
    for (kind, tag, schema) in shapes() {
        let name = tag.map_or_else(|| format!("Definition.{kind}"), |tag| format!("Definition.{kind}.{tag}"));
        let mut schema = schema.clone();
        rebase(&mut schema, &name);
        if let Some(object) = schema.as_object_mut() {
            object.remove("$schema");
        }
        all.push(json!({"$ref": format!("{COMPONENTS}{name}")}));
        schemas.insert(name, schema);
    }
    json!({"description": "A definition in its YAML shape.", "anyOf": all})
}

/// Makes references within a schema that stood alone hold where it stands now.
fn rebase(schema: &mut Value, name: &str) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get_mut("$ref")
                && let Some(rest) = reference.strip_prefix("#/")
            {
                *reference = format!("{COMPONENTS}{name}/{rest}");
            }
            members.values_mut().for_each(|member| rebase(member, name));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rebase(item, name)),
        _ => {}
    }
}

/// The compiled schema of every JSON body, by operation.
///
/// # Errors
/// A schema that the validator does not take; a defect that the first test finds.
pub(crate) fn body_schemas() -> Result<HashMap<&'static str, Schema>, SchemaError> {
    let mut compiled = HashMap::new();
    for endpoint in endpoints() {
        let (Body::Json(schema_of) | Body::Documents(schema_of)) = endpoint.body else { continue };
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        let mut schema = schema_of(&mut generator).to_value();
        if let Some(object) = schema.as_object_mut() {
            object.insert("$defs".to_owned(), Value::Object(generator.take_definitions(true)));
        }
        compiled.insert(endpoint.operation, Schema::compile(schema)?);
    }
    Ok(compiled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn the_document_changes_only_on_purpose() {
        let mut document = document();
        document["info"]["version"] = "(the release)".into();
        insta::assert_snapshot!(serde_json::to_string_pretty(&document).unwrap());
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn the_document_lists_every_endpoint_with_its_path_parameters() {
        let document = document();
        for endpoint in endpoints() {
            let method = endpoint.method.http().as_str().to_ascii_lowercase();
            let operation = &document["paths"][endpoint.path][&method];
            assert_eq!(operation["operationId"], endpoint.operation);
            let names: Vec<_> =
                operation["parameters"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
            assert!(path_parameters(endpoint.path).all(|name| names.contains(&&json!(name))));
        }
    }

    #[test]
    fn query_parameters_are_documented_without_references() {
        for endpoint in endpoints() {
            let properties = Value::Object(query_properties(endpoint));
            let mut found = Vec::new();
            references(&properties, &mut found);
            assert!(found.is_empty(), "{}: {found:?}", endpoint.operation);
            assert_eq!(endpoint.query.is_some(), properties != json!({}), "{}", endpoint.operation);
        }
    }

    #[test]
    fn every_body_has_a_schema_that_compiles() {
        let schemas = body_schemas().unwrap();
        let faults = schemas["addUser"].faults(&json!({"name": "", "role": "root", "colour": 1}));
        let mut pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/colour", "/name", "/role"]);
    }
}
