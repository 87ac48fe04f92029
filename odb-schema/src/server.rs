//! The servers of the cluster, and what each made of the active deployments. Neither makes a revision.

use std::fmt;
use std::str::FromStr;

use crosstie_model::names::{Digest, UnitName};

use crate::decode;
use crate::error::OdbError;
use crate::handle::{Odb, run};

/// Longest name of a server, user or lease, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 190;

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewServer {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Where service traffic goes.
    pub address: String,
    /// Where management calls go.
    pub management: String,
    /// The release it runs.
    pub version: String,
}

/// A server of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRow {
    /// What it said of itself last.
    pub server: NewServer,
    /// When it was first seen: µs since 1970 UTC, by the database's clock.
    pub joined_us: i64,
    /// When it last reported.
    pub seen_us: i64,
}

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
    /// Notes that a server is there, and when.
    ///
    /// # Errors
    /// The database is away.
    pub async fn upsert_server(&self, server: &NewServer) -> Result<(), OdbError> {
        decode::key("the server's name", &server.name, MAX_NAME_BYTES)?;
        run!(self, Write, server::upsert_server(server))
    }

    /// The servers of the cluster, by name.
    ///
    /// # Errors
    /// The database is away.
    pub async fn servers(&self) -> Result<Vec<ServerRow>, OdbError> {
        run!(self, Single, server::servers())
    }

    /// Forgets a server, its reports and its pickup files; says whether it was known.
    ///
    /// # Errors
    /// The database is away.
    pub async fn delete_server(&self, name: &str) -> Result<bool, OdbError> {
        run!(self, Write, server::delete_server(name))
    }

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
        run!(self, Write, server::record_report(server, unit, digest, state, message))
    }

    /// All reports, by unit and server.
    ///
    /// # Errors
    /// The database is away.
    pub async fn reports(&self) -> Result<Vec<ReportRow>, OdbError> {
        run!(self, Single, server::reports())
    }
}
