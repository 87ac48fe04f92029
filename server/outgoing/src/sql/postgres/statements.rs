//! The prepared statements of one connection, those used last.

use tokio_postgres::Statement;
use tokio_postgres::types::Type;

/// See the module.
pub(super) struct Statements {
    limit: usize,
    /// The one used last stands last.
    kept: Vec<Kept>,
}

struct Kept {
    text: String,
    types: Vec<Type>,
    statement: Statement,
}

impl Statements {
    /// Keeps at most `limit`.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, kept: Vec::new() }
    }

    /// The statement that was prepared for `text` and `types`.
    pub(super) fn find(&mut self, text: &str, types: &[Type]) -> Option<Statement> {
        let index = self.kept.iter().rposition(|kept| kept.text == text && kept.types == types)?;
        let found = self.kept.remove(index);
        let statement = found.statement.clone();
        self.kept.push(found);
        Some(statement)
    }

    /// Keeps `statement`; one that was not used for long makes room. The driver closes it at the server when
    /// nobody else has it.
    pub(super) fn keep(&mut self, text: String, types: Vec<Type>, statement: Statement) {
        if self.limit == 0 {
            return;
        }
        if self.kept.len() >= self.limit {
            self.kept.remove(0);
        }
        self.kept.push(Kept { text, types, statement });
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }

    /// Forgets all, if so.
    pub(super) fn clear_if(&mut self, is_so: bool) {
        if is_so {
            self.clear();
        }
    }
}
