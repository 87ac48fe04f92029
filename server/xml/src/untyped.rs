//! The mapping between XML and JSON where no schema says what things are.
//!
//! XML to JSON: the element's own name falls away. An element with child elements or attributes is an object:
//! children by local name (repeated ones become an array), attributes as `@name`, text beside them as
//! `#text`. Any other element is its text, or `null` with `xsi:nil="true"`. Namespaces and prefixes fall away,
//! as does white space between elements. All values are text.
//!
//! JSON to XML: the inverse. Array members repeat their element; those of an array in an array, or at the top,
//! are called `item`. `null` is `xsi:nil="true"`. A character that a name cannot hold is written `_xHHHH_`; one
//! that XML cannot hold at all becomes U+FFFD.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::chars::trim;
use crate::document::Element;
use crate::namespace::{XSD, XSI};
use crate::writer::Writer;

/// The JSON of `element`.
#[must_use]
pub fn to_json(element: Element<'_>) -> Value {
    read(element, &mut |_| None)
}

/// Reads `element`, asking `known` first for the value of each element. Recursion is bounded by the depth that
/// documents may have.
pub(crate) fn read<'d>(element: Element<'d>, known: &mut dyn FnMut(Element<'d>) -> Option<Value>) -> Value {
    if element.is_nil() {
        return Value::Null;
    }
    let mut members = Map::new();
    for attribute in element.attributes() {
        if attribute.namespace == XSI && matches!(attribute.local, "nil" | "type") {
            continue;
        }
        members.insert(format!("@{}", attribute.local), Value::String(attribute.value.to_owned()));
    }
    for child in element.elements() {
        let value = known(child).unwrap_or_else(|| read(child, known));
        add(&mut members, child.local(), value);
    }
    if members.is_empty() {
        return Value::String(element.text().into_owned());
    }
    let text = element.text();
    if !trim(&text).is_empty() {
        members.insert("#text".to_owned(), Value::String(trim(&text).to_owned()));
    }
    Value::Object(members)
}

/// Adds a value; the second of one name makes an array of the first.
pub(crate) fn add(members: &mut Map<String, Value>, name: &str, value: Value) {
    match members.get_mut(name) {
        // Only this function makes arrays of what it is given, so anything else is a first occurrence.
        Some(Value::Array(values)) => values.push(value),
        Some(first) => {
            let first_value = first.take();
            *first = Value::Array(vec![first_value, value]);
        }
        None => {
            members.insert(name.to_owned(), value);
        }
    }
}

/// Makes arrays of what elements of these local names became where there was one of them: a list of one looks like
/// none otherwise.
pub fn make_arrays(value: &mut Value, names: &BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                make_arrays(member, names);
                if !member.is_array() && names.contains(name) {
                    *member = Value::Array(vec![member.take()]);
                }
            }
        }
        Value::Array(members) => members.iter_mut().for_each(|member| make_arrays(member, names)),
        _ => {}
    }
}

/// The document whose element `root` is `value`.
#[must_use]
pub fn document(root: &str, value: &Value) -> String {
    let mut writer = Writer::document();
    writer.prefer("xsi", XSI);
    write(&mut writer, "", root, value, Scalars::Plain);
    writer.finish()
}

/// Whether scalars say of which type they are, with `xsi:type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalars {
    /// As plain text.
    Plain,
    /// With their type, so that a reader without schema can tell a number from text.
    Typed,
}

/// Writes `value` as the element `local` of `namespace` (empty for none). Its members are in no namespace.
pub fn write(writer: &mut Writer, namespace: &str, local: &str, value: &Value, scalars: Scalars) {
    writer.start(namespace, local);
    write_content(writer, value, scalars);
    writer.end();
}

/// Writes attributes and content of the element just begun. Recursion is bounded: serde_json reads no deeper
/// than 128.
pub fn write_content(writer: &mut Writer, value: &Value, scalars: Scalars) {
    match value {
        Value::Null => writer.attribute(XSI, "nil", "true"),
        Value::Array(members) => members.iter().for_each(|member| write(writer, "", "item", member, scalars)),
        Value::Object(members) => write_object(writer, members, scalars),
        Value::String(_) | Value::Bool(_) | Value::Number(_) => {
            if scalars == Scalars::Typed {
                writer.name_attribute(XSI, "type", (XSD, scalar_type(value)));
            }
            writer.text(&scalar(value).unwrap_or_default());
        }
    }
}

