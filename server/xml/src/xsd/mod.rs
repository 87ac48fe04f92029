//! XML Schema 1.0, as far as services use it: simple types with all facets, complex types with their
//! contents, derivations, wildcards and substitution groups, over any number of documents.
//!
//! A [`SchemaSet`] is compiled once and then only read. Not supported, and refused where they stand:
//! `xs:redefine` and `xs:override`. Read past, since they say nothing about a message: identity constraints,
//! notations, annotations. A pattern that is not understood is not checked, and told in the warnings.

mod builtin;
mod content;
mod facets;
mod generate;
mod model;
mod pattern;
mod read;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

pub(crate) use builtin::{ANY_SIMPLE_TYPE, ANY_TYPE, KNOWN_SCHEMAS, STRING};
pub(crate) use facets::{calendar, same};
pub use generate::{GenerateError, MessagePart, Role, SchemaWriter};
pub(crate) use model::{
    AttributeUse, ComplexType, Content, Member, Model, Particle, Primitive, Process, Shape, SimpleType, Term,
    TypeDefinition, Variety, Wildcard,
};
pub use model::{ElementDeclaration, ElementId, TypeId};

use crate::namespace::QName;
use crate::sources::{DescriptionError, Resolver, Sources};

/// Attributes with which a generated schema says how its parts look in JSON.
pub const JSON_ANNOTATIONS: &str = "urn:crosstie:json";

/// What a number of another set is answered with.
static MISSING: LazyLock<ElementDeclaration> = LazyLock::new(|| ElementDeclaration {
    name: QName::new("", ""),
    type_id: ANY_TYPE,
    nillable: true,
    is_abstract: false,
    default: None,
    fixed: None,
    key: None,
    is_global: false,
});

/// All types and elements of one or more schemas.
#[derive(Debug)]
pub struct SchemaSet {
    types: Vec<TypeDefinition>,
    elements: Vec<ElementDeclaration>,
    global_types: Names<TypeId>,
    global_elements: Names<ElementId>,
    global_attributes: Names<TypeId>,
    warnings: Vec<String>,
}

impl SchemaSet {
    /// Reads the schema, or the schemas in the WSDL, at `location`, and all that they import.
    ///
    /// # Errors
    /// A document is missing, is no XML, or breaks the rules of XML Schema.
    pub fn read(location: &str, resolver: Resolver<'_>) -> Result<Self, DescriptionError> {
        Self::compile(&Sources::load(location, resolver)?)
    }

    pub(crate) fn compile(sources: &Sources) -> Result<Self, DescriptionError> {
        read::compile(sources)
    }

    /// The global element `local` of `namespace`.
    #[must_use]
    pub fn element(&self, namespace: &str, local: &str) -> Option<ElementId> {
        self.global_elements.find(namespace, local)
    }

    /// The type `local` of `namespace`, built-in types included.
    #[must_use]
    pub fn type_named(&self, namespace: &str, local: &str) -> Option<TypeId> {
        self.global_types.find(namespace, local)
    }

    /// What is declared of an element of this set.
    #[must_use]
    pub fn declaration(&self, id: ElementId) -> &ElementDeclaration {
        self.elements.get(id.0 as usize).unwrap_or(&MISSING)
    }

    /// What was read and is not obeyed, for a person.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(crate) fn definition(&self, id: TypeId) -> &TypeDefinition {
        self.types.get(id.0 as usize).unwrap_or(&TypeDefinition::Any)
    }

    pub(crate) fn attribute(&self, namespace: &str, local: &str) -> Option<TypeId> {
        self.global_attributes.find(namespace, local)
    }

    pub(crate) fn name_of(&self, id: TypeId) -> Option<&QName> {
        match self.definition(id) {
            TypeDefinition::Any => None,
            TypeDefinition::Simple(simple) => simple.name.as_ref(),
            TypeDefinition::Complex(complex) => complex.name.as_ref(),
        }
    }

    fn base_of(&self, id: TypeId) -> Option<TypeId> {
        match self.definition(id) {
            TypeDefinition::Any => None,
            TypeDefinition::Simple(simple) => simple.base,
            TypeDefinition::Complex(complex) => complex.base.or(Some(ANY_TYPE)),
        }
    }

    /// Whether a value of `derived` may stand where one of `base` is asked for.
    pub(crate) fn is_derived(&self, derived: TypeId, base: TypeId) -> bool {
        if let TypeDefinition::Simple(SimpleType { variety: Variety::Union(members), .. }) =
            self.definition(base)
            && members.iter().any(|member| self.is_derived(derived, *member))
        {
            return true;
        }
        let mut next = Some(derived);
        // Longer chains are refused when schemas are read.
        for _ in 0..=read::MAX_DERIVATIONS {
            match next {
                Some(id) if id == base => return true,
                Some(id) => next = self.base_of(id),
                None => return false,
            }
        }
        false
    }
}

/// Things found by namespace and local name, without making a name of them first.
#[derive(Debug)]
pub(crate) struct Names<T> {
    by_local: HashMap<Arc<str>, Vec<(Arc<str>, T)>>,
}

impl<T: Copy> Names<T> {
    pub(crate) fn new() -> Self {
        Self { by_local: HashMap::new() }
    }

    pub(crate) fn insert(&mut self, name: &QName, value: T) {
        self.by_local.entry(name.local.clone()).or_default().push((name.namespace.clone(), value));
    }

    pub(crate) fn find(&self, namespace: &str, local: &str) -> Option<T> {
        let found = self.by_local.get(local)?.iter().find(|(known, _)| **known == *namespace)?;
        Some(found.1)
    }
}
