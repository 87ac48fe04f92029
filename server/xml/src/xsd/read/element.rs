//! Element declarations, global and local.

use std::sync::Arc;

use super::super::model::{ElementDeclaration, TypeId};
use super::super::{ANY_TYPE, JSON_ANNOTATIONS};
use super::{Builder, MAX_DERIVATIONS, Place, Space, components};
use crate::namespace::QName;
use crate::sources::DescriptionError;

impl<'d> Builder<'d> {
    /// What the element at `place` declares; `namespace` is that of a local one.
    pub(super) fn declaration(
        &mut self,
        place: Place<'d>,
        local_namespace: Option<Arc<str>>,
    ) -> Result<ElementDeclaration, DescriptionError> {
        self.count(1)?;
        let element = place.1;
        let Some(local) = element.attribute("", "name").map(crate::chars::trim) else {
            return Err(self.invalid(place, "an element needs a name or a reference"));
        };
        let is_global = local_namespace.is_none();
        let namespace = match local_namespace {
            Some(namespace) => namespace,
            None => self.part(place.0)?.namespace.clone(),
        };
        let is = |attribute| {
            matches!(element.attribute("", attribute).map(crate::chars::trim), Some("true" | "1"))
        };
        let value = |attribute| element.attribute("", attribute).map(Arc::from);
        Ok(ElementDeclaration {
            name: QName::new(namespace, local),
            type_id: self.element_type(place)?,
            nillable: is("nillable"),
            is_abstract: is("abstract"),
            default: value("default"),
            fixed: value("fixed"),
            key: element.attribute(JSON_ANNOTATIONS, "key").map(Arc::from),
            is_global,
        })
    }

    /// The type that an element names, holds, or has from the head of its substitution group.
    fn element_type(&mut self, mut place: Place<'d>) -> Result<TypeId, DescriptionError> {
        for _ in 0..MAX_DERIVATIONS {
            if let Some(name) = self.reference(place, "type")? {
                return self.type_id(&name, place);
            }
            let inline = |child: &crate::Element<'d>| matches!(child.local(), "simpleType" | "complexType");
            if let Some(inline) = components(place.1).find(inline) {
                return Ok(self.new_type((place.0, inline)));
            }
            let head = match place.1.attribute("", "substitutionGroup") {
                Some(heads) => crate::lexical::words(heads).next(),
                None => None,
            };
            let Some(head) = head else { return Ok(ANY_TYPE) };
            let head = self.part(place.0)?.name(place.1, head)?;
            match self.globals.get(&(Space::Element, head)) {
                Some(next) => place = *next,
                None => return Ok(ANY_TYPE),
            }
        }
        Err(self.invalid(place, "a substitution group that is its own head"))
    }
}
