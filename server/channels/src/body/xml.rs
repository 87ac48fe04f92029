//! The mapping between XML and JSON.
//!
//! XML to JSON: the root element's name falls away. An element with child elements or attributes is an
//! object: children by local name (repeated ones become an array), attributes as `@name`, text beside them as
//! `#text`. Any other element is its text, or `null` with `xsi:nil="true"`. Namespace declarations and
//! prefixes fall away, as do comments, processing instructions, and white space between elements. All values
//! are text; where the service declares its input, they become numbers, booleans, arrays as declared.
//!
//! JSON to XML: the inverse, under a root element `response`. Array members repeat their element; those of
//! an array in an array, or at the root, are called `item`. `null` is `xsi:nil="true"`. A character that an
//! element name cannot hold is written `_xHHHH_`; one that XML cannot hold at all becomes U+FFFD.
//!
//! Refused (400): a document type declaration, so there are no entities but the five predefined ones and
//! character references; more nesting than [`MAX_DOCUMENT_DEPTH`]; anything not well-formed. The result is
//! never much larger than the document, which the body limit bounds.

use std::fmt::Write as _;

use crosstie_model::limits::MAX_DOCUMENT_DEPTH;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use serde_json::{Map, Value};

/// Why a document was refused.
#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    /// Not well-formed.
    #[error("the XML is malformed at byte {at}: {detail}")]
    Malformed {
        /// Where.
        at: u64,
        /// What the parser says.
        detail: String,
    },
    /// A DOCTYPE.
    #[error("a document type declaration is not allowed")]
    Doctype,
    /// An entity that is not predefined.
    #[error("the entity {0:?} is not defined")]
    Entity(String),
    /// Too deep.
    #[error("the XML nests deeper than {MAX_DOCUMENT_DEPTH} elements")]
    TooDeep,
    /// No element, or more than one, at the top.
    #[error("a document has exactly one root element")]
    Root,
}

/// An element being read.
struct Open {
    name: String,
    members: Map<String, Value>,
    text: String,
    nil: bool,
}

/// Maps a document to JSON.
///
/// # Errors
/// [`XmlError`].
pub fn to_json(document: &str) -> Result<Value, XmlError> {
    let mut reader = Reader::from_str(document.strip_prefix('\u{feff}').unwrap_or(document));
    reader.config_mut().expand_empty_elements = true;
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    loop {
        let at = reader.buffer_position();
        let malformed = |detail: String| XmlError::Malformed { at, detail };
        match reader.read_event().map_err(|error| malformed(error.to_string()))? {
            Event::Start(start) => {
                if root.is_some() {
                    return Err(XmlError::Root);
                }
                if open.len() == MAX_DOCUMENT_DEPTH {
                    return Err(XmlError::TooDeep);
                }
                open.push(begin(&start).map_err(malformed)?);
            }
            Event::End(_) => {
                let Some(element) = open.pop() else { return Err(XmlError::Root) };
                let name = element.name.clone();
                let value = finish(element);
                match open.last_mut() {
                    Some(parent) => add(&mut parent.members, name, value),
                    None => root = Some(value),
                }
            }
            Event::Text(text) => add_text(&mut open, &text.xml10_content())?,
            Event::CData(text) => match open.last_mut() {
                Some(element) => element.text.push_str(&text.xml10_content()),
                None => return Err(XmlError::Root),
            },
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().map_err(|error| malformed(error.to_string()))?;
                let resolved = match (character, &*reference) {
                    (Some(character), _) => character,
                    (None, "lt") => '<',
                    (None, "gt") => '>',
                    (None, "amp") => '&',
                    (None, "apos") => '\'',
                    (None, "quot") => '"',
                    (None, other) => return Err(XmlError::Entity(other.to_owned())),
                };
                match open.last_mut() {
                    Some(element) => element.text.push(resolved),
                    None => return Err(XmlError::Root),
                }
            }
            Event::DocType(_) => return Err(XmlError::Doctype),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    if !open.is_empty() {
        return Err(XmlError::Root);
    }
    root.ok_or(XmlError::Root)
}

fn add_text(open: &mut [Open], text: &str) -> Result<(), XmlError> {
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err(XmlError::Root),
    }
    Ok(())
}

