//! The last step of reading: for every content model, which members it has, what they are called in JSON, and
//! which of them are arrays.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::SchemaSet;
use super::model::{Content, ElementDeclaration, ElementId, Member, Model, Particle, Term, TypeDefinition};
use crate::namespace::QName;
use crate::sources::DescriptionError;

/// How many members one type may have.
const MAX_MEMBERS: usize = 10_000;

/// Puts substitution groups into the content models and numbers their members.
pub(super) fn assemble(
    set: &mut SchemaSet,
    substitutes: &HashMap<QName, Vec<QName>>,
    ids: &HashMap<QName, ElementId>,
) -> Result<(), DescriptionError> {
    let groups = Groups { substitutes, ids };
    let mut types = std::mem::take(&mut set.types);
    for definition in &mut types {
        if let TypeDefinition::Complex(complex) = definition
            && let Content::Elements(model) = &mut complex.content
        {
            groups.expand(&mut model.particle, &set.elements);
            number(model, &set.elements)?;
        }
    }
    set.types = types;
    Ok(())
}

struct Groups<'g> {
    substitutes: &'g HashMap<QName, Vec<QName>>,
    ids: &'g HashMap<QName, ElementId>,
}

impl Groups<'_> {
    /// Makes a choice of every element that others may stand for.
    fn expand(&self, particle: &mut Particle, elements: &[ElementDeclaration]) {
        match &mut particle.term {
            Term::Sequence(parts) | Term::Choice(parts) | Term::All(parts) => {
                parts.iter_mut().for_each(|part| self.expand(part, elements));
            }
            Term::Element(id, _) => {
                let Some(head) = elements.get(id.0 as usize).filter(|head| head.is_global) else { return };
                let mut all = vec![*id];
                self.members_of(&head.name, &mut all);
                if all.len() == 1 {
                    return;
                }
                let is_usable = |id: &ElementId| elements.get(id.0 as usize).is_some_and(|e| !e.is_abstract);
                let one = |id: ElementId| Particle { min: 1, max: Some(1), term: Term::Element(id, 0) };
                particle.term = Term::Choice(all.into_iter().filter(is_usable).map(one).collect());
            }
            Term::Any(_) => {}
        }
    }

    fn members_of(&self, head: &QName, all: &mut Vec<ElementId>) {
        for name in self.substitutes.get(head).into_iter().flatten() {
            if let Some(id) = self.ids.get(name)
                && !all.contains(id)
            {
                all.push(*id);
                self.members_of(name, all);
            }
        }
    }
}

fn number(model: &mut Model, elements: &[ElementDeclaration]) -> Result<(), DescriptionError> {
    let mut numbers = HashMap::new();
    let mut members = Vec::new();
    let mut has_wildcard = false;
    visit(&mut model.particle, &mut |term| match term {
        Term::Element(id, number) => {
            let Some(declaration) = elements.get(id.0 as usize) else { return };
            *number = *numbers.entry(declaration.name.clone()).or_insert_with(|| {
                members.push(*id);
                u32::try_from(members.len() - 1).unwrap_or(u32::MAX)
            });
        }
        Term::Any(_) => has_wildcard = true,
        _ => {}
    });
    if members.len() > MAX_MEMBERS {
        return Err(DescriptionError::TooLarge { what: "elements in one type", most: MAX_MEMBERS });
    }
    let mut counts = BTreeMap::new();
    count(&model.particle, &mut counts);
    let mut outside = HashSet::new();
    outside_choices(&model.particle, &mut outside);
    let mut taken = HashSet::new();
    model.members = members
        .into_iter()
        .enumerate()
        .filter_map(|(number, element)| {
            let declaration = elements.get(element.0 as usize)?;
            let mut key = declaration.key.clone().unwrap_or_else(|| declaration.name.local.clone());
            if !taken.insert(key.clone()) {
                key = declaration.name.to_string().into();
            }
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let is_array = counts.get(&number).is_some_and(|count| *count > 1);
            let is_one_of_a_choice = !outside.contains(&number);
            Some(Member { element, key, is_array, is_one_of_a_choice })
        })
        .collect();
    model.has_wildcard = has_wildcard;
    Ok(())
}

fn visit(particle: &mut Particle, each: &mut impl FnMut(&mut Term)) {
    match &mut particle.term {
        Term::Sequence(parts) | Term::Choice(parts) | Term::All(parts) => {
            parts.iter_mut().for_each(|part| visit(part, each));
        }
        term => each(term),
    }
}

/// The members that stand in a sequence or an `all`, and not in a choice only.
fn outside_choices(particle: &Particle, found: &mut HashSet<u32>) {
    match &particle.term {
        Term::Element(_, number) => {
            found.insert(*number);
        }
        Term::Sequence(parts) | Term::All(parts) => {
            parts.iter().for_each(|part| outside_choices(part, found))
        }
        Term::Choice(_) | Term::Any(_) => {}
    }
}

/// How often each member may be there, at most; anything beyond two is two.
fn count(particle: &Particle, counts: &mut BTreeMap<u32, u8>) {
    let mut own = BTreeMap::new();
    match &particle.term {
        Term::Element(_, number) => {
            own.insert(*number, 1);
        }
        Term::Sequence(parts) | Term::All(parts) => parts.iter().for_each(|part| count(part, &mut own)),
        Term::Choice(parts) => {
            for part in parts {
                let mut branch = BTreeMap::new();
                count(part, &mut branch);
                for (number, many) in branch {
                    let most = own.entry(number).or_insert(0);
                    *most = many.max(*most);
                }
            }
        }
        Term::Any(_) => {}
    }
    let factor = if particle.max == Some(1) { 1 } else { 2 };
    for (number, many) in own {
        let known = counts.entry(number).or_insert(0);
        *known = (*known).saturating_add(many.saturating_mul(factor)).min(2);
    }
}
