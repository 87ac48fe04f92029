//! Values that may be one of several.

use std::collections::HashSet;

use serde_json::Value;

use super::tag::{Tag, TypeRef};
use super::{Outcome, Translation, What, last_segment, member, scalar, type_name};
use crate::chars::encode_name;

impl<'s> Translation<'_, 's> {
    /// One of `branches`: a union of simple types, or a choice of elements.
    pub(super) fn alternatives(&mut self, branches: &[Value], hint: &str) -> Outcome<What> {
        if let [one] = branches {
            return Ok(self.held(one, hint)?.what);
        }
        let mut ordered: Vec<&Value> = branches.iter().collect();
        // Text fits everything, so it is tried last.
        ordered.sort_by_key(|branch| self.resolve(branch).is_ok_and(scalar::is_any_text));
        let mut are_scalar = true;
        for branch in &ordered {
            are_scalar &= scalar::is_scalar(self.resolve(branch)?);
        }
        if are_scalar { self.union(&ordered, hint) } else { self.choice(&ordered, hint) }
    }

    fn union(&mut self, branches: &[&Value], hint: &str) -> Outcome<What> {
        let mut names = Vec::new();
        let mut inline = Vec::new();
        for branch in branches {
            match self.held(branch, hint)?.what {
                What::Ref(name) if !names.contains(&name) => names.push(name),
                What::Ref(_) => {}
                What::Inline(tag) => inline.push(tag),
            }
        }
        // Members that are named come before those that are not, whatever the order asked for: text goes last
        // by becoming nameless.
        if !inline.is_empty()
            && let Some(at) = names.iter().position(|name| *name == TypeRef::Xs("string"))
        {
            names.remove(at);
            let restriction = Tag::new("restriction").naming("base", TypeRef::Xs("string"));
            inline.push(Tag::new("simpleType").child(restriction));
        }
        if let ([one], true) = (names.as_slice(), inline.is_empty()) {
            return Ok(What::Ref(one.clone()));
        }
        let union = Tag::new("union");
        let union = if names.is_empty() { union } else { union.naming_all("memberTypes", names) };
        let union = inline.into_iter().fold(union, Tag::child);
        Ok(What::Inline(Tag::new("simpleType").child(union)))
    }

    fn choice(&mut self, branches: &[&Value], hint: &str) -> Outcome<What> {
        let mut taken = HashSet::new();
        let mut choice = Tag::new("choice");
        for branch in branches {
            let wanted = self.name_of(branch)?;
            let mut name = wanted.clone();
            let mut count = 1;
            while !taken.insert(name.clone()) {
                count += 1;
                name = format!("{wanted}{count}");
            }
            let held = self.held(branch, &format!("{hint}{}", type_name(&name)))?;
            choice = choice.child(member(&name, held));
        }
        Ok(What::Inline(Tag::new("complexType").child(choice).annotated("shape", "choice")))
    }

    /// What the element of an alternative is called.
    fn name_of(&self, branch: &Value) -> Outcome<String> {
        let resolved = self.resolve(branch)?;
        let title = resolved.get("title").and_then(Value::as_str);
        let reference = branch.get("$ref").and_then(Value::as_str).map(last_segment);
        let kind = match resolved.get("type").and_then(Value::as_str) {
            Some("array") => "list",
            Some("object") => "map",
            Some(kind) => kind,
            None => "value",
        };
        let name = title.or(reference).map_or_else(|| kind.to_owned(), type_name);
        Ok(encode_name(&name).into_owned())
    }
}
