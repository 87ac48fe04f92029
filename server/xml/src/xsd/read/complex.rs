//! Complex types and their derivations.

use super::super::model::{
    ComplexType, Content, Model, Namespaces, Particle, Process, Shape, Term, TypeDefinition, TypeId, Wildcard,
};
use super::super::{ANY_SIMPLE_TYPE, JSON_ANNOTATIONS};
use super::attributes::{Gathered, settle_keys};
use super::{Builder, Place, components};
use crate::namespace::QName;
use crate::sources::DescriptionError;

impl<'d> Builder<'d> {
    pub(super) fn complex_type(&mut self, place: Place<'d>) -> Result<ComplexType, DescriptionError> {
        let (part, element) = place;
        let name = match element.attribute("", "name") {
            Some(local) => Some(QName::new(self.part(part)?.namespace.clone(), local)),
            None => None,
        };
        let is = |attribute| {
            matches!(element.attribute("", attribute).map(crate::chars::trim), Some("true" | "1"))
        };
        let mut complex = ComplexType {
            name,
            base: None,
            is_abstract: is("abstract"),
            content: Content::Empty,
            attributes: Vec::new(),
            any_attribute: None,
            mixed: is("mixed"),
            shape: self.shape(place)?,
        };
        let derived =
            components(element).find(|child| matches!(child.local(), "simpleContent" | "complexContent"));
        match derived {
            Some(content) => self.derive((part, content), &mut complex)?,
            None => {
                complex.content = self.own_content(place)?;
                let mut gathered = Gathered::default();
                self.attributes(place, &mut gathered)?;
                (complex.attributes, complex.any_attribute) = (gathered.uses, gathered.any);
            }
        }
        settle_keys(&mut complex.attributes);
        Ok(complex)
    }

    fn shape(&self, place: Place<'d>) -> Result<Shape, DescriptionError> {
        Ok(match place.1.attribute(JSON_ANNOTATIONS, "shape") {
            None => Shape::Object,
            Some("value") => Shape::Value,
            Some("tuple") => Shape::Tuple,
            Some("choice") => Shape::Choice,
            Some("map") => Shape::Map,
            Some(other) => return Err(self.invalid(place, format!("the shape {other:?} is not known"))),
        })
    }

    /// The elements that stand in `place` itself.
    fn own_content(&mut self, place: Place<'d>) -> Result<Content, DescriptionError> {
        let is_model =
            |child: &crate::Element<'d>| matches!(child.local(), "sequence" | "choice" | "all" | "group");
        let particle = match components(place.1).find(is_model) {
            Some(model) => self.particle((place.0, model))?,
            None => None,
        };
        Ok(match particle {
            Some(particle) => elements(particle),
            None => Content::Empty,
        })
    }

    fn derive(&mut self, content: Place<'d>, complex: &mut ComplexType) -> Result<(), DescriptionError> {
        let derivation =
            components(content.1).find(|child| matches!(child.local(), "extension" | "restriction"));
        let Some(derivation) = derivation else {
            return Err(self.invalid(content, "a derived type is an extension or a restriction"));
        };
        let place = (content.0, derivation);
        let Some(base) = self.reference(place, "base")? else {
            return Err(self.invalid(place, "a derivation needs a base"));
        };
        let base = self.type_id(&base, place)?;
        self.ensure(base)?;
        complex.base = Some(base);
        complex.mixed |= matches!(content.1.attribute("", "mixed"), Some("true" | "1"));
        let mut gathered = Gathered::default();
        if let TypeDefinition::Complex(base) = self.set.definition(base) {
            gathered.uses = base.attributes.clone();
            gathered.any = base.any_attribute.clone();
        }
        let is_extension = derivation.local() == "extension";
        if !is_extension {
            gathered.any = None;
        }
        self.attributes(place, &mut gathered)?;
        complex.content = match (content.1.local(), is_extension) {
            ("simpleContent", true) => Content::Simple(self.text_of(base, place)?),
            ("simpleContent", false) => Content::Simple(self.restricted_text(base, place)?),
            (_, true) => {
                let own = self.own_content(place)?;
                self.extended(base, own, complex, &mut gathered, place)?
            }
            (_, false) => self.own_content(place)?,
        };
        (complex.attributes, complex.any_attribute) = (gathered.uses, gathered.any);
        Ok(())
    }

    /// The simple type of the text that `base` holds.
    fn text_of(&self, base: TypeId, place: Place<'d>) -> Result<TypeId, DescriptionError> {
        match self.set.definition(base) {
            TypeDefinition::Simple(_) => Ok(base),
            TypeDefinition::Any => Ok(ANY_SIMPLE_TYPE),
            TypeDefinition::Complex(complex) => match complex.content {
                Content::Simple(text) => Ok(text),
                _ => Err(self.invalid(place, "simple content is derived from a type that holds elements")),
            },
        }
    }

    fn restricted_text(&mut self, base: TypeId, place: Place<'d>) -> Result<TypeId, DescriptionError> {
        let text = match self.inline_type(place)? {
            Some(inline) => inline,
            None => self.text_of(base, place)?,
        };
        let simple = self.restriction(place, text, None)?;
        let id = TypeId(u32::try_from(self.set.types.len()).unwrap_or(u32::MAX));
        self.set.types.push(TypeDefinition::Simple(simple));
        Ok(id)
    }

    /// What `base` holds, followed by `own`.
    fn extended(
        &self,
        base: TypeId,
        own: Content,
        complex: &mut ComplexType,
        gathered: &mut Gathered,
        place: Place<'d>,
    ) -> Result<Content, DescriptionError> {
        let base = match self.set.definition(base) {
            TypeDefinition::Complex(base) => {
                complex.mixed |= base.mixed;
                base.content.clone()
            }
            TypeDefinition::Any => {
                complex.mixed = true;
                let any = Wildcard { namespaces: Namespaces::Any, process: Process::Lax };
                gathered.any.get_or_insert_with(|| any.clone());
                elements(Particle { min: 0, max: None, term: Term::Any(any) })
            }
            TypeDefinition::Simple(_) => {
                return Err(self.invalid(place, "elements extend a simple type"));
            }
        };
        Ok(match (base, own) {
            (base, Content::Empty) => base,
            (Content::Empty, own) => own,
            (Content::Elements(base), Content::Elements(own)) => {
                let both = vec![base.particle, own.particle];
                elements(Particle { min: 1, max: Some(1), term: Term::Sequence(both) })
            }
            _ => return Err(self.invalid(place, "elements extend a type that holds text")),
        })
    }
}

/// A content of which the members are found when everything is read.
fn elements(particle: Particle) -> Content {
    Content::Elements(Model { particle, members: Vec::new(), has_wildcard: false })
}
