//! Why an operation was refused or failed, in terms that every front (HTTP, pickup, command line) can act
//! on: whose fault it is, and whether trying again can help.

use crosstie_config::LocatedFault;
use crosstie_model::{Failure, Revision};
use crosstie_odb::OdbError;

use super::check::StateFault;

/// Why an operation did not happen. Nothing was changed unless a variant says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// What the operation is about does not exist.
    #[error("there is no {0}")]
    NotFound(String),
    /// The request itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Documents with faults; all of them.
    #[error("{}", summary(.0))]
    Faults(Vec<LocatedFault>),
    /// The change would break the configuration.
    #[error("{}", .0.reason)]
    Refused(Refusal),
    /// The caller's idea of the current revision is outdated.
    #[error("the configuration is at revision {found}, not {expected}; look at what changed and try again")]
    Outdated {
        /// What the caller expected.
        expected: Revision,
        /// What is there.
        found: Revision,
    },
    /// Others kept changing the configuration, or kept the database busy.
    #[error("the configuration is being changed by others; try again")]
    Contended,
    /// The check of an artifact could not be run; nothing is known about the artifact.
    #[error("the check could not be run: {0}")]
    CheckNotRun(String),
    /// A service failed when it was invoked.
    #[error("{0}")]
    Service(Failure),
    /// The ODB is away.
    #[error("the operational database is not reachable")]
    OdbUnreachable(#[source] OdbError),
    /// The ODB went away while it stored a change: it may or may not have been made.
    #[error(
        "the operational database did not confirm the change; the current revision tells whether it was made"
    )]
    OutcomeUnknown(#[source] OdbError),
    /// The ODB failed.
    #[error("the operational database failed")]
    Odb(#[source] OdbError),
    /// A secret could not be sealed, opened or hashed.
    #[error("a secret could not be sealed or opened")]
    Secret(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A configuration repository failed.
    #[error("the configuration repository failed")]
    Repository(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Something in this process failed that no caller can mend.
    #[error("the operation failed: {0}")]
    Internal(String),
}

/// A refused deployment or change of definitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// One line for a person; of several faults the first, and how many more there are.
    pub reason: String,
    /// A traceback or compiler output; empty without one.
    pub detail: String,
    /// What would be wrong with the next state, one by one; empty when the artifact itself is at fault.
    pub faults: Vec<StateFault>,
}

impl Refusal {
    /// A refusal for `reason` alone.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::default() }
    }

    /// A refusal for what would be wrong with the next state.
    #[must_use]
    pub fn of_faults(faults: Vec<StateFault>) -> Self {
        let texts: Vec<_> = faults.iter().map(ToString::to_string).collect();
        Self { reason: first_of(&texts), detail: String::new(), faults }
    }

    /// Everything that is wrong, a line each: the faults, or the reason when there are none to list.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        if self.faults.is_empty() {
            return vec![one_line(&self.reason)];
        }
        self.faults.iter().map(|fault| one_line(&fault.to_string())).collect()
    }
}

impl From<OdbError> for OperationError {
    fn from(error: OdbError) -> Self {
        match error {
            OdbError::Unreachable { .. } => Self::OdbUnreachable(error),
            OdbError::Busy => Self::Contended,
            OdbError::Conflict { expected, found } => Self::Outdated { expected, found },
            OdbError::NotFound { what } => Self::NotFound(what),
            OdbError::Exists { .. } | OdbError::Invalid { .. } => Self::Invalid(error.to_string()),
            other => Self::Odb(other),
        }
    }
}

impl OperationError {
    /// Whether the same operation may succeed later without anybody mending anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Contended | Self::CheckNotRun(_) | Self::OdbUnreachable(_) | Self::OutcomeUnknown(_) => {
                true
            }
            Self::Service(failure) => failure.retryable,
            _ => false,
        }
    }
}

/// The first of several faults, and how many more there are.
pub(super) fn first_of(faults: &[String]) -> String {
    match faults {
        [] => String::new(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

fn summary(faults: &[LocatedFault]) -> String {
    match faults {
        [] => "the documents are not valid".to_owned(),
        several => first_of(&several.iter().map(ToString::to_string).collect::<Vec<_>>()),
    }
}
