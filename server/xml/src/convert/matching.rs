//! Finding for each child element the particle it belongs to.
//!
//! XML Schema asks that content models are unambiguous (part 1, section 3.8.6), so looking one element ahead
//! is enough and the work is linear in the children. A model that breaks the rule is matched greedily.

use std::collections::HashMap;

use serde_json::Value;

use super::read::Reading;
use crate::document::Element;
use crate::xsd::{Member, Model, Particle, Process, Term};

/// The values found for one member.
#[derive(Debug, Clone, Default)]
pub(super) struct Slot {
    values: Vec<Value>,
}

impl Slot {
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// What stands in JSON for the member; `None` when nothing does.
    pub(super) fn value(mut self, member: &Member) -> Option<Value> {
        if !member.is_array {
            return self.values.pop();
        }
        (!self.values.is_empty() || !member.is_one_of_a_choice).then_some(Value::Array(self.values))
    }
}

pub(super) struct Matching<'m, 'r> {
    reading: &'m mut Reading<'r>,
    model: &'r Model,
    /// The children that can be matched, each with the number of its member.
    children: Vec<(Element<'r>, Option<u32>)>,
    at: usize,
    slots: Vec<Slot>,
    wild: Vec<(String, Value)>,
}

impl<'m, 'r> Matching<'m, 'r> {
    pub(super) fn new(reading: &'m mut Reading<'r>, model: &'r Model, parent: Element<'r>) -> Self {
        let mut finder = Finder::new(reading, model);
        let mut children = Vec::new();
        let mut unknown = Vec::new();
        for child in parent.elements() {
            let member = finder.find(child);
            if member.is_none() && !model.has_wildcard {
                unknown.push(child);
            } else {
                children.push((child, member));
            }
        }
        for child in unknown {
            reading.trail.fault_at(child.local(), "is not known here");
        }
        let slots = vec![Slot::default(); model.members.len()];
        Self { reading, model, children, at: 0, slots, wild: Vec::new() }
    }

    pub(super) fn run(&mut self) {
        self.particle(&self.model.particle);
        if let Some((child, _)) = self.children.get(self.at) {
            let detail = match self.slots.iter().any(|slot| !slot.is_empty()) || self.at > 0 {
                true => "is not allowed here: it is out of order or there are too many",
                false => "is not allowed here",
            };
            self.reading.trail.fault_at(child.local(), detail);
        }
    }

    pub(super) fn finish(self) -> (Vec<Slot>, Vec<(String, Value)>) {
        (self.slots, self.wild)
    }

    fn particle(&mut self, particle: &'r Particle) {
        let mut count = 0;
        while particle.max.is_none_or(|max| count < max) && self.starts(&particle.term) {
            self.once(&particle.term);
            count += 1;
        }
        if count < particle.min && !particle.is_optional() {
            match &particle.term {
                // Its parts tell what is missing, and take what is there all the same.
                Term::Sequence(_) | Term::All(_) => self.once(&particle.term),
                _ => self.missing(particle),
            }
        }
    }

    /// Whether the next child can be the first of `term`.
    fn starts(&self, term: &Term) -> bool {
        let Some((child, member)) = self.children.get(self.at) else { return false };
        match term {
            Term::Element(_, number) => *member == Some(*number),
            Term::Any(any) => any.allows(child.namespace()),
            Term::Choice(parts) | Term::All(parts) => parts.iter().any(|part| self.starts(&part.term)),
            Term::Sequence(parts) => {
                for part in parts {
                    if self.starts(&part.term) {
                        return true;
                    }
                    if !part.is_optional() {
                        return false;
                    }
                }
                false
            }
        }
    }

    /// Takes `term` once.
    fn once(&mut self, term: &'r Term) {
        match term {
            Term::Element(_, number) => self.take_member(*number),
            Term::Any(any) => self.take_wild(any.process),
            Term::Sequence(parts) => parts.iter().for_each(|part| self.particle(part)),
            Term::Choice(parts) => {
                if let Some(part) = parts.iter().find(|part| self.starts(&part.term)) {
                    self.particle(part);
                }
            }
            Term::All(parts) => self.all(parts),
        }
    }

