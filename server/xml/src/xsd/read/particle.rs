//! What stands in a content model: elements, groups of them, wildcards.

use std::sync::Arc;

use super::super::model::Namespaces;
use super::super::model::{Particle, Process, Term, Wildcard};
use super::{Builder, Place, Space, components};
use crate::sources::DescriptionError;

impl<'d> Builder<'d> {
    /// The particle at `place`; `None` when it may not be there at all, or is no particle.
    pub(super) fn particle(&mut self, place: Place<'d>) -> Result<Option<Particle>, DescriptionError> {
        let (min, max) = self.occurrence(place)?;
        if max == Some(0) {
            return Ok(None);
        }
        self.count(1)?;
        let term = match place.1.local() {
            "element" => self.element_term(place)?,
            "any" => Term::Any(self.wildcard(place)?),
            "sequence" => Term::Sequence(self.particles(place)?),
            "choice" => Term::Choice(self.particles(place)?),
            "all" => Term::All(self.particles(place)?),
            "group" => match self.group(place)? {
                Some(term) => term,
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        Ok(Some(Particle { min, max, term }))
    }

    fn particles(&mut self, place: Place<'d>) -> Result<Vec<Particle>, DescriptionError> {
        let mut parts = Vec::new();
        for child in components(place.1) {
            match child.local() {
                "element" | "any" | "sequence" | "choice" | "all" | "group" => {
                    parts.extend(self.particle((place.0, child))?);
                }
                other => return Err(self.invalid((place.0, child), format!("xs:{other} among elements"))),
            }
        }
        Ok(parts)
    }

    fn element_term(&mut self, place: Place<'d>) -> Result<Term, DescriptionError> {
        if let Some(name) = self.reference(place, "ref")? {
            if let Some(id) = self.global_element(&name) {
                return Ok(Term::Element(id, 0));
            }
            if self.known.contains(&name.namespace) {
                return Err(self.invalid(place, format!("the element {name} is not defined")));
            }
            self.warn(place, &format!("the element {name} is taken for anything: its schema is not there"));
            let namespaces = Namespaces::Listed(vec![name.namespace]);
            return Ok(Term::Any(Wildcard { namespaces, process: Process::Skip }));
        }
        let part = self.part(place.0)?;
        let is_qualified = match place.1.attribute("", "form") {
            Some(form) => form == "qualified",
            None => part.elements_qualified,
        };
        let namespace: Arc<str> = if is_qualified { part.namespace.clone() } else { "".into() };
        let declaration = self.declaration(place, Some(namespace))?;
        Ok(Term::Element(self.new_element(declaration), 0))
    }

    /// What the group that `place` refers to holds.
    fn group(&mut self, place: Place<'d>) -> Result<Option<Term>, DescriptionError> {
        let Some(name) = self.reference(place, "ref")? else {
            return Err(self.invalid(place, "a group in a content model is a reference"));
        };
        let Some(group) = self.globals.get(&(Space::Group, name.clone())).copied() else {
            return Err(self.invalid(place, format!("the group {name} is not defined")));
        };
        if self.expanding.contains(&name) {
            return Err(self.invalid(place, format!("the group {name} holds itself")));
        }
        self.expanding.push(name);
        let inner = match components(group.1).next() {
            Some(inner) => self.particle((group.0, inner))?,
            None => None,
        };
        self.expanding.pop();
        Ok(inner.map(|inner| inner.term))
    }

    fn occurrence(&self, place: Place<'d>) -> Result<(u32, Option<u32>), DescriptionError> {
        let number = |attribute: &str| match place.1.attribute("", attribute).map(crate::chars::trim) {
            None => Ok(Some(1)),
            Some("unbounded") if attribute == "maxOccurs" => Ok(None),
            // More than 32 bits is as good as any number.
            Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Some(text.parse().unwrap_or(u32::MAX)))
            }
            Some(text) => Err(self.invalid(place, format!("{attribute} is no count: {text:?}"))),
        };
        let (min, max) = (number("minOccurs")?.unwrap_or(0), number("maxOccurs")?);
        match max {
            Some(max) if max < min && max > 0 => Err(self.invalid(place, "maxOccurs is less than minOccurs")),
            _ => Ok((min, max)),
        }
    }
}
