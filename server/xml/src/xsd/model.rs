//! What schemas say, resolved: types, elements and contents as entries of flat tables that refer to each
//! other by number, since types may hold themselves.

use std::sync::Arc;

use serde_json::Value;

use super::facets::Facets;
use crate::namespace::QName;

/// A type of a [`SchemaSet`](super::SchemaSet).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub(crate) u32);

/// An element declaration of a [`SchemaSet`](super::SchemaSet).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ElementId(pub(crate) u32);

/// A declared element.
#[derive(Debug, Clone)]
pub struct ElementDeclaration {
    /// Its name; a local element that is not qualified is in no namespace.
    pub name: QName,
    /// What it holds.
    pub type_id: TypeId,
    /// Whether `xsi:nil` may stand for a value.
    pub nillable: bool,
    /// Whether only elements that substitute for it may stand in documents.
    pub is_abstract: bool,
    /// What an empty element means.
    pub default: Option<Arc<str>>,
    /// The only value it may have.
    pub fixed: Option<Arc<str>>,
    /// Its name in JSON, where that is not its local name.
    pub(crate) key: Option<Arc<str>>,
    /// Whether it is declared at the top of a schema.
    pub(crate) is_global: bool,
}

/// What a type is.
#[derive(Debug, Clone)]
pub(crate) enum TypeDefinition {
    /// `xs:anyType`: anything at all.
    Any,
    /// Text.
    Simple(SimpleType),
    /// Elements, attributes, or text with attributes.
    Complex(ComplexType),
}

#[derive(Debug, Clone)]
pub(crate) struct SimpleType {
    pub(crate) name: Option<QName>,
    pub(crate) base: Option<TypeId>,
    pub(crate) variety: Variety,
    /// All that applies, that of its bases included.
    pub(crate) facets: Facets,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Variety {
    Atomic(Primitive),
    List(TypeId),
    Union(Vec<TypeId>),
}

/// What a value is a value of. `Integer` is no primitive type by the standard; JSON makes it one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Primitive {
    /// `xs:anySimpleType`.
    Any,
    String,
    Boolean,
    Decimal,
    Integer,
    Double,
    Duration,
    DateTime,
    Time,
    Date,
    YearMonth,
    Year,
    MonthDay,
    Day,
    Month,
    HexBinary,
    Base64Binary,
    AnyUri,
    QName,
}

#[derive(Debug, Clone)]
pub(crate) struct ComplexType {
    pub(crate) name: Option<QName>,
    pub(crate) base: Option<TypeId>,
    pub(crate) is_abstract: bool,
    pub(crate) content: Content,
    pub(crate) attributes: Vec<AttributeUse>,
    pub(crate) any_attribute: Option<Wildcard>,
    pub(crate) mixed: bool,
    pub(crate) shape: Shape,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Empty,
    /// Text, of this simple type.
    Simple(TypeId),
    Elements(Model),
}

/// The elements that a type holds.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) particle: Particle,
    /// Every element there can be, each name once; what particles and JSON objects speak of.
    pub(crate) members: Vec<Member>,
    pub(crate) has_wildcard: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) element: ElementId,
    /// Its key in the JSON object.
    pub(crate) key: Arc<str>,
    /// Whether it may stand there more than once, so that JSON has an array.
    pub(crate) is_array: bool,
    /// Whether other members may stand in its place, so that its absence says nothing of it.
    pub(crate) is_one_of_a_choice: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Particle {
    pub(crate) min: u32,
    /// `None`: any number.
    pub(crate) max: Option<u32>,
    pub(crate) term: Term,
}

#[derive(Debug, Clone)]
pub(crate) enum Term {
    /// An element, and its place among the members of the type.
    Element(ElementId, u32),
    Sequence(Vec<Particle>),
    Choice(Vec<Particle>),
    All(Vec<Particle>),
    Any(Wildcard),
}

/// What `xs:any` and `xs:anyAttribute` let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wildcard {
    pub(crate) namespaces: Namespaces,
    pub(crate) process: Process,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Namespaces {
    Any,
    /// Every one but this, and but none.
    Other(Arc<str>),
    Listed(Vec<Arc<str>>),
}

/// Whether what a wildcard lets in is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Process {
    /// It must be declared.
    Strict,
    /// If it is declared.
    Lax,
    Skip,
}

#[derive(Debug, Clone)]
pub(crate) struct AttributeUse {
    pub(crate) name: QName,
    /// `@` and its name, in the JSON object.
    pub(crate) key: Arc<str>,
    pub(crate) type_id: TypeId,
    pub(crate) required: bool,
    pub(crate) default: Option<Arc<str>>,
    pub(crate) fixed: Option<Arc<str>>,
}

/// How the JSON value of a complex type is made of its members. Schemas of other makers know objects only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Shape {
    /// An object with a key for each member.
    #[default]
    Object,
    /// The value of its one member; `null` when it has none.
    Value,
    /// The members' values in their order, as an array.
    Tuple,
    /// The value of whichever member is there.
    Choice,
    /// An object made of `entry` elements, each with `key` and `value`, beside its other members.
    Map,
}

impl Wildcard {
    pub(crate) fn allows(&self, namespace: &str) -> bool {
        match &self.namespaces {
            Namespaces::Any => true,
            Namespaces::Other(target) => !namespace.is_empty() && **target != *namespace,
            Namespaces::Listed(listed) => listed.iter().any(|one| **one == *namespace),
        }
    }
}

impl Particle {
    /// Whether nothing at all satisfies it.
    pub(crate) fn is_optional(&self) -> bool {
        self.min == 0
            || match &self.term {
                Term::Element(..) | Term::Any(_) => false,
                Term::Sequence(parts) | Term::All(parts) => parts.iter().all(Self::is_optional),
                Term::Choice(parts) => parts.is_empty() || parts.iter().any(Self::is_optional),
            }
    }
}

/// One value of an enumeration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Enumerated {
    pub(crate) text: Arc<str>,
    /// Its value in JSON, where that is not the one its type gives.
    pub(crate) json: Option<Value>,
}
