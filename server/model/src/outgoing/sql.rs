//! Calls of databases: statements with named parameters, values of every type that databases share,
//! transactions, and results that are streamed.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use super::{Connection, OutgoingError, Trouble};
use crate::cid::TraceContext;

/// An outgoing that is a database.
#[async_trait]
pub trait SqlOutgoing: Connection {
    /// Runs one statement for itself; what it changed is committed when this returns.
    ///
    /// # Errors
    /// It was not run, or the database refused it, or its result is too large.
    async fn run(&self, call: SqlCall) -> Result<SqlResult, SqlError>;

    /// Runs one statement for itself and gives its result piece by piece.
    ///
    /// # Errors
    /// As [`SqlOutgoing::run`]; later ones come from the stream.
    async fn stream(&self, call: SqlCall) -> Result<Arc<dyn SqlStream>, SqlError>;

    /// Begins a transaction.
    ///
    /// # Errors
    /// There is no connection for it.
    async fn begin(&self, begin: Begin) -> Result<Arc<dyn SqlTransaction>, SqlError>;
}

/// A transaction under way. Dropped or abandoned before its end, it is rolled back.
#[async_trait]
pub trait SqlTransaction: Send + Sync {
    /// Runs one statement.
    ///
    /// # Errors
    /// The database refused it, or a stream of the same transaction is being read.
    async fn run(&self, call: SqlCall) -> Result<SqlResult, SqlError>;

    /// Runs one statement and gives its result piece by piece; until its end the transaction does nothing
    /// else.
    ///
    /// # Errors
    /// As [`SqlTransaction::run`].
    async fn stream(&self, call: SqlCall) -> Result<Arc<dyn SqlStream>, SqlError>;

    /// Ends it and keeps what it changed.
    ///
    /// # Errors
    /// It was rolled back; or, where the connection broke meanwhile, nobody knows what became of it.
    async fn commit(&self, deadline: Instant) -> Result<(), SqlError>;

    /// Ends it and undoes what it changed. One that ended already is left alone.
    ///
    /// # Errors
    /// The connection broke, which undoes it as well.
    async fn rollback(&self, deadline: Instant) -> Result<(), SqlError>;

    /// Makes sure, without waiting, that it is rolled back soon and its connection is given back.
    fn abandon(&self);
}

/// A result that is read piece by piece. What was not read stays at the database: the reader sets the pace.
#[async_trait]
pub trait SqlStream: Send + Sync {
    /// The columns of its rows.
    fn columns(&self) -> &Columns;

    /// The next rows; none at its end.
    ///
    /// # Errors
    /// The statement failed meanwhile, or did not go on in time.
    async fn next(&self, deadline: Instant) -> Result<Vec<SqlRow>, SqlError>;

    /// Ends it without waiting; what was not read is cancelled at the database.
    fn abandon(&self);
}

/// One call of a database.
#[derive(Clone)]
pub struct SqlCall {
    /// The statement, with parameters as `:name`.
    pub statement: Arc<str>,
    /// Their values.
    pub parameters: Parameters,
    /// The types that columns of the result are to have, where the database does not say enough.
    pub types: Vec<(String, SqlType)>,
    /// The caller's trace; the call gets a span below it.
    pub trace: TraceContext,
    /// When the caller stops waiting; the definition's own deadline counts where it is earlier.
    pub deadline: Instant,
}

/// The values of a statement's parameters by name.
pub type Named = Vec<(String, SqlValue)>;

/// How often a statement is run, and with what.
#[derive(Clone)]
pub enum Parameters {
    /// Once.
    Once(Named),
    /// Once for each, all or none of it.
    Each(Vec<Named>),
}

/// How a transaction begins.
#[derive(Debug, Clone)]
pub struct Begin {
    /// How far it sees what others do meanwhile; as the database has it set up otherwise.
    pub isolation: Option<Isolation>,
    /// Whether it may write.
    pub access: Access,
    /// The caller's trace.
    pub trace: TraceContext,
    /// When the caller stops waiting.
    pub deadline: Instant,
}

/// How far a transaction sees what others do meanwhile (ISO 9075-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed before it.
    ReadCommitted,
    /// All of it sees one state.
    RepeatableRead,
    /// As if there were no others.
    Serializable,
}

/// Whether a transaction may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It may.
    Write,
    /// It may not.
    Read,
}

/// The names of a result's columns, in order; no two are equal.
pub type Columns = Arc<[Arc<str>]>;

/// One row: a value for each column.
pub type SqlRow = Vec<SqlValue>;

/// What a statement came to.
#[derive(Debug, Clone, Default)]
pub struct SqlResult {
    /// The columns of its rows; none where the statement gives none.
    pub columns: Columns,
    /// Its rows.
    pub rows: Vec<SqlRow>,
    /// How many rows it changed, or gave.
    pub affected: u64,
    /// The number that the database made for the last row it inserted, where it tells without being asked.
    pub last_insert_id: Option<u64>,
}

