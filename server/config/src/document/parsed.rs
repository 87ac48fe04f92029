//! What reading documents gives: the definitions that are sound, those that are not, and every fault.
//!
//! Whoever holds the other definitions checks references next; that goes on beside faults of form, so that
//! one attempt shows all there is to mend.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crosstie_model::definition::{references_in, services_in};
use crosstie_model::{Definition, DefinitionId, ServiceName};

use super::MAX_FAULTS;
use crate::fault::LocatedFault;
use crate::tree::{Node, unescape};

/// What documents say.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// The definitions without a fault of their own, in the order they are written.
    pub definitions: Vec<LocatedDefinition>,
    /// The definitions with a name and faults. Others may refer to them: they will be there once mended.
    pub faulty: Vec<FaultyDefinition>,
    /// Every fault, by file and line; at most [`MAX_FAULTS`].
    pub faults: Vec<LocatedFault>,
    /// Whether `definitions` and `faulty` have the names of all definitions there are. A file that is no YAML
    /// from some line on may define anything there.
    pub complete: bool,
}

impl Parsed {
    /// The definitions, for callers that want all or nothing.
    ///
    /// # Errors
    /// Every fault.
    pub fn all_sound(self) -> Result<Vec<LocatedDefinition>, Vec<LocatedFault>> {
        if self.faults.is_empty() { Ok(self.definitions) } else { Err(self.faults) }
    }
}

/// Puts faults in the order in which they are reported, each once, at most [`MAX_FAULTS`].
pub fn arrange(faults: &mut Vec<LocatedFault>) {
    faults.sort();
    faults.dedup();
    faults.truncate(MAX_FAULTS);
}

/// A definition and where it is written.
#[derive(Debug, Clone)]
pub struct LocatedDefinition {
    /// The definition. Its references are not checked yet.
    pub definition: Definition,
    /// The file it stands in.
    pub file: PathBuf,
    /// The line of its name.
    pub line: usize,
    pub(super) body: Node,
}

impl LocatedDefinition {
    /// A fault of this definition found later (an unknown reference, a conflict), at the line of the field
    /// that `pointer` (RFC 6901, relative to the body) names; empty for the definition as a whole.
    #[must_use]
    pub fn fault(&self, pointer: &str, detail: impl Into<String>) -> LocatedFault {
        fault(&self.file, self.line, &self.body, &self.definition.id, pointer, detail)
    }
}

/// A definition that is none yet, because of faults that were found in it.
#[derive(Debug, Clone)]
pub struct FaultyDefinition {
    /// Its kind and name.
    pub id: DefinitionId,
    pub(super) file: PathBuf,
    pub(super) line: usize,
    pub(super) body: Node,
    /// Pointers of the fields that are wrong in themselves.
    pub(super) wrong: BTreeSet<String>,
}

impl FaultyDefinition {
    /// As [`LocatedDefinition::fault`].
    #[must_use]
    pub fn fault(&self, pointer: &str, detail: impl Into<String>) -> LocatedFault {
        fault(&self.file, self.line, &self.body, &self.id, pointer, detail)
    }

    /// The definitions this one needs, as far as its fields are right, each with the field's pointer.
    #[must_use]
    pub fn references(&self) -> Vec<(String, DefinitionId)> {
        let mut found = references_in(self.id.kind, &self.body.to_value());
        found.retain(|(pointer, _)| !self.wrong.contains(pointer));
        found
    }

    /// The services this one leads to, as far as its fields are right, each with the field's pointer.
    #[must_use]
    pub fn services(&self) -> Vec<(String, ServiceName)> {
        let mut found = services_in(self.id.kind, &self.body.to_value());
        found.retain(|(pointer, _)| !self.wrong.contains(pointer));
        found
    }
}

fn fault(
    file: &Path,
    line: usize,
    body: &Node,
    id: &DefinitionId,
    pointer: &str,
    detail: impl Into<String>,
) -> LocatedFault {
    // A setting that is missing belongs to the line of the name, not to that of the settings that are there.
    let is_there = pointer.split('/').nth(1).is_some_and(|key| body.holds(&unescape(key)));
    let line = if is_there { body.line_of(pointer) } else { line };
    LocatedFault::new(file, line, format!("{id}{pointer}"), detail)
}