fn begin(start: &BytesStart<'_>) -> Result<Open, String> {
    let name = start.local_name().as_ref().to_owned();
    let mut element = Open { name, members: Map::new(), text: String::new(), nil: false };
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let key = attribute.key;
        if key.as_namespace_binding().is_some() {
            continue;
        }
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|error| error.to_string())?;
        let local = key.local_name();
        let local: &str = local.as_ref();
        if local == "nil" && key.prefix().is_some() {
            element.nil = matches!(&*value, "true" | "1");
        } else {
            element.members.insert(format!("@{local}"), Value::String(value.into_owned()));
        }
    }
    Ok(element)
}

fn finish(mut element: Open) -> Value {
    if element.nil {
        return Value::Null;
    }
    if element.members.is_empty() {
        return Value::String(element.text);
    }
    let text = element.text.trim();
    if !text.is_empty() {
        element.members.insert("#text".to_owned(), Value::String(text.to_owned()));
    }
    Value::Object(element.members)
}

fn add(members: &mut Map<String, Value>, name: String, value: Value) {
    match members.get_mut(&name) {
        Some(Value::Array(values)) => values.push(value),
        // Only this function makes arrays, so anything else here is a first occurrence.
        Some(first) => {
            let first_value = first.take();
            *first = Value::Array(vec![first_value, value]);
        }
        None => {
            members.insert(name, value);
        }
    }
}

const NIL: &str = " xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:nil=\"true\"";

/// Maps JSON to a document with the root element `response`.
#[must_use]
pub fn from_json(value: &Value) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    match value {
        Value::Array(members) => {
            out.push_str("<response>");
            members.iter().for_each(|member| write_element(&mut out, "item", member));
            out.push_str("</response>");
        }
        other => write_element(&mut out, "response", other),
    }
    out
}

/// Writes one element. Recursion is bounded: serde_json reads no deeper than 128.
fn write_element(out: &mut String, name: &str, value: &Value) {
    let name = element_name(name);
    let _ = write!(out, "<{name}");
    match value {
        Value::Null => {
            out.push_str(NIL);
            out.push_str("/>");
            return;
        }
        Value::Object(members) => write_object(out, members),
        Value::Array(members) => {
            out.push('>');
            members.iter().for_each(|member| write_element(out, "item", member));
        }
        Value::String(text) => {
            out.push('>');
            write_text(out, text);
        }
        Value::Bool(_) | Value::Number(_) => {
            let _ = write!(out, ">{value}");
        }
    }
    let _ = write!(out, "</{name}>");
}

fn write_object(out: &mut String, members: &Map<String, Value>) {
    let scalar = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    let attribute = |key: &str, value: &Value| Some((key.strip_prefix('@')?.to_owned(), scalar(value)?));
    for (key, value) in members {
        if let Some((key, text)) = attribute(key, value) {
            let _ = write!(out, " {}=\"", element_name(&key));
            write_text(out, &text);
            out.push('"');
        }
    }
    out.push('>');
    for (key, value) in members {
        if attribute(key, value).is_some() {
            continue;
        }
        match (key.as_str(), value) {
            ("#text", value) if scalar(value).is_some() => {
                write_text(out, &scalar(value).unwrap_or_default());
            }
            (key, Value::Array(values)) => values.iter().for_each(|value| write_element(out, key, value)),
            (key, value) => write_element(out, key, value),
        }
    }
}

fn write_text(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            // Kept apart from the line ends that a parser normalises.
            '\r' => out.push_str("&#13;"),
            '\t' | '\n' => out.push(character),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
}

