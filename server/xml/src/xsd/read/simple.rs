//! Simple types: restrictions with their facets, lists, unions.

use std::cmp::Ordering;

use super::super::facets::{Bound, Facets, compare};
use super::super::model::{Enumerated, Primitive, SimpleType, TypeDefinition, TypeId, Variety};
use super::super::{ANY_SIMPLE_TYPE, JSON_ANNOTATIONS, pattern};
use super::{Builder, Place, components};
use crate::document::Element;
use crate::lexical::{WhiteSpace, words};
use crate::namespace::QName;
use crate::sources::DescriptionError;

impl<'d> Builder<'d> {
    pub(super) fn simple_type(&mut self, place: Place<'d>) -> Result<SimpleType, DescriptionError> {
        let (part, element) = place;
        let name = match element.attribute("", "name") {
            Some(local) => Some(QName::new(self.part(part)?.namespace.clone(), local)),
            None => None,
        };
        let Some(child) = components(element).next() else {
            return Err(self.invalid(place, "a simple type is a restriction, a list or a union"));
        };
        let own = (part, child);
        match child.local() {
            "restriction" => {
                let base = match self.reference(own, "base")? {
                    Some(base) => self.type_id(&base, own)?,
                    None => self.inline_type(own)?.unwrap_or(ANY_SIMPLE_TYPE),
                };
                self.restriction(own, base, name)
            }
            "list" => {
                let item = match self.reference(own, "itemType")? {
                    Some(item) => self.type_id(&item, own)?,
                    None => self.inline_type(own)?.unwrap_or(ANY_SIMPLE_TYPE),
                };
                self.ensure(item)?;
                let (base, variety) = (Some(ANY_SIMPLE_TYPE), Variety::List(item));
                Ok(SimpleType { name, base, variety, facets: Facets::of_list() })
            }
            "union" => {
                let mut members = Vec::new();
                for member in words(child.attribute("", "memberTypes").unwrap_or_default()) {
                    let member = self.part(part)?.name(child, member)?;
                    members.push(self.type_id(&member, own)?);
                }
                for inline in components(child).filter(|inline| inline.local() == "simpleType") {
                    members.push(self.new_type((part, inline)));
                }
                for member in &members {
                    self.ensure(*member)?;
                }
                let facets = Facets::new(WhiteSpace::Preserve);
                Ok(SimpleType { name, base: Some(ANY_SIMPLE_TYPE), variety: Variety::Union(members), facets })
            }
            other => Err(self.invalid(own, format!("xs:{other} in a simple type"))),
        }
    }

    /// The `xs:simpleType` inside `place`, if there is one.
    pub(super) fn inline_type(&mut self, place: Place<'d>) -> Result<Option<TypeId>, DescriptionError> {
        let inline = components(place.1).find(|child| child.local() == "simpleType");
        let id = inline.map(|inline| self.new_type((place.0, inline)));
        if let Some(id) = id {
            self.ensure(id)?;
        }
        Ok(id)
    }

    /// What the facets in `place` make of `base`.
    pub(super) fn restriction(
        &mut self,
        place: Place<'d>,
        base: TypeId,
        name: Option<QName>,
    ) -> Result<SimpleType, DescriptionError> {
        self.ensure(base)?;
        let (variety, mut facets) = match self.set.definition(base) {
            TypeDefinition::Simple(simple) => (simple.variety.clone(), simple.facets.clone()),
            // A type whose schema is not there.
            TypeDefinition::Any => (Variety::Atomic(Primitive::Any), Facets::new(WhiteSpace::Preserve)),
            TypeDefinition::Complex(_) => {
                return Err(self.invalid(place, "a simple type is derived from a complex one"));
            }
        };
        let primitive = match variety {
            Variety::Atomic(primitive) => primitive,
            _ => Primitive::String,
        };
        let mut patterns = Vec::new();
        let mut values = Vec::new();
        for facet in components(place.1) {
            let own = (place.0, facet);
            let Some(value) = facet.attribute("", "value") else { continue };
            match facet.local() {
                "pattern" => patterns.push(value),
                "enumeration" => values.push(Enumerated {
                    text: facets.white_space.apply(value).into(),
                    json: self.json_value(own)?,
                }),
                _ => self.facet(own, value, primitive, &mut facets)?,
            }
        }
        if !values.is_empty() {
            facets.enumeration = Some(values.into());
        }
        if !patterns.is_empty() {
            match pattern::compile(patterns.into_iter()) {
                Ok(regex) => facets.patterns.push(regex),
                Err(reason) => self.warn(place, &format!("a pattern is not checked: {reason}")),
            }
        }
        Ok(SimpleType { name, base: Some(base), variety, facets })
    }

    fn facet(
        &mut self,
        place: Place<'d>,
        value: &str,
        primitive: Primitive,
        facets: &mut Facets,
    ) -> Result<(), DescriptionError> {
        let text = crate::chars::trim(value);
        let number = || {
            let digits = text.trim_start_matches('+');
            digits.parse::<u64>().map_err(|_| self.invalid(place, format!("{text:?} is no count")))
        };
        let bound = |inclusive| {
            let is_one = matches!(primitive, Primitive::Duration) || compare(primitive, text, text).is_some();
            match is_one {
                true => Ok(Bound { text: text.into(), inclusive }),
                false => Err(self.invalid(place, format!("{text:?} is no value of the type"))),
            }
        };
        let tighter = |known: &Option<Bound>, new: Bound, wanted: Ordering| match known {
            Some(known) if compare(primitive, &known.text, &new.text) == Some(wanted) => known.clone(),
            _ => new,
        };
        match place.1.local() {
            "length" => {
                let length = number()?;
                (facets.min_length, facets.max_length) = (Some(length), Some(length));
            }
            "minLength" => facets.min_length = facets.min_length.max(Some(number()?)),
            "maxLength" => {
                let length = number()?;
                facets.max_length = Some(facets.max_length.map_or(length, |known| known.min(length)));
            }
            "totalDigits" => facets.total_digits = Some(number()?),
            "fractionDigits" => facets.fraction_digits = Some(number()?),
            "minInclusive" => facets.min = Some(tighter(&facets.min, bound(true)?, Ordering::Greater)),
            "minExclusive" => facets.min = Some(tighter(&facets.min, bound(false)?, Ordering::Greater)),
            "maxInclusive" => facets.max = Some(tighter(&facets.max, bound(true)?, Ordering::Less)),
            "maxExclusive" => facets.max = Some(tighter(&facets.max, bound(false)?, Ordering::Less)),
            "whiteSpace" => {
                facets.white_space = match text {
                    "preserve" => WhiteSpace::Preserve,
                    "replace" => WhiteSpace::Replace,
                    "collapse" => WhiteSpace::Collapse,
                    other => return Err(self.invalid(place, format!("white space cannot be {other:?}"))),
                };
            }
            "attribute" | "attributeGroup" | "anyAttribute" | "simpleType" => {}
            other => return Err(self.invalid(place, format!("the facet {other:?} is not known"))),
        }
        Ok(())
    }

    /// The value that an enumeration has in JSON, where a generated schema says so.
    fn json_value(&self, place: Place<'d>) -> Result<Option<serde_json::Value>, DescriptionError> {
        let (_, element): (usize, Element<'d>) = place;
        match element.attribute(JSON_ANNOTATIONS, "value").map(serde_json::from_str) {
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => Err(self.invalid(place, "the value in JSON is no JSON")),
            None => Ok(None),
        }
    }
}
