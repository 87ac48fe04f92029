//! The schemas of a description, each with the namespace it defines.

use std::collections::HashSet;
use std::sync::Arc;

use crate::document::Element;
use crate::namespace::{QName, XSD};
use crate::sources::{DescriptionError, Sources, schemas};

/// One `xs:schema`, as seen from one namespace. A schema without target namespace takes that of each schema
/// that includes it (XML Schema part 1, section 4.2.1), so it may be there several times.
#[derive(Debug, Clone)]
pub(crate) struct Part<'d> {
    pub(crate) element: Element<'d>,
    pub(crate) location: &'d str,
    pub(crate) namespace: Arc<str>,
    pub(crate) elements_qualified: bool,
    pub(crate) attributes_qualified: bool,
    /// Whether its namespace is that of who includes it, so that names without prefix are in it too.
    adopted: bool,
}

impl<'d> Part<'d> {
    fn new(element: Element<'d>, location: &'d str, adopted: Option<Arc<str>>) -> Self {
        let qualified = |attribute| element.attribute("", attribute) == Some("qualified");
        Self {
            element,
            location,
            elements_qualified: qualified("elementFormDefault"),
            attributes_qualified: qualified("attributeFormDefault"),
            adopted: adopted.is_some(),
            namespace: adopted.unwrap_or_else(|| target(element)),
        }
    }

    /// The name that `text` stands for at `element`.
    pub(crate) fn name(&self, element: Element<'d>, text: &str) -> Result<QName, DescriptionError> {
        match element.resolve(text) {
            Some(name) if self.adopted && name.namespace.is_empty() => {
                Ok(QName { namespace: self.namespace.clone(), local: name.local })
            }
            Some(name) => Ok(name),
            None => Err(self.invalid(element, format!("the prefix of {text:?} is not declared"))),
        }
    }

    /// An error at `element`.
    pub(crate) fn invalid(&self, element: Element<'d>, detail: impl Into<String>) -> DescriptionError {
        let (line, column) = element.place();
        DescriptionError::Invalid { location: self.location.to_owned(), line, column, detail: detail.into() }
    }
}

fn target(element: Element<'_>) -> Arc<str> {
    crate::chars::trim(element.attribute("", "targetNamespace").unwrap_or_default()).into()
}

/// Every schema of `sources`, in the namespaces they count in.
pub(super) fn parts(sources: &Sources) -> Result<Vec<Part<'_>>, DescriptionError> {
    let mut found = Found { parts: Vec::new(), seen: HashSet::new(), sources };
    for (index, source) in sources.all.iter().enumerate() {
        for schema in schemas(source.document.root()) {
            // Those without namespace come in through who includes or imports them.
            if index == 0 || !target(schema).is_empty() {
                found.add(index, schema, None)?;
            }
        }
    }
    Ok(found.parts)
}

struct Found<'d> {
    parts: Vec<Part<'d>>,
    /// Schemas by document, line and column, with the namespace they are seen in.
    seen: HashSet<(usize, (usize, usize), Arc<str>)>,
    sources: &'d Sources,
}

impl<'d> Found<'d> {
    fn add(
        &mut self,
        index: usize,
        schema: Element<'d>,
        adopted: Option<Arc<str>>,
    ) -> Result<(), DescriptionError> {
        let Some(source) = self.sources.all.get(index) else { return Ok(()) };
        let part = Part::new(schema, &source.location, adopted.clone());
        if !self.seen.insert((index, schema.place(), part.namespace.clone())) {
            return Ok(());
        }
        self.parts.push(part.clone());
        for reference in schema.elements().filter(|child| child.namespace() == XSD) {
            let is_include = match reference.local() {
                "include" => true,
                "import" => false,
                _ => continue,
            };
            let Some(other) = self.sources.target(&source.location, reference) else { continue };
            let Some(document) = self.sources.all.get(other) else { continue };
            let root = document.document.root();
            if !root.is(XSD, "schema") {
                let place = if is_include { "included" } else { "imported" };
                return Err(part.invalid(reference, format!("the {place} document is no schema")));
            }
            let own = target(root);
            match (is_include, own.is_empty()) {
                (true, true) if !part.namespace.is_empty() => {
                    self.add(other, root, Some(part.namespace.clone()))?;
                }
                (true, false) if own != part.namespace => {
                    return Err(part.invalid(reference, "an included schema has another target namespace"));
                }
                (_, true) => self.add(other, root, None)?,
                // One with a namespace of its own is there already.
                _ => {}
            }
        }
        Ok(())
    }
}
