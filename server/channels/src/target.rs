//! A service as a channel reaches it: whether it may be called now, and the call.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crosstie_model::message::{ChannelInfo, Message, Reply};
use crosstie_model::names::ServiceName;
use crosstie_model::ports::{Blame, LoadedService};
use crosstie_model::unit::ServiceDescription;
use crosstie_model::{Failure, FailureKind, Origin};
use futures_util::FutureExt;

use crate::ports::{ConcurrencyGauge, EntranceObserver};

/// How long a caller refused for lack of capacity is asked to wait.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// One service behind one channel.
pub(crate) struct Target {
    pub(crate) info: Arc<ChannelInfo>,
    pub(crate) service: Option<Arc<dyn LoadedService>>,
    pub(crate) active: bool,
    pub(crate) deadline: Duration,
    pub(crate) limit: Option<ConcurrencyLimit>,
    pub(crate) blame: Arc<dyn Blame>,
    pub(crate) observer: Arc<dyn EntranceObserver>,
}

/// A gauge and how far it may rise. Refuses, never waits: a queue here would only hide overload.
#[derive(Clone)]
pub(crate) struct ConcurrencyLimit {
    pub(crate) gauge: Arc<dyn ConcurrencyGauge>,
    pub(crate) limit: u32,
}

/// A place under a concurrency limit, given back when dropped.
pub(crate) struct Permit(Arc<dyn ConcurrencyGauge>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Takes a place under `limit`, if there is a limit.
///
/// # Errors
/// 503 when all places are taken.
pub(crate) fn acquire(limit: Option<&ConcurrencyLimit>, what: &str) -> Result<Option<Permit>, Failure> {
    let Some(limit) = limit else { return Ok(None) };
    if limit.gauge.try_acquire(limit.limit) {
        return Ok(Some(Permit(Arc::clone(&limit.gauge))));
    }
    let mut failure = unavailable(format!("{what} is at its limit of {} requests at once", limit.limit));
    failure.retry_after = Some(BUSY_RETRY);
    Err(failure)
}

impl Target {
    fn name(&self) -> &ServiceName {
        &self.info.service
    }

    /// What the service declares; `None` while it is not deployed.
    pub(crate) fn description(&self) -> Option<&ServiceDescription> {
        self.service.as_deref().map(LoadedService::description)
    }

    /// Whether the service may be called now; takes its place under its concurrency limit.
    ///
    /// # Errors
    /// 503 when it is not deployed, inactive, quarantined or at its limit.
    pub(crate) fn admit(&self) -> Result<Option<Permit>, Failure> {
        if self.service.is_none() {
            return Err(unavailable(format!("The service {} is not deployed", self.name())));
        }
        if !self.active {
            return Err(unavailable(format!("The service {} is not active", self.name())));
        }
        if self.blame.is_quarantined(self.name()) {
            let mut failure = unavailable(format!(
                "The service {} is quarantined because it crashed its worker repeatedly; \
                 an operator has to release it",
                self.name()
            ));
            failure.retryable = false;
            failure.origin = Origin::Service;
            return Err(failure);
        }
        acquire(self.limit.as_ref(), "The service")
    }

    /// When a call that begins now must have ended. The service keeps to it by itself.
    pub(crate) fn deadline_from_now(&self) -> Instant {
        let now = Instant::now();
        now.checked_add(self.deadline).unwrap_or(now)
    }

    /// Calls the service. A panic in a runtime ends the call, not the connection.
    ///
    /// # Errors
    /// The service's failure.
    pub(crate) async fn call(&self, message: Message) -> Result<Reply, Failure> {
        let Some(service) = &self.service else {
            return Err(unavailable(format!("The service {} is not deployed", self.name())));
        };
        let cid = message.trace.cid;
        match AssertUnwindSafe(service.invoke(message)).catch_unwind().await {
            Ok(result) => result,
            Err(_) => {
                tracing::error!(%cid, service = %self.name(), "the runtime panicked while it ran a service");
                Err(Failure::new(FailureKind::Internal, Origin::Platform))
            }
        }
    }
}

fn unavailable(text: String) -> Failure {
    let mut failure = Failure::new(FailureKind::Unavailable, Origin::Platform).with_text(text);
    failure.retryable = true;
    failure
}
