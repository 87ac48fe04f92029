//! Finding the documents of a description: a WSDL or a schema and all that they import or include.
//!
//! Nothing is fetched here. The caller hands over each document by its location, and every location is asked
//! for once.

use std::collections::HashMap;

use crate::document::{Document, Element};
use crate::encoding::decode;
use crate::error::XmlError;
use crate::limits::Limits;
use crate::namespace::XSD;
use crate::xsd::KNOWN_SCHEMAS;

/// WSDL 1.1.
pub(crate) const WSDL: &str = "http://schemas.xmlsoap.org/wsdl/";

/// How many documents one description may have.
const MAX_DOCUMENTS: usize = 256;
/// How large they may be together, in bytes.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Hands over the bytes of the document at a location, or says why it cannot.
pub type Resolver<'r> = &'r mut dyn FnMut(&str) -> Result<Vec<u8>, String>;

/// A WSDL or a schema that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DescriptionError {
    /// A document that is no XML.
    #[error("{location}: {source}")]
    Document {
        /// Which document.
        location: String,
        /// What is wrong with it.
        source: XmlError,
    },
    /// A document that could not be had.
    #[error("{location}: {detail}")]
    Missing {
        /// Which document.
        location: String,
        /// Why, as the resolver said.
        detail: String,
    },
    /// It breaks a rule of WSDL or XML Schema, or uses a part of them that is not supported.
    #[error("{location}, line {line}, column {column}: {detail}")]
    Invalid {
        /// Which document.
        location: String,
        /// The line, counted from 1.
        line: usize,
        /// The column, counted from 1.
        column: usize,
        /// What is wrong there.
        detail: String,
    },
    /// It is larger than anything sensible.
    #[error("the description has more than {most} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        most: usize,
    },
}

/// Where schemas of standards are published. Descriptions import them by these addresses, often without using
/// them, and nobody should have to hand them over.
const STANDARDS: [&str; 3] = ["www.w3.org", "schemas.xmlsoap.org", "docs.oasis-open.org"];

/// All documents of a description, the one asked for first.
pub(crate) struct Sources {
    pub(crate) all: Vec<Source>,
    /// What is done without, for a person.
    pub(crate) warnings: Vec<String>,
    places: HashMap<String, usize>,
}

/// A document that another one refers to.
struct Reference {
    location: String,
    /// Whether it is done without, if it cannot be had.
    is_optional: bool,
}

pub(crate) struct Source {
    pub(crate) location: String,
    pub(crate) document: Document<'static>,
}

impl Sources {
    /// Reads the document at `entry` and all that it leads to.
    pub(crate) fn load(entry: &str, resolver: Resolver<'_>) -> Result<Self, DescriptionError> {
        let mut sources = Self { all: Vec::new(), warnings: Vec::new(), places: HashMap::new() };
        let mut waiting = vec![Reference { location: entry.to_owned(), is_optional: false }];
        let mut bytes = 0;
        while let Some(Reference { location, is_optional }) = waiting.pop() {
            if sources.places.contains_key(&location) {
                continue;
            }
            if sources.all.len() == MAX_DOCUMENTS {
                return Err(DescriptionError::TooLarge { what: "documents", most: MAX_DOCUMENTS });
            }
            let document = match read(&location, &mut bytes, &mut *resolver) {
                Err(error @ (DescriptionError::Missing { .. } | DescriptionError::Document { .. }))
                    if is_optional =>
                {
                    sources.warnings.push(format!("done without: {error}"));
                    continue;
                }
                outcome => outcome?,
            };
            waiting.extend(references(document.root(), &location).into_iter().rev());
            sources.places.insert(location.clone(), sources.all.len());
            sources.all.push(Source { location, document });
        }
        Ok(sources)
    }

    /// The document that `reference`, an import or include in the document at `base`, leads to.
    pub(crate) fn target(&self, base: &str, reference: Element<'_>) -> Option<usize> {
        self.places.get(&target(base, reference)?).copied()
    }
}

fn read(
    location: &str,
    bytes: &mut usize,
    resolver: Resolver<'_>,
) -> Result<Document<'static>, DescriptionError> {
    let text = match known(location) {
        Some(text) => text.as_bytes().to_vec(),
        None => resolver(location)
            .map_err(|detail| DescriptionError::Missing { location: location.to_owned(), detail })?,
    };
    *bytes += text.len();
    if *bytes > MAX_BYTES {
        return Err(DescriptionError::TooLarge { what: "bytes", most: MAX_BYTES });
    }
    let refused = |source| DescriptionError::Document { location: location.to_owned(), source };
    let text = decode(&text, None).map_err(refused)?.into_owned();
    Document::parse(text, &Limits::default()).map_err(refused)
}

