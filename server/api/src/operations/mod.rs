//! The management operations: what people, components and the pickup directory can ask of a server.
//!
//! [`Operations`] is the one handle; its methods are grouped by topic, one file each. All of them run on the
//! singleton's control thread, off the hot path, and are called by the HTTP API of this crate, by the pickup
//! watcher and by the command line through the API. Whatever changes definitions or deployments goes
//! through [`change`]: atomic, audited, checked against the next state.

mod account;
mod apply;
mod certificate;
mod change;
pub mod check;
mod configuration;
mod definition;
mod deploy;
mod deployment;
mod draft;
mod error;
mod export;
mod join;
mod library;
mod member;
mod message;
mod past;
mod ping;
mod report;
mod rollback;
mod secret;
mod service;
mod status;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crosstie_model::{Event, Revision, UnitName};
use crosstie_odb::Odb;
use crosstie_security::ClusterKey;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use crate::checker::UnitChecker;
use crate::host::Host;
use crate::serving::{Serving, ServingState};

pub use account::{IssuedToken, NewToken, NewUser, TokenView, UserChange, UserView};
pub use apply::{AppliedDefinition, ApplyAction, ApplyOutcome, ApplyRequest, Document};
pub use certificate::{AuthorityView, CertificateOrder, CertificateView, IssuedCertificateView};
pub use change::Intent;
pub use configuration::{AuditChangeView, AuditView, ConfigCommit, ConfigRepositoryKind, ConfigRollback};
pub use definition::{DefinitionState, DefinitionView};
pub use deploy::{CheckedArtifact, DeployOutcome, DeployRequest, DeploySource};
pub use deployment::{AttemptView, DeploymentView, LiveOn, VersionView};
pub use error::{OperationError, Refusal};
pub use join::{
    Invitation, JoinAnswer, JoinRefused, JoinRequest, JoinTokenOrder, JoinTokenView, TOKEN_PREFIX,
};
pub use member::{Condition, MemberView, Removal};
pub use message::{MessageBodyView, MessageFilter, MessagePartView, MessageView, MessagesView, ReplayView};
pub use ping::PingView;
pub use service::{Invocation, ServiceChannel, ServiceView};
pub use status::{OdbState, ServerStatus, WorkerState};

/// What [`Operations`] is made of.
pub struct OperationsParts {
    /// The server's name.
    pub server: UnitName,
    /// The server's directory, `DIR/server1`.
    pub directory: PathBuf,
    /// The operational database.
    pub odb: Odb,
    /// The process around.
    pub host: Arc<dyn Host>,
    /// Checks artifacts in a scratch process.
    pub checker: Arc<dyn UnitChecker>,
    /// Seals secrets.
    pub cluster_key: Arc<ClusterKey>,
}

/// The management operations of one server. Cheap to clone.
#[derive(Clone)]
pub struct Operations {
    inner: Arc<Inner>,
}

struct Inner {
    parts: OperationsParts,
    serving: Serving,
    /// Checks that run at once: each may use a core and the memory its limit allows.
    checks: Semaphore,
    /// Searches of kept messages that run at once: each reads the disk and takes a core.
    searches: Semaphore,
    /// Held while a configuration repository is open.
    repository: Arc<Mutex<()>>,
    /// Held by a change that lost a race, so that of this server only one runs against the other servers.
    overtaken: Mutex<()>,
}

/// How many artifacts are checked at once.
const CONCURRENT_CHECKS: usize = 2;
/// How many searches of kept messages run at once.
const CONCURRENT_SEARCHES: usize = 2;

impl Operations {
    /// The operations of the server that `parts` describe.
    #[must_use]
    pub fn new(parts: OperationsParts) -> Self {
        let inner = Inner {
            parts,
            serving: Serving::default(),
            checks: Semaphore::new(CONCURRENT_CHECKS),
            searches: Semaphore::new(CONCURRENT_SEARCHES),
            repository: Arc::new(Mutex::new(())),
            overtaken: Mutex::new(()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The server's name.
    #[must_use]
    pub fn server(&self) -> &UnitName {
        &self.inner.parts.server
    }

    /// Takes note of an event this process received: reports of the server's workers. A process that just
    /// became the singleton publishes [`Event::RevisionChanged`] once, so that every worker reports anew.
    pub fn observe(&self, event: &Event) {
        if let Event::Applied(report) = event {
            self.inner.serving.record(report.clone());
        }
    }

    /// The current revision of the configuration.
    ///
    /// # Errors
    /// The ODB is away.
    pub async fn revision(&self) -> Result<Revision, OperationError> {
        Ok(self.odb().revision().await?)
    }

    /// Waits until all ready workers of this server serve (or refused) `revision`, at most for `timeout`;
    /// gives where it stands then. Needs no ODB.
    pub async fn wait_until_served(&self, revision: Revision, timeout: Duration) -> ServingState {
        self.inner.serving.wait(revision, self.host(), Instant::now() + timeout).await
    }

    pub(crate) fn odb(&self) -> &Odb {
        &self.inner.parts.odb
    }

    pub(crate) fn host(&self) -> &dyn Host {
        self.inner.parts.host.as_ref()
    }

    fn directory(&self) -> &Path {
        &self.inner.parts.directory
    }

    fn cluster_key(&self) -> &ClusterKey {
        &self.inner.parts.cluster_key
    }

    fn serving(&self) -> &Serving {
        &self.inner.serving
    }
}

impl std::fmt::Debug for Operations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Operations({})", self.server())
    }
}
