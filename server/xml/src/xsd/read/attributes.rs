//! Attributes of complex types, with the groups that hold them.

use std::sync::Arc;

use super::super::model::{AttributeUse, Namespaces, Process, TypeId, Wildcard};
use super::super::{ANY_SIMPLE_TYPE, Names};
use super::{Builder, Place, Space, components};
use crate::namespace::QName;
use crate::sources::DescriptionError;

/// The attributes of one type while they are gathered.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) uses: Vec<AttributeUse>,
    pub(super) any: Option<Wildcard>,
    /// Those that a restriction takes away.
    pub(super) prohibited: Vec<QName>,
}

impl<'d> Builder<'d> {
    /// Adds the attributes declared in `place`.
    pub(super) fn attributes(
        &mut self,
        place: Place<'d>,
        gathered: &mut Gathered,
    ) -> Result<(), DescriptionError> {
        for child in components(place.1) {
            let own = (place.0, child);
            match child.local() {
                "attribute" => self.attribute_use(own, gathered)?,
                "anyAttribute" => gathered.any = Some(self.wildcard(own)?),
                "attributeGroup" => {
                    let Some(name) = self.reference(own, "ref")? else { continue };
                    let Some(group) = self.globals.get(&(Space::AttributeGroup, name.clone())).copied()
                    else {
                        if self.known.contains(&name.namespace) {
                            return Err(
                                self.invalid(own, format!("the attribute group {name} is not defined"))
                            );
                        }
                        self.warn(
                            own,
                            &format!("the attribute group {name} is left out: its schema is not there"),
                        );
                        continue;
                    };
                    if self.expanding.contains(&name) {
                        return Err(self.invalid(own, format!("the attribute group {name} holds itself")));
                    }
                    self.count(1)?;
                    self.expanding.push(name);
                    self.attributes(group, gathered)?;
                    self.expanding.pop();
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn attribute_use(&mut self, place: Place<'d>, gathered: &mut Gathered) -> Result<(), DescriptionError> {
        self.count(1)?;
        let element = place.1;
        let (name, declared) = match self.reference(place, "ref")? {
            Some(name) => {
                let declared = self.globals.get(&(Space::Attribute, name.clone())).copied();
                if declared.is_none() && self.known.contains(&name.namespace) {
                    return Err(self.invalid(place, format!("the attribute {name} is not defined")));
                }
                (name, declared)
            }
            None => {
                let Some(local) = element.attribute("", "name") else {
                    return Err(self.invalid(place, "an attribute needs a name or a reference"));
                };
                let part = self.part(place.0)?;
                let is_qualified = match element.attribute("", "form") {
                    Some(form) => form == "qualified",
                    None => part.attributes_qualified,
                };
                let namespace: Arc<str> = if is_qualified { part.namespace.clone() } else { "".into() };
                (QName::new(namespace, crate::chars::trim(local)), Some(place))
            }
        };
        let known = gathered.uses.iter().position(|known| known.name == name);
        if element.attribute("", "use") == Some("prohibited") {
            gathered.prohibited.push(name);
            if let Some(known) = known {
                gathered.uses.remove(known);
            }
            return Ok(());
        }
        let type_id = match declared {
            Some(declared) => self.attribute_type(declared)?,
            // Of a namespace without schema.
            None => ANY_SIMPLE_TYPE,
        };
        let value = |attribute| {
            let own = element.attribute("", attribute);
            own.or_else(|| declared?.1.attribute("", attribute)).map(Arc::from)
        };
        let attribute = AttributeUse {
            key: format!("@{}", name.local).into(),
            name,
            type_id,
            required: element.attribute("", "use") == Some("required"),
            default: value("default"),
            fixed: value("fixed"),
        };
        match known.and_then(|known| gathered.uses.get_mut(known)) {
            Some(known) => *known = attribute,
            None => gathered.uses.push(attribute),
        }
        Ok(())
    }

    /// The type of the attribute declared at `place`.
    pub(super) fn attribute_type(&mut self, place: Place<'d>) -> Result<TypeId, DescriptionError> {
        match self.reference(place, "type")? {
            Some(name) => self.type_id(&name, place),
            None => Ok(self.inline_type(place)?.unwrap_or(ANY_SIMPLE_TYPE)),
        }
    }

    pub(super) fn wildcard(&self, place: Place<'d>) -> Result<Wildcard, DescriptionError> {
        let target = self.part(place.0)?.namespace.clone();
        let namespaces = match place.1.attribute("", "namespace").map(crate::chars::trim) {
            None | Some("##any") => Namespaces::Any,
            Some("##other") => Namespaces::Other(target),
            Some(list) => Namespaces::Listed(
                crate::lexical::words(list)
                    .map(|word| match word {
                        "##targetNamespace" => target.clone(),
                        "##local" => "".into(),
                        namespace => namespace.into(),
                    })
                    .collect(),
            ),
        };
        let process = match place.1.attribute("", "processContents") {
            None | Some("strict") => Process::Strict,
            Some("lax") => Process::Lax,
            Some("skip") => Process::Skip,
            Some(other) => return Err(self.invalid(place, format!("contents cannot be processed {other:?}"))),
        };
        Ok(Wildcard { namespaces, process })
    }
}

/// Gives each attribute a key of its own: two of one local name differ by their namespaces.
pub(super) fn settle_keys(uses: &mut [AttributeUse]) {
    let mut taken = Names::new();
    for attribute in uses {
        if taken.find("", &attribute.name.local).is_some() {
            attribute.key = format!("@{}", attribute.name).into();
        }
        taken.insert(&QName::new("", attribute.name.local.clone()), ());
    }
}
