//! A server, nginx, and the system that both hand requests on to.

use std::time::Duration;

use anyhow::{Context as _, Result};
use crosstie_test_support::Environment;
use serde_json::{Value, json};

use crate::Plan;
use crate::beside::Beside;
use crate::environment::{apply, await_service, one_server};
use crate::nginx::Nginx;
use crate::paired::{Pairs, Run};
use crate::requests::Requests;

/// What stands before the path where a request went that a route did not take.
pub(crate) const PLAIN: &str = "/plain";
/// What stands before the path where a request went that a route took.
pub(crate) const CHOSEN: &str = "/chosen";

/// See the module.
pub(crate) struct Stage {
    /// A server with one worker.
    pub environment: Environment,
    upstream: Beside,
    nginx: Nginx,
}

impl Stage {
    /// Starts everything. The outgoings `plain` and `chosen` lead to the other system.
    ///
    /// # Errors
    /// Something does not start.
    pub(crate) fn set() -> Result<Self> {
        let upstream = Beside::own("upstream")?;
        let nginx = Nginx::start(upstream.address())?;
        let stage = Self { environment: one_server(1)?, upstream, nginx };
        let outgoing = |kind: &str, path: &str| json!({"type": kind, "address": stage.address_of(path)});
        let outgoings = json!({"plain": outgoing("rest", PLAIN), "chosen": outgoing("http", CHOSEN)});
        stage.apply(&json!({"outgoing": outgoings}))?;
        Ok(stage)
    }

    /// The URL of `path` at the other system.
    pub(crate) fn address_of(&self, path: &str) -> String {
        format!("http://{}{path}", self.upstream.address())
    }

    /// Applies definitions.
    ///
    /// # Errors
    /// They are refused.
    pub(crate) fn apply(&self, definitions: &Value) -> Result<()> {
        apply(&self.environment, definitions)
    }

    /// Deploys a service and waits until it is there.
    ///
    /// # Errors
    /// It is not within a minute.
    pub(crate) fn deploy(&self, file: &str, source: &str, service: &str) -> Result<()> {
        self.environment.drop_file(file, source)?;
        await_service(&self.environment, service)
    }

    /// The same requests through nginx and through the server, runs of `length` each.
    ///
    /// # Errors
    /// An answer is wrong.
    pub(crate) fn pairs(&self, plan: &Plan, length: Duration, requests: &Requests) -> Result<Pairs> {
        let supervisor = self.environment.supervisor().context("the server does not run")?;
        let nginx = self.nginx.pid()?;
        let (own_address, nginx_address) = (self.environment.address(), self.nginx.address());
        let proxied = requests.echoed(PLAIN);
        proxied.await_right(nginx_address)?;
        requests.await_right(own_address)?;
        Pairs::of(
            plan.rounds,
            || Run::of(&[nginx], || proxied.load(nginx_address, length)),
            || Run::of(&[supervisor], || requests.load(own_address, length)),
        )
    }
}