/// `name` with everything an XML name without a colon cannot hold written as `_xHHHH_`.
fn element_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, character) in name.chars().enumerate() {
        let start = character.is_alphabetic() || character == '_';
        let later = character.is_alphanumeric() || matches!(character, '-' | '.');
        if start || (at > 0 && later) {
            out.push(character);
        } else {
            let _ = write!(out, "_x{:04X}_", u32::from(character));
        }
    }
    if out.is_empty() { "_".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_document_becomes_json() {
        let document = r#"<?xml version="1.0"?><!-- c --><c:customer xmlns:c="urn:x" id="7" c:kind="a&amp;b">
            <name>Ada &lt;3 &#233;</name><tag>a</tag><tag>b</tag><tag/>
            <address city="Paris">Rue <b>1</b></address>
            <gone xsi:nil="true" xmlns:xsi="urn:i"/><raw><![CDATA[<x>]]></raw></c:customer>"#;
        assert_eq!(
            to_json(document).unwrap(),
            json!({"@id": "7", "@kind": "a&b", "name": "Ada <3 é", "tag": ["a", "b", ""],
                "address": {"@city": "Paris", "b": "1", "#text": "Rue"}, "gone": null, "raw": "<x>"})
        );
        assert_eq!(to_json("<a> x </a>").unwrap(), json!(" x "));
    }

    #[test]
    fn dangerous_and_broken_documents_are_refused() {
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bb\">]><a>&b;</a>";
        assert!(matches!(to_json(bomb), Err(XmlError::Doctype)));
        assert!(matches!(to_json("<a>&b;</a>"), Err(XmlError::Entity(_))));
        assert!(to_json("<a b='&c;'/>").is_err());
        let deep = |n: usize| "<a>".repeat(n) + &"</a>".repeat(n);
        assert!(to_json(&deep(MAX_DOCUMENT_DEPTH)).is_ok());
        assert!(matches!(to_json(&deep(MAX_DOCUMENT_DEPTH + 1)), Err(XmlError::TooDeep)));
        for broken in
            ["", "text", "<a>", "<a></b>", "<a/><b/>", "<a/>x", "<a b></a>", "<a", "</a>", "<a b='1' b='2'/>"]
        {
            assert!(to_json(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn json_becomes_a_document() {
        let value = json!({"@id": 7, "name": "A<b>&\"", "tags": ["x", [1, 2]], "none": null,
            "two words": true, "1st": {"#text": "t", "@a": "b"}});
        assert_eq!(
            from_json(&value).split_once('\n').unwrap().1,
            "<response id=\"7\"><name>A&lt;b&gt;&amp;&quot;</name><tags>x</tags>\
             <tags><item>1</item><item>2</item></tags>\
             <none xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:nil=\"true\"/>\
             <two_x0020_words>true</two_x0020_words><_x0031_st a=\"b\">t</_x0031_st></response>"
        );
        assert!(from_json(&json!([1, "a"])).ends_with("<response><item>1</item><item>a</item></response>"));
        assert!(from_json(&json!("\u{1}")).ends_with("<response>\u{fffd}</response>"));
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = "[ -~äß\n]{1,8}"
            .prop_filter("white space around text is not kept", |t| t.trim() == t)
            .prop_map(Value::String);
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop::collection::btree_map("[a-z][a-z0-9 :]{0,4}", inner, 1..4)
                .prop_map(|members| Value::Object(members.into_iter().collect()))
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_well_formed(value in tree()) {
            let read = to_json(&from_json(&value)).unwrap();
            if !value.to_string().contains([' ', ':']) {
                prop_assert_eq!(read, value);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}", tags in "[<>/a&;!?='\" \\[\\]-]{0,60}") {
            let _ = to_json(&text);
            let _ = to_json(&tags);
            let _ = to_json(&format!("<a>{tags}</a>"));
        }
    }
}
