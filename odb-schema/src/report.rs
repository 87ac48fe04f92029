//! What each server made of the active deployments. It makes no revision.

use std::fmt;
use std::str::FromStr;

use crosstie_model::names::{Digest, UnitName};

use crate::decode;
use crate::error::OdbError;
use crate::handle::{Odb, run};
use crate::member::MAX_NAME_BYTES;

/// What a server made of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportState {
    /// All its workers serve it.
    Serving,
    /// At least one worker could not load it.
    Failed,
}

impl ReportState {
    /// The state's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for ReportState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ReportState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Serving, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| format!("unknown report state {text:?}"))
    }
}

/// What a server made of a unit's deployment, as it last said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportRow {
    /// The server.
    pub server: String,
    /// The unit.
    pub unit: UnitName,
    /// Which version of it.
    pub digest: Digest,
    /// Whether it serves there.
    pub state: ReportState,
    /// Why not, in one line.
    pub message: String,
    /// When it said so: µs since 1970 UTC, by the database's clock.
    pub time_us: i64,
}

impl Odb {
    /// Notes what `server` made of a deployment, in place of what it said of that unit before.
    ///
    /// # Errors
    /// The database is away.
    pub async fn record_report(
        &self,
        server: &str,
        unit: &UnitName,
        digest: &Digest,
        state: ReportState,
        message: &str,
    ) -> Result<(), OdbError> {
        decode::key("the server's name", server, MAX_NAME_BYTES)?;
        run!(self, Write, report::record_report(server, unit, digest, state, message))
    }

    /// All reports, by unit and server.
    ///
    /// # Errors
    /// The database is away.
    pub async fn reports(&self) -> Result<Vec<ReportRow>, OdbError> {
        run!(self, Single, report::reports())
    }
}
