//! What MariaDB's and MySQL's errors mean. Numbers are those of their manuals' error reference.

use crosstie_model::outgoing::{Refusal, RefusedBecause, SqlError, Trouble};
use mysql_async::{DriverError, Error, IoError, ServerError};

use crate::sql::link::{Failed, Left};

/// The server does not prepare statements of this sort.
const UNSUPPORTED_PS: u16 = 1295;

/// An error while a connection is made.
pub(super) fn connecting(error: &Error) -> SqlError {
    let trouble = match error {
        Error::Server(said) => match said.code {
            // Access denied, to the server or to the database; unknown authentication.
            1044 | 1045 | 1227 | 1251 | 1524 | 1698 => Trouble::Credentials,
            // Too many connections, of all or of this user.
            1040 | 1203 | 1226 => Trouble::Busy,
            _ => Trouble::Connect,
        },
        Error::Io(IoError::Tls(_)) | Error::Driver(DriverError::NoClientSslFlagFromServer) => Trouble::Tls,
        // rustls's refusals travel inside those of I/O.
        Error::Io(IoError::Io(io)) if io.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            Trouble::Tls
        }
        _ => Trouble::Connect,
    };
    SqlError::new(trouble, text(error))
}

/// An error of a statement.
pub(super) fn running(error: &Error) -> Failed {
    match error {
        Error::Server(said) => of_server(said),
        Error::Io(_)
        | Error::Driver(
            DriverError::ConnectionClosed
            | DriverError::PacketOutOfOrder
            | DriverError::UnexpectedPacket { .. },
        ) => {
            let error = SqlError::new(Trouble::Broken, format!("the connection broke: {}", text(error)));
            Failed { error, left: Left::Broken }
        }
        _ => Failed { error: SqlError::new(Trouble::Misuse, text(error)), left: Left::Broken },
    }
}

/// Whether a statement must be sent as text, as the server prepares none such.
pub(super) fn is_unprepared(error: &Error) -> bool {
    matches!(error, Error::Server(said) if said.code == UNSUPPORTED_PS)
}

fn of_server(said: &ServerError) -> Failed {
    match said.code {
        // Shut down, killed, gone.
        1053 | 1077 | 1078 | 1079 | 1152 | 1184 | 1927 => {
            let error = SqlError::new(Trouble::Broken, format!("{} ({})", said.message, said.code));
            Failed { error, left: Left::Broken }
        }
        // Interrupted, or longer than a limit that the server has.
        1317 | 1969 | 3024 => Failed::usable(SqlError::new(Trouble::Deadline, said.message.as_str())),
        _ => {
            let refusal = refusal(said);
            // A deadlock undoes the transaction of the one that lost; a wait for a lock may, by a setting of
            // the server. What would follow would be outside of any transaction.
            let is_undone = matches!(said.code, 1205 | 1213);
            let left = if is_undone { Left::Undone } else { Left::Usable };
            Failed { error: SqlError::refused(refusal), left }
        }
    }
}

fn refusal(said: &ServerError) -> Refusal {
    let reason = match said.code {
        1062 | 1169 | 1586 => RefusedBecause::Unique,
        1216 | 1217 | 1451 | 1452 | 1761 | 1762 => RefusedBecause::ForeignKey,
        1048 | 1263 | 1364 => RefusedBecause::NotNull,
        3819 | 4025 => RefusedBecause::Check,
        1020 | 1213 | 1689 => RefusedBecause::Conflict,
        1205 | 3572 => RefusedBecause::Locked,
        1044 | 1142 | 1143 | 1227 | 1290 | 1370 | 1792 => RefusedBecause::Permission,
        1264 | 1265 | 1292 | 1366 | 1367 | 1406 | 1411 | 1426 | 1690 => RefusedBecause::Value,
        1046 | 1049 | 1051 | 1052 | 1054 | 1064 | 1109 | 1146 | 1149 | 1305 | 1318 => {
            RefusedBecause::Statement
        }
        _ if said.state.starts_with("22") => RefusedBecause::Value,
        _ if said.state.starts_with("42") => RefusedBecause::Statement,
        _ => RefusedBecause::Other,
    };
    Refusal {
        constraint: constraint(reason, &said.message),
        reason,
        sqlstate: Some(said.state.clone()),
        code: said.code.into(),
        message: said.message.clone(),
    }
}

/// The constraint that a message names; it has no place of its own. `Duplicate entry '1' for key 'PRIMARY'`,
/// ``CONSTRAINT `positive` failed for …``, ``… CONSTRAINT `child_ibfk_1` FOREIGN KEY …``.
fn constraint(reason: RefusedBecause, message: &str) -> Option<String> {
    let (start, end) = match reason {
        RefusedBecause::Unique => ("for key '", '\''),
        RefusedBecause::ForeignKey | RefusedBecause::Check => ("CONSTRAINT `", '`'),
        _ => return None,
    };
    let (_, rest) = message.rsplit_once(start)?;
    rest.split_once(end).map(|(name, _)| name.rsplit('.').next().unwrap_or(name).to_owned())
}

fn text(error: &Error) -> String {
    match error {
        Error::Server(said) => format!("{} ({})", said.message, said.code),
        Error::Io(IoError::Io(io)) => io.to_string(),
        Error::Io(IoError::Tls(tls)) => tls.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: u16, message: &str) -> Failed {
        running(&Error::Server(ServerError { code, message: message.into(), state: "HY000".into() }))
    }

    #[test]
    fn the_constraint_is_read_from_the_message() {
        let cases = [
            (1062, "Duplicate entry 'it''s for key 'x'' for key 'PRIMARY'", "PRIMARY"),
            (1062, "Duplicate entry '1' for key 'customer.email'", "email"),
            (4025, "CONSTRAINT `positive` failed for `d`.`t`", "positive"),
            (
                1452,
                "Cannot add or update a child row: a foreign key constraint fails (`d`.`c`, CONSTRAINT `c_ibfk_1` \
                 FOREIGN KEY (`p`) REFERENCES `p` (`id`))",
                "c_ibfk_1",
            ),
        ];
        for (code, message, wanted) in cases {
            let refusal = said(code, message).error.refusal.unwrap();
            assert_eq!(refusal.constraint.as_deref(), Some(wanted), "{message}");
            assert!(refusal.reason.is_integrity());
        }
    }

    #[test]
    fn a_lost_deadlock_ends_its_transaction() {
        let lost = said(1213, "Deadlock found when trying to get lock; try restarting transaction");
        assert_eq!(lost.left, Left::Undone);
        assert!(lost.error.error.failure.retryable);
        assert_eq!(said(1064, "syntax").left, Left::Usable);
        assert_eq!(said(1927, "killed").left, Left::Broken);
    }
}
