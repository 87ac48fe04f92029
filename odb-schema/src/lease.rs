//! Leases: who may do something that only one process of the cluster may do, until when, and the fencing
//! number that shuts out a holder that was paused. Timed by the database's clock alone.

use std::time::Duration;

use crate::decode;
use crate::error::OdbError;
use crate::handle::{Odb, run};
use crate::member::MAX_NAME_BYTES;

/// A lease that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What it is for.
    pub name: String,
    /// Who holds it.
    pub holder: String,
    /// Grows whenever the holder changes or a lapsed lease is taken again; never falls.
    pub fencing: u64,
    /// When it lapses: µs since 1970 UTC, by the database's clock.
    pub expires_us: i64,
}

impl Odb {
    /// Takes the lease `name` for `holder`, or renews it when `holder` has it, for `ttl` from now. Gives the
    /// lease as it is afterwards, which may be another's.
    ///
    /// # Errors
    /// The database is away.
    pub async fn take_lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<Lease, OdbError> {
        decode::key("the lease's name", name, MAX_NAME_BYTES)?;
        decode::key("the lease's holder", holder, MAX_NAME_BYTES)?;
        run!(self, Write, lease::take_lease(name, holder, ttl))
    }

    /// Gives the lease `name` up, if `holder` has it with that fencing number; says whether it had.
    ///
    /// # Errors
    /// The database is away.
    pub async fn release_lease(&self, name: &str, holder: &str, fencing: u64) -> Result<bool, OdbError> {
        run!(self, Write, lease::release_lease(name, holder, fencing))
    }
}
