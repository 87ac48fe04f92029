//! How this server is. Answers whatever else is broken: it needs no ODB and says whether there is one.

use std::path::Path;
use std::time::Duration;

use crosstie_config::{settings, user};
use crosstie_model::Revision;
use crosstie_model::certificate::CertificateEnd;
use crosstie_model::event::{ClosedChannel, ClosedOutgoing};
use schemars::JsonSchema;
use serde::Serialize;

use super::Operations;
use crate::host::{BusStatus, Quarantined, WorkerProcess};

/// How long the ODB may take to say which revision it is at.
const ODB_PATIENCE: Duration = Duration::from_secs(2);

/// A server as `crosstie status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ServerStatus {
    /// The server's name.
    pub name: String,
    /// `server`.
    pub kind: String,
    /// `running`, or `degraded` while it runs from its last good snapshot or cannot reach the ODB.
    pub state: String,
    /// Why it is degraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded: Option<String>,
    /// The supervisor's process id.
    pub pid: u32,
    /// Where service traffic goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Where management calls go.
    pub management: String,
    /// The release it runs.
    pub version: String,
    /// The operational database.
    pub odb: OdbState,
    /// How it hears of changes that other servers make.
    pub bus: BusStatus,
    /// Its workers.
    pub workers: Vec<WorkerState>,
    /// Services that are quarantined here.
    pub quarantined: Vec<Quarantined>,
    /// How the server last told the cluster it is: a state as in the list of members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// When the certificates it uses end.
    pub certificates: Vec<CertificateEnd>,
    /// What is wrong with the configuration files as they lie there now, by file, line and key: the server goes
    /// on with what it had before. Empty when they are right.
    pub refused_settings: Vec<String>,
    /// Active channels that nobody can use here.
    pub closed_channels: Vec<ClosedChannel>,
    /// Active outgoings that cannot be used here.
    pub closed_outgoings: Vec<ClosedOutgoing>,
}

/// What is known of the ODB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OdbState {
    /// `sqlite`, `postgres` or `mysql`.
    pub kind: String,
    /// Whether it answered.
    pub reachable: bool,
    /// Its revision, when it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
}

/// A worker, with the revision it said it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WorkerState {
    /// The process.
    #[serde(flatten)]
    pub process: WorkerProcess,
    /// The revision it serves, when it said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
}

impl Operations {
    /// How this server is.
    pub async fn status(&self) -> ServerStatus {
        let settings = self.host().settings();
        let processes = self.host().processes();
        let answer = tokio::time::timeout(ODB_PATIENCE, self.odb().revision()).await;
        let revision = answer.ok().and_then(Result::ok);
        let degraded = self
            .host()
            .degraded()
            .or_else(|| revision.is_none().then(|| "the operational database is not reachable".to_owned()));
        let known = self.serving().workers();
        let workers = processes.workers.into_iter().map(|process| {
            let revision = known.get(&process.index).map(|serves| serves.revision);
            WorkerState { process, revision }
        });
        ServerStatus {
            name: self.server().to_string(),
            kind: "server".to_owned(),
            state: if degraded.is_some() { "degraded" } else { "running" }.to_owned(),
            degraded,
            pid: processes.supervisor,
            address: settings.server.http.or(settings.server.https).map(|address| address.to_string()),
            management: settings.management.address.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            odb: OdbState { kind: self.odb().kind().to_owned(), reachable: revision.is_some(), revision },
            bus: self.host().bus(),
            workers: workers.collect(),
            quarantined: self.host().quarantined(),
            member: self.host().member_state().map(|state| state.to_string()),
            certificates: self.host().certificates(),
            refused_settings: self.refused_settings().await,
            closed_channels: self.serving().closed_channels(self.host()),
            closed_outgoings: self.serving().closed_outgoings(self.host()),
        }
    }

    /// Read anew for each call: a hand edit may be a moment old.
    async fn refused_settings(&self) -> Vec<String> {
        let directory = self.directory().to_owned();
        tokio::task::spawn_blocking(move || refused_settings(&directory)).await.unwrap_or_default()
    }
}

fn refused_settings(directory: &Path) -> Vec<String> {
    let settings = settings::load(directory).err();
    let user = user::load(&directory.join(user::USER_DIRECTORY)).err();
    let faults = settings.into_iter().flatten().chain(user.into_iter().flatten());
    faults
        .map(|mut fault| {
            if let Ok(short) = fault.file.strip_prefix(directory) {
                fault.file = short.to_owned();
            }
            fault.to_string()
        })
        .collect()
}
