//! Several security definitions, any of which will do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::definition::DefinitionName;

/// Any of several definitions: a caller that satisfies one of them is let in by that one. Rate limits are
/// those of the members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Group {
    /// The definitions, in the order in which they are tried. None may be a group.
    #[schemars(length(min = 1, max = 32), extend("uniqueItems" = true))]
    pub any_of: Vec<DefinitionName>,
}

impl Group {
    /// The members, each with the pointer of the field that names it.
    pub(in crate::definition) fn references(&self) -> impl Iterator<Item = (String, &DefinitionName)> {
        self.any_of.iter().enumerate().map(|(index, name)| (format!("/any_of/{index}"), name))
    }
}
