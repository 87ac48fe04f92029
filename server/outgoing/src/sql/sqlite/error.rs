//! What SQLite's errors mean ("Result and Error Codes" of its documentation).

use crosstie_model::outgoing::{Refusal, RefusedBecause, SqlError, Trouble};
use rusqlite::{Error, ErrorCode, ffi};

use crate::sql::link::{Failed, Left};

/// An error while the file is opened.
pub(super) fn connecting(error: &Error) -> SqlError {
    SqlError::new(Trouble::Connect, error.to_string())
}

/// An error of a statement.
pub(super) fn running(error: &Error) -> Failed {
    let (code, message) = match error {
        Error::SqliteFailure(code, message) => (code, message.clone().unwrap_or_else(|| error.to_string())),
        Error::SqlInputError { error, msg, .. } => (error, msg.clone()),
        Error::MultipleStatement => {
            return Failed::usable(SqlError::new(Trouble::Misuse, "one statement at a time"));
        }
        other => return Failed::usable(SqlError::new(Trouble::Misuse, other.to_string())),
    };
    match code.code {
        ErrorCode::OperationInterrupted => {
            Failed::usable(SqlError::new(Trouble::Deadline, "the statement was interrupted"))
        }
        ErrorCode::CannotOpen
        | ErrorCode::NotADatabase
        | ErrorCode::DatabaseCorrupt
        | ErrorCode::SystemIoFailure
        | ErrorCode::DiskFull
        | ErrorCode::OutOfMemory => {
            let error = SqlError::new(Trouble::Broken, format!("{message} ({})", code.extended_code));
            Failed { error, left: Left::Broken }
        }
        _ => Failed::usable(SqlError::refused(refusal(code, message))),
    }
}

fn refusal(code: &ffi::Error, message: String) -> Refusal {
    let reason = match (code.code, code.extended_code) {
        (
            _,
            ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID,
        ) => RefusedBecause::Unique,
        (_, ffi::SQLITE_CONSTRAINT_FOREIGNKEY) => RefusedBecause::ForeignKey,
        (_, ffi::SQLITE_CONSTRAINT_NOTNULL) => RefusedBecause::NotNull,
        (ErrorCode::ConstraintViolation, _) => RefusedBecause::Check,
        (_, ffi::SQLITE_BUSY_SNAPSHOT) => RefusedBecause::Conflict,
        (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => RefusedBecause::Locked,
        (
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied,
            _,
        ) => RefusedBecause::Permission,
        (ErrorCode::TypeMismatch | ErrorCode::TooBig, _) => RefusedBecause::Value,
        (ErrorCode::Unknown, _) => RefusedBecause::Statement,
        _ => RefusedBecause::Other,
    };
    // `UNIQUE constraint failed: customer.email`
    let constraint = message.split_once("constraint failed: ").map(|(_, name)| name.to_owned());
    Refusal {
        constraint: constraint.filter(|_| reason.is_integrity()),
        reason,
        sqlstate: None,
        code: code.extended_code.into(),
        message,
    }
}
