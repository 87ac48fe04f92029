//! What PostgreSQL's errors mean.

use crosstie_model::outgoing::{Refusal, RefusedBecause, SqlError, Trouble};
use tokio_postgres::error::DbError;

use crate::sql::link::{Failed, Left};

/// An error while a connection is made.
pub(super) fn connecting(error: &tokio_postgres::Error) -> SqlError {
    let Some(said) = error.as_db_error() else {
        let text = described(error);
        let trouble = if is_tls(error) { Trouble::Tls } else { Trouble::Connect };
        return SqlError::new(trouble, text);
    };
    let trouble = match said.code().code() {
        // Wrong password, no such role, not allowed in (class 28), and roles that may not enter the database.
        code if code.starts_with("28") || code == "42501" => Trouble::Credentials,
        "53300" => Trouble::Busy,
        _ => Trouble::Connect,
    };
    SqlError::new(trouble, format!("{} ({})", said.message(), said.code().code()))
}

/// An error of a statement.
pub(super) fn running(error: &tokio_postgres::Error) -> Failed {
    let Some(said) = error.as_db_error() else {
        if error.is_closed() || find::<std::io::Error>(error).is_some() {
            let error = SqlError::new(Trouble::Broken, format!("the connection broke: {}", described(error)));
            return Failed { error, left: Left::Broken };
        }
        // The driver's own complaint: about a parameter, before anything is sent, or about what the server sent.
        let text = described(error);
        let left = if text.starts_with("error serializing") { Left::Usable } else { Left::Running };
        return Failed { error: SqlError::new(Trouble::Misuse, text), left };
    };
    match said.code().code() {
        // Shut down, crashed, not accepting (class 57P), or a protocol that went wrong (class 08).
        code if code.starts_with("57P") || code.starts_with("08") => {
            let error = SqlError::new(Trouble::Broken, format!("{} ({code})", said.message()));
            Failed { error, left: Left::Broken }
        }
        "57014" => Failed::usable(SqlError::new(Trouble::Deadline, said.message())),
        // The server lost its patience with a session that did nothing in a transaction.
        "25P03" => Failed { error: SqlError::refused(refusal(said)), left: Left::Broken },
        _ => Failed::usable(SqlError::refused(refusal(said))),
    }
}

fn refusal(said: &DbError) -> Refusal {
    let code = said.code().code();
    Refusal {
        reason: reason(code),
        sqlstate: Some(code.to_owned()),
        code: 0,
        constraint: said.constraint().map(str::to_owned),
        message: said.message().to_owned(),
    }
}

fn reason(code: &str) -> RefusedBecause {
    match code {
        "23505" => RefusedBecause::Unique,
        "23503" => RefusedBecause::ForeignKey,
        "23502" => RefusedBecause::NotNull,
        code if code.starts_with("23") => RefusedBecause::Check,
        code if code.starts_with("40") => RefusedBecause::Conflict,
        "55P03" => RefusedBecause::Locked,
        "42501" | "25006" => RefusedBecause::Permission,
        code if code.starts_with("22") => RefusedBecause::Value,
        code if code.starts_with("42") => RefusedBecause::Statement,
        _ => RefusedBecause::Other,
    }
}

/// An error with what caused it, in one line.
pub(super) fn described(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

fn find<'e, T: std::error::Error + 'static>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Whether TLS is what failed: rustls's errors travel inside those of I/O.
fn is_tls(error: &tokio_postgres::Error) -> bool {
    let io = find::<std::io::Error>(error);
    let inner = io.and_then(std::io::Error::get_ref).is_some_and(|inner| inner.is::<rustls::Error>());
    inner || find::<rustls::Error>(error).is_some() || error.to_string().contains("TLS")
}
