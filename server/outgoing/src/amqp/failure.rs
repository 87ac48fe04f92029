//! What failed at a broker, in the words of outgoings.

use crosstie_amqp::BrokerError;
use crosstie_model::outgoing::{OutgoingError, Trouble};

/// `access-refused` of AMQP 0-9-1, section 1.2.
const ACCESS_REFUSED: u16 = 403;
/// `resource-locked`.
pub(super) const RESOURCE_LOCKED: u16 = 405;
/// `precondition-failed`: it is there, and was made differently.
pub(super) const PRECONDITION_FAILED: u16 = 406;
/// `connection-forced`: the broker stops.
const CONNECTION_FORCED: u16 = 320;
/// `internal-error`.
const INTERNAL_ERROR: u16 = 541;

/// The code that the broker gave, if `error` is a refusal of its.
pub(super) fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(refusal) => Some(refusal.get_id()),
        _ => None,
    }
}

/// Why `step` failed on a connection that was there.
pub(super) fn of_step(step: &'static str, error: &lapin::Error) -> OutgoingError {
    let trouble = match code(error) {
        None | Some(CONNECTION_FORCED | INTERNAL_ERROR) => Trouble::Broken,
        Some(ACCESS_REFUSED) => Trouble::Credentials,
        Some(_) => Trouble::Refused,
    };
    let reason = match error.kind() {
        lapin::ErrorKind::ProtocolError(refusal) => refusal.get_message().to_string(),
        lapin::ErrorKind::IOError(io) => io.to_string(),
        _ => error.to_string(),
    };
    OutgoingError::new(trouble, format!("{step}: {reason}"))
}

/// Why there is no connection.
pub(super) fn of_connecting(error: &BrokerError) -> OutgoingError {
    let trouble = match error {
        BrokerError::Secrets(_) => Trouble::Credentials,
        BrokerError::Host(_) | BrokerError::Untrusted { .. } | BrokerError::Refused { .. } => Trouble::Tls,
        BrokerError::Unreachable { .. } | BrokerError::TimedOut { .. } => Trouble::Connect,
        BrokerError::Broken { source, .. } => match source.as_ref().and_then(|source| code(source)) {
            Some(ACCESS_REFUSED) => Trouble::Credentials,
            _ => Trouble::Connect,
        },
    };
    OutgoingError::new(trouble, error.to_string())
}

/// Whether what failed with `trouble` may work when it is tried again at once.
pub(super) fn is_passing(trouble: Trouble) -> bool {
    matches!(trouble, Trouble::Broken | Trouble::Connect)
}
