//! Ports: the traits through which crates meet that may not import each other. Each is implemented once in
//! a lower-level sense (shared memory, ODB, a runtime) and used by code that knows only this module.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::failure::Failure;
use crate::message::{Message, Reply};
use crate::names::{Digest, ServiceName, UnitName};
use crate::outgoing::FoundOutgoing;
use crate::transform::FoundStylesheet;
use crate::unit::{Artifact, ArtifactKind, ServiceDescription, UnitManifest};

/// A service that is loaded and can be called. Dropping the last handle unloads its code, so a call that is
/// under way keeps the version it started with.
#[async_trait]
pub trait LoadedService: Send + Sync {
    /// What the service declares.
    fn description(&self) -> &ServiceDescription;

    /// Runs the service. Ends by the message's deadline, whatever the service does.
    ///
    /// # Errors
    /// The service's own failure, invalid input, or that it could not be run in time.
    async fn invoke(&self, message: Message) -> Result<Reply, Failure>;
}

/// Code of one deployment, loaded.
pub struct LoadedUnit {
    /// The unit.
    pub unit: UnitName,
    /// Which version of it.
    pub digest: Digest,
    /// The shared library it was loaded with, if it uses one.
    pub library: Option<Digest>,
    /// Its services.
    pub services: Vec<Arc<dyn LoadedService>>,
}

/// Why an artifact was refused or could not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{message}")]
pub struct LoadError {
    /// One line for a person: what is wrong and, where known, in which file and line.
    pub message: String,
    /// A traceback or compiler output, for the log and the deployment's history.
    pub detail: String,
}

/// Runs one kind of code. The process has one of each; channels never see which.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// The artifact kinds this runtime loads.
    fn kinds(&self) -> &'static [ArtifactKind];

    /// Checks an artifact and says what it defines, in this process: callers run it in a scratch one.
    ///
    /// # Errors
    /// Why the artifact cannot be deployed.
    async fn describe(&self, unit: &Artifact, library: Option<&Artifact>) -> Result<UnitManifest, LoadError>;

    /// Loads an artifact beside whatever runs already.
    ///
    /// # Errors
    /// Why it could not be loaded here.
    async fn load(
        &self,
        unit: &Artifact,
        manifest: &UnitManifest,
        library: Option<&Artifact>,
    ) -> Result<LoadedUnit, LoadError>;
}

/// Finds what services call by name: other services, dictionaries, outgoings, stylesheets.
pub trait ServiceDirectory: Send + Sync {
    /// The service of that name in the current snapshot.
    fn find(&self, name: &str) -> Option<Arc<dyn LoadedService>>;

    /// A dictionary of the current snapshot.
    fn dictionary(&self, name: &str) -> Option<Arc<Value>>;

    /// An outgoing of the current snapshot, be it open or not. A directory without any finds none.
    fn outgoing(&self, name: &str) -> Option<FoundOutgoing> {
        let _ = name;
        None
    }

    /// A stylesheet of the current snapshot. A directory without any finds none.
    fn stylesheet(&self, name: &str) -> Option<FoundStylesheet> {
        let _ = name;
        None
    }
}

/// Run-time key/value data that services write (`self.data`). Backed by the ODB; never on a path that does
/// not ask for it.
#[async_trait]
pub trait DataStore: Send + Sync {
    /// The value and its version under `key`, unless it expired.
    ///
    /// # Errors
    /// The store is out of reach.
    async fn get(&self, key: &str) -> Result<Option<DataEntry>, DataError>;

    /// Writes `value` under `key`. With `expected`, only when the entry's version is that one (0: only when
    /// there is none); gives the new version.
    ///
    /// # Errors
    /// [`DataError::Conflict`] when `expected` does not hold.
    async fn set(
        &self,
        key: &str,
        value: &Value,
        ttl: Option<Duration>,
        expected: Option<u64>,
    ) -> Result<u64, DataError>;

    /// Removes `key`; says whether it was there.
    ///
    /// # Errors
    /// The store is out of reach.
    async fn delete(&self, key: &str) -> Result<bool, DataError>;

