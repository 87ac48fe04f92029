//! What a connection to any database can do, as the pool and the calls see it.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use crosstie_model::outgoing::{Access, Isolation, Parameters, SqlError, SqlType};

use super::sink::Sink;
use super::template::Template;

/// Opens connections to one database.
#[async_trait]
pub(super) trait Connector: Send + Sync {
    /// Opens one. Whoever calls holds it to a deadline.
    async fn connect(&self) -> Result<Box<dyn Link>, SqlError>;
}

/// A connection to a database, used by one call at a time.
#[async_trait]
pub(super) trait Link: Send {
    /// Runs a statement and gives its rows to `sink`. A future that is dropped half way leaves the statement
    /// running: [`Link::canceller`] ends it.
    async fn run(&mut self, order: &Order<'_>, sink: &mut Sink) -> Result<Done, Failed>;

    /// Begins a transaction.
    async fn begin(
        &mut self,
        isolation: Option<Isolation>,
        access: Access,
        deadline: Instant,
    ) -> Result<(), Failed>;

    /// Commits.
    async fn commit(&mut self) -> Result<(), Failed>;

    /// Undoes the transaction under way.
    async fn rollback(&mut self) -> Result<(), Failed>;

    /// Asks the database for a sign of life.
    async fn ping(&mut self) -> Result<(), Failed>;

    /// Whether it is known to be of no use any more, without asking.
    fn is_closed(&self) -> bool;

    /// What ends whatever the connection does, from elsewhere.
    fn canceller(&self) -> Arc<dyn Canceller>;
}

/// Ends at the database what a connection does there.
#[async_trait]
pub(super) trait Canceller: Send + Sync {
    /// Does so, and returns when the database has it or cannot be reached. `link` is not used for anything
    /// else any more.
    async fn cancel(&self, link: &mut dyn Link);
}

/// A statement and what it is run with.
pub(super) struct Order<'a> {
    /// The statement.
    pub(super) template: Template<'a>,
    /// The values of its parameters.
    pub(super) parameters: &'a Parameters,
    /// The types that columns are to have.
    pub(super) types: &'a [(String, SqlType)],
    /// Whether it is part of a transaction.
    pub(super) setting: Setting,
    /// When the caller stops waiting.
    pub(super) deadline: Instant,
}

/// What surrounds a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    /// Nothing: it is its own transaction.
    Alone,
    /// A transaction.
    Transaction,
}

impl Order<'_> {
    /// The type that the call names for `column`.
    pub(super) fn type_of(&self, column: &str) -> Option<SqlType> {
        self.types.iter().find_map(|(name, wanted)| (name == column).then_some(*wanted))
    }
}

/// What a statement came to, beside its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// How many rows it changed or gave.
    pub(super) affected: u64,
    /// The number made for the last row inserted.
    pub(super) last_insert_id: Option<u64>,
}

/// An error, and what it leaves of the connection.
#[derive(Debug)]
pub(super) struct Failed {
    /// The error.
    pub(super) error: SqlError,
    /// What is left.
    pub(super) left: Left,
}

/// What an error leaves of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// It is as it was.
    Usable,
    /// The transaction under way is over: the database undid it.
    Undone,
    /// The statement goes on and must be cancelled.
    Running,
    /// Nothing: it is broken.
    Broken,
}

impl Failed {
    /// An error that changes nothing about the connection.
    pub(super) fn usable(error: SqlError) -> Self {
        Self { error, left: Left::Usable }
    }

    /// An error in the midst of a result.
    pub(super) fn running(error: SqlError) -> Self {
        Self { error, left: Left::Running }
    }
}
