//! The seam of outgoings: what channels and runtimes know of connections to external systems.
//!
//! A family (HTTP, SQL …) is one trait in a file beside this one plus one variant of [`Outgoing`]. Each is
//! implemented once, in `crosstie-outgoing`; a worker opens an outgoing when its definition appears and hands
//! it out through [`crate::ports::ServiceDirectory`]. All calls end by the deadline they are given, and what
//! goes wrong is an [`OutgoingError`]: the failure that a caller may be told of, and beside it what only the
//! log, the service that called and `crosstie ping` may see.

mod amqp;
mod error;
mod http;
mod soap;
mod sql;
mod template;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::cid::TraceContext;

pub use amqp::{
    AmqpBinding, AmqpConsume, AmqpConsumer, AmqpDelivery, AmqpOutgoing, AmqpProperties, AmqpPublish,
    AmqpQueue, AmqpQueueKind, AmqpSettle, AmqpSource, AmqpValue, Unroutable,
};
pub use error::{OutgoingError, Trouble};
pub use http::{AnswerBody, CallBody, HttpAnswer, HttpCall, HttpOutgoing, Pace, whole_answer};
pub use soap::{AnsweredFault, EnvelopeCall, SoapAnswer, SoapCall, SoapCallHeader, SoapError, SoapOutgoing};
pub use sql::{
    Access, Begin, Columns, Isolation, Named, Parameters, Refusal, RefusedBecause, SqlCall, SqlError,
    SqlOutgoing, SqlResult, SqlRow, SqlStream, SqlTransaction, SqlType, SqlValue,
};
pub use template::{ExpandError, PathTemplate, TemplateError};

/// An open outgoing, by family. Cheap to clone; one that left the snapshot lives until its last call ended.
#[derive(Clone)]
pub enum Outgoing {
    /// It speaks HTTP: types `rest` and `http`.
    Http(Arc<dyn HttpOutgoing>),
    /// It speaks SOAP: type `soap`.
    Soap(Arc<dyn SoapOutgoing>),
    /// It is a database: type `sql`.
    Sql(Arc<dyn SqlOutgoing>),
    /// It is a broker: type `amqp`.
    Amqp(Arc<dyn AmqpOutgoing>),
}

impl Outgoing {
    /// Asks the other system for a sign of life.
    ///
    /// # Errors
    /// It gives none, or one that says that calls will fail.
    pub async fn ping(&self, ping: Ping) -> Result<Pong, OutgoingError> {
        match self {
            Self::Http(outgoing) => outgoing.ping(ping).await,
            Self::Soap(outgoing) => outgoing.ping(ping).await,
            Self::Sql(outgoing) => outgoing.ping(ping).await,
            Self::Amqp(outgoing) => outgoing.ping(ping).await,
        }
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Http(_) => "Outgoing::Http",
            Self::Soap(_) => "Outgoing::Soap",
            Self::Sql(_) => "Outgoing::Sql",
            Self::Amqp(_) => "Outgoing::Amqp",
        })
    }
}

/// An outgoing of the current snapshot, as a directory finds it.
#[derive(Debug, Clone)]
pub struct FoundOutgoing {
    /// The `type` of its definition.
    pub type_name: &'static str,
    /// The outgoing; or, where it is inactive or cannot be opened, what each call of it fails with.
    pub state: Result<Outgoing, OutgoingError>,
}

/// A question for a sign of life.
#[derive(Debug, Clone, Copy)]
pub struct Ping {
    /// The asker's trace; the call gets a span below it.
    pub trace: TraceContext,
    /// When the asker stops waiting.
    pub deadline: Instant,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pong {
    /// What the other system said, in one line for a person: `HEAD / answered 200`.
    pub detail: String,
    /// How long it took.
    pub elapsed: Duration,
}

/// What every outgoing has, whatever its family.
#[async_trait]
pub trait Connection: Send + Sync {
    /// The definition's name.
    fn name(&self) -> &str;

    /// Asks the other system for a sign of life. Not refused by an open circuit.
    ///
    /// # Errors
    /// It gives none, or one that says that calls will fail.
    async fn ping(&self, ping: Ping) -> Result<Pong, OutgoingError>;
}
