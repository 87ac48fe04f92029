//! What is recorded about each call: its counts, its span, a line in the log when it failed.

use std::sync::Arc;
use std::time::Instant;

use crosstie_model::TraceContext;
use crosstie_model::outgoing::{OutgoingError, Trouble};
use crosstie_telemetry::SpanRecord;
use crosstie_telemetry::metrics::{CallOutcome, OutgoingMetrics, UnderWay};
use crosstie_telemetry::traces::{AttributeValue, SpanKind, SpanStatus, Tracer, began};

use crate::environment::Environment;

/// Records the calls of one outgoing.
#[derive(Debug)]
pub(crate) struct Observer {
    name: Arc<str>,
    type_name: &'static str,
    metrics: OutgoingMetrics,
    tracer: Option<Tracer>,
}

impl Observer {
    pub(crate) fn new(name: Arc<str>, type_name: &'static str, environment: &Environment) -> Arc<Self> {
        let metrics = environment.metrics.outgoing(&environment.gauges, &name, type_name);
        Arc::new(Self { name, type_name, metrics, tracer: environment.tracer.clone() })
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
