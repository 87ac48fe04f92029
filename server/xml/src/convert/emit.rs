//! Putting the members of a JSON object into the order of a content model.

use serde_json::{Map, Value};

use super::matching::{first_names, quoted};
use super::path::Step;
use super::write::{Writing, expanded};
use super::{ENTRIES, UnknownMembers};
use crate::untyped::{self, Scalars};
use crate::xsd::{Content, Member, Model, Particle, Process, Shape, Term, TypeDefinition, Wildcard};

/// What there is to write for one member.
struct Supply<'w> {
    values: &'w [Value],
    written: usize,
}

impl Supply<'_> {
    fn left(&self) -> usize {
        self.values.len() - self.written
    }
}

/// A member that only a wildcard can take.
struct Extra<'w> {
    key: &'w str,
    values: &'w [Value],
    written: usize,
}

pub(super) struct Emission<'e, 'w, 'o, 'a> {
    writing: &'e mut Writing<'w, 'o, 'a>,
    model: Option<&'w Model>,
    supplies: Vec<Supply<'w>>,
    extras: Vec<Extra<'w>>,
    /// The keys and values of a map, which are written where its entries stand.
    entries: Vec<(&'w String, &'w Value)>,
}

impl<'e, 'w, 'o, 'a> Emission<'e, 'w, 'o, 'a> {
    /// `known` tells the keys that are no elements.
    pub(super) fn new(
        writing: &'e mut Writing<'w, 'o, 'a>,
        model: Option<&'w Model>,
        members: &'w Map<String, Value>,
        shape: Shape,
        known: &dyn Fn(&str) -> bool,
    ) -> Self {
        let declared = model.map_or(&[][..], |model| &model.members);
        let is_map = |key: &str| shape == Shape::Map && key == ENTRIES;
        let supplies: Vec<_> = declared
            .iter()
            .map(|member| match members.get(&*member.key).filter(|_| !is_map(&member.key)) {
                Some(value) => supply(writing, member, value),
                None => &[],
            })
            .map(|values| Supply { values, written: 0 })
            .collect();
        let mut extras = Vec::new();
        let mut entries = Vec::new();
        for (key, value) in members {
            let is_declared = declared.iter().any(|member| *member.key == **key && !is_map(key));
            if is_declared || known(key) {
                continue;
            }
            if shape == Shape::Map {
                entries.push((key, value));
                continue;
            }
            let values = match value {
                Value::Array(values) => values.as_slice(),
                one => std::slice::from_ref(one),
            };
            extras.push(Extra { key, values, written: 0 });
        }
        Self { writing, model, supplies, extras, entries }
    }

    pub(super) fn run(mut self) {
        if let Some(model) = self.model {
            self.particle(&model.particle);
            self.left_over(model);
        }
        if self.writing.options.unknown == UnknownMembers::Refuse {
            for extra in self.extras.iter().filter(|extra| extra.written < extra.values.len()) {
                self.writing.trail.fault_at(extra.key, "is not known here");
            }
        }
    }

    /// Values that no particle took.
    fn left_over(&mut self, model: &'w Model) {
        for (supply, member) in self.supplies.iter().zip(&model.members) {
            if supply.left() == 0 {
                continue;
            }
            let detail = match supply.written {
                0 => "may not stand beside the others",
                _ => "there are more of it than may be",
            };
            self.writing.trail.fault_at(&member.key, detail);
        }
    }

    fn particle(&mut self, particle: &'w Particle) {
        let mut count = 0;
        while particle.max.is_none_or(|max| count < max) && self.available(&particle.term) {
            self.once(&particle.term);
            count += 1;
        }
        if count < particle.min && !particle.is_optional() {
            match &particle.term {
                // Its parts tell what is missing.
                Term::Sequence(_) | Term::All(_) => self.once(&particle.term),
                _ => self.missing(particle),
            }
        }
    }

    fn left(&self, number: u32) -> usize {
        self.supplies.get(number as usize).map_or(0, Supply::left)
    }

    fn is_entries(&self, number: u32) -> bool {
        let member = self.model.and_then(|model| model.members.get(number as usize));
        !self.entries.is_empty() && member.is_some_and(|member| *member.key == *ENTRIES)
    }

    /// Whether there is something to write for any part of `term`.
    fn available(&self, term: &Term) -> bool {
        match term {
            Term::Element(_, number) => self.left(*number) > 0 || self.is_entries(*number),
            Term::Any(any) => self.next_extra(any).is_some(),
            Term::Sequence(parts) | Term::Choice(parts) | Term::All(parts) => {
                parts.iter().any(|part| self.available(&part.term))
            }
        }
    }

    /// Writes `term` once.
    fn once(&mut self, term: &'w Term) {
        match term {
            Term::Element(_, number) if self.is_entries(*number) => self.map_entries(*number),
            Term::Element(_, number) => self.next_value(*number),
            Term::Any(any) => self.wild(any),
            Term::Sequence(parts) | Term::All(parts) => parts.iter().for_each(|part| self.particle(part)),
            Term::Choice(parts) => {
                if let Some(part) = self.best(parts) {
                    self.particle(part);
                }
            }
        }
    }