    /// Makes `changes` in one transaction, in their order: all of them, or none.
    ///
    /// # Errors
    /// [`DataError::Conflict`] when what one of them expects does not hold; as for [`Self::set`].
    async fn change(&self, changes: &[DataChange<'_>]) -> Result<(), DataError>;

    /// The live keys that start with `prefix`, sorted, at most `limit`.
    ///
    /// # Errors
    /// The store is out of reach.
    async fn keys(&self, prefix: &str, limit: usize) -> Result<Vec<String>, DataError>;
}

/// One of several changes of the data store.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DataChange<'a> {
    /// As [`DataStore::set`].
    Set {
        /// The entry's key.
        key: &'a str,
        /// Its value.
        value: &'a Value,
        /// How long it lives; for ever when absent.
        ttl: Option<Duration>,
        /// The version it must have.
        expected: Option<u64>,
    },
    /// As [`DataStore::delete`].
    Delete {
        /// The entry's key.
        key: &'a str,
    },
}

/// One entry of the data store.
#[derive(Debug, Clone, PartialEq)]
pub struct DataEntry {
    /// The value.
    pub value: Value,
    /// Grows with every write; 1 at first.
    pub version: u64,
}

/// Why a data operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// Compare-and-set found another version.
    #[error("the entry has version {found}, not {expected}")]
    Conflict {
        /// What the caller expected.
        expected: u64,
        /// What is there; 0 for nothing.
        found: u64,
    },
    /// A key or value outside the limits.
    #[error("{0}")]
    Invalid(String),
    /// The database is away.
    #[error("the data store is not reachable")]
    Unreachable,
}

/// Remembers what may be used once, over all servers: nonces of credentials. Backed by the ODB.
#[async_trait]
pub trait Nonces: Send + Sync + std::fmt::Debug {
    /// Notes that `nonce` of the security definition `definition` was used, to be remembered at least until
    /// `until`, in seconds since 1970-01-01T00:00:00Z. Says whether it was not used before.
    ///
    /// # Errors
    /// The store is out of reach, so nobody knows.
    async fn is_new(&self, definition: &str, nonce: &str, until: i64) -> Result<bool, NoncesUnreachable>;
}

/// Nobody can tell now whether a nonce was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store of nonces is not reachable")]
pub struct NoncesUnreachable;

/// Remembers nothing, and so lets nothing in that may be used once: for processes that check no credentials.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNonces;

#[async_trait]
impl Nonces for NoNonces {
    async fn is_new(&self, _: &str, _: &str, _: i64) -> Result<bool, NoncesUnreachable> {
        Err(NoncesUnreachable)
    }
}

/// Counters that outlive a worker: cells of the server's shared memory, found once by key and then only
/// added to. A key is a metric's name and labels in Prometheus text form.
pub trait CounterCells: Send + Sync {
    /// The cell for `key`, made on first use. `None` when the table is full: the caller counts nothing and
    /// the table counts the overflow.
    fn cell(&self, key: &str) -> Option<&'static AtomicU64>;

    /// Every key with its value, for rendering.
    fn read_all(&self) -> Vec<(String, u64)>;
}

/// Figures that go up and down, summed over the workers of a server. What a worker counted goes with it.
pub trait GaugeCells: Send + Sync {
    /// The gauge for `key`, counting for this worker. Find it once and keep it.
    fn gauge(&self, key: &str) -> Arc<dyn GaugeCell>;
}

/// One such figure.
pub trait GaugeCell: Send + Sync {
    /// One more.
    fn add(&self);

    /// One less.
    fn subtract(&self);
}

/// Rate limits exact over all workers of a server: one generic cell rate algorithm (ITU-T I.371) state per
/// key, in shared memory.
pub trait RateCells: Send + Sync {
    /// Takes one unit from the allowance of `key`. `period` is the time over which `limit` units flow back.
    fn take(&self, key: u128, limit: u32, period: Duration) -> RateDecision;
}

/// What a rate limit said, with what its response headers need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateDecision {
    /// Whether the message may pass.
    pub allowed: bool,
    /// Units left now.
    pub remaining: u32,
    /// Until the allowance is whole again (RateLimit-Reset); when refused, until one unit is free
    /// (Retry-After).
    pub reset: Duration,
}

/// Publishes which service a thread runs, so that a crash is blamed on it (design section 2, "Blame").
pub trait Blame: Send + Sync {
    /// Claims a slot for the calling thread for as long as the thread lives.
    fn register_thread(&self) -> Box<dyn BlameSlot>;

    /// Whether `service` is quarantined on this server.
    fn is_quarantined(&self, service: &ServiceName) -> bool;

    /// Reports a thread that will not come back from `service`.
    fn thread_lost(&self, service: &ServiceName);
}

/// One thread's slot. The thread that registered it is the only one to write it.
pub trait BlameSlot {
    /// The thread starts running `service`; gives what it ran before, to put back.
    fn enter(&self, service: &ServiceName) -> u64;

    /// The thread starts loading a deployment of `unit`; gives what it ran before.
    fn enter_load(&self, unit: &UnitName) -> u64;

    /// The thread goes back to what it ran before.
    fn leave(&self, previous: u64);
}
