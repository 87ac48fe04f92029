//! What a worker hands to the Python runtime when it starts it, and what can go wrong then.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crosstie_model::ports::{Blame, DataStore};
use crosstie_model::settings::PythonSettings;
use serde_json::Value;

/// Everything the runtime needs from its process.
pub struct PythonOptions {
    /// `[python]` of `server.toml`. Its `venv` is not used; see [`PythonOptions::venv`].
    pub settings: PythonSettings,
    /// The virtual environment, as an absolute path. Without one at that path only the standard library can
    /// be imported.
    pub venv: PathBuf,
    /// Runs host calls of services (data, calls of services that are not in Python): never the reactor that
    /// serves traffic. It must live as long as the process.
    pub host: tokio::runtime::Handle,
    /// Runs calls of other systems: the reactor that serves traffic, which such calls keep as little busy as a
    /// request, and whose connections a channel that passes requests on shares. It must live as long as the
    /// process.
    pub network: tokio::runtime::Handle,
    /// Backs `self.data`.
    pub data: Arc<dyn DataStore>,
    /// Learns which service each thread runs.
    pub blame: Arc<dyn Blame>,
    /// `self.config`: file → section → key.
    pub user_config: Value,
    /// Called once when `max_lost_threads` threads are lost: the worker should drain and be replaced.
    pub on_exhausted: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for PythonOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonOptions")
            .field("settings", &self.settings)
            .field("venv", &self.venv)
            .finish_non_exhaustive()
    }
}

/// Why the interpreter did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// CPython refused its configuration.
    #[error("the Python interpreter could not be started: {0}")]
    Interpreter(String),
    /// The runtime's own Python code failed.
    #[error("the Python side of the runtime could not be loaded: {0}")]
    Bootstrap(String),
    /// The system gave no thread or file descriptor.
    #[error("the system refused a thread or descriptor")]
    System(#[from] std::io::Error),
}

/// How busy the runtime is, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activity {
    /// Handler threads that run a call now.
    pub running: usize,
    /// Calls that wait for a handler thread.
    pub queued: usize,
    /// Calls of `async def` services under way.
    pub async_calls: usize,
    /// Handler threads that exist, lost ones not counted.
    pub threads: usize,
    /// Threads that did not come back from a service.
    pub lost: usize,
}
