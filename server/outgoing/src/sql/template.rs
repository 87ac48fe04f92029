//! Statements with named parameters: where in a statement a `:name` stands, and the statement as each
//! database wants it.
//!
//! A value is never put into the text of a statement: what is rendered has the database's own placeholders and
//! the values travel beside it. So this file decides what is a parameter and nothing about quoting; a statement
//! read wrongly here is refused by the database, and cannot become another one.
//!
//! A parameter is a colon and a name. It is none within strings, quoted names and comments, after a letter or
//! digit (`a[1:n]`), or after another colon (`value::text`); `\:` stands for a colon that begins none.

use crosstie_model::outgoing::{Named, SqlValue};

use super::words::{Dialect, Token, TokenKind, tokens};

/// A statement, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template<'a> {
    pieces: Vec<Piece<'a>>,
    dialect: Dialect,
    /// What the statement is about, as far as its first words tell.
    pub(crate) verb: Verb,
}

/// What a statement is about, where that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// It reads or writes.
    Plain,
    /// It calls a procedure, which may leave a transaction open.
    Call,
    /// It begins or ends a transaction.
    Transaction,
    /// It sets a mark within a transaction, or goes back to one.
    Savepoint,
    /// It goes back to a mark.
    RollbackTo,
    /// It changes something that stays with the connection.
    Session,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Value(&'a str),
    /// `IN (:name)` with all that is between; several values take the parameter's place.
    Among {
        name: &'a str,
        before: &'a str,
        after: &'a str,
        is_negated: bool,
    },
}

/// Why a statement cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StatementError {
    /// It has a placeholder of the database's own.
    #[error("the statement holds {0:?}: write parameters as :name")]
    Placeholder(String),
    /// A parameter has no value.
    #[error("the parameter :{0} has no value")]
    Missing(String),
    /// A value is of no type that this database takes.
    #[error("the parameter :{name} {detail}")]
    Value {
        /// The parameter.
        name: String,
        /// What is wrong with its value.
        detail: String,
    },
}

/// A statement with placeholders, and the value for each.
#[derive(Debug, PartialEq)]
pub(crate) struct Rendered<'v> {
    /// The text.
    pub(crate) text: String,
    /// The values, in the placeholders' order.
    pub(crate) values: Vec<&'v SqlValue>,
}

impl<'a> Template<'a> {
    /// Takes `statement` apart by the rules of `dialect`.
    ///
    /// # Errors
    /// It has placeholders of another sort.
    pub(crate) fn parse(statement: &'a str, dialect: Dialect) -> Result<Self, StatementError> {
        let tokens = tokens(statement, dialect);
        let mut pieces = Vec::new();
        let mut done = 0;
        for (index, token) in tokens.iter().enumerate() {
            match token.kind {
                TokenKind::Placeholder => {
                    return Err(StatementError::Placeholder(
                        cut(statement, token.start, token.end).to_owned(),
                    ));
                }
                TokenKind::EscapedColon => {
                    pieces.push(Piece::Text(cut(statement, done, token.start)));
                    // The colon itself is the next piece's first character.
                    done = token.end - 1;
                }
                TokenKind::Parameter => {
                    let name = cut(statement, token.start + 1, token.end);
                    let (start, end, piece) = among(statement, &tokens, index, name).unwrap_or((
                        token.start,
                        token.end,
                        Piece::Value(name),
                    ));
                    pieces.push(Piece::Text(cut(statement, done, start)));
                    pieces.push(piece);
                    done = end;
                }
                TokenKind::Word | TokenKind::Sign => {}
            }
        }
        pieces.push(Piece::Text(cut(statement, done, statement.len())));
        pieces.retain(|piece| *piece != Piece::Text(""));
        Ok(Self { pieces, dialect, verb: verb_of(statement, &tokens) })
    }

    /// The statement with placeholders for the values of `named`.
    ///
    /// # Errors
    /// A parameter has no value, or one that this database cannot take.
    pub(crate) fn render<'v>(&self, named: &'v Named) -> Result<Rendered<'v>, StatementError> {
        let mut out =
            Rendering { dialect: self.dialect, text: String::new(), values: Vec::new(), known: Vec::new() };
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.text.push_str(text),
                Piece::Value(name) => out.value(name, find(named, name)?)?,
                Piece::Among { name, before, after, is_negated } => match find(named, name)? {
                    SqlValue::Array(items) => {
                        out.among(name, find(named, name)?, items, (before, after), *is_negated)?;
                    }
                    value => {
                        out.text.push_str(before);
                        out.value(name, value)?;
                        out.text.push_str(after);
                    }
                },
            }
        }
        Ok(Rendered { text: out.text, values: out.values })
    }
}

fn cut(text: &str, start: usize, end: usize) -> &str {
    text.get(start..end).unwrap_or_default()
}

fn find<'v>(named: &'v Named, name: &str) -> Result<&'v SqlValue, StatementError> {
    let found = named.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value).ok_or_else(|| StatementError::Missing(name.to_owned()))
}

/// The piece that a parameter is part of when it stands alone in the parentheses of an `IN`, with its ends.
fn among<'a>(
    statement: &'a str,
    tokens: &[Token],
    index: usize,
    name: &'a str,
) -> Option<(usize, usize, Piece<'a>)> {
    let before = |back: usize| tokens.get(index.checked_sub(back)?);
    let text = |token: &Token| cut(statement, token.start, token.end);
    let (open, word, close) = (before(1)?, before(2)?, tokens.get(index + 1)?);
    if text(open) != "(" || text(close) != ")" || !text(word).eq_ignore_ascii_case("in") {
        return None;
    }
    let parameter = tokens.get(index)?;
    let negation = before(3).filter(|token| text(token).eq_ignore_ascii_case("not"));
    let start = negation.unwrap_or(word).start;
    let piece = Piece::Among {
        name,
        before: cut(statement, start, parameter.start),
        after: cut(statement, parameter.end, close.end),
        is_negated: negation.is_some(),
    };
    Some((start, close.end, piece))
}

