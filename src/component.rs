//! What an environment consists of, in the order in which it starts: the database and the broker it runs
//! itself, its servers, its load balancer. `start`, `stop` and `status` treat them alike.

use std::path::Path;

use anyhow::Result;
use crosstie_process::pidfile;

use crate::environment::{Environment, ServerDirectory};
use crate::parts::{self, EnvironmentPart};
use crate::{balancer, process};

/// One component of an environment.
#[derive(Debug, Clone)]
pub(crate) enum Component {
    /// A database or a broker.
    Part(EnvironmentPart),
    /// A server.
    Server(ServerDirectory),
    /// The load balancer's agent with its HAProxy.
    LoadBalancer(balancer::Directory),
}

impl Component {
    /// Every component of `environment`, in the order in which they start.
    pub(crate) fn all(environment: &Environment) -> Result<Vec<Self>> {
        let parts = parts::of(environment)?.into_iter().map(Self::Part);
        let servers = environment.servers()?.into_iter().map(Self::Server);
        let balancer = balancer::Directory::of(environment).map(Self::LoadBalancer);
        Ok(parts.chain(servers).chain(balancer).collect())
    }

    /// Its name, which is its directory's.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Part(part) => part.kind.name().to_owned(),
            Self::Server(server) => server.name(),
            Self::LoadBalancer(_) => balancer::NAME.to_owned(),
        }
    }

    /// Whether `path` is its directory.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        match self {
            Self::Part(part) => part.directory() == path,
            Self::Server(server) => server.path() == path,
            Self::LoadBalancer(balancer) => balancer.path() == path,
        }
    }

    /// Its first process, if it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            Self::Part(part) => part.program().ok()?.pid(),
            Self::Server(server) => pidfile::running_supervisor(server.path()),
            Self::LoadBalancer(balancer) => balancer.pid(),
        }
    }

    /// Starts it and waits until it answers; gives its first process.
    ///
    /// # Errors
    /// It does not start, or does not answer; the text says why and how to mend it.
    pub(crate) fn start(&self, environment: &Environment) -> Result<u32> {
        match self {
            Self::Part(part) => Ok(part.program()?.start()?),
            Self::Server(server) => process::launch(environment, server),
            Self::LoadBalancer(balancer) => balancer.launch(),
        }
    }

    /// Stops it, letting what it does finish; says whether it ran.
    ///
    /// # Errors
    /// It does not stop.
    pub(crate) fn stop(&self) -> Result<bool> {
        match self {
            Self::Part(part) => {
                let program = part.program()?;
                let ran = program.pid().is_some();
                program.stop()?;
                Ok(ran)
            }
            Self::Server(server) => process::end(server),
            Self::LoadBalancer(balancer) => balancer.stop(),
        }
    }
}
