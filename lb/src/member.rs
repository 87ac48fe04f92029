//! The members of the cluster as a server's management API tells them, and which of them get traffic.
//!
//! What a server says is outside input: bounded, checked entry by entry, and a whole answer that makes no
//! sense is dropped. The list only decides who is known and who is wanted. Whether a server can serve is
//! for HAProxy's health checks to find out, since they ask the server itself; so a database that is away or
//! a leader that misjudges takes no server out of the pool.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crosstie_model::names::UnitName;
use crosstie_security::private_file::{PrivateFileError, read_public, write_private};
use serde::{Deserialize, Serialize};

/// Most members an answer may have.
const MAX_MEMBERS: usize = 1_000;
/// Where the last good answer is kept, relative to the load balancer's directory.
const FILE: &str = "work/members.json";

/// How a member describes itself, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Serving.
    Ready,
    /// Not serving any more soon: it finishes what it has.
    Draining,
    /// Nothing in flight any more.
    Drained,
    /// Could not load something; whether it should get traffic nevertheless, it says when it is checked.
    Failed,
    /// Left the cluster on purpose.
    Left,
    /// Any other state, those of later releases included: not known to be able to serve.
    #[serde(other)]
    Other,
}

/// What was asked of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// To serve.
    Serving,
    /// To get no new requests.
    Drained,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name, which its certificate carries.
    pub name: UnitName,
    /// What it says of itself.
    pub state: MemberState,
    /// What was asked of it.
    pub wanted: Wanted,
    /// Where it serves; absent when it has no service listener.
    pub address: Option<SocketAddr>,
    /// Whether that listener speaks TLS.
    #[serde(default)]
    pub tls: bool,
    /// Where its management API is.
    pub management: Option<SocketAddr>,
}

/// Why an answer is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// It is no list of members.
    #[error("the answer is no list of members: {0}")]
    Malformed(String),
    /// Nobody is in it, not even the server that answered.
    #[error("the answer names no member, not even the server that gave it")]
    Empty,
    /// More than any cluster has.
    #[error("the answer names {0} members; at most {MAX_MEMBERS} are believed")]
    TooMany(usize),
    /// A name stands in it twice.
    #[error("the answer has {0} twice")]
    Duplicate(String),
}

/// Reads an answer.
///
/// # Errors
/// Why it is dropped as a whole.
pub fn parse(answer: &[u8]) -> Result<Vec<Member>, MembersError> {
    let members: Vec<Member> =
        serde_json::from_slice(answer).map_err(|error| MembersError::Malformed(error.to_string()))?;
    if members.is_empty() {
        return Err(MembersError::Empty);
    }
    if members.len() > MAX_MEMBERS {
        return Err(MembersError::TooMany(members.len()));
    }
    // Addresses may repeat: a dead server's may have been given to another. The certificate tells them apart.
    let mut names = BTreeSet::new();
    match members.iter().find(|member| !names.insert(&member.name)) {
        Some(twice) => Err(MembersError::Duplicate(twice.name.to_string())),
        None => Ok(members),
    }
}

/// What a server in the pool gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    /// New requests.
    Full,
    /// Nothing new; what it has may finish.
    Nothing,
}

/// A server as HAProxy should know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where it serves, over TLS.
    pub address: SocketAddr,
    /// What it gets.
    pub share: Share,
}

/// The servers HAProxy should know, by name.
pub type Pool = BTreeMap<UnitName, Place>;

/// The pool that follows `previous` after `answer`. A server enters when it has begun to serve and stays,
/// whatever it says, until it left or is no longer listed: health checks see better whether it can serve.
#[must_use]
pub fn next_pool(previous: &Pool, answer: &[Member]) -> Pool {
    let place = |member: &Member| {
        let address = member.address.filter(|_| member.tls)?;
        let drains = member.wanted == Wanted::Drained
            || matches!(member.state, MemberState::Draining | MemberState::Drained);
        let enters = match member.state {
            MemberState::Left => false,
            MemberState::Ready | MemberState::Draining | MemberState::Drained | MemberState::Failed => true,
            MemberState::Other => previous.contains_key(&member.name),
        };
        let share = if drains { Share::Nothing } else { Share::Full };
        enters.then(|| (member.name.clone(), Place { address, share }))
    };
    answer.iter().filter_map(place).collect()
}

/// What is remembered between two runs of the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The last good answer.
    pub members: Vec<Member>,
    /// The pool it led to.
    pub pool: Pool,
}

