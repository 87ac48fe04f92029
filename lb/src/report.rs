//! What the agent knows about itself: written by its loop, read by its API.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crosstie_model::certificate::CertificateEnd;
use serde::Serialize;

use crate::member::{Member, Pool};

/// HAProxy's processes and what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HaproxyReport {
    /// The master's process id; absent while none runs.
    pub pid: Option<u32>,
    /// The runtime socket.
    #[serde(skip)]
    pub socket: Option<PathBuf>,
    /// Starts by this agent.
    pub starts: u64,
    /// Reloads by this agent.
    pub reloads: u64,
    /// How often it ended by itself.
    pub deaths: u64,
    /// Whether this agent found it running.
    pub adopted: bool,
    /// What keeps it from running as it should.
    pub fault: Option<String>,
}

/// The configuration in use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ConfigurationReport {
    /// The digest of everything but the servers.
    pub digest: String,
    /// Why newer settings or snippets are not used; what ran before runs on.
    pub fault: Option<String>,
    /// Why replaced certificates are not used; those before are.
    pub certificates: Option<String>,
}

/// What was learned from the servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MembersReport {
    /// Who is asked now.
    pub source: Option<SocketAddr>,
    /// Good answers, unchanged ones included.
    pub answers: u64,
    /// Questions without an answer that can be used.
    pub failures: u64,
    /// Why the last question failed, while none succeeded since.
    pub fault: Option<String>,
    /// The last good answer.
    pub members: Vec<Member>,
    /// The servers HAProxy should know.
    pub pool: Pool,
}

/// Everything the API shows besides HAProxy's own counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The load balancer's name.
    pub name: String,
    /// HAProxy.
    pub haproxy: HaproxyReport,
    /// Its configuration.
    pub configuration: ConfigurationReport,
    /// The servers.
    pub members: MembersReport,
    /// When the certificates in use end.
    pub certificates: Vec<CertificateEnd>,
}

/// A report that several tasks share.
#[derive(Debug, Default)]
pub struct SharedReport(Mutex<Report>);

impl SharedReport {
    /// The report, to be changed. Never held while anything is waited for.
    pub fn write(&self) -> MutexGuard<'_, Report> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the report.
    #[must_use]
    pub fn read(&self) -> Report {
        self.write().clone()
    }
}
