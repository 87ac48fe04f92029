//! From schema documents to a [`SchemaSet`].
//!
//! Every global component is known by name before any is compiled. Types get their number when something
//! first refers to them and are compiled from a list of those waiting, so a type may hold itself; only a base
//! has to be finished before what is derived from it.

mod attributes;
mod complex;
mod element;
mod part;
mod particle;
mod simple;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub(crate) use part::Part;

use super::content;
use super::model::{ElementDeclaration, ElementId, TypeDefinition, TypeId};
use super::{ANY_TYPE, Names, SchemaSet, builtin};
use crate::document::Element;
use crate::namespace::{QName, XSD};
use crate::sources::{DescriptionError, Sources};

/// How long a chain of derivations may be.
pub(super) const MAX_DERIVATIONS: usize = 100;
/// How many particles, types and elements there may be: groups that hold groups could double without end.
const MAX_COMPONENTS: usize = 200_000;

/// The symbol spaces of XML Schema: a type and an element may share a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Space {
    Type,
    Element,
    Attribute,
    Group,
    AttributeGroup,
}

/// A component and the schema it stands in.
type Place<'d> = (usize, Element<'d>);

/// How far a type is.
enum State<'d> {
    Waiting(Place<'d>),
    Busy,
}

pub(super) struct Builder<'d> {
    parts: Vec<Part<'d>>,
    globals: HashMap<(Space, QName), Place<'d>>,
    /// Namespaces of which there is a schema. What belongs to others cannot be known.
    known: HashSet<Arc<str>>,
    set: SchemaSet,
    type_ids: HashMap<QName, TypeId>,
    element_ids: HashMap<QName, ElementId>,
    /// Which elements may stand for which.
    substitutes: HashMap<QName, Vec<QName>>,
    states: HashMap<TypeId, State<'d>>,
    waiting_types: Vec<TypeId>,
    waiting_elements: Vec<(ElementId, Place<'d>)>,
    /// Groups being expanded, to find circles.
    expanding: Vec<QName>,
    derivations: usize,
    components: usize,
}

pub(super) fn compile(sources: &Sources) -> Result<SchemaSet, DescriptionError> {
    let mut builder = Builder::new(part::parts(sources)?);
    builder.set.warnings.clone_from(&sources.warnings);
    builder.collect()?;
    // In one order, so that the same documents are always refused for the same reason.
    let mut globals: Vec<_> = builder.globals.keys().cloned().collect();
    globals.sort_unstable();
    for (space, name) in globals {
        match space {
            Space::Type => builder.global_type(&name).map(drop),
            Space::Element => builder.global_element(&name).map(drop),
            _ => None,
        };
    }
    builder.finish()
}

impl<'d> Builder<'d> {
    fn new(parts: Vec<Part<'d>>) -> Self {
        let mut set = SchemaSet {
            types: Vec::new(),
            elements: Vec::new(),
            global_types: Names::new(),
            global_elements: Names::new(),
            global_attributes: Names::new(),
            warnings: Vec::new(),
        };
        let mut type_ids = HashMap::new();
        for (index, (name, definition)) in builtin::types().into_iter().enumerate() {
            let id = TypeId(u32::try_from(index).unwrap_or(u32::MAX));
            set.global_types.insert(&name, id);
            type_ids.insert(name, id);
            set.types.push(definition);
        }
        let known = parts.iter().map(|part| part.namespace.clone()).collect();
        Self {
            parts,
            globals: HashMap::new(),
            known,
            set,
            type_ids,
            element_ids: HashMap::new(),
            substitutes: HashMap::new(),
            states: HashMap::new(),
            waiting_types: Vec::new(),
            waiting_elements: Vec::new(),
            expanding: Vec::new(),
            derivations: 0,
            components: 0,
        }
    }

