//! What records spans: where they go and which do.

use std::time::{Duration, SystemTime};

use crosstie_model::TraceContext;

use super::{Exporter, Sampler, SpanRecord};

/// An exporter with the sampler of its server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tracer {
    exporter: Exporter,
    sampler: Sampler,
}

impl Tracer {
    /// Records on `exporter` what `sampler` chooses.
    #[must_use]
    pub fn new(exporter: Exporter, sampler: Sampler) -> Self {
        Self { exporter, sampler }
    }

    /// Whether spans of this trace are recorded.
    #[must_use]
    pub fn samples(&self, trace: &TraceContext) -> bool {
        self.sampler.samples(trace)
    }

    /// The exporter.
    #[must_use]
    pub fn exporter(&self) -> &Exporter {
        &self.exporter
    }

    /// Sends a span, soon, if its trace is sampled.
    pub fn span(&self, span: SpanRecord) {
        self.exporter.span(span);
    }
}

/// When something that ends now and took `duration` began.
#[must_use]
pub fn began(duration: Duration) -> SystemTime {
    SystemTime::now().checked_sub(duration).unwrap_or(SystemTime::UNIX_EPOCH)
}
