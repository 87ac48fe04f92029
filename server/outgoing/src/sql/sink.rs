//! Where rows go: into a result of bounded size, or piece by piece to a reader who sets the pace.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crosstie_model::outgoing::{Columns, SqlError, SqlRow, SqlValue, Trouble};
use tokio::sync::mpsc;

/// Most rows of a piece.
const PIECE_ROWS: usize = 256;

/// Bytes after which a piece is large enough.
const PIECE_BYTES: u64 = 128 * 1024;

/// How long rows may wait for others before they go on their way.
const PIECE_AGE: Duration = Duration::from_millis(100);

/// What a row and a value cost beside their content.
const VALUE_BYTES: u64 = size_of::<SqlValue>() as u64;

/// What a reader gets.
pub(super) enum Piece {
    /// The columns, first of all.
    Columns(Columns),
    /// Rows.
    Rows(Vec<SqlRow>),
}

/// Takes a result.
pub(super) struct Sink {
    columns: Columns,
    rows: Vec<SqlRow>,
    bytes: u64,
    limit: u64,
    /// Columns that there must be.
    wanted: Vec<String>,
    /// Where pieces go; a result that stays whole has none.
    reader: Option<mpsc::Sender<Piece>>,
    since: Instant,
}

/// What to do after a row.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Next {
    /// Take another.
    Row,
    /// Hand over what is there.
    Flush,
}

impl Sink {
    /// Keeps at most `limit` bytes.
    pub(super) fn whole(limit: u64) -> Self {
        Self::new(limit, None)
    }

    /// Passes everything on to `reader`; one row has at most `limit` bytes.
    pub(super) fn pieces(limit: u64, reader: mpsc::Sender<Piece>) -> Self {
        Self::new(limit, Some(reader))
    }

    fn new(limit: u64, reader: Option<mpsc::Sender<Piece>>) -> Self {
        let (columns, rows, wanted) = (Arc::default(), Vec::new(), Vec::new());
        Self { columns, rows, bytes: 0, limit, wanted, reader, since: Instant::now() }
    }

    /// Takes a result with those columns at least.
    pub(super) fn with<'n>(mut self, columns: impl Iterator<Item = &'n String>) -> Self {
        self.wanted = columns.cloned().collect();
        self
    }

    /// Whether rows are passed on, and not kept.
    pub(super) fn is_streamed(&self) -> bool {
        self.reader.is_some()
    }

    /// Sets the columns of the rows that follow. A statement without rows has none.
    ///
    /// # Errors
    /// Two have the same name: a row could not tell them apart. One that the call names is not there.
    pub(super) fn set_columns<'n>(&mut self, names: impl Iterator<Item = &'n str>) -> Result<(), SqlError> {
        let columns: Columns = names.map(Arc::from).collect();
        for (index, name) in columns.iter().enumerate() {
            if columns.iter().take(index).any(|earlier| earlier == name) {
                let text = format!("two columns of the result are called {name:?}: name one of them with AS");
                return Err(SqlError::new(Trouble::Misuse, text));
            }
        }
        let is_missing = |wanted: &&String| columns.iter().all(|name| **name != ***wanted);
        // A procedure says only when it runs what it gives.
        if let Some(missing) = self.wanted.iter().find(is_missing).filter(|_| !columns.is_empty()) {
            let text = format!("the result has no column {missing:?}, which `types` names");
            return Err(SqlError::new(Trouble::Misuse, text));
        }
        self.columns = columns;
        Ok(())
    }

    /// Says the columns to a reader, before anything is waited for.
    pub(super) async fn announce(&mut self) -> Result<(), SqlError> {
        match &self.reader {
            Some(reader) => reader.send(Piece::Columns(Arc::clone(&self.columns))).await.map_err(|_| gone()),
            None => Ok(()),
        }
    }

    /// As [`Sink::announce`], on a thread that may block.
    pub(super) fn announce_blocking(&mut self) -> Result<(), SqlError> {
        match &self.reader {
            Some(reader) => {
                reader.blocking_send(Piece::Columns(Arc::clone(&self.columns))).map_err(|_| gone())
            }
            None => Ok(()),
        }
    }

    /// Takes a row.
    ///
    /// # Errors
    /// It is one too many.
    pub(super) fn push(&mut self, row: SqlRow) -> Result<Next, SqlError> {
        let weight: u64 = row.iter().map(weight).sum();
        let held = if self.is_streamed() { weight } else { self.bytes.saturating_add(weight) };
        if held > self.limit {
            let what = if self.is_streamed() { "a row" } else { "the result" };
            let hint = if self.is_streamed() { "" } else { "; stream() takes any number of rows" };
            let text = format!("{what} exceeds max_result_bytes, which is {}{hint}", self.limit);
            return Err(SqlError::new(Trouble::TooLarge, text));
        }
        if self.rows.is_empty() && self.is_streamed() {
            self.since = Instant::now();
        }
        self.bytes = self.bytes.saturating_add(weight);
        self.rows.push(row);
        let is_due = self.is_streamed()
            && (self.rows.len() >= PIECE_ROWS
                || self.bytes >= PIECE_BYTES
                || self.since.elapsed() >= PIECE_AGE);
        Ok(if is_due { Next::Flush } else { Next::Row })
    }

    /// Hands over what is there, when the reader has room for it.
    ///
    /// # Errors
    /// The reader is gone.
    pub(super) async fn flush(&mut self) -> Result<(), SqlError> {
        let Some(reader) = self.reader.clone() else { return Ok(()) };
        match self.piece() {
            Some(piece) => reader.send(piece).await.map_err(|_| gone()),
            None => Ok(()),
        }
    }

    /// As [`Sink::flush`], on a thread that may block.
    ///
    /// # Errors
    /// As [`Sink::flush`].
    pub(super) fn flush_blocking(&mut self) -> Result<(), SqlError> {
        let Some(reader) = self.reader.clone() else { return Ok(()) };
        match self.piece() {
            Some(piece) => reader.blocking_send(piece).map_err(|_| gone()),
            None => Ok(()),
        }
    }

    fn piece(&mut self) -> Option<Piece> {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        (!rows.is_empty()).then_some(Piece::Rows(rows))
    }

    /// Hands everything over to another sink, which this one then is not any more.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::whole(0))
    }

    /// The columns and rows that were kept.
    pub(super) fn into_parts(self) -> (Columns, Vec<SqlRow>) {
        (self.columns, self.rows)
    }

    /// Forgets what a statement gave before it is run again.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.bytes = 0;
    }
}