    /// Learns the names of all global components.
    fn collect(&mut self) -> Result<(), DescriptionError> {
        for (part, own) in self.parts.iter().enumerate() {
            for component in own.element.elements().filter(|child| child.namespace() == XSD) {
                let space = match component.local() {
                    "simpleType" | "complexType" => Space::Type,
                    "element" => Space::Element,
                    "attribute" => Space::Attribute,
                    "group" => Space::Group,
                    "attributeGroup" => Space::AttributeGroup,
                    "import" | "include" | "annotation" | "notation" => continue,
                    other => return Err(own.invalid(component, format!("xs:{other} is not supported here"))),
                };
                let Some(local) = component.attribute("", "name") else {
                    return Err(own.invalid(component, "a global component needs a name"));
                };
                let name = QName::new(own.namespace.clone(), crate::chars::trim(local));
                if let Some(heads) = component.attribute("", "substitutionGroup") {
                    for head in crate::lexical::words(heads) {
                        let head = own.name(component, head)?;
                        self.substitutes.entry(head).or_default().push(name.clone());
                    }
                }
                match self.globals.insert((space, name), (part, component)) {
                    // The same text by two ways, such as a file included under two locations.
                    Some((_, known)) if known.to_source() == component.to_source() => {}
                    Some(_) => return Err(own.invalid(component, format!("{local:?} is defined twice"))),
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<SchemaSet, DescriptionError> {
        loop {
            if let Some((id, place)) = self.waiting_elements.pop() {
                let declaration = self.declaration(place, None)?;
                if let Some(slot) = self.set.elements.get_mut(id.0 as usize) {
                    *slot = declaration;
                }
            } else if let Some(id) = self.waiting_types.pop() {
                self.ensure(id)?;
            } else {
                break;
            }
        }
        let attributes: Vec<_> =
            self.globals.keys().filter(|(space, _)| *space == Space::Attribute).cloned().collect();
        for key in attributes {
            let Some(place) = self.globals.get(&key).copied() else { continue };
            let type_id = self.attribute_type(place)?;
            self.set.global_attributes.insert(&key.1, type_id);
        }
        // Types of global attributes may have come last.
        while let Some(id) = self.waiting_types.pop() {
            self.ensure(id)?;
        }
        let substitutes = std::mem::take(&mut self.substitutes);
        let ids = std::mem::take(&mut self.element_ids);
        content::assemble(&mut self.set, &substitutes, &ids)?;
        self.set.warnings.sort_unstable();
        self.set.warnings.dedup();
        Ok(self.set)
    }

    fn part(&self, index: usize) -> Result<&Part<'d>, DescriptionError> {
        self.parts.get(index).ok_or(DescriptionError::TooLarge { what: "schemas", most: self.parts.len() })
    }

    fn invalid(&self, place: Place<'d>, detail: impl Into<String>) -> DescriptionError {
        match self.part(place.0) {
            Ok(part) => part.invalid(place.1, detail),
            Err(error) => error,
        }
    }

    /// The name that an attribute of `place` refers to.
    fn reference(&self, place: Place<'d>, attribute: &str) -> Result<Option<QName>, DescriptionError> {
        match place.1.attribute("", attribute) {
            Some(text) => self.part(place.0)?.name(place.1, text).map(Some),
            None => Ok(None),
        }
    }

    fn count(&mut self, many: usize) -> Result<(), DescriptionError> {
        self.components = self.components.saturating_add(many);
        match self.components > MAX_COMPONENTS {
            true => Err(DescriptionError::TooLarge {
                what: "types, elements and particles",
                most: MAX_COMPONENTS,
            }),
            false => Ok(()),
        }
    }

    fn warn(&mut self, place: Place<'d>, detail: &str) {
        let warning = self.invalid(place, detail).to_string();
        if self.set.warnings.len() < 100 {
            self.set.warnings.push(warning);
        }
    }

    /// The number of the type `name`, which `place` refers to. A type of a namespace that nobody gave a
    /// schema of is taken for anything.
    fn type_id(&mut self, name: &QName, place: Place<'d>) -> Result<TypeId, DescriptionError> {
        if let Some(id) = self.global_type(name) {
            return Ok(id);
        }
        if self.known.contains(&name.namespace) || *name.namespace == *XSD {
            return Err(self.invalid(place, format!("the type {name} is not defined")));
        }
        self.warn(place, &format!("the type {name} is taken for anything: its schema is not there"));
        Ok(ANY_TYPE)
    }

    fn global_type(&mut self, name: &QName) -> Option<TypeId> {
        if let Some(id) = self.type_ids.get(name) {
            return Some(*id);
        }
        let place = self.globals.get(&(Space::Type, name.clone())).copied()?;
        let id = self.new_type(place);
        self.type_ids.insert(name.clone(), id);
        self.set.global_types.insert(name, id);
        Some(id)
    }

    /// A number for the type at `place`, which is compiled later.
    fn new_type(&mut self, place: Place<'d>) -> TypeId {
        let id = TypeId(u32::try_from(self.set.types.len()).unwrap_or(u32::MAX));
        self.set.types.push(TypeDefinition::Any);
        self.states.insert(id, State::Waiting(place));
        self.waiting_types.push(id);
        id
    }

    fn global_element(&mut self, name: &QName) -> Option<ElementId> {
        if let Some(id) = self.element_ids.get(name) {
            return Some(*id);
        }
        let place = self.globals.get(&(Space::Element, name.clone())).copied()?;
        let id = self.new_element(ElementDeclaration {
            name: name.clone(),
            type_id: ANY_TYPE,
            nillable: false,
            is_abstract: false,
            default: None,
            fixed: None,
            key: None,
            is_global: true,
        });
        self.element_ids.insert(name.clone(), id);
        self.set.global_elements.insert(name, id);
        self.waiting_elements.push((id, place));
        Some(id)
    }

    fn new_element(&mut self, declaration: ElementDeclaration) -> ElementId {
        let id = ElementId(u32::try_from(self.set.elements.len()).unwrap_or(u32::MAX));
        self.set.elements.push(declaration);
        id
    }

    /// Compiles the type `id`, unless that is done.
    fn ensure(&mut self, id: TypeId) -> Result<(), DescriptionError> {
        let Some(state) = self.states.get_mut(&id) else { return Ok(()) };
        let place = match std::mem::replace(state, State::Busy) {
            State::Waiting(place) => place,
            State::Busy => {
                let name = self.set.name_of(id).map(ToString::to_string).unwrap_or_default();
                return Err(self.circle(&name));
            }
        };
        self.count(1)?;
        self.derivations += 1;
        let too_many = format!("more than {MAX_DERIVATIONS} derivations");
        if self.derivations > MAX_DERIVATIONS {
            return Err(self.invalid(place, too_many));
        }
        let definition = match place.1.local() {
            "simpleType" => TypeDefinition::Simple(self.simple_type(place)?),
            _ => TypeDefinition::Complex(self.complex_type(place)?),
        };
        self.derivations -= 1;
        self.states.remove(&id);
        if let Some(slot) = self.set.types.get_mut(id.0 as usize) {
            *slot = definition;
        }
        let chain = std::iter::successors(Some(id), |id| self.set.base_of(*id));
        match chain.take(MAX_DERIVATIONS + 1).count() > MAX_DERIVATIONS {
            true => Err(self.invalid(place, too_many)),
            false => Ok(()),
        }
    }

    fn circle(&self, name: &str) -> DescriptionError {
        let detail = format!("a type {name} that is derived from itself");
        match self.parts.first() {
            Some(part) => part.invalid(part.element, detail),
            None => DescriptionError::TooLarge { what: "schemas", most: 0 },
        }
    }
}

/// The children of `element` that belong to XML Schema and say something.
fn components<'d>(element: Element<'d>) -> impl Iterator<Item = Element<'d>> {
    element.elements().filter(|child| child.namespace() == XSD && child.local() != "annotation")
}