    /// The branch of a choice that the values mean: one of which nothing is missing, and of those the one
    /// that takes most.
    fn best(&self, parts: &'w [Particle]) -> Option<&'w Particle> {
        let candidates = parts.iter().filter(|part| self.available(&part.term));
        // The first of equals.
        candidates.rev().max_by_key(|part| (self.is_complete(part), self.takes(&part.term)))
    }

    fn is_complete(&self, particle: &Particle) -> bool {
        particle.is_optional()
            || match &particle.term {
                Term::Element(..) | Term::Any(_) => self.available(&particle.term),
                Term::Sequence(parts) | Term::All(parts) => parts.iter().all(|part| self.is_complete(part)),
                Term::Choice(parts) => parts.iter().any(|part| self.is_complete(part)),
            }
    }

    fn takes(&self, term: &Term) -> usize {
        match term {
            Term::Element(..) | Term::Any(_) => usize::from(self.available(term)),
            Term::Sequence(parts) | Term::All(parts) => parts.iter().map(|part| self.takes(&part.term)).sum(),
            Term::Choice(parts) => parts.iter().map(|part| self.takes(&part.term)).max().unwrap_or(0),
        }
    }

    fn next_value(&mut self, number: u32) {
        let number = number as usize;
        let member = self.model.and_then(|model| model.members.get(number));
        let (Some(member), Some(supply)) = (member, self.supplies.get_mut(number)) else { return };
        let index = supply.written;
        supply.written += 1;
        let Some(value) = supply.values.get(index) else { return };
        self.writing.trail.push(Step::Key(&member.key));
        if member.is_array {
            self.writing.trail.push(Step::Index(index));
        }
        self.writing.element(member.element, value);
        if member.is_array {
            self.writing.trail.pop();
        }
        self.writing.trail.pop();
    }

    /// The place of the next member that `any` lets in.
    fn next_extra(&self, any: &Wildcard) -> Option<usize> {
        let is_next =
            |extra: &Extra<'_>| extra.written < extra.values.len() && any.allows(expanded(extra.key).0);
        self.extras.iter().position(is_next)
    }

    fn wild(&mut self, any: &Wildcard) {
        let Some(extra) = self.next_extra(any).and_then(|place| self.extras.get_mut(place)) else { return };
        let Some(value) = extra.values.get(extra.written) else { return };
        extra.written += 1;
        let (namespace, local) = expanded(extra.key);
        let declared = match any.process {
            Process::Skip => None,
            _ => self.writing.set.element(namespace, local),
        };
        self.writing.trail.push(Step::Key(extra.key));
        match declared {
            Some(id) => self.writing.element(id, value),
            None if any.process == Process::Strict => {
                self.writing.trail.fault("the element is not declared anywhere");
            }
            None => untyped::write(self.writing.writer, namespace, local, value, Scalars::Typed),
        }
        self.writing.trail.pop();
    }

    /// Writes a map as `entry` elements, each with its key and its value.
    fn map_entries(&mut self, number: u32) {
        let Some(entry) = self.model.and_then(|model| model.members.get(number as usize)) else { return };
        let declaration = self.writing.set.declaration(entry.element);
        let inner = match self.writing.set.definition(declaration.type_id) {
            TypeDefinition::Complex(complex) => match &complex.content {
                Content::Elements(model) => model.members.as_slice(),
                _ => &[],
            },
            _ => &[],
        };
        let [key_member, value_member] = inner else { return };
        let key_name = &self.writing.set.declaration(key_member.element).name;
        for (key, value) in std::mem::take(&mut self.entries) {
            self.writing.trail.push(Step::Key(key));
            if crate::chars::first_illegal(key).is_some() {
                self.writing.trail.fault("the key holds a character that XML cannot hold");
            }
            self.writing.writer.start(&declaration.name.namespace, &declaration.name.local);
            self.writing.writer.leaf(&key_name.namespace, &key_name.local, key);
            self.writing.element(value_member.element, value);
            self.writing.writer.end();
            self.writing.trail.pop();
        }
    }

    fn missing(&mut self, particle: &Particle) {
        let mut names = Vec::new();
        if let Some(model) = self.model {
            first_names(model, &particle.term, &mut names);
        }
        let trail = &mut self.writing.trail;
        match names.as_slice() {
            [] => trail.fault("a member is missing"),
            [one] => trail.fault_at(one, "is required"),
            many => trail.fault(format!("one of {} is required", quoted(many))),
        }
    }
}

/// The values of a member: those of an array where it may repeat, otherwise the one. `null` counts as absent
/// where the element may be absent and cannot be nil.
fn supply<'w>(writing: &Writing<'w, '_, '_>, member: &Member, value: &'w Value) -> &'w [Value] {
    match value {
        Value::Array(values) if member.is_array => values,
        Value::Null => {
            let is_nillable = writing.set.declaration(member.element).nillable;
            if is_nillable && !member.is_array { std::slice::from_ref(value) } else { &[] }
        }
        one => std::slice::from_ref(one),
    }
}