impl Remembered {
    /// What an earlier run left; nothing when there is nothing or it cannot be read, as the servers are asked
    /// anew in any case.
    #[must_use]
    pub fn load(directory: &Path) -> Self {
        let read = read_public(&directory.join(FILE)).ok();
        read.and_then(|content| serde_json::from_slice(&content).ok()).unwrap_or_default()
    }

    /// Keeps this for the next run.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), PrivateFileError> {
        let content = serde_json::to_vec_pretty(self).unwrap_or_default();
        write_private(&directory.join(FILE), &content)
    }

    /// The file this is kept in.
    #[must_use]
    pub fn file(directory: &Path) -> PathBuf {
        directory.join(FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(entries: &[(&str, &str, &str)]) -> Vec<Member> {
        let entries: Vec<_> = entries
            .iter()
            .enumerate()
            .map(|(index, (name, state, wanted))| {
                serde_json::json!({
                    "name": name, "state": state, "wanted": wanted, "tls": true, "version": "0.1.0",
                    "address": format!("127.0.0.2:{}", 17010 + index), "management": "127.0.0.2:17110",
                    "revision": 7, "seen": "2026-01-01T00:00:00Z",
                })
            })
            .collect();
        parse(serde_json::to_vec(&entries).unwrap().as_slice()).unwrap()
    }

    fn shares(pool: &Pool) -> Vec<(&str, Share)> {
        pool.iter().map(|(name, place)| (name.as_str(), place.share)).collect()
    }

    #[test]
    fn a_server_enters_when_it_is_ready_and_not_before() {
        let pool =
            next_pool(&Pool::new(), &answer(&[("a", "ready", "serving"), ("b", "starting", "serving")]));
        assert_eq!(shares(&pool), [("a", Share::Full)]);
        let pool = next_pool(&pool, &answer(&[("a", "ready", "serving"), ("b", "ready", "serving")]));
        assert_eq!(shares(&pool), [("a", Share::Full), ("b", Share::Full)]);
        let pool = next_pool(&Pool::new(), &answer(&[("a", "failed", "serving"), ("b", "dead", "serving")]));
        assert_eq!(shares(&pool), [("a", Share::Full)]);
    }

    #[test]
    fn a_server_that_is_said_to_be_dead_stays_for_the_checks_to_judge() {
        let pool = next_pool(&Pool::new(), &answer(&[("a", "ready", "serving")]));
        for state in ["dead", "failed", "starting", "whatever_comes"] {
            assert_eq!(shares(&next_pool(&pool, &answer(&[("a", state, "serving")]))), [("a", Share::Full)]);
        }
    }

    #[test]
    fn a_draining_server_gets_nothing_new_and_one_that_left_is_forgotten() {
        let pool = next_pool(&Pool::new(), &answer(&[("a", "ready", "serving")]));
        for (state, wanted) in [("ready", "drained"), ("draining", "serving"), ("drained", "drained")] {
            let next = next_pool(&pool, &answer(&[("a", state, wanted)]));
            assert_eq!(shares(&next), [("a", Share::Nothing)]);
        }
        assert!(next_pool(&pool, &answer(&[("a", "left", "serving")])).is_empty());
        assert!(next_pool(&pool, &answer(&[("b", "left", "serving")])).is_empty());
    }

    #[test]
    fn a_server_without_tls_gets_nothing() {
        let mut members = answer(&[("a", "ready", "serving")]);
        members[0].tls = false;
        assert!(next_pool(&Pool::new(), &members).is_empty());
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_dropped_as_a_whole() {
        for garbage in ["", "null", "{}", "[]", "[1]", "[{\"name\":\"a\"}]", "<html>", "[{\"name\":\"a b\"}]"]
        {
            assert!(parse(garbage.as_bytes()).is_err(), "{garbage}");
        }
        let one = serde_json::json!({"name": "a", "state": "ready", "wanted": "serving", "address": null,
                                     "tls": true, "management": null});
        let twice = serde_json::json!([one, one]).to_string();
        assert_eq!(parse(twice.as_bytes()).unwrap_err(), MembersError::Duplicate("a".into()));
    }

    #[test]
    fn what_was_learned_survives_the_agent() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("work")).unwrap();
        assert_eq!(Remembered::load(directory.path()), Remembered::default());
        let members = answer(&[("a", "ready", "serving"), ("b", "dead", "drained")]);
        let pool = next_pool(&Pool::new(), &members);
        let remembered = Remembered { members, pool };
        remembered.save(directory.path()).unwrap();
        assert_eq!(Remembered::load(directory.path()).pool, remembered.pool);
        std::fs::write(Remembered::file(directory.path()), "{").unwrap();
        assert_eq!(Remembered::load(directory.path()), Remembered::default());
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&bytes);
        }
    }
}