/// A value, as databases and services know it.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number too large for [`SqlValue::Int`].
    UInt(u64),
    /// A binary floating-point number.
    Float(f64),
    /// A decimal number as text: digits with at most one point, an exponent perhaps; or `NaN`, `Infinity`,
    /// `-Infinity`.
    Decimal(String),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Bytes),
    /// A day.
    Date(Date),
    /// A time of day.
    Time(Time),
    /// A time of day at an offset from UTC.
    TimeTz(Time, UtcOffset),
    /// A day and a time, nobody says where.
    Timestamp(PrimitiveDateTime),
    /// A moment.
    TimestampTz(OffsetDateTime),
    /// A span of time.
    Interval(time::Duration),
    /// A UUID (RFC 9562).
    Uuid(u128),
    /// JSON text.
    Json(String),
    /// Several values.
    Array(Vec<SqlValue>),
}

/// What a column can be declared to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqlType {
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// A binary floating-point number.
    Float,
    /// A decimal number.
    Decimal,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// A day.
    Date,
    /// A time of day.
    Time,
    /// A day and a time, with a zone or without.
    Timestamp,
    /// A span of time.
    Interval,
    /// A UUID.
    Uuid,
    /// JSON.
    Json,
}

impl SqlType {
    /// Every type, with the word for it.
    pub const ALL: [(&'static str, Self); 12] = [
        ("bool", Self::Bool),
        ("int", Self::Int),
        ("float", Self::Float),
        ("decimal", Self::Decimal),
        ("text", Self::Text),
        ("bytes", Self::Bytes),
        ("date", Self::Date),
        ("time", Self::Time),
        ("timestamp", Self::Timestamp),
        ("interval", Self::Interval),
        ("uuid", Self::Uuid),
        ("json", Self::Json),
    ];

    /// The type of that word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find_map(|(known, found)| (known == word).then_some(found))
    }
}

/// Why a call of a database has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct SqlError {
    /// What any outgoing says of an error.
    pub error: OutgoingError,
    /// What the database said, if it was the database.
    pub refusal: Option<Box<Refusal>>,
}

/// A database's own error. For the service that called and the log; a caller never sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it is about, in terms that all databases share.
    pub reason: RefusedBecause,
    /// SQLSTATE (ISO 9075-2), where the database has one.
    pub sqlstate: Option<String>,
    /// The database's own number for it; 0 where it has none.
    pub code: i64,
    /// The constraint that the statement broke, where the database names it.
    pub constraint: Option<String>,
    /// The database's message.
    pub message: String,
}

/// Why a database refuses a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusedBecause {
    /// A value is there already that must be there once.
    Unique,
    /// A row refers to one that is not there, or is referred to.
    ForeignKey,
    /// A value is missing.
    NotNull,
    /// A value breaks another rule of its table.
    Check,
    /// Another transaction won; the same may succeed when it is run again.
    Conflict,
    /// Another transaction holds what this one needs.
    Locked,
    /// The user may not do this.
    Permission,
    /// A value does not fit its type.
    Value,
    /// The statement cannot be understood: its syntax, or a table or column that is not there.
    Statement,
    /// Anything else.
    Other,
}

impl RefusedBecause {
    /// The word for it in Python and the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::ForeignKey => "foreign_key",
            Self::NotNull => "not_null",
            Self::Check => "check",
            Self::Conflict => "conflict",
            Self::Locked => "locked",
            Self::Permission => "permission",
            Self::Value => "value",
            Self::Statement => "statement",
            Self::Other => "other",
        }
    }

    /// Whether a row broke a rule of its table.
    #[must_use]
    pub fn is_integrity(self) -> bool {
        matches!(self, Self::Unique | Self::ForeignKey | Self::NotNull | Self::Check)
    }
}

impl SqlError {
    /// An error that is not the database's own.
    #[must_use]
    pub fn new(trouble: Trouble, detail: impl Into<String>) -> Self {
        OutgoingError::new(trouble, detail).into()
    }

    /// An error of the database. Its detail has the database's message only where that can hold no value of
    /// the statement's parameters.
    #[must_use]
    pub fn refused(refusal: Refusal) -> Self {
        let number = (refusal.code != 0).then(|| refusal.code.to_string());
        let numbers: Vec<_> = refusal.sqlstate.iter().cloned().chain(number).collect();
        let about = match refusal.reason {
            RefusedBecause::Unique => refusal.constraint.as_deref(),
            RefusedBecause::Value | RefusedBecause::Other => None,
            _ => Some(refusal.message.as_str()),
        };
        let about = about.map(|about| format!(": {about}")).unwrap_or_default();
        let (reason, numbers) = (refusal.reason.as_str(), numbers.join(", "));
        let text = format!("the database refused the statement: {reason} ({numbers}){about}");
        let mut error = OutgoingError::new(Trouble::Refused, text);
        error.failure.retryable = refusal.reason == RefusedBecause::Conflict;
        Self { error, refusal: Some(Box::new(refusal)) }
    }

    /// What went wrong, as metrics count it.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        self.error.trouble
    }

    /// The same error for a caller that may be told when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.error = self.error.retry_after(after);
        self
    }
}

impl From<OutgoingError> for SqlError {
    fn from(error: OutgoingError) -> Self {
        Self { error, refusal: None }
    }
}

impl From<SqlError> for OutgoingError {
    fn from(error: SqlError) -> Self {
        error.error
    }
}

/// Parameters may hold anything: none is shown.
impl fmt::Debug for SqlCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlCall").field("statement", &self.statement).finish_non_exhaustive()
    }
}
