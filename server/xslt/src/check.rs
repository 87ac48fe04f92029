//! What is looked at before libxslt sees a stylesheet.

use crosstie_model::definition::StylesheetDefinition;
use crosstie_xml::{Document, Element, Limits};

/// The namespace of XSLT.
const XSLT: &str = "http://www.w3.org/1999/XSL/Transform";

/// Looks a stylesheet over, and the documents beside it.
///
/// # Errors
/// What is wrong, each with its place.
pub(crate) fn check(definition: &StylesheetDefinition) -> Result<(), Vec<String>> {
    let mut faults = check_document(&definition.text);
    for (name, text) in &definition.documents {
        faults.extend(check_document(text).into_iter().map(|fault| format!("{name}: {fault}")));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

fn check_document(text: &str) -> Vec<String> {
    // Many declarations are ordinary here.
    let limits = Limits { attributes: 512, namespaces: 512, ..Limits::default() };
    let document = match Document::parse(text, &limits) {
        Ok(document) => document,
        Err(error) => return vec![error.to_string()],
    };
    let root = document.root();
    let mut faults = Vec::new();
    let version = match root.is(XSLT, "stylesheet") || root.is(XSLT, "transform") {
        true => root.attribute("", "version"),
        false => root.attribute(XSLT, "version"),
    };
    match version {
        Some("1.0" | "1.1") => {}
        Some(other) => {
            faults.push(told(root, &format!("is of version {other:?}; XSLT 1.0 is understood here")));
        }
        None if root.namespace() == XSLT => faults.push(told(root, "has no version")),
        None => faults.push(told(root, &format!("is no stylesheet: xsl:stylesheet of {XSLT} would be one"))),
    }
    walk(root, &mut faults);
    faults
}

/// Finds what refers elsewhere than to documents beside the stylesheet. Recursion is bounded by the depth that documents
/// may have.
fn walk(element: Element<'_>, faults: &mut Vec<String>) {
    if element.namespace() == XSLT && matches!(element.local(), "include" | "import") {
        let location = element.attribute("", "href").unwrap_or_default();
        if location.contains([':', '\\']) || location.starts_with('/') {
            let what = format!("refers to {location:?}, which is not one of the definition's documents");
            faults.push(told(element, &what));
        }
    }
    element.elements().for_each(|child| walk(child, faults));
}

fn told(element: Element<'_>, what: &str) -> String {
    format!("line {}, element {} {what}", element.place().0, element.local())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(text: &str) -> Vec<String> {
        check(&serde_json::from_value(json!({"text": text})).unwrap()).err().unwrap_or_default()
    }

    fn within(body: &str) -> Vec<String> {
        faults(&format!("<xsl:stylesheet version='1.0' xmlns:xsl='{XSLT}'>\n{body}\n</xsl:stylesheet>"))
    }

    #[test]
    fn nothing_refers_outside() {
        assert_eq!(within("<xsl:template match='/'><a><b/></a></xsl:template>"), [] as [&str; 0]);
        assert_eq!(within("<xsl:include href='a.xsl'/><xsl:import href='../b/c.xsl'/>"), [] as [&str; 0]);
        for name in ["include", "import"] {
            for location in ["file:///etc/passwd", "/etc/passwd", "http://127.0.0.1:1/a.xsl", "//host/a.xsl"]
            {
                let expected = format!(
                    "line 2, element {name} refers to {location:?}, which is not one of the definition's documents"
                );
                assert_eq!(within(&format!("<xsl:{name} href='{location}'/>")), [expected]);
            }
        }
        let entities = "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>";
        assert_eq!(faults(entities), ["a document type declaration is not allowed (line 1, column 1)"]);
        assert!(faults("<a>\n<b></a>")[0].contains("line 2"));
    }

    #[test]
    fn only_what_is_understood_passes() {
        let of = |text: &str| faults(text).join("; ");
        assert!(of("<a/>").contains("is no stylesheet"));
        assert!(of(&format!("<xsl:stylesheet xmlns:xsl='{XSLT}'/>")).contains("has no version"));
        let other = of(&format!("<xsl:transform version='2.0' xmlns:xsl='{XSLT}'/>"));
        assert!(other.contains("\"2.0\"") && other.contains("1.0"), "{other}");
        assert_eq!(of(&format!("<a xsl:version='1.0' xmlns:xsl='{XSLT}'><b/></a>")), "");
    }

    #[test]
    fn documents_beside_a_stylesheet_are_looked_at_too() {
        let text = format!("<xsl:stylesheet version='1.0' xmlns:xsl='{XSLT}'/>");
        let body = json!({"text": text, "documents": {"a.xsl": text, "b.xsl": "<!DOCTYPE a><a/>"}});
        let told = check(&serde_json::from_value(body).unwrap()).unwrap_err();
        assert_eq!(told, ["b.xsl: a document type declaration is not allowed (line 1, column 1)"]);
    }
}