/// The schemas in a document: itself, or those in the types of a WSDL.
pub(crate) fn schemas(root: Element<'_>) -> Vec<Element<'_>> {
    if root.is(XSD, "schema") {
        return vec![root];
    }
    let types = root.elements().filter(|child| child.is(WSDL, "types"));
    types.flat_map(|types| types.elements()).filter(|child| child.is(XSD, "schema")).collect()
}

/// Where the imports and includes of a document lead.
fn references(root: Element<'_>, base: &str) -> Vec<Reference> {
    let in_schemas = schemas(root).into_iter().flat_map(|schema| schema.elements());
    let in_schemas = in_schemas.filter(|child| child.is(XSD, "import") || child.is(XSD, "include"));
    let imports = root.elements().filter(|child| child.is(WSDL, "import"));
    in_schemas
        .chain(imports)
        .filter_map(|reference| {
            let location = target(base, reference)?;
            let host = location.split_once("://").and_then(|(_, rest)| rest.split('/').next());
            let is_standard = host.is_some_and(|host| STANDARDS.contains(&host));
            // gSOAP says of every namespace that it is found there.
            let is_nowhere = reference.attribute("", "namespace") == Some(location.as_str());
            let is_optional = reference.is(XSD, "import") && (is_standard || is_nowhere);
            Some(Reference { location, is_optional })
        })
        .collect()
}

fn target(base: &str, reference: Element<'_>) -> Option<String> {
    let namespace = reference.attribute("", "namespace").unwrap_or_default();
    if reference.local() == "import" && known(namespace).is_some() {
        return Some(namespace.to_owned());
    }
    let attribute = if reference.namespace() == WSDL { "location" } else { "schemaLocation" };
    reference.attribute("", attribute).map(|location| join(base, crate::chars::trim(location)))
}

/// The schema of a namespace that is known here; its namespace is its location.
fn known(namespace: &str) -> Option<&'static str> {
    KNOWN_SCHEMAS.iter().find(|(known, _)| *known == namespace).map(|(_, text)| *text)
}