fn write_object(writer: &mut Writer, members: &Map<String, Value>, scalars: Scalars) {
    let attribute = |key: &str, value: &Value| Some((key.strip_prefix('@')?.to_owned(), scalar(value)?));
    for (key, value) in members {
        if let Some((name, text)) = attribute(key, value) {
            writer.attribute("", &name, &text);
        }
    }
    for (key, value) in members {
        if attribute(key, value).is_some() {
            continue;
        }
        match (key.as_str(), value) {
            ("#text", value) if scalar(value).is_some() => writer.text(&scalar(value).unwrap_or_default()),
            (key, Value::Array(values)) => {
                values.iter().for_each(|value| write(writer, "", key, value, scalars));
            }
            (key, value) => write(writer, "", key, value, scalars),
        }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

fn scalar_type(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() => "long",
        Value::Number(number) if number.is_u64() => "unsignedLong",
        Value::Number(_) => "double",
        _ => "string",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{Document, Limits};

    fn read_text(text: &str) -> Value {
        to_json(Document::parse(text, &Limits::default()).unwrap().root())
    }

    fn written(value: &Value, scalars: Scalars) -> String {
        let mut writer = Writer::new();
        write(&mut writer, "", "response", value, scalars);
        writer.finish()
    }

    #[test]
    fn a_document_becomes_json() {
        let document = r#"<?xml version="1.0"?><!-- c --><c:customer xmlns:c="urn:x" id="7" c:kind="a&amp;b">
            <name>Ada &lt;3 &#233;</name><tag>a</tag><tag>b</tag><tag/>
            <address city="Paris">Rue <b>1</b></address>
            <gone xsi:nil="true" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"/>
            <raw><![CDATA[<x>]]></raw></c:customer>"#;
        assert_eq!(
            read_text(document),
            json!({"@id": "7", "@kind": "a&b", "name": "Ada <3 é", "tag": ["a", "b", ""],
                "address": {"@city": "Paris", "b": "1", "#text": "Rue"}, "gone": null, "raw": "<x>"})
        );
        assert_eq!(read_text("<a> x </a>"), json!(" x "));
    }

    #[test]
    fn json_becomes_a_document() {
        let value = json!({"@id": 7, "name": "A<b>&\"", "tags": ["x", [1, 2]], "none": null,
            "two words": true, "1st": {"#text": "t", "@a": "b"}});
        assert_eq!(
            written(&value, Scalars::Plain),
            "<response id=\"7\"><name>A&lt;b&gt;&amp;\"</name><tags>x</tags>\
             <tags><item>1</item><item>2</item></tags>\
             <none xmlns:ns1=\"http://www.w3.org/2001/XMLSchema-instance\" ns1:nil=\"true\"/>\
             <two_x0020_words>true</two_x0020_words><_x0031_st a=\"b\">t</_x0031_st></response>"
        );
        assert_eq!(
            written(&json!([1, "a"]), Scalars::Plain),
            "<response><item>1</item><item>a</item></response>"
        );
        assert_eq!(written(&json!("\u{1}"), Scalars::Plain), "<response>\u{fffd}</response>");
        assert!(written(&json!(1.5), Scalars::Typed).contains("ns2:type=\"ns1:double\">1.5</"));
    }

    #[test]
    fn lists_of_one_become_arrays_where_that_is_wanted() {
        let names = BTreeSet::from(["line".to_owned(), "tag".to_owned()]);
        let mut value = json!({"line": {"tag": "a"}, "other": {"line": ["b", {"tag": null}]}, "tags": "c"});
        make_arrays(&mut value, &names);
        assert_eq!(
            value,
            json!({"line": [{"tag": ["a"]}], "other": {"line": ["b", {"tag": [null]}]}, "tags": "c"})
        );
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = "[ -~äß\n]{1,8}"
            .prop_filter("white space around text is not kept", |t| t.trim() == t)
            .prop_map(Value::String);
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop::collection::btree_map("[a-z][a-z0-9]{0,4}", inner, 1..4)
                .prop_map(|members| Value::Object(members.into_iter().collect()))
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in tree()) {
            prop_assert_eq!(read_text(&written(&value, Scalars::Plain)), value.clone());
            prop_assert_eq!(read_text(&written(&value, Scalars::Typed)), value);
        }
    }
}
