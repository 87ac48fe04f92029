//! XML bodies: the untyped mapping of [`crosstie_xml::untyped`], under a root element `response`.
//!
//! All values are text; where the service declares its input, they become numbers, booleans, arrays as
//! declared. What is refused (400) is what [`crosstie_xml`] refuses: a document type declaration, more nesting
//! than the settings allow, anything not well-formed. The body limit bounds everything else.

use crosstie_xml::untyped;
use crosstie_xml::{Document, Limits, XmlError};
use serde_json::Value;

/// Maps a document that nests at most `depth` deep to JSON.
///
/// # Errors
/// The document is refused, with the place.
pub fn to_json(document: &str, depth: usize) -> Result<Value, XmlError> {
    let limits =
        Limits { bytes: usize::MAX, text_bytes: usize::MAX, nodes: usize::MAX, depth, ..Limits::default() };
    Ok(untyped::to_json(Document::parse(document, &limits)?.root()))
}

/// Maps JSON to a document with the root element `response`.
#[must_use]
pub fn from_json(value: &Value) -> String {
    untyped::document("response", value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosstie_model::limits::MAX_DOCUMENT_DEPTH;
    use crosstie_xml::Reason;
    use serde_json::json;

    #[test]
    fn documents_and_json_are_mapped_both_ways() {
        let value = json!({"@id": "7", "name": "A<b>", "tag": ["a", "b"], "none": null});
        assert_eq!(
            from_json(&value).split_once('\n').unwrap().1,
            "<response id=\"7\"><name>A&lt;b&gt;</name><tag>a</tag><tag>b</tag>\
             <none xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:nil=\"true\"/></response>"
        );
        assert_eq!(to_json(&from_json(&value), MAX_DOCUMENT_DEPTH).unwrap(), value);
    }

    #[test]
    fn dangerous_documents_are_refused() {
        let refused = |text: &str| to_json(text, MAX_DOCUMENT_DEPTH).unwrap_err().reason;
        assert_eq!(refused("<!DOCTYPE a [<!ENTITY b \"bb\">]><a>&b;</a>"), Reason::Doctype);
        assert_eq!(refused("<a>&b;</a>"), Reason::Entity("b".into()));
        let deep = |n: usize| "<a>".repeat(n) + &"</a>".repeat(n);
        assert!(to_json(&deep(MAX_DOCUMENT_DEPTH), MAX_DOCUMENT_DEPTH).is_ok());
        assert!(matches!(refused(&deep(MAX_DOCUMENT_DEPTH + 1)), Reason::Limit { .. }));
    }
}
