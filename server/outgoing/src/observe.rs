//! What is recorded about each call: its counts, its span, a line in the log when it failed, and what the message
//! log keeps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crosstie_model::TraceContext;
use crosstie_model::definition::KeptMessages;
use crosstie_model::kept::KeepPolicy;
use crosstie_model::outgoing::{OutgoingError, Trouble};
use crosstie_telemetry::SpanRecord;
use crosstie_telemetry::metrics::{CallOutcome, OutgoingMetrics, UnderWay};
use crosstie_telemetry::traces::{AttributeValue, SpanKind, SpanStatus, Tracer, began};

use crate::environment::Environment;
use crate::kept::{Ended, Keeper, KeptCall};

/// Records the calls of one outgoing.
#[derive(Debug)]
pub(crate) struct Observer {
    name: Arc<str>,
    type_name: &'static str,
    metrics: OutgoingMetrics,
    tracer: Option<Tracer>,
    keeper: Option<Keeper>,
}

/// How long a call waits for room in the message log.
const ROOM_PATIENCE: Duration = Duration::from_secs(10);

impl Observer {
    /// Records calls, and keeps of them what `kept` says.
    pub(crate) fn new(
        name: Arc<str>,
        type_name: &'static str,
        environment: &Environment,
        kept: Option<&KeptMessages>,
    ) -> Arc<Self> {
        let metrics = environment.metrics.outgoing(&environment.gauges, &name, type_name);
        let keeper = environment.messages.clone().zip(kept);
        let keeper = keeper.map(|(log, kept)| Keeper { log, policy: KeepPolicy::new(kept) });
        Arc::new(Self { name, type_name, metrics, tracer: environment.tracer.clone(), keeper })
    }

    /// Waits until there is room for what is kept of another call.
    ///
    /// # Errors
    /// There is none by `deadline`.
    pub(crate) async fn wait_for_room(&self, deadline: Instant) -> Result<(), OutgoingError> {
        let Some(keeper) = self.keeper.as_ref().filter(|keeper| !keeper.log.has_room()) else {
            return Ok(());
        };
        let until = deadline.min(Instant::now() + ROOM_PATIENCE);
        let waited = tokio::time::timeout_at(until.into(), keeper.log.wait_for_room()).await;
        waited
            .map_err(|_| OutgoingError::new(Trouble::Busy, "messages come faster than they can be recorded"))
    }

    /// The outgoing's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its counters.
    pub(crate) fn metrics(&self) -> &OutgoingMetrics {
        &self.metrics
    }

    /// A call on behalf of `caller` begins.
    pub(crate) fn begin(self: &Arc<Self>, caller: &TraceContext, kind: SpanKind) -> Observed {
        let mut trace = caller.child();
        // The caller's trace may begin on this server, and then it is this server that decides.
        trace.sampled = self.tracer.as_ref().map_or(caller.sampled, |tracer| tracer.samples(caller));
        Observed {
            observer: Arc::clone(self),
            trace,
            kind,
            started: Instant::now(),
            attributes: Vec::new(),
            outcome: CallOutcome::Abandoned,
            kept: self.keeper.clone().map(KeptCall::new),
            _under_way: self.metrics.begin(),
        }
    }
}

/// One call, from its beginning to its end: recorded when this is dropped.
#[derive(Debug)]
pub(crate) struct Observed {
    observer: Arc<Observer>,
    trace: TraceContext,
    kind: SpanKind,
    started: Instant,
    attributes: Vec<(&'static str, AttributeValue)>,
    outcome: CallOutcome,
    kept: Option<Box<KeptCall>>,
    _under_way: UnderWay,
}

impl Observed {
    /// The outgoing's name.
    pub(crate) fn name(&self) -> &str {
        &self.observer.name
    }

    /// The call's own span, for the other system to go on from.
    pub(crate) fn trace(&self) -> &TraceContext {
        &self.trace
    }

    /// When it began.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Adds to the span, if there will be one.
    pub(crate) fn attribute(&mut self, name: &'static str, value: impl FnOnce() -> AttributeValue) {
        if self.trace.sampled && self.observer.tracer.is_some() {
            self.attributes.push((name, value()));
        }
    }

    /// What is kept of it for the message log, where calls are kept.
    pub(crate) fn kept(&mut self) -> Option<&mut KeptCall> {
        self.kept.as_deref_mut()
    }

    /// It came to this end, unless a later one is told.
    pub(crate) fn ended(&mut self, outcome: CallOutcome) {
        self.outcome = outcome;
    }

    /// It failed. The log is told as well, but not of refusals: those follow from what it was told of already.
    pub(crate) fn failed(&mut self, error: &OutgoingError) {
        self.outcome = CallOutcome::Failed(error.trouble);
        let (outgoing, trouble) = (&*self.observer.name, error.trouble.as_str());
        let cid = self.trace.cid;
        match error.trouble {
            Trouble::Circuit | Trouble::Closed | Trouble::Misuse | Trouble::Caller => {
                tracing::debug!(%cid, outgoing, trouble, detail = error.detail, "a call was not made");
            }
            _ => tracing::warn!(%cid, outgoing, trouble, detail = error.detail, "a call failed"),
        }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        self.observer.metrics.call(self.outcome, duration);
        if let Some(kept) = self.kept.take() {
            kept.end(Ended {
                name: Arc::clone(&self.observer.name),
                kind: self.observer.type_name,
                trace: self.trace,
                duration,
                outcome: self.outcome,
            });
        }
        let Some(tracer) = self.observer.tracer.as_ref().filter(|_| self.trace.sampled) else { return };
        let status = match self.outcome {
            CallOutcome::Ok => SpanStatus::Unset,
            // A client's span is an error from status 400 on (OpenTelemetry semantic conventions for HTTP).
            other => SpanStatus::Error(other.as_str().to_owned()),
        };
        let mut attributes = std::mem::take(&mut self.attributes);
        attributes.push(("crosstie.outgoing", AttributeValue::Shared(Arc::clone(&self.observer.name))));
        attributes.push(("crosstie.outgoing.type", AttributeValue::Text(self.observer.type_name.to_owned())));
        tracer.span(SpanRecord {
            trace: self.trace,
            name: Arc::clone(&self.observer.name),
            kind: self.kind,
            start: began(duration),
            duration,
            status,
            attributes,
        });
    }
}