    fn all(&mut self, parts: &'r [Particle]) {
        let mut counts = vec![0_u32; parts.len()];
        loop {
            let next = parts
                .iter()
                .zip(&mut counts)
                .find(|(part, count)| part.max.is_none_or(|max| **count < max) && self.starts(&part.term));
            let Some((part, count)) = next else { break };
            *count += 1;
            self.once(&part.term);
        }
        for (part, count) in parts.iter().zip(counts) {
            if count < part.min && !part.is_optional() {
                self.missing(part);
            }
        }
    }

    fn take_member(&mut self, number: u32) {
        let Some((child, _)) = self.children.get(self.at).copied() else { return };
        self.at += 1;
        let number = number as usize;
        let (Some(member), Some(slot)) = (self.model.members.get(number), self.slots.get_mut(number)) else {
            return;
        };
        let value = self.reading.member(member, slot.values.len(), child);
        slot.values.push(value);
    }

    fn take_wild(&mut self, process: Process) {
        let Some((child, _)) = self.children.get(self.at).copied() else { return };
        self.at += 1;
        let name = child.qname().to_string();
        let is_member = self.model.members.iter().any(|member| *member.key == *name);
        let key = if is_member { format!("{{}}{name}") } else { name };
        let value = self.reading.wild(process, child);
        self.wild.push((key, value));
    }

    /// Notes what had to be here.
    fn missing(&mut self, particle: &Particle) {
        let mut names = Vec::new();
        first_names(self.model, &particle.term, &mut names);
        let trail = &mut self.reading.trail;
        match names.as_slice() {
            [] => trail.fault("an element is missing"),
            [one] => trail.fault_at(one, "is required"),
            many => trail.fault(format!("one of {} is required", quoted(many))),
        }
    }
}

/// The keys of the elements that `term` may begin with.
pub(super) fn first_names<'m>(model: &'m Model, term: &Term, names: &mut Vec<&'m str>) {
    match term {
        Term::Element(_, number) => {
            names.extend(model.members.get(*number as usize).map(|member| &*member.key));
        }
        Term::Choice(parts) => parts.iter().for_each(|part| first_names(model, &part.term, names)),
        Term::Sequence(parts) | Term::All(parts) => {
            for part in parts.iter().filter(|part| !part.is_optional()).take(1) {
                first_names(model, &part.term, names);
            }
        }
        Term::Any(_) => {}
    }
}

pub(super) fn quoted(names: &[&str]) -> String {
    let shown: Vec<_> = names.iter().take(10).map(|name| format!("{name:?}")).collect();
    shown.join(", ")
}

/// Finds the member that an element is, starting where the last one was found: documents follow their schema.
struct Finder<'f> {
    names: Vec<(&'f str, &'f str)>,
    last: usize,
    /// For types with so many members that looking through them would cost.
    index: HashMap<(&'f str, &'f str), u32>,
}

impl<'f> Finder<'f> {
    fn new(reading: &Reading<'f>, model: &'f Model) -> Self {
        let set = reading.set;
        let names: Vec<_> = model
            .members
            .iter()
            .map(|member| &set.declaration(member.element).name)
            .map(|name| (&*name.namespace, &*name.local))
            .collect();
        let index = match names.len() > 16 {
            true => names.iter().copied().zip(0..).collect(),
            false => HashMap::new(),
        };
        Self { names, last: 0, index }
    }

    fn find(&mut self, element: Element<'_>) -> Option<u32> {
        let (namespace, local) = (element.namespace(), element.local());
        let is = |known: &(&str, &str)| known.1 == local && known.0 == namespace;
        if !self.index.is_empty() {
            return self.index.get(&(namespace, local)).copied();
        }
        let found = match self.names.get(self.last..).unwrap_or_default().iter().position(is) {
            Some(ahead) => self.last + ahead,
            None => self.names.iter().position(is)?,
        };
        self.last = found;
        u32::try_from(found).ok()
    }
}
