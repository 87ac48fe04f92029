//! The servers of the cluster: what each says of itself with every heartbeat, and what is wanted of it. None
//! of it makes a revision. Times are the database's, so clocks of hosts need not agree.

use std::fmt;
use std::str::FromStr;

use crosstie_model::names::Revision;

use crate::decode;
use crate::error::OdbError;
use crate::handle::{Odb, run};

/// Longest name of a server, user or lease, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 190;

/// Longest reason of a state that is kept, in bytes.
pub(crate) const MAX_REASON_BYTES: usize = 1000;

/// Where a server is and what it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMember {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Where service traffic goes.
    pub address: String,
    /// Whether service traffic there is TLS.
    pub tls: bool,
    /// Where management calls go.
    pub management: String,
    /// The release it runs.
    pub version: String,
}

/// What a server says of itself once a second or so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its name.
    pub name: String,
    /// Names one life of the server, from its start to its end.
    pub boot: String,
    /// How it is.
    pub state: MemberState,
    /// Why, when that needs saying: one line.
    pub reason: String,
    /// The revision it serves.
    pub revision: Revision,
    /// Requests it works on.
    pub in_flight: u64,
}

/// A server of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRow {
    /// Where it is and what it runs.
    pub member: NewMember,
    /// Its life; empty before it was ever started.
    pub boot: String,
    /// How it is.
    pub state: MemberState,
    /// Why, in one line; often empty.
    pub reason: String,
    /// What is wanted of it.
    pub wanted: Wanted,
    /// The revision it served when it last said so.
    pub revision: Revision,
    /// Requests it worked on when it last said so.
    pub in_flight: u64,
    /// When it joined: µs since 1970 UTC, by the database's clock.
    pub joined_us: i64,
    /// When its last heartbeat came.
    pub seen_us: i64,
}

/// How a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// It starts: it does not serve the newest revision yet.
    Starting,
    /// It serves.
    Ready,
    /// It could not load a deployment or the newest revision.
    Failed,
    /// It is to get no more requests and works on those it has.
    Draining,
    /// It is to get no more requests and has none.
    Drained,
    /// It was stopped, or has joined and was never started.
    Left,
    /// Its heartbeats ceased.
    Dead,
}

impl MemberState {
    const ALL: [Self; 7] =
        [Self::Starting, Self::Ready, Self::Failed, Self::Draining, Self::Drained, Self::Left, Self::Dead];

    /// The state's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Left => "left",
            Self::Dead => "dead",
        }
    }

    /// Whether a server in this state runs, as far as is known.
    #[must_use]
    pub fn is_live(self) -> bool {
        !matches!(self, Self::Left | Self::Dead)
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MemberState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| format!("unknown state of a server {text:?}"))
    }
}

/// What is wanted of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// It serves.
    Serving,
    /// It gets no new requests and finishes those it has.
    Drained,
}

impl Wanted {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Drained => "drained",
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Wanted {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = [Self::Serving, Self::Drained].into_iter().find(|wanted| wanted.as_str() == text);
        found.ok_or_else(|| format!("nothing that can be wanted of a server: {text:?}"))
    }
}

impl Odb {
    /// Notes where a server is, when it starts and whenever another of its processes takes that over, and
    /// gives what is wanted of it. A new life begins as [`MemberState::Starting`]; the state of a life that
    /// goes on stays.
    ///
    /// # Errors
    /// The database is away.
    pub async fn introduce_member(&self, member: &NewMember, boot: &str) -> Result<Wanted, OdbError> {
        decode::key("the server's name", &member.name, MAX_NAME_BYTES)?;
        decode::key("the server's life", boot, MAX_NAME_BYTES)?;
        run!(self, Write, member::introduce(member, boot))
    }

    /// Notes how a server is and gives what is wanted of it; `None` when the cluster knows no such server
    /// any more.
    ///
    /// # Errors
    /// The database is away.
    pub async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<Option<Wanted>, OdbError> {
        run!(self, Write, member::heartbeat(heartbeat))
    }

    /// The servers of the cluster, by name.
    ///
    /// # Errors
    /// The database is away.
    pub async fn members(&self) -> Result<Vec<MemberRow>, OdbError> {
        run!(self, Single, member::members())
    }

    /// The server `name`.
    ///
    /// # Errors
    /// The database is away.
    pub async fn member(&self, name: &str) -> Result<Option<MemberRow>, OdbError> {
        run!(self, Single, member::member(name))
    }

    /// Says what is wanted of a server, which learns it with its next heartbeat; says whether it is known.
    ///
    /// # Errors
    /// The database is away.
    pub async fn want_member(&self, name: &str, wanted: Wanted) -> Result<bool, OdbError> {
        run!(self, Write, member::want(name, wanted))
    }

    /// Forgets a server, its reports and its pickup files; says whether it was known.
    ///
    /// # Errors
    /// The database is away.
    pub async fn delete_member(&self, name: &str) -> Result<bool, OdbError> {
        run!(self, Write, member::delete(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_survive_their_words() {
        for state in MemberState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        for wanted in [Wanted::Serving, Wanted::Drained] {
            assert_eq!(wanted.as_str().parse(), Ok(wanted));
        }
        assert!("gone".parse::<MemberState>().is_err() && "gone".parse::<Wanted>().is_err());
    }
}
