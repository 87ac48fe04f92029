//! The data of a declared input: body, query and path made one document, coerced and validated. Pure Rust: a
//! handler thread does this before it needs the interpreter.
//!
//! Precedence, highest first: path parameters, query parameters, body. What a path says is what the request
//! was routed by, so nothing a caller adds elsewhere may change it. Only parameters the input declares are
//! taken; others stay visible in `request.http`.

mod shape;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crosstie_model::failure::Fault;
use crosstie_model::message::{HttpRequest, Part};
use crosstie_model::schema::{Schema, SchemaError};
use crosstie_model::{Failure, Message, Payload};
use serde_json::{Map, Value};

use super::context::InputData;
use shape::{Shape, Shapes};

/// What the caller is told when the faults say the rest.
const REFUSED: &str = "The request does not match what the service takes";

/// A declared input, compiled.
#[derive(Debug)]
pub(crate) struct InputRules {
    schema: Schema,
    shapes: Shapes,
}

impl InputRules {
    /// Compiles the JSON Schema of a declared input.
    ///
    /// # Errors
    /// It is no schema.
    pub(crate) fn compile(schema: &Value) -> Result<Self, SchemaError> {
        Ok(Self { shapes: Shapes::of(schema), schema: Schema::compile(schema.clone())? })
    }

    /// Makes the input of `message` and checks it.
    ///
    /// # Errors
    /// Every fault with its pointer.
    pub(crate) fn apply(&self, message: &Message) -> Result<InputData, Failure> {
        let merged = self.merge(message)?;
        let value = match (&merged, &message.payload) {
            (Some(merged), _) => merged,
            (None, Payload::Json(value)) => value,
            (None, _) => &Value::Null,
        };
        let faults = self.schema.faults(value);
        if !faults.is_empty() {
            return Err(refused(faults));
        }
        Ok(merged.map_or(InputData::Payload, InputData::Merged))
    }

    /// The document of `message`; `None` when its JSON payload is that already.
    fn merge(&self, message: &Message) -> Result<Option<Value>, Failure> {
        let http = message.http.as_deref();
        // The messages of SOAP were converted by their description already.
        let is_text = message.soap.is_none() && http.is_some_and(is_xml);
        let Some(members) = self.shapes.members() else {
            return Ok(match &message.payload {
                Payload::Json(value) if is_text => Some(self.shapes.coerced(value.clone())),
                Payload::Json(_) => None,
                other => Some(body(other)?),
            });
        };
        let has_parameters = http.is_some_and(|http| !http.params.is_empty() || !http.query.is_empty());
        let is_positional = message.channel.kind == "jsonrpc";
        let mut document = match &message.payload {
            Payload::Json(Value::Array(items)) if is_positional => by_position(members, items)?,
            Payload::Json(Value::Object(_)) if !has_parameters && !is_text => return Ok(None),
            Payload::Json(value) if is_text => self.shapes.coerced(value.clone()),
            Payload::Json(value) => value.clone(),
            Payload::Form(fields) => Value::Object(self.shapes.of_text(fields)),
            Payload::Multipart(parts) => Value::Object(self.of_parts(parts)),
            other => body(other)?,
        };
        if document.is_null() {
            document = Value::Object(Map::new());
        }
        if let (Value::Object(document), Some(http)) = (&mut document, http) {
            for (name, value) in self.shapes.of_text(&http.query) {
                if members.iter().any(|(known, _)| *known == name) {
                    document.insert(name, value);
                }
            }
            for (name, text) in &http.params {
                if let Some((_, shape)) = members.iter().find(|(known, _)| *known == **name) {
                    document.insert(name.to_string(), self.shapes.coerce_text(shape, text));
                }
            }
        }
        Ok(Some(document))
    }

    /// Form fields by their declared types; files as base64, which is how `bytes` travel.
    fn of_parts(&self, parts: &[Part]) -> Map<String, Value> {
        let fields: Vec<_> = parts
            .iter()
            .map(|part| {
                let content = if part.file_name.is_some() {
                    STANDARD.encode(&part.content)
                } else {
                    String::from_utf8_lossy(&part.content).into_owned()
                };
                (part.name.clone(), content)
            })
            .collect();
        self.shapes.of_text(&fields)
    }
}

/// A body that is no JSON value and no form, as the start of a document.
fn body(payload: &Payload) -> Result<Value, Failure> {
    match payload {
        Payload::Text(text) => Ok(Value::String(text.clone())),
        Payload::Bytes(bytes) if bytes.is_empty() => Ok(Value::Null),
        // A plain channel does not decode; a service that declares input expects JSON.
        Payload::Bytes(bytes) => serde_json::from_slice(bytes)
            .map_err(|error| refused(vec![Fault { pointer: String::new(), detail: error.to_string() }])),
        Payload::Form(fields) => Ok(Value::Object(Shapes::default().of_text(fields))),
        Payload::Json(value) => Ok(value.clone()),
        Payload::Empty | Payload::Multipart(_) => Ok(Value::Null),
    }
}

