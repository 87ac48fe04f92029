//! `export`: the explicit definitions as one YAML document that `apply` takes back.

use crosstie_config::document;
use crosstie_model::definition::DefinitionKind;
use crosstie_model::{Definition, Revision};

use super::{OperationError, Operations};

impl Operations {
    /// All explicit definitions (of one kind) as YAML, and the revision they are of. Secrets are
    /// references; channels declared in code are left out.
    ///
    /// # Errors
    /// The ODB is away.
    pub async fn export(&self, kind: Option<DefinitionKind>) -> Result<(Revision, String), OperationError> {
        let snapshot = self.odb().snapshot().await?;
        let definitions: Vec<_> = snapshot
            .definitions
            .into_iter()
            .filter(|(id, _)| kind.is_none_or(|kind| id.kind == kind))
            .map(|(id, body)| Definition { id, body })
            .collect();
        let text =
            document::render(&definitions).map_err(|error| OperationError::Internal(error.to_string()))?;
        Ok((snapshot.revision, text))
    }
}