fn gone() -> SqlError {
    SqlError::new(Trouble::Caller, "nobody reads the result any more")
}

/// What a value takes of memory, about.
fn weight(value: &SqlValue) -> u64 {
    let content = match value {
        SqlValue::Text(text) | SqlValue::Decimal(text) | SqlValue::Json(text) => text.len() as u64,
        SqlValue::Bytes(bytes) => bytes.len() as u64,
        SqlValue::Array(items) => items.iter().map(weight).sum(),
        _ => 0,
    };
    VALUE_BYTES.saturating_add(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bytes: usize) -> SqlRow {
        vec![SqlValue::Text("x".repeat(bytes))]
    }

    #[test]
    fn a_whole_result_ends_at_its_limit() {
        let mut sink = Sink::whole(1_000);
        assert_eq!(sink.push(row(800)).unwrap(), Next::Row);
        let error = sink.push(row(800)).unwrap_err();
        assert_eq!(error.trouble(), Trouble::TooLarge);
        assert!(error.error.detail.contains("1000"), "{error}");
    }

    #[tokio::test]
    async fn pieces_are_bounded_and_so_is_each_row() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut sink = Sink::pieces(200_000, sender);
        let mut pushed = 0;
        while sink.push(row(1_000)).unwrap() == Next::Row {
            pushed += 1;
        }
        assert!(pushed <= PIECE_ROWS, "{pushed}");
        sink.flush().await.unwrap();
        assert!(matches!(receiver.recv().await, Some(Piece::Rows(rows)) if rows.len() == pushed + 1));
        assert_eq!(sink.push(row(300_000)).unwrap_err().trouble(), Trouble::TooLarge);
        drop(receiver);
        let _ = sink.push(row(1)).unwrap();
        assert_eq!(sink.flush().await.unwrap_err().trouble(), Trouble::Caller);
    }

    #[test]
    fn columns_of_one_name_are_refused() {
        let mut sink = Sink::whole(1);
        assert!(sink.set_columns(["id", "name"].into_iter()).is_ok());
        let error = sink.set_columns(["id", "name", "id"].into_iter()).unwrap_err();
        assert!(error.error.detail.contains("\"id\""), "{error}");
    }
}