/// `location` as seen from the document at `base` (RFC 3986, section 5.2); both may be relative.
pub(crate) fn join(base: &str, location: &str) -> String {
    let location = location.split('#').next().unwrap_or_default();
    let has_scheme = location.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
    });
    if has_scheme {
        return location.to_owned();
    }
    let base = base.split(['?', '#']).next().unwrap_or_default();
    let root_at = match base.find("://") {
        Some(scheme) => {
            let authority = base.get(scheme + 3..).unwrap_or_default();
            scheme + 3 + authority.find('/').unwrap_or(authority.len())
        }
        None => 0,
    };
    let (root, path) = base.split_at(root_at);
    if location.is_empty() {
        return base.to_owned();
    }
    if location.starts_with('?') {
        return format!("{base}{location}");
    }
    let (relative, query) = match location.split_once('?') {
        Some((relative, query)) => (relative, Some(query)),
        None => (location, None),
    };
    let directory = path.rfind('/').map_or("", |slash| path.get(..=slash).unwrap_or_default());
    let joined =
        if relative.starts_with('/') { relative.to_owned() } else { format!("{directory}{relative}") };
    let mut kept: Vec<&str> = Vec::new();
    for segment in joined.split('/') {
        match segment {
            "." => {}
            // The first, empty one is the slash that the path begins with.
            ".." if kept.last().is_some_and(|last| !last.is_empty() && *last != "..") => {
                kept.pop();
            }
            ".." if joined.starts_with('/') => {}
            other => kept.push(other),
        }
    }
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let slash = if !root.is_empty() && !joined.starts_with('/') { "/" } else { "" };
    format!("{root}{slash}{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined_as_urls_and_paths_are() {
        for (base, location, joined) in [
            ("http://a/b/c?wsdl", "d.xsd", "http://a/b/d.xsd"),
            ("http://a/b/c?wsdl", "../d.xsd#x", "http://a/d.xsd"),
            ("http://a/b/c", "/d?xsd=1/2", "http://a/d?xsd=1/2"),
            ("http://a/b/c?wsdl", "?xsd=1", "http://a/b/c?xsd=1"),
            ("http://a", "d", "http://a/d"),
            ("http://a/b", "https://c/d", "https://c/d"),
            ("a.wsdl", "b.xsd", "b.xsd"),
            ("x/a.wsdl", "./y/../b.xsd", "x/b.xsd"),
            ("x/a.wsdl", "../../b.xsd", "../b.xsd"),
            ("/x/a.wsdl", "../../b.xsd", "/b.xsd"),
            ("file:///x/a.wsdl", "b.xsd", "file:///x/b.xsd"),
            ("a.wsdl", "urn:b", "urn:b"),
        ] {
            assert_eq!(join(base, location), joined, "{base} {location}");
        }
    }

    #[test]
    fn each_document_is_asked_for_once_and_circles_end() {
        let schema = |body: &str| {
            format!(
                "<s:schema xmlns:s='http://www.w3.org/2001/XMLSchema' targetNamespace='urn:t'>{body}</s:schema>"
            )
        };
        let mut asked = Vec::new();
        let mut resolver = |location: &str| {
            asked.push(location.to_owned());
            match location {
                "d/a.xsd" => Ok(schema("<s:include schemaLocation='b.xsd'/><s:include schemaLocation='c/c.xsd'/>\
                    <s:import namespace='http://www.w3.org/XML/1998/namespace' schemaLocation='http://x/xml.xsd'/>")
                    .into_bytes()),
                "d/b.xsd" => Ok(schema("<s:include schemaLocation='a.xsd'/>").into_bytes()),
                "d/c/c.xsd" => Ok(schema("<s:include schemaLocation='../b.xsd'/>").into_bytes()),
                other => Err(format!("no {other}")),
            }
        };
        let sources = Sources::load("d/a.xsd", &mut resolver).unwrap();
        assert_eq!(sources.all.len(), 4);
        assert_eq!(asked, ["d/a.xsd", "d/b.xsd", "d/c/c.xsd"]);
        assert!(matches!(
            Sources::load("x", &mut |_| Err("gone".into())),
            Err(DescriptionError::Missing { .. })
        ));
        assert!(matches!(
            Sources::load("x", &mut |_| Ok(b"<!DOCTYPE a><a/>".to_vec())),
            Err(DescriptionError::Document { .. })
        ));
    }

    #[test]
    fn schemas_of_standards_are_done_without() {
        let text = "<s:schema xmlns:s='http://www.w3.org/2001/XMLSchema'><s:import namespace='urn:e'
            schemaLocation='http://schemas.xmlsoap.org/soap/encoding/'/><s:import namespace='urn:d'
            schemaLocation='https://www.w3.org/TR/xmldsig.xsd'/></s:schema>";
        let sources = Sources::load("a", &mut |location| match location {
            "a" => Ok(text.as_bytes().to_vec()),
            "https://www.w3.org/TR/xmldsig.xsd" => Ok(b"<!DOCTYPE schema><schema/>".to_vec()),
            _ => Err("not here".to_owned()),
        });
        let warnings = sources.unwrap().warnings;
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert_eq!(warnings[0], "done without: http://schemas.xmlsoap.org/soap/encoding/: not here");
        let other = text.replace("www.w3.org/TR", "example.org");
        let refused = Sources::load("a", &mut |location| match location {
            "a" => Ok(other.clone().into_bytes()),
            _ => Err("not here".to_owned()),
        });
        assert!(matches!(refused, Err(DescriptionError::Missing { .. })));
    }

    #[test]
    fn a_schema_that_is_said_to_be_its_namespace_is_done_without() {
        let text = "<s:schema xmlns:s='http://www.w3.org/2001/XMLSchema'><s:import namespace='urn:e' schemaLocation='urn:e'/>
            </s:schema>";
        let sources = Sources::load("a", &mut |location| match location {
            "a" => Ok(text.as_bytes().to_vec()),
            _ => Err("not here".to_owned()),
        });
        assert_eq!(sources.unwrap().warnings, ["done without: urn:e: not here"]);
    }

    #[test]
    fn a_description_without_end_is_refused() {
        let mut endless = |location: &str| {
            Ok(format!(
                "<s:schema xmlns:s='http://www.w3.org/2001/XMLSchema'><s:include schemaLocation='{location}x'/></s:schema>"
            )
            .into_bytes())
        };
        let refused = Sources::load("a", &mut endless).err().unwrap();
        assert_eq!(refused, DescriptionError::TooLarge { what: "documents", most: MAX_DOCUMENTS });
    }
}