/// Statements that change something which stays with the connection when they are done: it is not given to
/// another caller after them.
const SESSION: [&str; 17] = [
    "ATTACH",
    "CLOSE",
    "DEALLOCATE",
    "DECLARE",
    "DETACH",
    "DISCARD",
    "DO",
    "EXECUTE",
    "FETCH",
    "HANDLER",
    "LISTEN",
    "LOAD",
    "LOCK",
    "PRAGMA",
    "PREPARE",
    "RESET",
    "SET",
];

fn verb_of(statement: &str, tokens: &[Token]) -> Verb {
    let mut words = tokens
        .iter()
        .filter(|token| token.kind == TokenKind::Word)
        .map(|token| cut(statement, token.start, token.end).to_ascii_uppercase());
    let first = words.next().unwrap_or_default();
    match first.as_str() {
        "BEGIN" | "START" | "COMMIT" | "END" | "ABORT" | "XA" => Verb::Transaction,
        "ROLLBACK" => {
            // ROLLBACK [WORK | TRANSACTION] TO [SAVEPOINT] name
            let second = words.next();
            let is_noise = second.as_deref().is_some_and(|word| matches!(word, "WORK" | "TRANSACTION"));
            let to = if is_noise { words.next() } else { second };
            if to.as_deref() == Some("TO") { Verb::RollbackTo } else { Verb::Transaction }
        }
        "SAVEPOINT" | "RELEASE" => Verb::Savepoint,
        "CALL" => Verb::Call,
        "UNLISTEN" | "UNLOCK" | "USE" => Verb::Session,
        word if SESSION.contains(&word) => Verb::Session,
        _ => Verb::Plain,
    }
}

/// A statement on its way to a database.
struct Rendering<'n, 'v> {
    dialect: Dialect,
    text: String,
    values: Vec<&'v SqlValue>,
    /// The number of each parameter's placeholder, where a database can use one twice.
    known: Vec<(&'n str, usize)>,
}

impl<'n, 'v> Rendering<'n, 'v> {
    /// A placeholder for `value`; the same one again for the same parameter.
    fn value(&mut self, name: &'n str, value: &'v SqlValue) -> Result<(), StatementError> {
        if self.dialect == Dialect::MySql {
            return self.question_mark(name, value);
        }
        let known = self.known.iter().find(|(known, _)| *known == name);
        let number = match known {
            Some((_, number)) => *number,
            None => {
                self.values.push(value);
                self.known.push((name, self.values.len()));
                self.values.len()
            }
        };
        self.numbered(number);
        Ok(())
    }

    fn numbered(&mut self, number: usize) {
        self.text.push(if self.dialect == Dialect::Postgres { '$' } else { '?' });
        self.text.push_str(&number.to_string());
    }

    /// MariaDB's wire has no decimal numbers and, among parameters, no days. They are sent as texts and told
    /// to be what they are: the database would otherwise compute in binary, and make a day its midnight.
    fn question_mark(&mut self, name: &str, value: &'v SqlValue) -> Result<(), StatementError> {
        match value {
            SqlValue::Decimal(text) => {
                let (precision, scale) = digits(text).ok_or_else(|| {
                    let detail = format!("is {text}, which this database has no number for");
                    StatementError::Value { name: name.to_owned(), detail }
                })?;
                self.text.push_str(&format!("CAST(? AS DECIMAL({precision},{scale}))"));
            }
            SqlValue::Date(_) => self.text.push_str("CAST(? AS DATE)"),
            _ => self.text.push('?'),
        }
        self.values.push(value);
        Ok(())
    }

    /// `IN (…)` with several values.
    fn among(
        &mut self,
        name: &'n str,
        all: &'v SqlValue,
        items: &'v [SqlValue],
        (before, after): (&str, &str),
        is_negated: bool,
    ) -> Result<(), StatementError> {
        if self.dialect == Dialect::Postgres {
            self.text.push_str(if is_negated { "<> ALL (" } else { "= ANY (" });
            self.value(name, all)?;
            self.text.push(')');
            return Ok(());
        }
        self.text.push_str(before);
        if items.is_empty() {
            // A list of nothing is no syntax of MariaDB's; a query that finds nothing is.
            self.text.push_str(match self.dialect {
                Dialect::MySql => "SELECT NULL FROM DUAL WHERE FALSE",
                _ => "SELECT NULL WHERE 0",
            });
        }
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.text.push_str(", ");
            }
            if self.dialect == Dialect::MySql {
                self.question_mark(name, item)?;
            } else {
                self.values.push(item);
                self.numbered(self.values.len());
            }
        }
        self.text.push_str(after);
        Ok(())
    }
}

/// How many digits a decimal number has in all, and how many of them behind the point, as far as MariaDB's
/// DECIMAL goes: 65 and 38.
fn digits(text: &str) -> Option<(usize, usize)> {
    let unsigned = text.trim_start_matches(['+', '-']);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || whole.len() + fraction.len() == 0 {
        return None;
    }
    let shift = |count: usize, by: i32| -> usize {
        let moved = i32::try_from(count).unwrap_or(i32::MAX).saturating_add(by).max(0);
        usize::try_from(moved).unwrap_or_default()
    };
    let before = shift(whole.trim_start_matches('0').len(), exponent);
    let behind = shift(fraction.len(), exponent.saturating_neg());
    let precision = (before + behind).max(1);
    (precision <= 65 && behind <= 38).then_some((precision, behind))
}

#[cfg(test)]
mod tests;
