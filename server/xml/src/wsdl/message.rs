//! The bodies of messages, from and to JSON.
//!
//! A body of one element is the JSON of that element: for a wrapped operation an object of its parameters. The
//! body of an rpc/literal message is an object with one member for each part, unless the one part is all of it.

use crosstie_model::Fault;
use serde_json::{Map, Value};

use super::model::{Body, Holds, Message, Part};
use crate::convert::{ReadOptions, UnknownMembers, WriteOptions};
use crate::document::Element;
use crate::writer::Writer;
use crate::xsd::SchemaSet;

impl Message {
    /// The JSON of what stands in `body`, the SOAP body.
    ///
    /// # Errors
    /// It holds something else, or breaks the schema.
    pub fn to_json(
        &self,
        schemas: &SchemaSet,
        body: Element<'_>,
        options: ReadOptions<'_>,
    ) -> Result<Value, Vec<Fault>> {
        let mut children = body.elements();
        let (content, more) = (children.next(), children.next());
        if more.is_some() {
            return Err(whole("the body holds more than one element"));
        }
        match (&self.body, content) {
            (Body::Empty, None) => Ok(Value::Object(Map::new())),
            (Body::Empty, Some(_)) => Err(whole("the body is not empty")),
            (Body::Element(_) | Body::Call { .. }, None) => Err(whole("the body is empty")),
            (Body::Element(id), Some(content)) => {
                let name = &schemas.declaration(*id).name;
                match name.is(content.namespace(), content.local()) {
                    true => schemas.element_to_json(*id, content, options),
                    false => Err(whole(&format!("the body holds {} instead of {name}", content.qname()))),
                }
            }
            (Body::Call { wrapper, parts }, Some(content)) => {
                match wrapper.is(content.namespace(), content.local()) {
                    true => call_to_json(schemas, parts, content, options),
                    false => Err(whole(&format!("the body holds {} instead of {wrapper}", content.qname()))),
                }
            }
        }
    }

    /// Writes `value` as the content of a SOAP body.
    ///
    /// # Errors
    /// Everything in `value` that the schema does not allow.
    pub fn to_xml(
        &self,
        schemas: &SchemaSet,
        value: &Value,
        writer: &mut Writer,
        options: &mut WriteOptions<'_>,
    ) -> Result<(), Vec<Fault>> {
        match &self.body {
            Body::Empty => match value {
                Value::Null => Ok(()),
                Value::Object(members) if members.is_empty() => Ok(()),
                _ => Err(whole("the message takes nothing")),
            },
            Body::Element(id) => schemas.element_to_xml(*id, value, writer, options),
            Body::Call { wrapper, parts } => {
                let is_whole = |part: &Part| part.member.is_none();
                if !matches!(value, Value::Object(_) | Value::Null) && !parts.iter().any(is_whole) {
                    return Err(whole("the value is not an object"));
                }
                let begin = writer.mark();
                writer.start(&wrapper.namespace, &wrapper.local);
                let faults = call_to_xml(schemas, parts, value, writer, options);
                writer.end();
                if !faults.is_empty() {
                    writer.rewind(begin);
                    return Err(faults);
                }
                Ok(())
            }
        }
    }
}

fn call_to_json(
    schemas: &SchemaSet,
    parts: &[Part],
    call: Element<'_>,
    options: ReadOptions<'_>,
) -> Result<Value, Vec<Fault>> {
    let mut members = Map::new();
    let mut faults = Vec::new();
    let mut seen = Vec::new();
    let mut whole = None;
    for child in call.elements() {
        let Some(part) = parts.iter().find(|part| part.name == child.local()) else {
            faults.push(Fault {
                pointer: format!("/{}", child.local()),
                detail: "is not known here".to_owned(),
            });
            continue;
        };
        if seen.contains(&part.name.as_str()) {
            faults.push(Fault { pointer: format!("/{}", part.name), detail: "is there twice".to_owned() });
            continue;
        }
        seen.push(part.name.as_str());
        let read = match part.holds {
            Holds::Type(id) => schemas.type_to_json(id, child, options),
            Holds::Element(id) => schemas.element_to_json(id, child, options),
        };
        match (read, &part.member) {
            (Ok(value), Some(member)) => drop(members.insert(member.clone(), value)),
            (Ok(value), None) => whole = Some(value),
            (Err(found), _) => faults.extend(found.into_iter().map(|fault| inside(part, fault))),
        }
    }
    for part in parts.iter().filter(|part| !seen.contains(&part.name.as_str())) {
        faults.push(missing(part));
    }
    if faults.is_empty() { Ok(whole.unwrap_or(Value::Object(members))) } else { Err(faults) }
}

fn call_to_xml(
    schemas: &SchemaSet,
    parts: &[Part],
    whole: &Value,
    writer: &mut Writer,
    options: &mut WriteOptions<'_>,
) -> Vec<Fault> {
    let mut faults = Vec::new();
    for part in parts {
        // A part is always there, and never nil (WS-I Basic Profile 1.1, R2211).
        let value = part.member.as_ref().map_or(whole, |member| whole.get(member).unwrap_or(&Value::Null));
        let written = match part.holds {
            Holds::Type(_) if value.is_null() => {
                faults.push(missing(part));
                continue;
            }
            Holds::Type(id) => schemas.type_to_xml(id, ("", &part.name), value, writer, options),
            Holds::Element(id) => schemas.element_to_xml(id, value, writer, options),
        };
        if let Err(found) = written {
            faults.extend(found.into_iter().map(|fault| inside(part, fault)));
        }
    }
    let is_known =
        |key: &str| parts.iter().any(|part| part.member.as_ref().is_none_or(|member| member == key));
    if let (Value::Object(members), UnknownMembers::Refuse) = (whole, options.unknown) {
        for key in members.keys().filter(|key| !is_known(key)) {
            faults.push(Fault { pointer: format!("/{key}"), detail: "is not known here".to_owned() });
        }
    }
    faults
}

fn inside(part: &Part, fault: Fault) -> Fault {
    Fault { pointer: format!("{}{}", pointer(part), fault.pointer), ..fault }
}

fn missing(part: &Part) -> Fault {
    Fault { pointer: pointer(part), detail: "is required".to_owned() }
}

/// Where a part is in the JSON.
fn pointer(part: &Part) -> String {
    let escaped = |member: &String| format!("/{}", member.replace('~', "~0").replace('/', "~1"));
    part.member.as_ref().map(escaped).unwrap_or_default()
}

fn whole(detail: &str) -> Vec<Fault> {
    vec![Fault { pointer: String::new(), detail: detail.to_owned() }]
}