/// JSON-RPC parameters by position (JSON-RPC 2.0, section 4.2): in the order of the declared fields.
fn by_position(members: &[(String, Shape)], items: &[Value]) -> Result<Value, Failure> {
    if items.len() > members.len() {
        let detail = format!("has {} parameters; at most {} are declared", items.len(), members.len());
        return Err(refused(vec![Fault { pointer: String::new(), detail }]));
    }
    let named = members.iter().zip(items).map(|((name, _), value)| (name.clone(), value.clone()));
    Ok(Value::Object(named.collect()))
}

/// XML has nothing but text: what it says is converted by the declared types.
fn is_xml(http: &HttpRequest) -> bool {
    let value = http.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = value.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    media.ends_with("/xml") || media.ends_with("+xml")
}

/// The failure that lists `faults`.
pub(crate) fn refused(faults: Vec<Fault>) -> Failure {
    Failure::bad_request(REFUSED).with_faults(faults)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::TraceContext;
    use crosstie_model::message::ChannelInfo;
    use crosstie_model::names::ServiceName;
    use serde_json::json;
    use std::sync::Arc;
    use std::time::Instant;

    fn rules() -> InputRules {
        InputRules::compile(&json!({
            "type": "object",
            "properties": {
                "id": {"type": "integer"}, "name": {"type": "string"}, "active": {"type": "boolean"},
                "tags": {"type": "array", "items": {"type": "integer"}},
                "ratio": {"type": ["number", "null"]},
                "address": {"$ref": "#/$defs/Address"}
            },
            "required": ["id"],
            "$defs": {"Address": {"type": "object", "properties": {"zip": {"type": "integer"}}}}
        }))
        .unwrap()
    }

    fn message(payload: Payload, params: &[(&str, &str)], query: &[(&str, &str)]) -> Message {
        let text = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        Message {
            trace: TraceContext::new_root(),
            channel: Arc::new(ChannelInfo {
                name: "c".into(),
                kind: "rest",
                service: ServiceName::new("s").unwrap(),
            }),
            payload,
            raw: bytes::Bytes::new(),
            soap: None,
            amqp: None,
            http: Some(Box::new(HttpRequest {
                method: http::Method::GET,
                path: "/".into(),
                params: text(params).into_iter().map(|(name, value)| (name.into(), value)).collect(),
                query: text(query),
                headers: http::HeaderMap::new(),
                client: [127, 0, 0, 1].into(),
                secure: false,
            })),
            principal: None,
            deadline: Instant::now(),
            depth: 0,
        }
    }

    fn merged(message: &Message) -> Value {
        match rules().apply(message).unwrap() {
            InputData::Merged(value) => value,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_path_wins_over_the_query_and_the_query_over_the_body() {
        let body = Payload::Json(json!({"id": 1, "name": "body", "other": true}));
        let found = merged(&message(body, &[("id", "7")], &[("id", "8"), ("name", "query"), ("utm", "x")]));
        assert_eq!(found, json!({"id": 7, "name": "query", "other": true}));
    }

    #[test]
    fn text_becomes_what_is_declared() {
        let query = [("id", "1"), ("active", "true"), ("tags", "1"), ("tags", "2"), ("ratio", "0.5")];
        let found = merged(&message(Payload::Empty, &[], &query));
        assert_eq!(found, json!({"id": 1, "active": true, "tags": [1, 2], "ratio": 0.5}));
        let one = merged(&message(
            Payload::Form(vec![("id".into(), "1".into()), ("tags".into(), "5".into())]),
            &[],
            &[],
        ));
        assert_eq!(one, json!({"id": 1, "tags": [5]}));
    }

    #[test]
    fn text_that_is_not_what_is_declared_is_a_fault_at_its_parameter() {
        let failure =
            rules().apply(&message(Payload::Empty, &[("id", "x")], &[("active", "maybe")])).unwrap_err();
        let mut pointers: Vec<_> = failure.faults.iter().map(|fault| fault.pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/active", "/id"]);
    }

    #[test]
    fn a_json_body_alone_is_not_copied() {
        let body = Payload::Json(json!({"id": 1}));
        assert!(matches!(rules().apply(&message(body, &[], &[])), Ok(InputData::Payload)));
    }

    #[test]
    fn xml_is_converted_all_the_way_down() {
        let mut xml =
            message(Payload::Json(json!({"id": "4", "tags": "9", "address": {"zip": "123"}})), &[], &[]);
        if let Some(http) = &mut xml.http {
            http.headers.insert("content-type", "application/xml; charset=utf-8".parse().unwrap());
        }
        assert_eq!(merged(&xml), json!({"id": 4, "tags": [9], "address": {"zip": 123}}));
    }

    #[test]
    fn jsonrpc_parameters_may_come_by_position() {
        let mut call = message(Payload::Json(json!([5, "Ada"])), &[], &[]);
        call.channel = Arc::new(ChannelInfo {
            name: "c".into(),
            kind: "jsonrpc",
            service: ServiceName::new("s").unwrap(),
        });
        assert_eq!(merged(&call), json!({"id": 5, "name": "Ada"}));
        call.payload = Payload::Json(json!([1, 2, 3, 4, 5, 6, 7]));
        assert!(rules().apply(&call).is_err());
    }
}
